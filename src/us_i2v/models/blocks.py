"""Building blocks shared by the networks: norms, residual blocks, embeddings.

Shapes are (B, C, T, H, W) unless said otherwise. Spatial work folds time into the batch
(2-D convolutions are several times faster than 3-D ones on a CPU); temporal work is explicit.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm with groups of 8 channels where they divide, else one group."""
    return nn.GroupNorm(channels // 8 if channels % 8 == 0 else 1, channels)


def fold_time(x: Tensor) -> Tensor:
    """(B, C, T, H, W) -> (B*T, C, H, W)."""
    b, c, t, h, w = x.shape
    return x.transpose(1, 2).reshape(b * t, c, h, w)


def unfold_time(x: Tensor, batch: int) -> Tensor:
    """(B*T, C, H, W) -> (B, C, T, H, W)."""
    bt, c, h, w = x.shape
    return x.reshape(batch, bt // batch, c, h, w).transpose(1, 2)


def zero_init(module: nn.Conv2d | nn.Conv3d | nn.Linear) -> nn.Module:
    """Set weights and bias to zero, so that the branch starts as "no change"."""
    nn.init.zeros_(module.weight)
    if module.bias is not None:
        nn.init.zeros_(module.bias)
    return module


_SHORT = 4
"""Clips of up to this many frames take the way around in `Conv3d`."""


class Conv3d(nn.Conv3d):
    """3-D convolution with three temporal taps, no temporal dilation, and padding 1 in time.

    oneDNN's bfloat16 weight gradient of a short clip's 3-D convolution reads memory that nobody wrote (seen in
    torch 2.13 on a CPU with two frames: NaN now and then). There, the three taps are taken as one 2-D convolution
    over folded frames and two shifted sums: the same numbers, the same parameters.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, T, H, W) -> (B, C_out, T/s_t, H/s_h, W/s_w)."""
        b, _, t = x.shape[:3]
        if t > _SHORT or x.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
            return super().forward(x)
        taps = self.weight.transpose(1, 2).transpose(0, 1).flatten(0, 1)
        y = F.conv2d(fold_time(x), taps, None, self.stride[1:], self.padding[1:])
        before, here, after = y.reshape(b, t, 3, self.out_channels, *y.shape[-2:]).unbind(2)
        out = here.clone()
        out[:, 1:] += before[:, :-1]
        out[:, :-1] += after[:, 1:]
        if self.bias is not None:
            out = out + self.bias.to(out.dtype)[:, None, None]
        return out[:, :: self.stride[0]].transpose(1, 2)


class ResBlock3d(nn.Module):
    """Basic residual block of a 3-D ResNet: two 3x3x3 convolutions and a projected shortcut.

    Source: Hara et al. 2018 (3D ResNets); GroupNorm instead of BatchNorm, since batches are small.
    """

    def __init__(self, c_in: int, c_out: int, stride: tuple[int, int, int] = (1, 1, 1)) -> None:
        super().__init__()
        self.conv1 = Conv3d(c_in, c_out, 3, stride=stride, padding=1, bias=False)
        self.norm1 = group_norm(c_out)
        self.conv2 = Conv3d(c_out, c_out, 3, padding=1, bias=False)
        self.norm2 = group_norm(c_out)
        same = c_in == c_out and stride == (1, 1, 1)
        self.shortcut = nn.Identity() if same else nn.Conv3d(c_in, c_out, 1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, T, H, W) -> (B, C_out, T/s_t, H/s_h, W/s_w)."""
        y = F.silu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        out: Tensor = F.silu(y + self.shortcut(x))
        return out


class TemporalMix(nn.Module):
    """3-tap convolution in time over folded frames: y_t = A x_(t-1) + B x_t + C x_(t+1), zero beyond the ends.

    Written as one 1x1 convolution to three outputs and two shifted sums, so that the folded layout is kept.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.taps = nn.Conv2d(channels, 3 * channels, 1, bias=False)

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """(B*T, C, H, W), T = frames -> same."""
        bt, c, h, w = x.shape
        before, here, after = self.taps(x).reshape(bt // frames, frames, 3, c, h, w).unbind(2)
        y = here.clone()
        y[:, 1:] += before[:, :-1]
        y[:, :-1] += after[:, 1:]
        out: Tensor = y.reshape(bt, c, h, w)
        return out


class FactorisedBlock(nn.Module):
    """Residual block over folded frames: 3x3 in space, 3 taps in time, 3x3 in space; optional FiLM.

    Source: (2+1)D factorisation, Tran et al. 2018; FiLM, Perez et al. 2018.
    """

    def __init__(self, c_in: int, c_out: int, c_embedding: int = 0) -> None:
        super().__init__()
        self.norm1 = group_norm(c_in)
        self.space1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.time = TemporalMix(c_out)
        self.norm2 = group_norm(c_out)
        self.space2 = nn.Conv2d(c_out, c_out, 3, padding=1)
        zero_init(self.space2)
        self.film = nn.Linear(c_embedding, 2 * c_out) if c_embedding else None
        self.shortcut = nn.Identity() if c_in == c_out else nn.Conv2d(c_in, c_out, 1)

    def forward(self, x: Tensor, frames: int, embedding: Tensor | None = None) -> Tensor:
        """(B*T, C_in, H, W), T = frames, embedding (B, E) or None -> (B*T, C_out, H, W)."""
        y = self.space1(F.silu(self.norm1(x)))
        y = self.norm2(y + self.time(y, frames))
        if self.film is not None and embedding is not None:
            film = self.film(embedding).repeat_interleave(frames, dim=0)
            gamma, beta = film[:, :, None, None].chunk(2, dim=1)
            y = y * (1 + gamma) + beta
        out: Tensor = self.space2(F.silu(y)) + self.shortcut(x)
        return out


def enlarge(x: Tensor) -> Tensor:
    """Double the size of folded frames, bilinearly: (N, C, H, W) -> (N, C, 2H, 2W)."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


class RepeatFrames(nn.Module):
    """Repeat each folded frame in time."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    def forward(self, x: Tensor) -> Tensor:
        """(B*T, C, H, W) -> (B*T*times, C, H, W)."""
        return x.repeat_interleave(self.times, dim=0)


class SpreadFrames(nn.Module):
    """Make `times` frames out of each folded one, a learned linear map each; starts as repetition.

    What `RepeatFrames` makes differs between its copies only by what reaches them from the neighbours: motion then is a
    line through as many knots as the latent has steps. Here every copy has channels of its own to be read from.
    The counterpart in time of sub-pixel convolution, Shi et al. 2016.
    """

    def __init__(self, channels: int, times: int) -> None:
        super().__init__()
        self.times = times
        self.maps = nn.Conv2d(channels, times * channels, 1, bias=False)
        with torch.no_grad():
            self.maps.weight.copy_(torch.eye(channels).repeat(times, 1)[:, :, None, None])

    def forward(self, x: Tensor) -> Tensor:
        """(B*T, C, H, W) -> (B*T*times, C, H, W)."""
        n, c, h, w = x.shape
        y: Tensor = self.maps(x).reshape(n * self.times, c, h, w)
        return y


def add_still(x: Tensor, still: Tensor, frames: int) -> Tensor:
    """Add per-still features to every frame: x (B*T, C, H, W), still (B, C, H, W)."""
    bt, c, h, w = x.shape
    return (x.reshape(bt // frames, frames, c, h, w) + still[:, None]).reshape(bt, c, h, w)


class StillPyramid(nn.Module):
    """2-D features of the still at 1/2, 1/4, 1/8, ... of its size.

    Args:
        widths: Channels at each scale, finest first.
    """

    def __init__(self, widths: tuple[int, ...], c_in: int = 1) -> None:
        super().__init__()
        self.stages = nn.ModuleList()
        for width in widths:
            self.stages.append(
                nn.Sequential(
                    nn.Conv2d(c_in, width, 3, stride=2, padding=1),
                    group_norm(width),
                    nn.SiLU(),
                    nn.Conv2d(width, width, 3, padding=1),
                    nn.SiLU(),
                )
            )
            c_in = width

    def forward(self, still: Tensor) -> list[Tensor]:
        """(B, 1, H, W) in 0..1 -> features, finest first: (B, widths[k], H/2^(k+1), W/2^(k+1))."""
        features = []
        x = still * 2 - 1
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features


def over_time(features: Tensor, n: int) -> Tensor:
    """Repeat (B, C, H, W) over n frames: (B, C, n, H, W) without copying."""
    return features[:, :, None].expand(-1, -1, n, -1, -1)


def sinusoidal_embedding(values: Tensor, channels: int, max_period: float = 1000.0) -> Tensor:
    """Sinusoidal features of scalars.

    Args:
        values: (B,), any range that the caller scales sensibly (times are 0..1000).
        channels: Even number of features.
        max_period: Longest period.

    Returns:
        (B, channels). Source: Vaswani et al. 2017, section 3.5.
    """
    half = channels // 2
    frequencies = torch.exp(-math.log(max_period) * torch.arange(half, device=values.device) / half)
    angles = values.float()[:, None] * frequencies[None]
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class VectorSeed(nn.Module):
    """Spread a latent vector over a small space-time grid, one learned map a cell.

    A vector that is merely repeated would leave it to zero padding to tell places and times apart. cINN's
    decoder (Dorkenwald et al. 2021) starts from a 4 x 4 map made by a fully connected layer in the same way.
    """

    FRAMES, SIDE = 2, 4

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.spread = nn.Linear(channels, channels * self.FRAMES * self.SIDE**2)

    def forward(self, z: Tensor) -> Tensor:
        """(B, C, 1, 1, 1) -> (B, C, 2, 4, 4)."""
        grid: Tensor = self.spread(z.flatten(1)).view(z.shape[0], -1, self.FRAMES, self.SIDE, self.SIDE)
        return grid
