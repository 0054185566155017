"""Discriminators of stage 1: networks that tell real clips from reconstructed ones.

Both return a map of logits, or one logit a clip, and the features of every layer for feature matching. Which
value means "real" is the loss's business (`training.adversarial`). Pictures come in 0..1.
"""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from us_i2v.models.blocks import Conv3d, ResBlock3d, group_norm

_SLOPE = 0.2


class PatchDiscriminator(nn.Module):
    """PatchGAN: judges overlapping patches of single frames.

    With k widths a logit sees a patch of 5 * 2^k - 2 pixels (38 with three) and the map is 1/2^k of the picture.
    Source: Isola et al. 2017, section 3.2.2; GroupNorm instead of BatchNorm, since it does not mix samples.

    Args:
        widths: Channels of the 4x4 convolutions of stride 2, finest first.
        spectral: Divide each weight by its spectral norm (Miyato et al. 2018).
    """

    def __init__(self, widths: tuple[int, ...], *, spectral: bool) -> None:
        super().__init__()
        self.stages = nn.ModuleList()
        c_in = 1
        for k, width in enumerate(widths):
            norm = group_norm(width) if k else nn.Identity()
            self.stages.append(
                nn.Sequential(nn.Conv2d(c_in, width, 4, stride=2, padding=1), norm, nn.LeakyReLU(_SLOPE))
            )
            c_in = width
        self.head = nn.Conv2d(c_in, 1, 3, padding=1)
        if spectral:
            _normalise(self)

    def forward(self, frames: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(N, 1, H, W) -> logits (N, 1, H/2^k, W/2^k), features by stage, finest first."""
        features = []
        x = frames * 2 - 1
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return self.head(x), features


class TemporalDiscriminator(nn.Module):
    """Small 3-D ResNet: judges a clip as a whole, and so its motion.

    Source: Dorkenwald et al. 2021 (a 3-D ResNet-18); here with selectable widths and one block a stage.

    Args:
        widths: Channels of the stem (half size) and of the blocks (each halves time and space).
        spectral: Divide each weight by its spectral norm (Miyato et al. 2018).
    """

    def __init__(self, widths: tuple[int, ...], *, spectral: bool) -> None:
        super().__init__()
        self.stem = Conv3d(1, widths[0], 3, stride=(1, 2, 2), padding=1)
        self.stages = nn.ModuleList()
        for c_in, c_out in pairwise(widths):
            self.stages.append(ResBlock3d(c_in, c_out, (2, 2, 2)))
        self.head = nn.Linear(widths[-1], 1)
        if spectral:
            _normalise(self)

    def forward(self, clip: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(B, 1, T, H, W) -> logits (B, 1), features by stage, finest first."""
        x = F.leaky_relu(self.stem(clip * 2 - 1), _SLOPE)
        features = [x]
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return self.head(x.mean(dim=(2, 3, 4))), features


def _normalise(network: nn.Module) -> None:
    """Put spectral norm on every convolution and linear layer."""
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Conv3d | nn.Linear)]
    for layer in layers:
        spectral_norm(layer)
