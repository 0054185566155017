"""SSIM, the structural similarity of two pictures or clips.

    SSIM = mean of (2 m_a m_b + c1)(2 v_ab + c2) / ((m_a^2 + m_b^2 + c1)(v_a + v_b + c2)),
    c1 = (0.01 * 255)^2,   c2 = (0.03 * 255)^2

with m, v and v_ab local means, variances and covariance under an 11 x 11 Gaussian of width 1.5 (weights sum
to 1). Every pixel counts; beyond the border pictures are mirrored without repeating the border pixel. Equal to
torchmetrics' `StructuralSimilarityIndexMeasure(data_range=255)` (compared with version 1.9.0; older versions and
Wang's own code leave out the pixels within 5 px of the border). Source: Wang 2004, Eq. 13 and section III-C.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from us_i2v.errors import InputError
from us_i2v.metrics.perceptual import Pixels

SIDE = 11
SIGMA = 1.5
DATA_RANGE = 255.0
K1, K2 = 0.01, 0.03


def ssim(a: Pixels, b: Pixels) -> float:
    """Return the mean SSIM in -1..1; 1 for equal input.

    Args:
        a: Gray levels 0..255: a picture (H, W), a clip (T, H, W) or a colour clip (T, H, W, 3), whose
            frames and channels count alike.
        b: The same shape.

    Raises:
        InputError: If shapes differ, are none of these, or a side is shorter than the window.
    """
    if a.shape != b.shape:
        raise InputError(f"Pictures of {a.shape} and {b.shape} cannot be compared.", "Resize one of them.")
    planes_a, planes_b = _planes(a), _planes(b)
    return float(np.mean([_plane(x, y) for x, y in zip(planes_a, planes_b, strict=True)]))


def _planes(pixels: Pixels) -> npt.NDArray[np.float64]:
    """Return every frame and channel as (n, H, W)."""
    x = np.asarray(pixels, dtype=np.float64)
    if x.ndim == 4 and x.shape[3] == 3:
        x = np.moveaxis(x, 3, 1)
    elif x.ndim not in (2, 3):
        raise InputError(f"SSIM got {x.shape}.", "Pass (H, W), (T, H, W) or (T, H, W, 3).")
    if min(x.shape[-2:]) < SIDE or x.size == 0:
        raise InputError(f"SSIM got {x.shape}, needs pictures of {SIDE} x {SIDE} or more.", "Use larger pictures.")
    return x.reshape(-1, *x.shape[-2:])


def _plane(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    mean_a, mean_b = _local(a), _local(b)
    # Rounding can leave -1e-12 where a picture is flat.
    var_a = np.maximum(_local(a * a) - mean_a**2, 0.0)
    var_b = np.maximum(_local(b * b) - mean_b**2, 0.0)
    covariance = _local(a * b) - mean_a * mean_b
    c1, c2 = (K1 * DATA_RANGE) ** 2, (K2 * DATA_RANGE) ** 2
    similar = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return float((similar / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))).mean())


def _local(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the Gaussian local mean at every pixel."""
    at = np.arange(SIDE) - SIDE // 2
    weights = np.exp(-0.5 * (at / SIGMA) ** 2)
    weights /= weights.sum()
    for axis in (0, 1):
        x = ndimage.correlate1d(x, weights, axis=axis, mode="mirror")
    return x
