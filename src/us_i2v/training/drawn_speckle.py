"""Frames with drawn speckle for training: `models.render`'s law, differentiable, one batch of stills at a time.

    frame = (1 + gain) (warp(x0) + (k - 1) warp(h)) + gate * mean + a * n + e * coarse n,
    w_1 = e_1,   w_t = rho w_{t-1} + sqrt(1 - rho^2) e_t,   n = w carried along with the tissue

with k, a and e as `models.render` has them for mode "stationary". The innovations e_t are fixed noise, so a frame is a
function of everything that the decoder predicts: gain, mean, gate and scale, the flow, and rho, through the
recursion. The flow learns from the still and the texture that it moves, not from the noise and the local statistics
that it carries: where a sample of noise lies says nothing about the tissue.

All of it runs where the stills are.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from us_i2v.models.motion import interpolation_matrix, warp
from us_i2v.models.render import _EXCESS, StillTexture, carried
from us_i2v.seeding import derive_seed

if TYPE_CHECKING:
    from torch import Tensor

    from us_i2v.models.motion import Motion
    from us_i2v.models.speckle import Grain

_LEAST = 1e-8
"""A root's slope is infinite at 0; variances below a fortieth of a gray level's square do not learn."""


def draw_innovations(seed: int, step: int, total: int, n_frames: int, size: int) -> Tensor:
    """Return the white noise of a step, (total, 2, T - 1, S, S): of the fine and of the coarse process.

    It is a function of seed and step alone, so that a resumed run draws it again.
    """
    generator = torch.Generator().manual_seed(derive_seed(seed, "drawn speckle", step))
    return torch.randn((total, 2, n_frames - 1, size, size), generator=generator)


def drawn_frames(still: Tensor, motion: Motion, correlation: float | Tensor, innovations: Tensor) -> Tensor:
    """Draw one clip a still at the model's size.

    Args:
        still: (B, 1, S, S) in 0..1, frame 0.
        motion: Anchored at frame 0, float32, on its own grid; may require gradients.
        correlation: From frame to frame, 0 <= rho < 1; one number, or (B, 1, h, w) by place of the still.
        innovations: White noise, (B, 2, T - 1, S, S), see `draw_innovations`.

    Returns:
        (B, 1, T, S, S) in 0..1; frame 0 is the still itself.
    """
    size = (int(still.shape[-2]), int(still.shape[-1]))
    with torch.no_grad():
        textures = [StillTexture.measure(one, one, motion.grid) for one in still.chunk(len(still))]
        has = torch.cat([torch.cat([t.variance, t.covariance, t.small_variance], dim=1) for t in textures])
        variance, covariance, small = warp(has.to(still), motion.flow).chunk(3, dim=1)
        high = torch.cat([t.fine for t in textures]).to(still)
    change = (motion.gate * motion.scale).square()
    rho = (1 - change / (2 * small).clamp_min(1e-8)).clamp(0, 1)
    strength = ((1 - rho.square()) * variance + 2 * (1 - rho) * covariance).clamp_min(_LEAST).sqrt()
    beyond = change - 2 * small
    excess = _EXCESS * beyond.clamp_min(_LEAST).sqrt() * (beyond > 0)
    first = replace(motion, mean=motion.gate * motion.mean, gate=rho, scale=strength).at_size(size)
    rows, columns = (
        interpolation_matrix(cells, pixels, 0, cells, "linear").to(change)
        for cells, pixels in zip(motion.grid, size, strict=True)
    )
    fine, coarse = (
        _carried_processes(innovations[:, k], grains, correlation, first.flow.detach(), smooth=bool(k))
        for k, grains in enumerate(([t.fine_grain for t in textures], [t.coarse_grain for t in textures]))
    )
    moved, moved_texture = warp(torch.cat([still, high], dim=1), first.flow).chunk(2, dim=1)
    frames = (1 + first.gain) * (moved + (first.gate - 1) * moved_texture) + first.mean
    frames = frames + first.scale * fine + (rows @ excess @ columns.T) * coarse
    return torch.cat([still[:, :, None], frames[:, :, 1:].clamp(0, 1)], dim=2)


def _carried_processes(
    white: Tensor, grains: list[Grain], correlation: float | Tensor, flow: Tensor, *, smooth: bool
) -> Tensor:
    """AR(1) noise of each sample's grain, at rest in frame 0 and then moved: (B, T - 1, S, S) -> (B, 1, T, S, S)."""
    height, width = int(white.shape[-2]), int(white.shape[-1])
    fresh = torch.stack([grainy(one, grain) for one, grain in zip(white, grains, strict=True)])
    alike = torch.as_tensor(correlation, dtype=torch.float32, device=white.device)
    if alike.ndim:
        alike = F.interpolate(alike, (height, width), mode="bilinear", align_corners=False)[:, 0]
    new = (1 - alike.square()).sqrt()
    states = [torch.zeros_like(fresh[:, 0]), fresh[:, 0]]
    for t in range(1, fresh.shape[1]):
        states.append(alike * states[-1] + new * fresh[:, t])
    noise = torch.stack(states, dim=1)[:, None]
    moved = [carried(noise[k : k + 1], flow[k : k + 1], None if smooth else grain) for k, grain in enumerate(grains)]
    return torch.cat(moved)


def grainy(white: Tensor, grain: Grain) -> Tensor:
    """Give white noise (N, H, W) a grain, wrapping around at the edges: same shape, unit variance.

    The rows' kernels are one matrix; along x each row is multiplied by its kernel's spectrum.
    """
    height, width = int(white.shape[-2]), int(white.shape[-1])
    at = grain.at_rows(height)
    half = at.rows.shape[1] // 2
    taps = torch.arange(-half, half + 1)
    down = (torch.arange(height)[:, None] + taps) % height
    mix = torch.zeros(height, height).scatter_add_(1, down, at.rows.cpu()).to(white)
    across = (taps % width).expand(height, -1)
    kernels = torch.zeros(height, width).scatter_add_(1, across, at.columns.cpu())
    spectrum = torch.fft.rfft(kernels).real.to(white)
    noise: Tensor = torch.fft.irfft(torch.fft.rfft(mix @ white) * spectrum, n=width)
    return noise
