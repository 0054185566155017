"""Say what a data set holds: clips by label, their sizes, rates and repeated frames.

python examples/look_at_clips.py DATA
"""

from __future__ import annotations

import sys
from pathlib import Path

from us_i2v.data.clips import open_clip, repeated_frames
from us_i2v.data.datasets import find_samples


def main(data: Path) -> None:
    """Print a line a clip."""
    for sample in find_samples(data):
        if sample.kind != "clip":
            continue
        clip = open_clip(sample.path)
        height, width = clip.size
        repeats = len(repeated_frames(clip))
        print(
            f"{sample.path.relative_to(data)}: {sample.label or 'no label'}, group {sample.group}, "
            f"{clip.n_frames} frames of {width}x{height}, {clip.fps:g} fps, {repeats} repeated"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
