"""Small clips whose motion and speckle are known, for tests."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

REACH = 16
"""Pixels of texture around the frame, so that motion never shows a border."""


def grain(white: np.ndarray) -> np.ndarray:
    """White noise (..., H, W) -> speckle-like texture of the same size, deviation 12 gray levels."""
    smooth = ndimage.gaussian_filter(white, (*(0,) * (white.ndim - 2), 0.9, 1.3))
    return 12 * smooth / smooth.std()


def ar1_clip(rho: float, seed: int, frames: int = 12, side: int = 96) -> np.ndarray:
    """Texture that stands still and whose correlation with frame 0 is rho^t, uint8 (T, side, side)."""
    rng = np.random.default_rng(seed)
    states = [rng.normal(size=(side, side))]
    for _ in range(frames - 1):
        states.append(rho * states[-1] + np.sqrt(1 - rho**2) * rng.normal(size=(side, side)))
    return np.clip(120 + grain(np.stack(states)), 0, 255).astype(np.uint8)


def moving_clip(
    seed: int, speed: tuple[float, float] = (0.35, -0.2), rho: float = 1.0, frames: int = 12, side: int = 64
) -> np.ndarray:
    """Texture that moves by `speed` (y, x) px a frame and decorrelates by rho a frame, uint8 (T, side, side)."""
    rng = np.random.default_rng(seed)
    size = side + 2 * REACH
    still = grain(rng.normal(size=(size, size)))
    # Brightness over tens of pixels, as tissue has.
    shading = ndimage.gaussian_filter(rng.normal(size=(size, size)), 10)
    shading *= 25 / shading.std()
    state, out = still, []
    for t in range(frames):
        if t:
            state = rho * state + np.sqrt(1 - rho**2) * grain(rng.normal(size=(size, size)))
        moved = ndimage.shift(state + shading, (speed[0] * t, speed[1] * t), order=3, mode="nearest")
        out.append(moved[REACH:-REACH, REACH:-REACH])
    return np.clip(120 + np.stack(out), 0, 255).astype(np.uint8)
