"""Warp decoder: latent map + still -> flow from frame 0, gain, and a gated residual with its own scale.

Flow is predicted at 1/4 of the model's size and interpolated (tissue moves smoothly); gain, gate and
residual at 1/2. Heads of flow, gain and residual start at zero, so that an untrained decoder repeats the
still. The residual is a low-resolution mean plus a local standard deviation: what the latent cannot know is
drawn at generation, not averaged away. How long it lasts from frame to frame is read off the still alone, by place
(`persistence`, if `AutoencoderConfig.speckle_map`). Without a residual (`AutoencoderConfig.residual`) the gate is shut
for good: frames are the still, moved and made brighter or darker, and nothing is drawn.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from us_i2v.models.blocks import (
    FactorisedBlock,
    RepeatFrames,
    SpreadFrames,
    StillPyramid,
    VectorSeed,
    add_still,
    enlarge,
    fold_time,
    group_norm,
    unfold_time,
    zero_init,
)
from us_i2v.models.motion import Motion

if TYPE_CHECKING:
    from torch import Tensor

    from us_i2v.models.autoencoder import AutoencoderConfig

_INITIAL_SCALE = 0.03


class WarpDecoder(nn.Module):
    """Decode a latent into a `Motion` on a grid of half the model's size."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        c0, c1, c2 = config.decoder_widths
        p_fine, p_mid, p_coarse = config.still_widths
        self.config = config
        self.pyramid = StillPyramid((p_fine, p_mid, p_coarse))
        self.seed = VectorSeed(config.latent_channels) if config.latent_mode == "vector" else nn.Identity()
        self.enter = nn.Conv2d(config.latent_channels, c0, 1)
        self.from_coarse = nn.Conv2d(p_coarse, c0, 1)
        self.coarse1 = FactorisedBlock(c0, c0)
        self.coarse2 = FactorisedBlock(c0, c0)
        steps = VectorSeed.FRAMES if config.latent_mode == "vector" else config.latent_shape[1]
        self.spread1 = _spread(config, c0, 2)
        self.spread2 = _spread(config, c1, config.n_frames // (2 * steps))
        self.narrow1 = nn.Conv2d(c0, c1, 1)
        self.from_middle = nn.Conv2d(p_mid, c1, 1)
        self.middle1 = FactorisedBlock(c1, c1)
        self.middle2 = FactorisedBlock(c1, c1)
        self.flow_head = nn.Conv2d(c1, 2, 3, padding=1)
        zero_init(self.flow_head)
        self.narrow2 = nn.Conv2d(c1, c2, 1)
        self.from_fine = nn.Conv2d(p_fine + 1, c2, 3, padding=1)
        self.fine_norm = group_norm(c2)
        self.fine = nn.Conv2d(c2, c2, 3, padding=1)
        self.look_head = nn.Conv2d(c2, 4 if config.residual else 1, 3, padding=1)
        zero_init(self.look_head)
        if config.speckle_map:
            self.persistence_head = PersistenceHead(p_fine, p_mid)
        if not config.residual:
            return
        # Softplus of the last bias is the initial scale (times 0.1, see forward).
        initial = math.log(math.expm1(10 * _INITIAL_SCALE))
        with torch.no_grad():
            self.look_head.bias = nn.Parameter(torch.tensor([0.0, 1.0, 0.0, initial]))

    def forward(self, z: Tensor, still: Tensor) -> Motion:
        """Z (B, C_z, T_z, H_z, W_z), still (B, 1, H, W) in 0..1 -> Motion on an H/2 x W/2 grid."""
        batch, total = z.shape[0], self.config.n_frames
        fine, middle, coarse = self.pyramid(still)
        z = self.seed(z)
        frames = z.shape[2]
        x = self.enter(fold_time(z))
        if x.shape[-1] != coarse.shape[-1]:
            x = F.interpolate(x, size=coarse.shape[-2:], mode="bilinear", align_corners=False)
        x = self.coarse1(add_still(x, self.from_coarse(coarse), frames), frames)
        x, frames = self.spread1(x), 2 * frames
        x = self.narrow1(self.coarse2(x, frames))
        x = self.middle1(add_still(enlarge(x), self.from_middle(middle), frames), frames)
        x = self.middle2(self.spread2(x), total)
        flow = 2 * enlarge(self.flow_head(F.silu(x)).float())
        half = F.interpolate(still, size=flow.shape[-2:], mode="area") * 2 - 1
        y = add_still(enlarge(self.narrow2(x)), self.from_fine(torch.cat([fine, half], dim=1)), total)
        y = F.silu(self.fine(F.silu(self.fine_norm(y))))
        look = unfold_time(self.look_head(y).float(), batch)
        if not self.config.residual:
            shut = torch.zeros_like(look)
            return Motion(unfold_time(flow, batch), look, shut, shut, shut).anchored()
        gain, gate, mean, scale = look.chunk(4, dim=1)
        return Motion(
            flow=unfold_time(flow, batch),
            gain=gain,
            gate=torch.sigmoid(gate),
            mean=mean,
            scale=0.1 * F.softplus(scale),
        ).anchored()

    def persistence(self, still: Tensor) -> Tensor | None:
        """Still (B, 1, H, W) in 0..1 -> logit of the residual's correlation from frame to frame, (B, 1, H/2, W/2).

        None if the model predicts none.
        """
        if not self.config.speckle_map:
            return None
        fine, middle, _ = self.pyramid(still)
        logits: Tensor = self.persistence_head(fine, middle, still)
        return logits


class PersistenceHead(nn.Module):
    """Features of the still -> logit of the correlation; it learns from them and leaves them as they are."""

    WIDTH = 16
    _INITIAL = 0.7

    def __init__(self, p_fine: int, p_mid: int) -> None:
        super().__init__()
        self.look = nn.Conv2d(p_fine + p_mid + 1, self.WIDTH, 3, padding=1)
        self.out = nn.Conv2d(self.WIDTH, 1, 3, padding=1)
        zero_init(self.out)
        self.out.bias = nn.Parameter(torch.full((1,), math.log(self._INITIAL / (1 - self._INITIAL))))

    def forward(self, fine: Tensor, middle: Tensor, still: Tensor) -> Tensor:
        """Features (B, C, H/2, W/2) and (B, C', H/4, W/4), still (B, 1, H, W) -> (B, 1, H/2, W/2), float32."""
        half = F.interpolate(still, size=fine.shape[-2:], mode="area") * 2 - 1
        seen = torch.cat([fine.detach(), enlarge(middle.detach()), half], dim=1)
        logits: Tensor = self.out(F.silu(self.look(seen))).float()
        return logits


def _spread(config: AutoencoderConfig, channels: int, times: int) -> nn.Module:
    return SpreadFrames(channels, times) if config.time_upsampling == "learned" else RepeatFrames(times)
