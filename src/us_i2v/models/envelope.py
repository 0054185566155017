"""Exchange of speckle as an envelope: a phasor whose log-magnitude is the picture's fine texture.

A scanner shows g = c ln|z| + const of a complex echo z, and where tissue leaves the scan plane z is exchanged:

    z_t = rho z_0 + sqrt(1 - rho^2) n_t,      n_t complex Gaussian with the still's grain
    h_t = c (ln|z_t| + gamma / 2),            |z_0| = exp(h_0 / c - gamma / 2)

h_0 is the fine texture of the still, zero mean. Where it is fully developed speckle of mean square 1, ln|z| has mean
-gamma / 2 (gamma = 0.577.., Euler's) and deviation pi / sqrt(24) = 0.641 (5.57 dB: Dutt and Greenleaf 1996), so c is
taken from the texture's own local variance V: c = sqrt(V) sqrt(24) / pi. Contrast then stays what it is at every rho,
and what stands far above the speckle (septa, walls) stays too, since c |n| is small beside it.

n_t has a phase of its own, even over the circle at every pixel, so that z_0 may be taken as real: |z_t| has the same
distribution, over one pixel and over time.

How alike two frames look in gray is not rho, but the correlation of logarithms,

    r = corr(ln|z_0|, ln|z_t|) = Li_2(rho^2) / Li_2(1),      Li_2(x) = sum_k x^k / k^2

by the joint density of two correlated Rayleigh variables; `phasor_correlation` inverts it.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.special import spence

if TYPE_CHECKING:
    from torch import Tensor

    from us_i2v.types import FloatArray

LOG_DEVIATION = math.pi / math.sqrt(24)
"""Standard deviation of ln|z| of fully developed speckle."""
LOG_MEAN = -float(np.euler_gamma) / 2
"""Mean of ln|z| where the mean of |z|^2 is 1."""
_FLOOR, _CEILING = -6.0, 8.0
"""Range of ln|z_0|, wide enough for every speckle: exp(-6) is met once in 160,000 pixels."""
_TABLE = 512


def log_correlation(rho: FloatArray) -> FloatArray:
    """Return corr(ln|z_0|, ln|z_t|), 0..1, of phasors of correlation rho, 0..1; any shape."""
    answer: FloatArray = spence(1 - np.square(rho, dtype=np.float64)) / spence(0.0)
    return answer


@cache
def _inverse() -> tuple[Tensor, Tensor]:
    # Li_2 is steep at 1 and linear in rho^2 at 0: even steps in the angle are fine enough at both ends.
    rho = np.sin(np.linspace(0, np.pi / 2, _TABLE))
    return torch.from_numpy(log_correlation(rho)).float(), torch.from_numpy(rho).float()


def phasor_correlation(correlation: Tensor) -> Tensor:
    """Return rho, 0..1, at which logarithms of magnitudes correlate as told, 0..1; any shape, to 1e-3."""
    from_, to = (values.to(correlation) for values in _inverse())
    upper = torch.searchsorted(from_, correlation.contiguous()).clamp(1, _TABLE - 1)
    low, high = from_[upper - 1], from_[upper]
    share = ((correlation - low) / (high - low)).clamp(0, 1)
    return to[upper - 1] + share * (to[upper] - to[upper - 1])


def exchange(fine: Tensor, noise: Tensor, rho: Tensor, unit: Tensor) -> Tensor:
    """Exchange a share of a texture for fresh speckle.

    Args:
        fine: (B, 1, T, H, W), h_0 where the tissue is now, gray, zero mean.
        noise: (B, 2, T, H, W), real and imaginary part of n_t times sqrt(2): unit variance each.
        rho: (B, 1, T, H, W), correlation of the phasors, 0..1; 1 keeps the texture.
        unit: (B, 1, T, H, W), c, gray levels that one unit of ln|z| takes, > 0.

    Returns:
        h_t, same shape as `fine`.
    """
    kept = rho * torch.exp((fine / unit).add_(LOG_MEAN).clamp_(_FLOOR, _CEILING))
    fresh = ((1 - rho.square()).clamp_min_(0) / 2).sqrt_()
    power = kept.addcmul_(fresh, noise[:, :1]).square_()
    power.add_((fresh * noise[:, 1:]).square_())
    changed = unit * (power.clamp_min_(math.exp(2 * _FLOOR)).log_().mul_(0.5).sub_(LOG_MEAN))
    return torch.where(rho < 1, changed, fine)
