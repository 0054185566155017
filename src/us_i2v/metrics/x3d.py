"""X3D-XS (Kinetics-400) as a feature extractor for clips: FVD-X3D's features.

FVD-X3D is a Frechet distance (see `frechet`) of `pool432`: 432 channels after the last convolution,
averaged over time and space. Never call it FVD, which is defined on I3D. All frames of a clip are
used; gray is repeated to three channels; frames go to 112 x 112 (bilinear, half-pixel centres, no
antialiasing) and then to (x - 0.45) / 0.225 with x in 0..1.

Network: a stem (1x3x3 in space, then 5x1x1 channel-wise in time), four stages of inverted bottlenecks
with 3x3x3 channel-wise convolutions, every other one with squeeze-and-excitation, halving H and W per
stage and keeping T. Batch norms are folded into the convolutions. Source: Feichtenhofer 2020, table 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from us_i2v.metrics.embedding import embed, rgb_frames
from us_i2v.metrics.pretrained import fill, load_verified
from us_i2v.types import Frames

SIDE = 112
FEATURES = 432
STAGES = ((24, 54, 3), (48, 108, 5), (96, 216, 11), (192, 432, 7))
"""(output channels, inner channels, number of blocks) of each stage."""


class Block(nn.Module):
    """Inverted bottleneck: widen, filter channel-wise in 3x3x3, weigh the channels, narrow, add.

    The parameter names (a, b, se, c, sc) are those of the weights file.
    """

    def __init__(self, channels: int, inner: int, out: int, stride: int, squeeze: bool) -> None:
        super().__init__()
        self.a = nn.Conv3d(channels, inner, 1)
        self.b = nn.Conv3d(inner, inner, 3, stride=(1, stride, stride), padding=1, groups=inner)
        self.c = nn.Conv3d(inner, out, 1)
        self.se: nn.ModuleList | None = None
        if squeeze:
            narrow = max(8, (inner // 16 + 7) // 8 * 8)  # A sixteenth, rounded up to a multiple of 8.
            self.se = nn.ModuleList([nn.Conv3d(inner, narrow, 1), nn.Conv3d(narrow, inner, 1)])
        reshapes = channels != out or stride != 1
        self.sc = nn.Conv3d(channels, out, 1, stride=(1, stride, stride)) if reshapes else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, T, H, W) -> (B, out, T, H/stride, W/stride)."""
        inner: Tensor = self.b(F.relu(self.a(x)))
        if self.se is not None:
            pooled = inner.mean((2, 3, 4), keepdim=True)
            inner = inner * torch.sigmoid(self.se[1](F.relu(self.se[0](pooled))))
        shortcut = x if self.sc is None else self.sc(x)
        return F.relu(self.c(F.silu(inner)) + shortcut)


class X3DXS(nn.Module):
    """The network up to `pool432` and its 400-class head; weights are frozen."""

    def __init__(self) -> None:
        super().__init__()
        width = STAGES[0][0]
        self.stem_xy = nn.Conv3d(3, width, (1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1), bias=False)
        self.stem_t = nn.Conv3d(width, width, (5, 1, 1), padding=(2, 0, 0), groups=width)
        blocks = []
        for out, inner, count in STAGES:
            for index in range(count):
                first = index == 0
                blocks.append(Block(width, inner, out, stride=2 if first else 1, squeeze=index % 2 == 0))
                width = out
        self.blocks = nn.Sequential(*blocks)
        self.conv5 = nn.Conv3d(width, FEATURES, 1)
        self.lin5 = nn.Conv3d(FEATURES, 2048, 1, bias=False)
        self.proj = nn.Linear(2048, 400)
        self.requires_grad_(False)
        self.eval()

    @classmethod
    def load(cls, path: Path) -> X3DXS:
        """Build the network from verified weights at `path` (file or folder); raises `WeightsError`."""
        return fill(cls(), load_verified("x3d-xs", path), path)

    def pool432(self, x: Tensor) -> Tensor:
        """(B, 3, T, H, W), standardised -> (B, 432)."""
        x = F.relu(self.stem_t(self.stem_xy(x)))
        return F.relu(self.conv5(self.blocks(x))).mean((2, 3, 4))

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, T, H, W), standardised -> (B, 400) Kinetics logits."""
        pooled = self.pool432(x)[:, :, None, None, None]
        logits: Tensor = self.proj(F.relu(self.lin5(pooled)).flatten(1))
        return logits


def prepare(frames: Frames) -> Tensor:
    """Turn one clip, uint8 (T, H, W) or (T, H, W, 3), into X3D's input (1, 3, T, 112, 112).

    Raises:
        InputError: If the array is not such a clip.
    """
    video = rgb_frames(frames, "FVD-X3D")
    video = F.interpolate(video, (SIDE, SIDE), mode="bilinear", align_corners=False)
    return ((video / 255 - 0.45) / 0.225).permute(1, 0, 2, 3)[None]


def x3d_features(network: X3DXS, clips: Sequence[Frames], *, batch: int | None = None) -> npt.NDArray[np.float64]:
    """Return `pool432` of each clip, float64 (N, 432); clips may differ in shape (`batch`: see `embedding`)."""
    device = network.proj.weight.device
    return embed((prepare(clip) for clip in clips), network.pool432, device, FEATURES, batch)
