"""Plain picture differences: L1 in gray levels, PSNR, and how well frame 0 keeps the still.

Pictures and clips are uint8 0..255, or float in the same gray levels; any shape, equal for both.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from us_i2v.errors import InputError

Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.floating[Any]]
"""Gray levels 0..255, uint8 or float."""


def l1(a: Pixels, b: Pixels) -> float:
    """Return the mean absolute difference in gray levels."""
    return float(np.abs(_difference(a, b)).mean())


def psnr(a: Pixels, b: Pixels) -> float:
    """Return 10 log10(255^2 / mean squared difference) in dB; +inf for equal pictures."""
    error = float(np.square(_difference(a, b)).mean())
    return 10.0 * math.log10(255.0**2 / error) if error > 0.0 else math.inf


def frame0_fidelity(frames: Pixels, still: Pixels) -> tuple[float, float]:
    """Return (mean, largest) absolute difference between a clip's frame 0 and its still, in gray levels."""
    difference = np.abs(_difference(frames[0], still))
    return float(difference.mean()), float(difference.max())


def _difference(a: Pixels, b: Pixels) -> npt.NDArray[np.float64]:
    if a.shape != b.shape:
        raise InputError(f"Pictures of {a.shape} and {b.shape} cannot be compared.", "Resize one of them.")
    if a.size == 0:
        raise InputError(f"Pictures of {a.shape} hold no pixels.", "Pass at least one pixel.")
    return np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
