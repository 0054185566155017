"""I3D: Inception v1 inflated to three dimensions, the network behind FVD and DTFVD.

    7x7x7 /2 - pool - 1x1x1 - 3x3x3 - pool - 2 mixed - pool - 5 mixed - pool - 2 mixed - average 2x7x7 - 1x1x1

Every convolution and pooling pads as TensorFlow's "same" does: n positions and stride s give ceil(n / s), with
floor(p / 2) of p = max((ceil(n / s) - 1) s + k - n, 0) zeros in front and the rest behind. Names of modules are
those of the published state dicts. Source: Carreira & Zisserman 2017, Fig. 3.

Frechet video distances on it differ in weights and preprocessing, both are part of the name:
    VideoGPT's state dict    400 Kinetics logits before the softmax; shorter side to 224 (bilinear), centre crop,
                             [-1, 1]. (VideoGPT's own last version left the range at [-0.5, 0.5]; its successors,
                             and this package, feed [-1, 1], for which the network was trained.)
    StyleGAN-V's TorchScript the same logits; the file itself resizes 0..255 to 224 x 224 and rescales
    cINN's DT-I3D            1024 channels before the logits of an I3D trained on dynamic textures; the first
                             16 frames, 224 x 224 (bilinear, corners aligned), [-1, 1]
Three halvings of time and an average over 2 make 9 frames the least.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from us_i2v.metrics.embedding import rgb_frames
from us_i2v.types import Frames

SIDE = 224
LEAST_FRAMES = 9
DT_FRAMES = 16
LOGITS, POOLED, DT_CLASSES = 400, 1024, 18

Triple = tuple[int, int, int]
Widths = tuple[int, int, int, int, int, int]
Layer = tuple[int, Triple, Triple] | tuple[Triple, Triple] | Widths
"""A convolution (width, kernel, stride), a pooling (kernel, stride) or a mixed block's six widths."""

LAYERS: dict[str, Layer] = {
    "Conv3d_1a_7x7": (64, (7, 7, 7), (2, 2, 2)),
    "MaxPool3d_2a_3x3": ((1, 3, 3), (1, 2, 2)),
    "Conv3d_2b_1x1": (64, (1, 1, 1), (1, 1, 1)),
    "Conv3d_2c_3x3": (192, (3, 3, 3), (1, 1, 1)),
    "MaxPool3d_3a_3x3": ((1, 3, 3), (1, 2, 2)),
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "MaxPool3d_4a_3x3": ((3, 3, 3), (2, 2, 2)),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "MaxPool3d_5a_2x2": ((2, 2, 2), (2, 2, 2)),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}


def pad_same(x: Tensor, kernel: Sequence[int], stride: Sequence[int]) -> Tensor:
    """Pad the last axes of `x`, one for each entry of `kernel`, with zeros as TensorFlow's "same" does."""
    sides: list[int] = []
    for size, k, s in zip(x.shape[-len(kernel) :], kernel, stride, strict=True):
        total = max((math.ceil(size / s) - 1) * s + k - size, 0)
        sides = [total // 2, total - total // 2, *sides]  # F.pad starts with the last axis.
    return F.pad(x, sides) if any(sides) else x


class Unit3D(nn.Module):
    """Convolution with "same" padding, then batch norm and ReLU (a bias instead of both in the last one)."""

    def __init__(self, channels: int, width: int, kernel: Triple, stride: Triple = (1, 1, 1), last: bool = False):
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.conv3d = nn.Conv3d(channels, width, kernel, stride, bias=last)
        self.bn = None if last else nn.BatchNorm3d(width, eps=1e-5)  # 1e-5 as where the weights were published.

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, T, H, W) -> (B, width, ceil(T / s), ...)."""
        y: Tensor = self.conv3d(pad_same(x, self.kernel, self.stride))
        return y if self.bn is None else F.relu(self.bn(y))


class Pool3D(nn.Module):
    """Max-pooling with "same" padding by zeros, which never win: all inputs come from a ReLU."""

    def __init__(self, kernel: Triple, stride: Triple = (1, 1, 1)) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W), at least 0 -> (B, C, ceil(T / s), ...)."""
        return F.max_pool3d(pad_same(x, self.kernel, self.stride), self.kernel, self.stride)


class Mixed(nn.Module):
    """Inception block: 1x1x1; 1x1x1 then 3x3x3, twice; pooling then 1x1x1; side by side."""

    def __init__(self, channels: int, widths: Widths) -> None:
        super().__init__()
        point, cube = (1, 1, 1), (3, 3, 3)
        self.b0 = Unit3D(channels, widths[0], point)
        self.b1a, self.b1b = Unit3D(channels, widths[1], point), Unit3D(widths[1], widths[2], cube)
        self.b2a, self.b2b = Unit3D(channels, widths[3], point), Unit3D(widths[3], widths[4], cube)
        self.b3a, self.b3b = Pool3D(cube), Unit3D(channels, widths[5], point)
        self.width = widths[0] + widths[2] + widths[4] + widths[5]

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, T, H, W) -> (B, width, T, H, W)."""
        branches = [self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(self.b3a(x))]
        return torch.cat(branches, 1)


class I3D(nn.Module):
    """The network; weights are frozen. `classes` is 400 for Kinetics, 18 for DTDB."""

    def __init__(self, classes: int = LOGITS) -> None:
        super().__init__()
        channels = 3
        for name, layer in LAYERS.items():
            module, channels = _build(layer, channels)
            self.add_module(name, module)
        self.logits = Unit3D(channels, classes, (1, 1, 1), last=True)
        self.requires_grad_(False)
        self.eval()

    def pooled(self, x: Tensor) -> Tensor:
        """(B, 3, T, 224, 224) in [-1, 1] -> (B, 1024, ceil(T / 8) - 1), T >= 9."""
        for name in LAYERS:
            x = self.get_submodule(name)(x)
        return F.avg_pool3d(x, (2, 7, 7), stride=1)[..., 0, 0]

    def pooled_mean(self, x: Tensor) -> Tensor:
        """(B, 3, T, 224, 224) in [-1, 1] -> (B, 1024), averaged over time; T >= 9."""
        return self.pooled(x).mean(2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, T, 224, 224) in [-1, 1] -> (B, classes), logits before the softmax, averaged over time; T >= 9."""
        logits: Tensor = self.logits(self.pooled(x)[..., None, None])
        return logits.mean((2, 3, 4))


def _build(layer: Layer, channels: int) -> tuple[nn.Module, int]:
    """Return the module of one layer, and its width."""
    if len(layer) == 2:
        return Pool3D(*layer), channels
    if len(layer) == 3:
        return Unit3D(channels, *layer), layer[0]
    mixed = Mixed(channels, layer)
    return mixed, mixed.width


class StyleGANVDetector(nn.Module):
    """StyleGAN-V's TorchScript file, called as its authors call it."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        with warnings.catch_warnings():  # TorchScript is deprecated; this file exists in no other form.
            warnings.simplefilter("ignore", DeprecationWarning)
            scripted = torch.jit.load(io.BytesIO(content), map_location="cpu")  # type: ignore[no-untyped-call]
        self.scripted = cast(nn.Module, scripted)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, T, H, W), 0..255 -> (B, 400) logits before the softmax."""
        logits: Tensor = self.scripted(x, rescale=True, resize=True, return_features=True)
        return logits


def prepare_videogpt(frames: Frames) -> Tensor:
    """Turn one clip into (1, 3, T, 224, 224), [-1, 1]: shorter side to 224, centre crop; `InputError` if T < 9."""
    video = rgb_frames(frames, "FVD", LEAST_FRAMES)
    height, width = video.shape[2:]
    scale = SIDE / min(height, width)
    size = (SIDE, math.ceil(width * scale)) if height < width else (math.ceil(height * scale), SIDE)
    video = F.interpolate(video / 255, size, mode="bilinear", align_corners=False)
    top, left = ((side - SIDE) // 2 for side in size)
    return _channels_first(2 * video[:, :, top : top + SIDE, left : left + SIDE] - 1)


def prepare_styleganv(frames: Frames) -> Tensor:
    """Turn one clip into (1, 3, T, H, W), 0..255; `InputError` if T < 9."""
    return _channels_first(rgb_frames(frames, "FVD", LEAST_FRAMES))


def prepare_dt(frames: Frames) -> Tensor:
    """Turn one clip into (1, 3, 16, 224, 224), [-1, 1]: its first 16 frames; `InputError` if T < 16."""
    video = rgb_frames(frames, "DTFVD", DT_FRAMES)[:DT_FRAMES] / 127.5 - 1
    return _channels_first(F.interpolate(video, (SIDE, SIDE), mode="bilinear", align_corners=True))


def _channels_first(video: Tensor) -> Tensor:
    """(T, 3, H, W) -> (1, 3, T, H, W)."""
    return video.permute(1, 0, 2, 3)[None].contiguous()
