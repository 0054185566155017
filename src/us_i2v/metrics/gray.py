"""Clips as float gray levels, the form in which motion metrics compute."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from us_i2v.errors import InputError

Clip = npt.NDArray[np.uint8] | npt.NDArray[np.floating[Any]]
"""(T, H, W) gray or (T, H, W, 3) RGB, uint8 or float, in gray levels 0..255."""

LUMA = (0.299, 0.587, 0.114)
"""Rec. 601 weights of R, G, B."""


def gray_levels(frames: Clip, at_least: int = 1) -> npt.NDArray[np.float32]:
    """Return a clip as float32 gray levels (T, H, W).

    Raises:
        InputError: If the shape is none of the above, there are fewer than `at_least` frames, or a NaN.
    """
    colour = frames.ndim == 4 and frames.shape[3] == 3
    if (frames.ndim != 3 and not colour) or 0 in frames.shape:
        raise InputError(f"A clip of shape {frames.shape} is no video.", "Pass (T, H, W) or (T, H, W, 3).")
    if len(frames) < at_least:
        raise InputError(f"The clip has {len(frames)} frames, {at_least} are needed.", "Pass a longer clip.")
    levels = np.asarray(frames, dtype=np.float32)
    if not np.isfinite(levels).all():
        raise InputError("The clip holds NaN or infinity.", "Pass gray levels 0..255.")
    return levels @ np.asarray(LUMA, dtype=np.float32) if colour else levels
