"""Video encoder: clip -> Gaussian posterior over the latent map.

A 3D ResNet-18 (four stages of two basic blocks), as LDDM's stage 1 (Chen et al. 2024, section 2.1), with
free temporal and spatial strides. Every frame is seen beside frame 0, since the latent describes motion
relative to it. Optionally a local correlation of each frame's features with frame 0's (as in PWC-Net,
Sun et al. 2018) enters the second stage: displacement is then read off instead of learned from scratch. What the
correlation's features have to learn first, `BlockSearch` gives from the first step on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from us_i2v.models.blocks import Conv3d, ResBlock3d, fold_time, group_norm, over_time, unfold_time

if TYPE_CHECKING:
    from torch import Tensor

    from us_i2v.models.autoencoder import AutoencoderConfig


class LocalCorrelation(nn.Module):
    """Correlation of each frame's features with frame 0's in a (2r+1)^2 neighbourhood, at 1/4 size."""

    def __init__(self, radius: int, c_features: int, c_out: int) -> None:
        super().__init__()
        self.radius = radius
        self.features = nn.Sequential(
            nn.Conv2d(1, c_features, 5, stride=2, padding=2),
            group_norm(c_features),
            nn.SiLU(),
            nn.Conv2d(c_features, c_features, 3, stride=2, padding=1),
            group_norm(c_features),
            nn.SiLU(),
            nn.Conv2d(c_features, c_features, 3, padding=1),
        )
        self.project = nn.Conv2d((2 * radius + 1) ** 2, c_out, 1)

    def forward(self, video: Tensor) -> Tensor:
        """(B, 1, T, H, W) -> (B, c_out, T, H/4, W/4)."""
        b = video.shape[0]
        f = unfold_time(self.features(fold_time(video)), b).float()
        # The floor keeps the gradient finite where a featureless patch has no features at all.
        f = f * torch.rsqrt(f.square().sum(dim=1, keepdim=True) + 0.01)
        c, t, h, w = f.shape[1:]
        k = (2 * self.radius + 1) ** 2
        near = F.unfold(f[:, :, 0], 2 * self.radius + 1, padding=self.radius).reshape(b, c, k, h * w)
        a = near.permute(0, 3, 2, 1).reshape(b * h * w, k, c)
        q = f.permute(0, 3, 4, 1, 2).reshape(b * h * w, c, t)
        correlation = torch.bmm(a, q).reshape(b, h, w, k, t).permute(0, 4, 3, 1, 2).reshape(b * t, k, h, w)
        return unfold_time(self.project(4 * correlation.to(video.dtype)), b)


class BlockSearch(nn.Module):
    """Displacement from frame 0 by exhaustive search over small pictures; nothing is learned.

    c(d) = mean over 16 px windows of (x_t(p) - x_0(p + d))^2 at half size, d = -8 .. 8 px along each axis
    flow = sum_d softmax_d(-c(d) / (TEMPERATURE mean_d c)) d,      explained = 1 - sum_d softmax_d c(d) / c(0)

    Where nothing matches better than the rest, the softmax is flat and the flow small. Frame 0 is at rest.
    """

    RADIUS, BLOCK, TEMPERATURE = 4, 4, 0.02

    @torch.no_grad()
    def forward(self, video: Tensor) -> Tensor:
        """(B, 1, T, H, W) -> (B, 3, T, H/4, W/4): backward flow x, y as a share of 8 px, and the explained share."""
        small = F.avg_pool2d(video[:, 0].float(), 2)
        side, span = self.BLOCK * 2, range(2 * self.RADIUS + 1)
        height, width = small.shape[-2:]
        still = F.pad(small[:, :1], (self.RADIUS,) * 4, mode="replicate")
        costs = torch.stack(
            [
                F.avg_pool2d(
                    (small - still[..., dy : dy + height, dx : dx + width]).square(),
                    side,
                    self.BLOCK,
                    self.BLOCK // 2,
                    count_include_pad=False,
                )
                for dy in span
                for dx in span
            ],
            dim=1,
        )
        mean = costs.mean(dim=1, keepdim=True).clamp_min(1e-8)
        chosen = torch.softmax(-costs / (self.TEMPERATURE * mean), dim=1)
        reach = torch.linspace(-1, 1, len(span), device=video.device)
        x = (chosen * reach.repeat(len(span))[:, None, None, None]).sum(dim=1)
        y = (chosen * reach.repeat_interleave(len(span))[:, None, None, None]).sum(dim=1)
        explained = 1 - (chosen * costs).sum(dim=1) / costs[:, len(span) ** 2 // 2].clamp_min(1e-8)
        found = torch.stack([x, y, explained.clamp(-1, 1)], dim=1)
        found[:, :, 0] = 0
        return found.repeat_interleave(2, dim=-2).repeat_interleave(2, dim=-1)


class VideoEncoder(nn.Module):
    """3D ResNet-18 to the parameters of N(mean, exp(log_variance)) over the latent."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        widths = config.encoder_widths
        self.stem = Conv3d(2, widths[0], (3, 7, 7), stride=(1, 2, 2), padding=(1, 3, 3), bias=False)
        self.stem_norm = group_norm(widths[0])
        self.correlation: LocalCorrelation | None = None
        self.search = BlockSearch() if config.block_search else None
        c_in = widths[0]
        self.stages = nn.ModuleList()
        for k, (width, s_t, s_s) in enumerate(
            zip(widths, config.temporal_strides, config.spatial_strides, strict=True)
        ):
            extra = config.correlation_channels if config.correlation_radius and k == 1 else 0
            extra += 3 if config.block_search and k == 1 else 0
            self.stages.append(
                nn.Sequential(ResBlock3d(c_in + extra, width, (s_t, s_s, s_s)), ResBlock3d(width, width))
            )
            c_in = width
        if config.correlation_radius:
            self.correlation = LocalCorrelation(config.correlation_radius, 8, config.correlation_channels)
        if config.latent_mode == "vector":
            self.head: nn.Module = nn.Linear(c_in, 2 * config.latent_channels)
        else:
            self.head = nn.Conv3d(c_in, 2 * config.latent_channels, 1)
        self.vector = config.latent_mode == "vector"

    def forward(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 1, T, H, W) in 0..1 -> mean and log variance, each (B, C_z, T_z, H_z, W_z)."""
        x = video * 2 - 1
        pair = torch.cat([x, x - over_time(x[:, :, 0], x.shape[2])], dim=1)
        y = F.silu(self.stem_norm(self.stem(pair)))
        for k, stage in enumerate(self.stages):
            if k == 1 and self.correlation is not None:
                y = torch.cat([y, self.correlation(x)], dim=1)
            if k == 1 and self.search is not None:
                y = torch.cat([y, self.search(video).to(y.dtype)], dim=1)
            y = stage(y)
        out = self.head(y.mean(dim=(2, 3, 4)))[:, :, None, None, None] if self.vector else self.head(y)
        mean, log_variance = out.float().chunk(2, dim=1)
        return mean, log_variance.clamp(-12, 4)
