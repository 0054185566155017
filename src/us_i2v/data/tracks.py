"""Stable stretches of a video by its lesion boxes: one lesion, in view without a gap, hardly wandering.

The rule is that of the LDDM paper's own preparation: frames with exactly one box are kept, the video is split
where frame numbers leave a gap, and a stretch counts if the centre of the box moves by less than 50 px over
15 frames or more. "Moves" is read as the largest distance between any two centres of the stretch: a stretch
ends before the first frame that is `MOST_MOVEMENT` or more away from one of its frames, and the next begins
with that frame.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from us_i2v.data.boxes import BoundingBox

MOST_MOVEMENT = 50.0
"""Pixels."""

LEAST_FRAMES = 15


def single_box_frames(boxes: Mapping[int, Sequence[BoundingBox]]) -> dict[int, BoundingBox]:
    """Return the frames with exactly one box, in rising order; equal boxes count once."""
    return {frame: boxes[frame][0] for frame in sorted(boxes) if len(set(boxes[frame])) == 1}


def split_at_gaps(frames: Iterable[int]) -> list[list[int]]:
    """Divide rising frame numbers into runs of consecutive ones."""
    runs: list[list[int]] = []
    for frame in frames:
        if runs and frame == runs[-1][-1] + 1:
            runs[-1].append(frame)
        else:
            runs.append([frame])
    return runs


def stable_runs(
    boxes: Mapping[int, Sequence[BoundingBox]],
    *,
    most_movement: float = MOST_MOVEMENT,
    least_frames: int = LEAST_FRAMES,
) -> list[list[int]]:
    """Return the frame numbers of every stable stretch.

    Args:
        boxes: Boxes of each frame by its number; frames without boxes may be missing.
        most_movement: Centres of one stretch are less than this apart, pixels.
        least_frames: Shorter stretches are left out.

    Returns:
        Stretches in order of time; they do not overlap.
    """
    single = single_box_frames(boxes)
    runs: list[list[int]] = []
    for unbroken in split_at_gaps(single):
        run: list[int] = []
        for frame in unbroken:
            centre = single[frame].centre
            if any(math.dist(centre, single[earlier].centre) >= most_movement for earlier in run):
                runs.append(run)
                run = []
            run.append(frame)
        runs.append(run)
    return [run for run in runs if len(run) >= least_frames]
