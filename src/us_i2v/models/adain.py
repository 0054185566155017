"""AdaIN decoder: LDDM's own (Chen et al. 2024, section 2.1), paints frames out of the latent map.

The latent enters as the decoder's input map; every block takes the pooled latent through AdaIN (instance
norm, then gamma * x + beta; Huang & Belongie 2017) and the still through SPADE (Park et al. 2019) at its own
scale, as the cINN first stage does (Dorkenwald et al. 2021). The painted frames are returned as a `Motion`
without flow whose residual is "frame minus still", so that everything downstream is shared with `warp`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from us_i2v.models.blocks import Conv3d, StillPyramid, VectorSeed, over_time
from us_i2v.models.motion import Motion

if TYPE_CHECKING:
    from torch import Tensor

    from us_i2v.models.autoencoder import AutoencoderConfig


def upsample(x: Tensor, time: int) -> Tensor:
    """Repeat in time and double in space: (B, C, T, H, W) -> (B, C, T*time, 2H, 2W)."""
    t, h, w = x.shape[2:]
    return F.interpolate(x, size=(t * time, 2 * h, 2 * w), mode="nearest")


class AdaINBlock(nn.Module):
    """SPADE(still) -> conv -> AdaIN(pooled z) -> conv, with a shortcut."""

    def __init__(self, c_in: int, c_out: int, c_still: int, c_latent: int) -> None:
        super().__init__()
        self.spade = nn.Conv2d(c_still, 2 * c_in, 3, padding=1)
        self.conv1 = Conv3d(c_in, c_out, 3, padding=1)
        self.adain = nn.Linear(c_latent, 2 * c_out)
        self.conv2 = Conv3d(c_out, c_out, 3, padding=1)
        self.shortcut = nn.Identity() if c_in == c_out else nn.Conv3d(c_in, c_out, 1)

    def forward(self, x: Tensor, still: Tensor, pooled: Tensor) -> Tensor:
        """X (B, C_in, T, H, W), still features (B, C_s, H, W), pooled latent (B, C_z) -> (B, C_out, T, H, W)."""
        gamma, beta = self.spade(still)[:, :, None].chunk(2, dim=1)
        y = F.leaky_relu(F.instance_norm(x) * (1 + gamma) + beta, 0.2)
        y = self.conv1(y)
        g, b = self.adain(pooled)[:, :, None, None, None].chunk(2, dim=1)
        y = self.conv2(F.leaky_relu(F.instance_norm(y) * (1 + g) + b, 0.2))
        out: Tensor = y + self.shortcut(x)
        return out


class AdaINDecoder(nn.Module):
    """Decode a latent into painted frames, as a `Motion` on the model's full grid."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        c0, c1, c2 = config.decoder_widths
        p_fine, p_mid, p_coarse = config.still_widths
        c_z = config.latent_channels
        self.config = config
        self.pyramid = StillPyramid((p_fine, p_mid, p_coarse))
        self.seed = VectorSeed(c_z) if config.latent_mode == "vector" else nn.Identity()
        self.enter = Conv3d(c_z, c0, 3, padding=1)
        self.block1 = AdaINBlock(c0, c0, p_coarse, c_z)
        self.block2 = AdaINBlock(c0, c1, p_mid, c_z)
        self.block3 = AdaINBlock(c1, c2, p_fine, c_z)
        self.full = nn.Conv2d(1, c2, 3, padding=1)
        self.block4 = AdaINBlock(c2, c2, c2, c_z)
        self.head = Conv3d(c2, 2, 3, padding=1)

    def forward(self, z: Tensor, still: Tensor) -> Motion:
        """Z (B, C_z, T_z, H_z, W_z), still (B, 1, H, W) in 0..1 -> Motion on the H x W grid."""
        fine, middle, coarse = self.pyramid(still)
        pooled = z.mean(dim=(2, 3, 4))
        frames = self.config.n_frames
        x = self.enter(self.seed(z))
        if x.shape[-1] != coarse.shape[-1]:
            x = F.interpolate(x, size=(x.shape[2], *coarse.shape[-2:]), mode="trilinear")
        x = self.block1(x, coarse, pooled)
        x = self.block2(upsample(x, 2), middle, pooled)
        x = self.block3(upsample(x, 2), fine, pooled)
        x = upsample(x, frames // x.shape[2])
        x = self.block4(x, F.silu(self.full(still * 2 - 1)), pooled)
        painted, scale = self.head(F.leaky_relu(x, 0.2)).float().chunk(2, dim=1)
        zero = torch.zeros_like(painted)
        return Motion(
            flow=zero.expand(-1, 2, -1, -1, -1),
            gain=zero,
            gate=torch.ones_like(painted),
            mean=torch.sigmoid(painted) - over_time(still.float(), frames),
            scale=0.1 * F.softplus(scale - 1),
        )
