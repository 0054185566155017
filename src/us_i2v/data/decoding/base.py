"""What every decoder offers: a scan of the whole clip once, and a stream of some of its frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from us_i2v.types import Image, Size


@dataclass(frozen=True)
class ClipInfo:
    """What a scan finds out.

    Attributes:
        n_frames: Exact number of frames that can be decoded.
        size: (height, width) of the picture, padding removed.
        fps: Frames per second, or None where the container does not say.
        colour: False if the channels of all frames agree.
        padded: (height, width) that the container stores, if larger than `size`.
        planar: True if the decoder can hand out luma by itself.
        mm_per_pixel: (row, column) spacing in millimetres, or None where the container does not say.
    """

    n_frames: int
    size: Size
    fps: float | None
    colour: bool
    padded: Size
    planar: bool = False
    mm_per_pixel: tuple[float, float] | None = None


class FrameSource(Protocol):
    """One clip file or folder."""

    path: Path

    def scan(self) -> ClipInfo:
        """Read the clip once in bounded memory; raises `InputError` if it is damaged."""
        ...

    def stream(self, info: ClipInfo, first: int, last: int, step: int) -> Iterator[Image]:
        """Yield frames first, first + step, ... <= last, (H, W) if not `info.colour`, else (H, W, 3)."""
        ...


def luma(frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return Rec. 601 luma of (..., H, W, 3) RGB as (..., H, W); exact where the channels are equal."""
    wide = frames.astype(np.uint32)
    total = 299 * wide[..., 0] + 587 * wide[..., 1] + 114 * wide[..., 2]
    return np.asarray((total + 500) // 1000, np.uint8)


def as_declared(frame: npt.NDArray[np.uint8], colour: bool) -> Image:
    """Return a frame as (H, W, 3) if the clip is in colour, else as (H, W)."""
    if colour:
        return np.repeat(frame[..., None], 3, axis=-1) if frame.ndim == 2 else frame
    return luma(frame) if frame.ndim == 3 else frame
