"""Denoiser of kind "unet": a factorised space-time U-Net over the latent map.

Spatial convolutions over folded frames with three taps in time (`blocks.FactorisedBlock`), attention over all
space-time positions at the coarsest level. The still's features are added to every frame at full latent size;
time and conditions enter every block by FiLM. As in LDDM's stage 2 (Chen et al. 2024, section 2.2).
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from us_i2v.models.attention import attend
from us_i2v.models.blocks import FactorisedBlock, add_still, fold_time, group_norm, unfold_time, zero_init
from us_i2v.models.conditioning import Denoiser

if TYPE_CHECKING:
    from torch import Tensor

    from us_i2v.models.denoiser import DenoiserConfig


class Attention(nn.Module):
    """Self-attention over all space-time positions of the latent."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = group_norm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        zero_init(self.out)

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """(B*T, C, H, W), T = frames -> same."""
        bt, c, h, w = x.shape
        tokens = self.norm(x).reshape(bt // frames, frames, c, h * w).transpose(2, 3).reshape(bt // frames, -1, c)
        y = self.out(attend(self.qkv(tokens), self.heads))
        out: Tensor = x + y.reshape(bt, h * w, c).transpose(1, 2).reshape(bt, c, h, w)
        return out


class UNet(Denoiser):
    """U-Net over (B, C_z, T_z, H_z, W_z); the temporal length is kept throughout."""

    def __init__(self, config: DenoiserConfig, latent_shape: tuple[int, int, int, int]) -> None:
        embedding = 4 * config.width
        super().__init__(config, latent_shape, embedding)
        c_z, frames = latent_shape[:2]
        widths = [config.width * m for m in config.multipliers]
        self.position = nn.Parameter(torch.zeros(frames, config.width, 1, 1))
        self.enter = nn.Conv2d(c_z, widths[0], 3, padding=1)
        self.enter_still = nn.Conv2d(config.still_widths[-1], widths[0], 1)
        self.enter_block = FactorisedBlock(widths[0], widths[0], embedding)
        self.down = nn.ModuleList()
        self.up = nn.ModuleList()
        self.per_level = config.blocks
        for level, width in enumerate(widths):
            c_in = widths[max(0, level - 1)]
            for k in range(config.blocks):
                self.down.append(FactorisedBlock(c_in if k == 0 else width, width, embedding))
                self.up.append(FactorisedBlock(2 * width if k == 0 else width, width, embedding))
        self.lift = nn.ModuleList(nn.Conv2d(high, low, 1) for low, high in pairwise(widths))
        self.middle1 = FactorisedBlock(widths[-1], widths[-1], embedding)
        self.attention = Attention(widths[-1], config.heads)
        self.middle2 = FactorisedBlock(widths[-1], widths[-1], embedding)
        self.leave = nn.Sequential(group_norm(widths[0]), nn.SiLU(), nn.Conv3d(widths[0], c_z, 1))
        zero_init(self.leave[2])  # type: ignore[arg-type]
        self.know_step_size()

    def denoise(self, z: Tensor, embedding: Tensor, still: Tensor) -> Tensor:
        """See `Denoiser.denoise`; T of T_z or less."""
        b, frames = z.shape[0], z.shape[2]
        x = add_still(self.enter(fold_time(z)), self.enter_still(still), frames)
        x = x + self.position[:frames].repeat(b, 1, 1, 1)
        x = self.enter_block(x, frames, embedding)
        skips = []
        levels = len(self.config.multipliers)
        for level in range(levels):
            for k in range(self.per_level):
                x = self.down[level * self.per_level + k](x, frames, embedding)
            skips.append(x)
            if level + 1 < levels:
                x = F.avg_pool2d(x, 2)
        x = self.middle1(x, frames, embedding)
        x = self.middle2(self.attention(x, frames), frames, embedding)
        for level in reversed(range(levels)):
            if level + 1 < levels:
                x = F.interpolate(self.lift[level](x), scale_factor=2, mode="nearest")
            x = torch.cat([x, skips[level]], dim=1)
            for k in range(self.per_level):
                x = self.up[level * self.per_level + k](x, frames, embedding)
        out: Tensor = self.leave(unfold_time(x, b))
        return out
