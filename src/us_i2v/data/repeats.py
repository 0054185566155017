"""Repeated frames: a file that plays faster than its scanner scanned shows some pictures two or more times.

A repeat differs from its predecessor by codec noise only, a fresh frame by motion and new speckle: the mean
absolute difference d_t of frames t and t - 1 falls into two groups, far apart on a log scale, with hardly
anything between. Otsu's threshold on log d parts them (values below `FLOOR` of the large ones count as
that, so that exact repeats do not outweigh those with codec noise). A clip has repeats only if

- the groups' medians differ by `MIN_RATIO` or more,
- at most `MAX_BETWEEN` of all values lie in the middle third between them,
- fresh frames differ by `MIN_FRESH` gray levels or more: below that, encoders skip changes by themselves;

and a frame is one only if d drops to it and rises after it abruptly, by `MIN_STEP`, within a run of at most
`MAX_RUN`. So motion that slows down and speeds up, pauses, slow and still clips lose nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from us_i2v.data.decoding.base import luma

if TYPE_CHECKING:
    import numpy.typing as npt

    from us_i2v.data.clips import ClipReader

MIN_RATIO = 6.0
MAX_BETWEEN = 0.08
MIN_FRESH = 0.75
MIN_STEP = 3.0
MAX_RUN = 8
FLOOR = 0.02


@dataclass(frozen=True)
class Distinct:
    """The frames of a clip that are no repeats.

    Attributes:
        indices: Frames to keep, rising, starting with 0.
        fps: Their mean rate: the clip's fps times the share kept.
    """

    indices: tuple[int, ...]
    fps: float


def frame_differences(reader: ClipReader) -> npt.NDArray[np.float64]:
    """Return d_t, mean absolute difference to the frame before in gray levels, for t = 1 .. n - 1."""
    differences = np.zeros(max(0, reader.n_frames - 1))
    previous: npt.NDArray[np.int16] | None = None
    for index, frame in enumerate(reader.frames()):
        current = (luma(frame) if frame.ndim == 3 else frame).astype(np.int16)
        if previous is not None:
            differences[index - 1] = np.abs(current - previous).mean()
        previous = current
    return differences


def repeated_frames(reader: ClipReader) -> list[int]:
    """Return the indices of frames that repeat their predecessor but for codec noise, rising."""
    return find_repeats(frame_differences(reader))


def find_repeats(differences: npt.NDArray[np.float64]) -> list[int]:
    """Return t for every d_t (index t - 1) that marks a repeat; [] if the differences are of one kind."""
    threshold = _threshold(differences)
    if threshold is None:
        return []
    repeats: list[int] = []
    start: int | None = None
    for index, is_low in enumerate([*(differences < threshold).tolist(), False]):
        if is_low and start is None:
            start = index
        elif not is_low and start is not None:
            if index - start <= MAX_RUN and _stands_out(differences, start, index):
                repeats.extend(range(start + 1, index + 1))
            start = None
    return repeats


def _stands_out(differences: npt.NDArray[np.float64], start: int, stop: int) -> bool:
    """Tell whether the differences start .. stop - 1 are well below both of their neighbours."""
    beside = [differences[at] for at in (start - 1, stop) if 0 <= at < differences.size]
    return bool(beside) and min(beside) >= MIN_STEP * differences[start:stop].max()


def distinct_frames(reader: ClipReader) -> Distinct:
    """Return the frames that are no repeats, and their mean rate."""
    repeated = set(repeated_frames(reader))
    kept = tuple(index for index in range(reader.n_frames) if index not in repeated)
    return Distinct(kept, reader.fps * len(kept) / reader.n_frames)


def distinct_indices(reader: ClipReader) -> list[int]:
    """Return the indices of the frames that are no repeats, rising."""
    return list(distinct_frames(reader).indices)


def _threshold(differences: npt.NDArray[np.float64]) -> float | None:
    """Return the difference that parts repeats from fresh frames, or None if there are no two groups."""
    if differences.size < 4:
        return None
    floor = FLOOR * float(np.quantile(differences, 0.95))
    if floor == 0:
        return None
    logs = np.sort(np.log(np.maximum(differences, floor)))
    count = logs.size
    below = np.arange(1, count)
    sums = np.cumsum(logs)
    mean_low = sums[:-1] / below
    mean_high = (sums[-1] - sums[:-1]) / (count - below)
    split = int(np.argmax(below * (count - below) * (mean_high - mean_low) ** 2)) + 1
    low, high = float(np.median(logs[:split])), float(np.median(logs[split:]))
    third = (high - low) / 3
    between = np.mean((logs > low + third) & (logs < high - third))
    if high - low < np.log(MIN_RATIO) or between > MAX_BETWEEN or np.exp(high) < MIN_FRESH:
        return None
    return float(np.exp((low + high) / 2))
