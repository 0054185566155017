"""Frames a second of a cine, in the order in which DICOM means them.

| attribute | meaning |
|---|---|
| Frame Time (0018,1063), Frame Time Vector (0018,1065) | milliseconds between frames (PS3.3 C.7.6.5) |
| Cine Rate (0018,0040) | frames a second, as recorded |
| Recommended Display Frame Rate (0008,2144) | frames a second, for display: the last resort |

Where both times are there, Frame Increment Pointer (0028,0009) says which counts (PS3.3 C.7.6.6). A Frame Time Vector
gives its mean rate; its first value is no interval. Zeros, which scanners write into stills, do
not count.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydicom import Dataset

_VECTOR = 0x00181065
_FASTEST = 10_000.0
"""Frames a second beyond which a figure is a mistake."""


def frame_rate(header: Dataset) -> float | None:
    """Return frames per second, or None where the header does not say."""
    ways: list[Callable[[Dataset], float | None]] = [_frame_time, _vector, _cine_rate, _display_rate]
    if _VECTOR in _pointers(header):
        ways = [_vector, _frame_time, *ways[2:]]
    for way in ways:
        rate = way(header)
        if rate is not None and 0 < rate <= _FASTEST:
            return round(rate, 5)
    return None


def _frame_time(header: Dataset) -> float | None:
    interval = _numbers(header, "FrameTime")
    return 1000 / interval[0] if interval and interval[0] > 0 else None


def _vector(header: Dataset) -> float | None:
    intervals = _numbers(header, "FrameTimeVector")[1:]
    total = sum(intervals)
    return 1000 * len(intervals) / total if total > 0 and min(intervals) >= 0 else None


def _cine_rate(header: Dataset) -> float | None:
    return next(iter(_numbers(header, "CineRate")), None)


def _display_rate(header: Dataset) -> float | None:
    return next(iter(_numbers(header, "RecommendedDisplayFrameRate")), None)


def _pointers(header: Dataset) -> list[int]:
    value = header.get("FrameIncrementPointer")
    if value is None:
        return []
    return [int(tag) for tag in (value if isinstance(value, list | tuple) or hasattr(value, "__iter__") else [value])]


def _numbers(header: Dataset, keyword: str) -> list[float]:
    """Return an element's finite numbers; [] where it is missing or holds something else."""
    try:
        value = header.get(keyword)
        values = value if hasattr(value, "__iter__") and not isinstance(value, str) else [value]
        found = [float(str(each)) for each in values if each not in (None, "")]
    except (ValueError, TypeError, OverflowError):
        return []
    return found if all(math.isfinite(each) for each in found) else []
