"""Conditional denoiser: a factorised space-time U-Net over the latent map.

Stage 2 of LDDM (Chen et al. 2024, section 2.2, Eq. 3): predicts the noise (or v, or x0) of a noised latent
given the still. The still enters as feature maps concatenated to the latent; time and the scalar conditions
enter by FiLM. Every condition has an "unknown" value that is also trained (condition dropout), so that
weights work whether or not a user states them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from us_i2v.config import Config
from us_i2v.errors import ConfigError
from us_i2v.models.blocks import (
    FactorisedBlock,
    StillPyramid,
    add_still,
    fold_time,
    group_norm,
    sinusoidal_embedding,
    unfold_time,
    zero_init,
)

if TYPE_CHECKING:
    from torch import Tensor

UNKNOWN_LABEL = -1


class DenoiserConfig(Config):
    """Shape of the denoiser."""

    width: int = Field(96, ge=8, le=1024, multiple_of=8, description="Channels at full latent size.")
    multipliers: tuple[int, ...] = Field((1, 2), min_length=1, max_length=4, description="Width factor by level.")
    blocks: int = Field(2, ge=1, le=4, description="Residual blocks a level.")
    heads: int = Field(4, ge=1, le=16, description="Attention heads at the coarsest level.")
    still_widths: tuple[int, ...] = Field((12, 24, 48), description="Still features, fine to coarse.")
    n_labels: int = Field(0, ge=0, le=1000, description="Class labels that can be given; 0 = none.")
    dropout: float = Field(0.1, ge=0, le=1, description="Probability of hiding each condition in training.")
    pressure: bool = Field(False, description="Compression at the clip's end as a condition.")
    slide: bool = Field(False, description="Sideways displacement at the clip's end as a condition.")
    step_size: bool = Field(False, description="Sampling step's size as a condition; set by process.shortcut.")

    later: ClassVar[tuple[str, ...]] = ("pressure", "slide", "step_size")


@dataclass(frozen=True)
class Conditions:
    """What is known about the clip to be made, for a batch of B.

    Attributes:
        still: (B, 1, H, W) in 0..1, the anchor at the model's size.
        label: (B,) int64 class numbers, `UNKNOWN_LABEL` where not given; None = unknown for all.
        motion: (B,) float, motion strength relative to the training clips' median; NaN = unknown.
        interval: (B,) float, seconds between frames; NaN = unknown.
        pressure: (B,) float, compression at the end (`models.controls`) relative to the median of the training clips'
            absolute values; negative = release; NaN = unknown.
        slide: (B,) float, displacement at the end, likewise; positive = to the picture's right; NaN = unknown.
    """

    still: Tensor
    label: Tensor | None = None
    motion: Tensor | None = None
    interval: Tensor | None = None
    pressure: Tensor | None = None
    slide: Tensor | None = None

    def drop(self, hide: Tensor) -> Conditions:
        """Hide conditions: `hide` (B, 3) bool for label, motion, interval, or (B, 5) with pressure and slide."""
        nan = torch.full_like(hide[:, 0], torch.nan, dtype=torch.float32)

        def hidden(values: Tensor | None, column: int) -> Tensor | None:
            return values if values is None or column >= hide.shape[1] else torch.where(hide[:, column], nan, values)

        return replace(
            self,
            label=None if self.label is None else torch.where(hide[:, 0], UNKNOWN_LABEL, self.label),
            motion=hidden(self.motion, 1),
            interval=hidden(self.interval, 2),
            pressure=hidden(self.pressure, 3),
            slide=hidden(self.slide, 4),
        )


class ScalarEmbedding(nn.Module):
    """Embed a scalar with a learned vector for "unknown" (NaN)."""

    def __init__(self, channels: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.channels = channels
        self.linear = nn.Linear(channels, channels)
        self.unknown = nn.Parameter(torch.zeros(channels))

    def forward(self, values: Tensor | None, batch: int) -> Tensor:
        """(B,) with NaN for unknown, or None -> (B, channels)."""
        if values is None:
            return self.unknown.expand(batch, -1)
        known = torch.isfinite(values)
        features = sinusoidal_embedding(torch.where(known, values, 0) * self.scale, self.channels)
        out: Tensor = torch.where(known[:, None], self.linear(features), self.unknown)
        return out


class StepSize(nn.Module):
    """Embed a sampling step's size; it starts as "no change", and size 0 never changes anything."""

    def __init__(self, channels: int, embedding: int) -> None:
        super().__init__()
        self.channels = channels
        self.hidden = nn.Linear(channels, embedding)
        self.out = nn.Linear(embedding, embedding)
        zero_init(self.out)

    def forward(self, size: Tensor) -> Tensor:
        """(B,) in 0..1 -> (B, embedding), by the number of halvings of 1 that make the size."""
        there = size > 0
        halvings = -torch.log2(torch.where(there, size.float(), 1.0))
        features = F.silu(self.hidden(sinusoidal_embedding(100 * halvings, self.channels)))
        out: Tensor = torch.where(there[:, None], self.out(features), 0.0)
        return out


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
        qkv = self.qkv(tokens).reshape(*tokens.shape[:2], 3, self.heads, c // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        y = self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(tokens.shape))
        out: Tensor = x + y.reshape(bt, h * w, c).transpose(1, 2).reshape(bt, c, h, w)
        return out


class Denoiser(nn.Module):
    """U-Net over (B, C_z, T_z, H_z, W_z); the temporal length is kept throughout."""

    def __init__(self, config: DenoiserConfig, latent_shape: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.config = config
        c_z, frames, side, _ = latent_shape
        widths = [config.width * m for m in config.multipliers]
        embedding = 4 * config.width
        part = config.width
        self.still = StillPyramid(config.still_widths)
        self.position = nn.Parameter(torch.zeros(frames, config.width, 1, 1))
        self.time = nn.Sequential(nn.Linear(part, embedding), nn.SiLU(), nn.Linear(embedding, embedding))
        self.motion = ScalarEmbedding(part, scale=100.0)
        self.interval = ScalarEmbedding(part, scale=1000.0)
        self.label = nn.Embedding(config.n_labels + 1, part)
        self.pressure = ScalarEmbedding(part, scale=100.0) if config.pressure else None
        self.slide = ScalarEmbedding(part, scale=100.0) if config.slide else None
        self.conditions = nn.Linear((3 + config.pressure + config.slide) * part, embedding)
        self.side = side
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
        # Last, so that the other weights start as they do without it.
        self.step_size = StepSize(part, embedding) if config.step_size else None

    def embed_still(self, still: Tensor) -> Tensor:
        """Features of the still, computed once for all sampling steps: (B, 1, H, W) -> (B, C, H_z, W_z)."""
        features: Tensor = self.still(still)[-1]
        if features.shape[-1] != self.side:
            features = F.adaptive_avg_pool2d(features, self.side)
        return features

    def forward(
        self,
        z: Tensor,
        t: Tensor,
        conditions: Conditions,
        still_features: Tensor | None = None,
        step_size: Tensor | None = None,
    ) -> Tensor:
        """Predict the target of the noised latent.

        Args:
            z: (B, C_z, T_z, H_z, W_z), noised standardised latent.
            t: (B,), diffusion time in 0..1.
            conditions: See `Conditions`.
            still_features: Result of `embed_still`, if it is already there.
            step_size: (B,), size of the sampling step, see `diffusion.shortcut`; 0 or None = infinitesimal.

        Returns:
            Same shape as `z`.

        Raises:
            ConfigError: A step size is given to a network without that condition.
        """
        b = z.shape[0]
        still = self.embed_still(conditions.still) if still_features is None else still_features
        label = z.new_full((b,), UNKNOWN_LABEL, dtype=torch.long) if conditions.label is None else conditions.label
        parts = [
            self.label(label + 1),
            self.motion(conditions.motion, b),
            self.interval(conditions.interval, b),
        ]
        if self.pressure is not None:
            parts.append(self.pressure(conditions.pressure, b))
        if self.slide is not None:
            parts.append(self.slide(conditions.slide, b))
        e = self.time(sinusoidal_embedding(1000 * t, self.config.width, max_period=10000.0))
        e = e + self.conditions(torch.cat(parts, dim=1))
        if step_size is not None:
            if self.step_size is None:
                raise ConfigError("This denoiser does not know the step's size.", "Train it with process.shortcut.")
            e = e + self.step_size(step_size)
        e = F.silu(e)
        frames = z.shape[2]
        x = add_still(self.enter(fold_time(z)), self.enter_still(still), frames)
        x = x + self.position[:frames].repeat(b, 1, 1, 1)
        x = self.enter_block(x, frames, e)
        skips = []
        levels = len(self.config.multipliers)
        for level in range(levels):
            for k in range(self.per_level):
                x = self.down[level * self.per_level + k](x, frames, e)
            skips.append(x)
            if level + 1 < levels:
                x = F.avg_pool2d(x, 2)
        x = self.middle1(x, frames, e)
        x = self.middle2(self.attention(x, frames), frames, e)
        for level in reversed(range(levels)):
            if level + 1 < levels:
                x = F.interpolate(self.lift[level](x), scale_factor=2, mode="nearest")
            x = torch.cat([x, skips[level]], dim=1)
            for k in range(self.per_level):
                x = self.up[level * self.per_level + k](x, frames, e)
        x = unfold_time(x, b)
        out: Tensor = self.leave(x)
        return out
