"""Planted copies: clips changed in a known way, to measure what a privacy filter finds.

| strength | brightness | gamma | shift, share of the side | zoom | noise, gray levels | half resolution |
|---|---|---|---|---|---|---|
| exact | 1 | 1 | 0 | 1 | 0 | no |
| mild | 1.1 | 1 | 0.02 | 1 | 0 | no |
| medium | 1.2 | 0.9 | 0.05 | 1.03 | 3 | no |
| strong | 0.75 | 1.3 | 0.08 | 1.1 | 8 | yes |

Directions are drawn. Written with a lossy ending (.mp4, .avi), every copy is recoded as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from us_i2v.data.transforms import resize

if TYPE_CHECKING:
    from us_i2v.types import Frames


@dataclass(frozen=True)
class Change:
    """What is done to a clip, see the table above."""

    gain: float = 1.0
    gamma: float = 1.0
    shift: float = 0.0
    zoom: float = 1.0
    noise: float = 0.0
    coarse: bool = False


STRENGTHS = {
    "exact": Change(),
    "mild": Change(gain=1.1, shift=0.02),
    "medium": Change(gain=1.2, gamma=0.9, shift=0.05, zoom=1.03, noise=3.0),
    "strong": Change(gain=0.75, gamma=1.3, shift=0.08, zoom=1.1, noise=8.0, coarse=True),
}


def planted(frames: Frames, change: Change, rng: np.random.Generator) -> Frames:
    """Return a changed copy of a gray clip, uint8 (T, H, W); borders are repeated where it is shifted."""
    sides = np.array(frames.shape[1:], np.float64)
    angle = rng.uniform(0, 2 * np.pi)
    shift = change.shift * sides * np.array([np.sin(angle), np.cos(angle)])
    offset = (sides - 1) / 2 * (1 - 1 / change.zoom) - shift / change.zoom
    out = np.empty(frames.shape, np.uint8)
    for index, frame in enumerate(frames):
        moved = ndimage.affine_transform(
            frame.astype(np.float64), np.full(2, 1 / change.zoom), offset, order=1, mode="nearest"
        )
        if change.coarse:
            small = resize(moved.round().astype(np.uint8), (frame.shape[0] // 2, frame.shape[1] // 2))
            moved = resize(small, frame.shape).astype(np.float64)
        bright = 255 * (moved.clip(0, 255) / 255) ** change.gamma * change.gain
        out[index] = (bright + change.noise * rng.standard_normal(frame.shape)).round().clip(0, 255)
    return out
