"""What a flow is told about the still: the bottleneck of an auto-encoder of single frames.

As in cINN (Dorkenwald et al. 2021, supplement), where the condition is the code of a frame auto-encoder. The
encoder is part of the model; the decoder only exists in training, where painting the still again keeps the code
about anatomy instead of about which training clip it was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from us_i2v.config import Config
from us_i2v.models.blocks import StillPyramid, enlarge, group_norm

if TYPE_CHECKING:
    from torch import Tensor

_CELLS = 4
"""Side of the coarsest map, on both sides of the bottleneck."""


class ConditionerConfig(Config):
    """Shape of the frame auto-encoder."""

    channels: int = Field(64, ge=4, le=1024, description="Numbers that describe a still.")
    size: int = Field(64, ge=32, le=512, multiple_of=16, description="The still is reduced to this many pixels.")
    widths: tuple[int, ...] = Field(
        (16, 32, 64), min_length=1, max_length=6, description="Channels at 1/2, 1/4, ... of that size."
    )


class StillEncoder(nn.Module):
    """(B, 1, H, W) in 0..1 -> (B, channels)."""

    def __init__(self, config: ConditionerConfig) -> None:
        super().__init__()
        self.config = config
        self.pyramid = StillPyramid(config.widths)
        self.leave = nn.Linear(config.widths[-1] * _CELLS**2, config.channels)

    def forward(self, still: Tensor) -> Tensor:
        """See the class."""
        coarse = self.pyramid(reduced(still, self.config.size))[-1]
        code: Tensor = self.leave(F.adaptive_avg_pool2d(coarse, _CELLS).flatten(1))
        return code


class StillDecoder(nn.Module):
    """(B, channels) -> the reduced still, (B, 1, size, size) in 0..1."""

    def __init__(self, config: ConditionerConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.widths[::-1]
        self.enter = nn.Linear(config.channels, widths[0] * _CELLS**2)
        self.stages = nn.ModuleList()
        c_in = widths[0]
        for width in widths:
            self.stages.append(nn.Sequential(nn.Conv2d(c_in, width, 3, padding=1), group_norm(width), nn.SiLU()))
            c_in = width
        self.leave = nn.Conv2d(c_in, 1, 3, padding=1)

    def forward(self, code: Tensor) -> Tensor:
        """See the class."""
        x = F.silu(self.enter(code)).reshape(code.shape[0], -1, _CELLS, _CELLS)
        for stage in self.stages:
            x = stage(enlarge(x))
        side = (self.config.size, self.config.size)
        painted = F.interpolate(self.leave(x), size=side, mode="bilinear", align_corners=False)
        return torch.sigmoid(painted.float())


def reduced(still: Tensor, size: int) -> Tensor:
    """Average a square still down (or interpolate it up) to `size` pixels: (B, 1, S, S) -> (B, 1, size, size)."""
    if still.shape[-1] == size:
        return still
    if still.shape[-1] > size:
        return F.interpolate(still, size=(size, size), mode="area")
    return F.interpolate(still, size=(size, size), mode="bilinear", align_corners=False)
