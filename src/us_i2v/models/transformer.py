"""Denoiser of kind "transformer": spatial and temporal attention in turn over patches of the latent.

    tokens = patches(z) + patches(still's features) + place + time
    x <- x + g1 * attention( (1 + c1) * norm(x) + b1 )
    x <- x + g2 *       MLP( (1 + c2) * norm(x) + b2 ),       (c1, b1, g1, c2, b2, g2) = W e,  W = 0 at the start

(adaLN-zero: Peebles & Xie 2023, section 3.2; e: `conditioning`). Blocks alternate: in a spatial one the tokens of a
frame attend to each other, in a temporal one the tokens of a place (Bertasius et al. 2021, "divided attention"; Ma et
al. 2024, Latte's first variant). The still is cut into the same patches as each frame, so that a token is told what
the picture shows where it stands. Places and frames are known by sinusoids, not by learned tables: any number of frames
can be denoised. All gates and the output start at zero.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from us_i2v.models.attention import attend
from us_i2v.models.blocks import add_still, fold_time, sinusoidal_embedding, unfold_time, zero_init
from us_i2v.models.conditioning import Denoiser

if TYPE_CHECKING:
    from torch import Tensor

    from us_i2v.models.denoiser import DenoiserConfig

_MLP_RATIO = 4
_FRAME_SCALE = 10.0
"""Sinusoids of frame numbers: neighbours shall be far apart, since a latent has only a few frames."""


class Block(nn.Module):
    """Attention and MLP, both under adaLN-zero."""

    def __init__(self, channels: int, heads: int, embedding: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(channels, elementwise_affine=False)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        self.norm2 = nn.LayerNorm(channels, elementwise_affine=False)
        self.widen = nn.Linear(channels, _MLP_RATIO * channels)
        self.narrow = nn.Linear(_MLP_RATIO * channels, channels)
        self.modulation = nn.Linear(embedding, 6 * channels)
        zero_init(self.modulation)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """X (B, M, N, C), embedding (B, E) -> same as x; the N tokens of each of the M sets attend to each other."""
        scale1, shift1, gate1, scale2, shift2, gate2 = self.modulation(embedding)[:, None, None].chunk(6, dim=-1)
        y = self.norm1(x) * (1 + scale1) + shift1
        x = x + gate1 * self.out(attend(self.qkv(y).flatten(0, 1), self.heads)).reshape(x.shape)
        y = self.norm2(x) * (1 + scale2) + shift2
        out: Tensor = x + gate2 * self.narrow(F.gelu(self.widen(y), approximate="tanh"))
        return out


class SpaceTimeTransformer(Denoiser):
    """Transformer over patches of (B, C_z, T_z, H_z, W_z), factorised in space and time."""

    def __init__(self, config: DenoiserConfig, latent_shape: tuple[int, int, int, int]) -> None:
        width, patch = config.width, config.patch
        super().__init__(config, latent_shape, embedding=width)
        c_z = latent_shape[0]
        self.enter = nn.Conv2d(c_z, width, patch, stride=patch)
        self.enter_still = nn.Conv2d(config.still_widths[-1], width, patch, stride=patch)
        self.spatial = nn.ModuleList(Block(width, config.heads, width) for _ in range(config.depth))
        self.temporal = nn.ModuleList(Block(width, config.heads, width) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.Linear(width, 2 * width)
        self.leave = nn.Linear(width, c_z * patch**2)
        zero_init(self.modulation)
        zero_init(self.leave)
        self.know_step_size()

    def denoise(self, z: Tensor, embedding: Tensor, still: Tensor) -> Tensor:
        """See `Denoiser.denoise`; any T."""
        b, frames = z.shape[0], z.shape[2]
        x = add_still(self.enter(fold_time(z)), self.enter_still(still), frames)
        h, w = x.shape[-2:]
        x = x.flatten(2).transpose(1, 2).reshape(b, frames, h * w, -1)
        x = x + self._places(h, w, z.device) + self._moments(frames, z.device)
        for spatial, temporal in zip(self.spatial, self.temporal, strict=True):
            x = spatial(x, embedding)
            x = temporal(x.transpose(1, 2), embedding).transpose(1, 2)
        scale, shift = self.modulation(embedding)[:, None, None].chunk(2, dim=-1)
        x = self.leave(self.norm(x) * (1 + scale) + shift)
        x = x.reshape(b * frames, h, w, -1).permute(0, 3, 1, 2)
        return unfold_time(F.pixel_shuffle(x, self.config.patch), b)

    def _places(self, h: int, w: int, device: torch.device) -> Tensor:
        """Sinusoids of row and column, half of the channels each: (h*w, C)."""
        half = self.config.width // 2
        rows = sinusoidal_embedding(torch.arange(h, device=device), half, max_period=10000.0)
        columns = sinusoidal_embedding(torch.arange(w, device=device), half, max_period=10000.0)
        grid = torch.cat([rows[:, None].expand(h, w, half), columns[None].expand(h, w, half)], dim=-1)
        return grid.reshape(h * w, 2 * half)

    def _moments(self, frames: int, device: torch.device) -> Tensor:
        """Sinusoids of the frame's number: (frames, 1, C)."""
        number = _FRAME_SCALE * torch.arange(frames, device=device)
        return sinusoidal_embedding(number, self.config.width, max_period=10000.0)[:, None]
