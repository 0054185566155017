"""Windows: which frames of a clip make one training or evaluation clip.

The paper takes 48 frames at stride 3, that is 16 frames (`length=16, stride=3`). Sources of different rates
are better cut by physical time: a frame every `dt_s` seconds, at the nearest frame that exists.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from us_i2v.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

Pad = Literal["none", "repeat"]


@dataclass(frozen=True)
class Window:
    """Frames of one window; frame 0 of the window is its anchor.

    Attributes:
        indices: Frame numbers in the clip, not falling, `length` of them.
        dt_s: Mean time between two of them in seconds; None if the clip's rate was not given.
    """

    indices: tuple[int, ...]
    dt_s: float | None = None

    @property
    def start(self) -> int:
        """Index of the anchor frame in the clip."""
        return self.indices[0]

    @property
    def length(self) -> int:
        """Number of frames."""
        return len(self.indices)

    @property
    def stride(self) -> float:
        """Mean step from frame to frame, in frames of the clip."""
        return (self.indices[-1] - self.indices[0]) / max(1, len(self.indices) - 1)


def windows_by_stride(
    n: int,
    length: int = 16,
    stride: int = 3,
    step: int | None = None,
    *,
    fps: float | None = None,
    pad: Pad = "none",
) -> list[Window]:
    """Cut n frames into windows of `length` frames, every `stride`-th.

    Args:
        n: Frames in the clip.
        length: Frames a window.
        stride: Frames of the clip per frame of the window.
        step: Frames of the clip from one window's start to the next; `length * stride` (no overlap) if None.
        fps: The clip's rate, for `Window.dt_s`.
        pad: "repeat" makes one window of a clip that is too short, by repeating its last frame.

    Returns:
        Windows in order of their start; [] if the clip is too short and `pad` is "none".
    """
    _require(n=n, length=length, stride=stride)
    dt = None if fps is None else stride / _rate(fps)
    return _cut(n, [i * stride for i in range(length)], length * stride if step is None else step, dt, pad)


def windows_by_time(
    n: int,
    fps: float,
    dt_s: float,
    length: int = 16,
    step: int | None = None,
    *,
    pad: Pad = "none",
) -> list[Window]:
    """Cut n frames into windows with a frame every `dt_s` seconds, at the nearest frame.

    A clip slower than 1 / dt_s would show frames twice; then every frame is taken once instead, and
    `Window.dt_s` tells the true interval.

    Args:
        n: Frames in the clip.
        fps: The clip's rate.
        dt_s: Time between frames of a window, in seconds.
        length: Frames a window.
        step: Frames of the clip from one window's start to the next; no overlap if None.
        pad: As in `windows_by_stride`.
    """
    _require(n=n, length=length)
    ratio = max(1.0, _rate(fps) * _interval(dt_s))
    offsets = [math.floor(i * ratio + 0.5) for i in range(length)]
    hop = math.floor(length * ratio + 0.5) if step is None else step
    return _cut(n, offsets, hop, ratio / fps, pad)


def windows_by_frame_times(
    times_s: Sequence[float],
    dt_s: float,
    length: int = 16,
    step: int | None = None,
    *,
    pad: Pad = "none",
) -> list[Window]:
    """Cut frames at uneven times (a clip without its repeats) into windows with a frame every `dt_s` seconds.

    Args:
        times_s: Rising time of each frame. Returned indices count positions in this list.
        dt_s: Time between frames of a window; never less than the median interval of `times_s`.
        length: Frames a window.
        step: Frames from one window's start to the next; no overlap if None.
        pad: As in `windows_by_stride`.
    """
    times = np.asarray(times_s, np.float64)
    _require(n=times.size, length=length)
    if times.size > 1 and not (np.diff(times) > 0).all():
        raise DataError("Frame times do not rise strictly.", "Give each frame's own time in seconds.")
    typical = float(np.median(np.diff(times))) if times.size > 1 else 0.0
    interval = max(_interval(dt_s), typical)
    windows: list[Window] = []
    start = 0
    while start < times.size:
        wanted = times[start] + interval * np.arange(length)
        if wanted[-1] > times[-1] + interval / 2:
            break
        chosen = _nearest(times, wanted)
        windows.append(Window(tuple(chosen), interval))
        start = start + step if step is not None else max(start + 1, chosen[-1] + 1)
    if not windows and pad == "repeat":
        return [Window(tuple(_nearest(times, times[0] + interval * np.arange(length))), interval)]
    return windows


def _cut(n: int, offsets: Sequence[int], hop: int, dt_s: float | None, pad: Pad) -> list[Window]:
    """Lay `offsets` (frames from a window's start, rising) at every `hop`-th frame of n."""
    _require(step=hop)
    starts = range(0, n - offsets[-1], hop)
    windows = [Window(tuple(start + offset for offset in offsets), dt_s) for start in starts]
    if not windows and pad == "repeat":
        return [Window(tuple(min(offset, n - 1) for offset in offsets), dt_s)]
    return windows


def _nearest(
    times: np.ndarray[tuple[int], np.dtype[np.float64]], wanted: np.ndarray[tuple[int], np.dtype[np.float64]]
) -> list[int]:
    right = np.clip(np.searchsorted(times, wanted), 1, max(1, times.size - 1))
    right = np.minimum(right, times.size - 1)
    left = np.maximum(right - 1, 0)
    nearer_left = wanted - times[left] <= times[right] - wanted
    return [int(index) for index in np.where(nearer_left, left, right)]


def _rate(fps: float) -> float:
    if not (math.isfinite(fps) and fps > 0):
        raise DataError(f"Frame rate {fps:g} is not a positive number.", "Give frames per second, for example 25.")
    return fps


def _interval(dt_s: float) -> float:
    if not (math.isfinite(dt_s) and dt_s > 0):
        raise DataError(f"Frame interval {dt_s:g} s is not a positive number.", "Give for example 0.06.")
    return dt_s


def _require(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise DataError(f"{name} = {value}; at least 1 is needed.", "Give a positive whole number.")
