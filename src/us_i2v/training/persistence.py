"""Likelihood of how long speckle lasts, from frame to frame, by place of the still.

u_t is the standardised residual of frame t without what is coarser than speckle, u'_(t-1) that of the frame before
where the same tissue was, and rho what the decoder predicts at the place of the still where the tissue came from:

    u_t | u'_(t-1) ~ N(rho u'_(t-1), 1 - rho^2)
    L = mean of (u_t - rho u'_(t-1))^2 / (2 (1 - rho^2)) + ln(1 - rho^2) / 2

the likelihood of the process that `models.speckle` draws. Only rho learns from it. What motion was missed lasts, too:
the level is calibrated on clips that are made (`calibration`), the differences between places are learned here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from us_i2v.models.motion import warp

if TYPE_CHECKING:
    from torch import Tensor

_COARSE = 9
"""Pixels of the model's size: means over squares of this side are no speckle."""
_MOST = 4.0
"""Standard deviations; what lies beyond is cut."""


def persistence_loss(logits: Tensor, residual: Tensor, deviation: Tensor, flow: Tensor) -> Tensor:
    """Mean negative log-likelihood in nats a pixel, without the constant; at rho = 0 it is 1/2.

    Args:
        logits: (B, 1, h, w), what the decoder predicts from the still.
        residual: (B, 1, T, H, W), frames less mean frames; frame 0 is the still and does not count.
        deviation: (B, 1, T, H, W), its predicted standard deviation, > 0.
        flow: (B, 2, T, H, W), backward displacement from frame 0, pixels.
    """
    batch, _, frames, height, width = residual.shape
    u = (residual / deviation).detach()[:, 0, 1:]
    u = u - F.avg_pool2d(u, _COARSE, stride=1, padding=_COARSE // 2, count_include_pad=False)
    u = (u / u.square().mean(dim=(1, 2, 3), keepdim=True).sqrt().clamp_min(1e-6)).clamp(-_MOST, _MOST)
    flow = flow.detach()
    back = flow.diff(dim=2)[:, :, 1:].transpose(1, 2).flatten(0, 1)
    before = warp(u[:, :-1].reshape(-1, 1, height, width), back[:, :, None]).reshape(batch, frames - 2, height, width)
    rho = torch.sigmoid(F.interpolate(logits, (height, width), mode="bilinear", align_corners=False))
    there = warp(rho, flow)[:, 0, 2:]
    left = (1 - there.square()).clamp_min(1e-3)
    return ((u[:, 1:] - there * before).square() / left + left.log()).mean() / 2
