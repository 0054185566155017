"""Make two clips of a still, one with a mask, from Python.

python examples/generate_clip.py [STILL [FOLDER]]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from us_i2v.data.stills import read_still
from us_i2v.data.writers import write_clip
from us_i2v.pipeline import GenerateOptions, ImageToVideo

HERE = Path(__file__).parent


def main(still: Path, folder: Path) -> None:
    """Generate a gentle and a strong clip; carry a square along with the second."""
    image = read_still(still)
    generator = ImageToVideo.from_pretrained()

    (gentle,) = generator(image, seed=0, options=GenerateOptions(motion=0.5))
    write_clip(folder / "gentle.mp4", gentle.frames, gentle.fps)

    mask = np.zeros(image.shape[:2], bool)
    height, width = mask.shape
    mask[height // 3 : height // 2, width // 3 : width // 2] = True
    (strong,) = generator(image, mask=mask, seed=0, options=GenerateOptions(motion=1.5))
    write_clip(folder / "strong.mp4", strong.frames, strong.fps)
    if strong.masks is not None:
        share = strong.masks.mean(axis=(1, 2))
        print(f"the square covers {share[0]:.1%} of frame 0 and {share[-1]:.1%} of the last frame")


if __name__ == "__main__":
    arguments = [Path(argument) for argument in sys.argv[1:]]
    main(*(arguments + [HERE / "breast_benign.png", Path("clips")][len(arguments) :]))
