"""What every denoiser is told, and how: conditions with "unknown" values, their embedding, the still's features.

Stage 2 of LDDM (Chen et al. 2024, section 2.2, Eq. 3) predicts the noise (or v, x0, velocity) of a noised latent given
the still. The still enters as feature maps aligned with the latent's cells; time, scalars, class and the sampling
step's size become one vector

    e = SiLU( MLP(time) + W [class, motion, interval, pressure, slide] + step size )

Every condition has an "unknown" value that is also trained (condition dropout), so that weights work whether or not a
user states them. What the networks do with e and the still is theirs: `unet`, `transformer`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from us_i2v.errors import ConfigError
from us_i2v.models.blocks import StillPyramid, sinusoidal_embedding, zero_init

if TYPE_CHECKING:
    from torch import Tensor

    from us_i2v.models.denoiser import DenoiserConfig

UNKNOWN_LABEL = -1


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


class Denoiser(nn.Module):
    """Base of the denoisers over (B, C_z, T_z, H_z, W_z): the conditioning that they share, and their interface.

    Args:
        config: See `denoiser.DenoiserConfig`.
        latent_shape: (C_z, T_z, H_z, W_z) of one clip's latent.
        embedding: Length E of the conditions' vector.

    A subclass makes its layers, then ends its construction by `know_step_size`, and fills in `denoise`.
    """

    def __init__(self, config: DenoiserConfig, latent_shape: tuple[int, int, int, int], embedding: int) -> None:
        super().__init__()
        self.config = config
        part = config.width
        self.side = latent_shape[2]
        self.embedding = embedding
        self.still = StillPyramid(config.still_widths)
        self.time = nn.Sequential(nn.Linear(part, embedding), nn.SiLU(), nn.Linear(embedding, embedding))
        self.motion = ScalarEmbedding(part, scale=100.0)
        self.interval = ScalarEmbedding(part, scale=1000.0)
        self.label = nn.Embedding(config.n_labels + 1, part)
        self.pressure = ScalarEmbedding(part, scale=100.0) if config.pressure else None
        self.slide = ScalarEmbedding(part, scale=100.0) if config.slide else None
        self.conditions = nn.Linear((3 + config.pressure + config.slide) * part, embedding)
        self.step_size: StepSize | None = None

    def know_step_size(self) -> None:
        """Add the step's size as a condition if it is wanted: last, so that all other weights start as without it."""
        if self.config.step_size:
            self.step_size = StepSize(self.config.width, self.embedding)

    def embed_still(self, still: Tensor) -> Tensor:
        """Features of the still, computed once for all sampling steps: (B, 1, H, W) -> (B, C, H_z, W_z)."""
        features: Tensor = self.still(still)[-1]
        if features.shape[-1] != self.side:
            features = F.adaptive_avg_pool2d(features, self.side)
        return features

    def embed_conditions(self, t: Tensor, conditions: Conditions, step_size: Tensor | None) -> Tensor:
        """Everything but the still as one vector, see the module's head: t (B,) -> (B, E).

        Raises:
            ConfigError: A step size is given to a network without that condition.
        """
        b = t.shape[0]
        label = conditions.label
        if label is None:
            label = torch.full((b,), UNKNOWN_LABEL, dtype=torch.int64, device=t.device)
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
        return F.silu(e)

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
            z: (B, C_z, T, H_z, W_z), noised standardised latent; T of T_z or less, see `denoise`.
            t: (B,), diffusion time in 0..1.
            conditions: See `Conditions`.
            still_features: Result of `embed_still`, if it is already there.
            step_size: (B,), size of the sampling step, see `diffusion.shortcut`; 0 or None = infinitesimal.

        Returns:
            Same shape as `z`.

        Raises:
            ConfigError: A step size is given to a network without that condition.
        """
        still = self.embed_still(conditions.still) if still_features is None else still_features
        return self.denoise(z, self.embed_conditions(t, conditions, step_size), still)

    def denoise(self, z: Tensor, embedding: Tensor, still: Tensor) -> Tensor:
        """Latent (B, C_z, T, H_z, W_z), conditions (B, E), still (B, C, H_z, W_z) -> output of z's shape."""
        raise NotImplementedError
