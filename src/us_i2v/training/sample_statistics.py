"""Statistics in which clips with drawn speckle should agree with real ones, place by place of the picture.

A sample of speckle and the real speckle are independent. A distance from pixel to pixel, or from feature to feature,
between the two is least where nothing is drawn: E (x - y)^2 = Var x + Var y for equal means, so the scale would be
pulled down. What agrees if the law of the samples is right are moments over many places. Here they are taken over
squares of the clip's own picture, whose tissue is the same on both sides; a square holds at least 8 x 8 features, so
that the noise of the moments themselves (which pulls the scale down as well, by a share of 1 / places) stays small.

    features    mean over squares of  sum_c w_c ((mean - mean')^2 + (sd - sd')^2),  by depth of a network, summed
    changes     mean over squares and lags of  | ln (E (x_(t+lag) - x_t)^2 + eps) - ln (the same of x') |

Moments of a network's features as a distance of textures: Huang & Belongie 2017, Eq. 13.

The most lifelike texture of a single frame is the still's own, moved and otherwise unchanged: whatever looks at frames
one by one (`features`, a patch discriminator) prefers it to a draw, and only what looks at changes asks for speckle.
With the bundled weights and the scale times 0.6, 0.8, 1, 1.2, 1.6 (8 training windows of lungs), `features` of LPIPS is
0.022, 0.025, 0.030, 0.035, 0.046, and the share of the real energy that changes over one frame have 0.59, 0.74, 0.90,
1.08, 1.52. So `features` belongs beside `changes` or the likelihood.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from torch import Tensor

    from us_i2v.metrics.lpips import LPIPS

_PLACES = 8
"""Least side of a square, features."""
_SIDE = 16
"""Side of a square for changes, pixels."""
_LAGS = (1, 4)
_LEAST = 6e-5
"""eps, the square of two gray levels: changes below it count for little."""


def moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel over squares: (N, C, H, W) or (N, C, T, H, W) -> (N, C, h, w) each.

    Time, if there is any, belongs to the squares' places.
    """
    folded = features if features.ndim == 4 else features.movedim(2, 1).flatten(0, 1)
    cells = (max(1, folded.shape[-2] // _PLACES), max(1, folded.shape[-1] // _PLACES))

    def mean(x: Tensor) -> Tensor:
        pooled: Tensor = F.adaptive_avg_pool2d(x, cells)
        return pooled if features.ndim == 4 else pooled.reshape(len(features), -1, *pooled.shape[1:]).mean(dim=1)

    first = mean(folded)
    return first, (mean(folded.square()) - first.square()).clamp_min(1e-6).sqrt()


def feature_distance(made: list[Tensor], real: list[Tensor]) -> Tensor:
    """L1 between the moments of two networks' features, mean over depths; for discriminators' features."""
    parts = []
    for a, b in zip(made, real, strict=True):
        parts += [F.l1_loss(x, y.detach()) for x, y in zip(moments(a), moments(b), strict=True)]
    return torch.stack(parts).mean()


def texture_distance(network: LPIPS, made: Tensor, real: Tensor) -> Tensor:
    """Distance of moments in the features of LPIPS, weighted as LPIPS weighs them; scalar, >= 0.

    Args:
        network: Its weights are fixed.
        made: (N, 1, S, S) in 0..1, frames with drawn speckle.
        real: The same shape.
    """
    total = torch.zeros((), device=made.device)
    with torch.no_grad():
        wanted = [moments(u) for u in network.unit_features(real)]
    for u, (mean, deviation), weight in zip(network.unit_features(made), wanted, network.weights(), strict=True):
        found, spread = moments(u)
        apart = (found - mean).square() + (spread - deviation).square()
        total = total + (weight * apart).sum(dim=1).mean()
    return total


def change_distance(made: Tensor, real: Tensor) -> Tensor:
    """Difference of the logarithmic energy of changes over 1 and 4 frames; scalar, >= 0.

    Args:
        made: (B, 1, T, S, S) in 0..1, T > 4, clips with drawn speckle.
        real: The same shape.
    """
    parts = []
    for lag in _LAGS:
        energies = []
        for clip in (made, real):
            apart = (clip[:, 0, lag:] - clip[:, 0, :-lag]).square().mean(dim=1, keepdim=True)
            energies.append((F.avg_pool2d(apart, min(_SIDE, apart.shape[-1])) + _LEAST).log())
        parts.append((energies[0] - energies[1].detach()).abs().mean())
    return torch.stack(parts).mean()
