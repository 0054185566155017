"""Inception v3 as FID uses it: 2048 features of each frame.

FID's network is TensorFlow's of 2015-12-05, not torchvision's: 1008 outputs, average pooling within the blocks
that leaves padded places out of the mean, and in the very last block max-pooling in its place (a slip in the
original graph that every FID carries). Names of modules are those of the published port (pytorch-fid's
pt_inception-2015-12-05). Frames are gray x3 or RGB, resized to 299 x 299 (bilinear, half-pixel centres, no
antialiasing, as pytorch-fid does) and scaled to [-1, 1]. Source: Szegedy 2016; Heusel 2017.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from us_i2v.metrics.embedding import rgb_frames
from us_i2v.types import Frames

SIDE = 299
FEATURES = 2048
CLASSES = 1008
_FRAMES_AT_ONCE = 16


class BasicConv2d(nn.Module):
    """Convolution without bias, batch norm, ReLU; odd kernels of stride 1 keep the size if `padded`."""

    def __init__(self, channels: int, width: int, kernel: tuple[int, int], stride: int = 1, padded: bool = True):
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2) if padded else (0, 0)
        self.conv = nn.Conv2d(channels, width, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(width, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> (B, width, H', W')."""
        return F.relu(self.bn(self.conv(x)))


def average_pool(x: Tensor) -> Tensor:
    """3x3 mean of stride 1 over the places that lie within the picture; same size."""
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


def max_pool(x: Tensor) -> Tensor:
    """3x3 maximum of stride 1; same size."""
    return F.max_pool2d(x, 3, stride=1, padding=1)


_ONE, _THREE, _FIVE, _WIDE, _TALL = (1, 1), (3, 3), (5, 5), (1, 7), (7, 1)


class BlockA(nn.Module):
    """35 x 35: 1x1; 1x1, 5x5; 1x1, 3x3, 3x3; pooling, 1x1."""

    def __init__(self, channels: int, pooled: int) -> None:
        super().__init__()
        self.branch1x1 = BasicConv2d(channels, 64, _ONE)
        self.branch5x5_1 = BasicConv2d(channels, 48, _ONE)
        self.branch5x5_2 = BasicConv2d(48, 64, _FIVE)
        self.branch3x3dbl_1 = BasicConv2d(channels, 64, _ONE)
        self.branch3x3dbl_2 = BasicConv2d(64, 96, _THREE)
        self.branch3x3dbl_3 = BasicConv2d(96, 96, _THREE)
        self.branch_pool = BasicConv2d(channels, pooled, _ONE)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> (B, 224 + pooled, H, W)."""
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        five = self.branch5x5_2(self.branch5x5_1(x))
        return torch.cat([self.branch1x1(x), five, double, self.branch_pool(average_pool(x))], 1)


class BlockB(nn.Module):
    """35 x 35 -> 17 x 17: 3x3 /2; 1x1, 3x3, 3x3 /2; max-pooling /2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch3x3 = BasicConv2d(channels, 384, _THREE, 2, padded=False)
        self.branch3x3dbl_1 = BasicConv2d(channels, 64, _ONE)
        self.branch3x3dbl_2 = BasicConv2d(64, 96, _THREE)
        self.branch3x3dbl_3 = BasicConv2d(96, 96, _THREE, 2, padded=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> (B, 480 + channels, (H - 1) / 2, ...)."""
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, F.max_pool2d(x, 3, 2)], 1)


class BlockC(nn.Module):
    """17 x 17: 1x1; 1x1, 1x7, 7x1; 1x1 and two such pairs; pooling, 1x1."""

    def __init__(self, inner: int) -> None:
        super().__init__()
        self.branch1x1 = BasicConv2d(768, 192, _ONE)
        self.branch7x7_1 = BasicConv2d(768, inner, _ONE)
        self.branch7x7_2 = BasicConv2d(inner, inner, _WIDE)
        self.branch7x7_3 = BasicConv2d(inner, 192, _TALL)
        self.branch7x7dbl_1 = BasicConv2d(768, inner, _ONE)
        self.branch7x7dbl_2 = BasicConv2d(inner, inner, _TALL)
        self.branch7x7dbl_3 = BasicConv2d(inner, inner, _WIDE)
        self.branch7x7dbl_4 = BasicConv2d(inner, inner, _TALL)
        self.branch7x7dbl_5 = BasicConv2d(inner, 192, _WIDE)
        self.branch_pool = BasicConv2d(768, 192, _ONE)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 768, H, W) -> (B, 768, H, W)."""
        single = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), single, double, self.branch_pool(average_pool(x))], 1)


class BlockD(nn.Module):
    """17 x 17 -> 8 x 8: 1x1, 3x3 /2; 1x1, 1x7, 7x1, 3x3 /2; max-pooling /2."""

    def __init__(self) -> None:
        super().__init__()
        self.branch3x3_1 = BasicConv2d(768, 192, _ONE)
        self.branch3x3_2 = BasicConv2d(192, 320, _THREE, 2, padded=False)
        self.branch7x7x3_1 = BasicConv2d(768, 192, _ONE)
        self.branch7x7x3_2 = BasicConv2d(192, 192, _WIDE)
        self.branch7x7x3_3 = BasicConv2d(192, 192, _TALL)
        self.branch7x7x3_4 = BasicConv2d(192, 192, _THREE, 2, padded=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 768, H, W) -> (B, 1280, (H - 1) / 2, ...)."""
        seven = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x))))
        return torch.cat([self.branch3x3_2(self.branch3x3_1(x)), seven, F.max_pool2d(x, 3, 2)], 1)


class BlockE(nn.Module):
    """8 x 8: 1x1; 1x1 and 1x3 beside 3x1; 1x1, 3x3 and 1x3 beside 3x1; pooling, 1x1."""

    def __init__(self, channels: int, pool: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.pool = pool
        self.branch1x1 = BasicConv2d(channels, 320, _ONE)
        self.branch3x3_1 = BasicConv2d(channels, 384, _ONE)
        self.branch3x3_2a = BasicConv2d(384, 384, (1, 3))
        self.branch3x3_2b = BasicConv2d(384, 384, (3, 1))
        self.branch3x3dbl_1 = BasicConv2d(channels, 448, _ONE)
        self.branch3x3dbl_2 = BasicConv2d(448, 384, _THREE)
        self.branch3x3dbl_3a = BasicConv2d(384, 384, (1, 3))
        self.branch3x3dbl_3b = BasicConv2d(384, 384, (3, 1))
        self.branch_pool = BasicConv2d(channels, 192, _ONE)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> (B, 2048, H, W)."""
        single, double = self.branch3x3_1(x), self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        parts = [self.branch1x1(x), self.branch3x3_2a(single), self.branch3x3_2b(single)]
        parts += [self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double), self.branch_pool(self.pool(x))]
        return torch.cat(parts, 1)


class InceptionV3(nn.Module):
    """FID's network up to its 2048 features; the 1008 outputs are there for the weights' sake. Frozen."""

    def __init__(self) -> None:
        super().__init__()
        layers: dict[str, nn.Module] = {
            "Conv2d_1a_3x3": BasicConv2d(3, 32, _THREE, 2, padded=False),
            "Conv2d_2a_3x3": BasicConv2d(32, 32, _THREE, padded=False),
            "Conv2d_2b_3x3": BasicConv2d(32, 64, _THREE),
            "maxpool1": nn.MaxPool2d(3, 2),
            "Conv2d_3b_1x1": BasicConv2d(64, 80, _ONE),
            "Conv2d_4a_3x3": BasicConv2d(80, 192, _THREE, padded=False),
            "maxpool2": nn.MaxPool2d(3, 2),
            "Mixed_5b": BlockA(192, 32),
            "Mixed_5c": BlockA(256, 64),
            "Mixed_5d": BlockA(288, 64),
            "Mixed_6a": BlockB(288),
            "Mixed_6b": BlockC(128),
            "Mixed_6c": BlockC(160),
            "Mixed_6d": BlockC(160),
            "Mixed_6e": BlockC(192),
            "Mixed_7a": BlockD(),
            "Mixed_7b": BlockE(1280, average_pool),
            "Mixed_7c": BlockE(FEATURES, max_pool),
        }
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.order = tuple(layers)
        self.fc = nn.Linear(FEATURES, CLASSES)
        self.requires_grad_(False)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) in [-1, 1], at least 75 x 75 (299 for FID) -> (N, 2048); runs 16 frames at a time."""
        return torch.cat([self._features(part) for part in torch.split(x, _FRAMES_AT_ONCE)])

    def _features(self, x: Tensor) -> Tensor:
        for name in self.order:
            x = self.get_submodule(name)(x)
        return x.mean((2, 3))


def prepare(frames: Frames) -> Tensor:
    """Turn one clip, uint8 (T, H, W) or (T, H, W, 3), into (T, 3, 299, 299), [-1, 1]; `InputError` if it is none."""
    video = rgb_frames(frames, "FID") / 255
    return 2 * F.interpolate(video, (SIDE, SIDE), mode="bilinear", align_corners=False) - 1
