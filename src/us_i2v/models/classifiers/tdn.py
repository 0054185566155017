"""TDN-ResNet50: temporal differences between neighbouring frames and between segments.

Every segment gives five frames I_-2 .. I_2; on short clips the five of one segment overlap with the next one's.

Short term (after max-pooling and after stage 1): a narrow branch sees the differences D = [I_-1 - I_-2, I_0 - I_-1,
I_1 - I_0, I_2 - I_1] at half the size, and is mixed into the branch that sees I_0:

    x <- (x + up(h)) / 2,    h = pool(conv(D)), then stage1'(h)

Long term (in every block of stages 2 to 4, between its first and second convolution), with features F_i reduced to a
sixteenth of the channels, in both directions of time:

    C(F_i, F_j) = conv(F_j) - F_i,    M = sigmoid(bn(conv(mean over scales of C))) - 1/2
    x_i <- x_i + x_i (M(F_i, F_i+1) + M(F_i, F_i-1)) / 2

where scales are C itself, a 3x3 convolution of it, and one of it at half the size; beyond the ends C is 0. Then a
learned three-tap filter in time, a channel each, that starts as TSM's shift.

Source: Wang et al. 2021 (TDN), Eq. 2-7. From the published code come what the paper leaves open: the 1/2 that is
taken off, the filter in time, biases before batch norms (27,968 numbers). It feeds the backward direction's
full-size scale with the forward one's result; here each direction has its own, as in Eq. 6.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from us_i2v.models.classifiers.base import Classifier, ClassifierConfig, average_segments, scaled, segment_starts
from us_i2v.models.classifiers.resnet import BLOCKS, EXPANSION, PLANES, Bottleneck, Stage, initialise
from us_i2v.models.classifiers.tsm import SHARE

SIZE = 224
SNIPPET = 5
"""Frames that a segment gives."""
REDUCTION = 16
_DROPOUT = 0.5


def snippets(video: Tensor, segments: int) -> Tensor:
    """(B, 3, T, S, S) -> five neighbouring frames from the middle of each segment: (B*segments, 5, 3, S, S)."""
    starts = segment_starts(video.shape[2], segments, SNIPPET)
    frames = [video[:, :, start : start + SNIPPET].transpose(1, 2) for start in starts]
    return torch.stack(frames, 1).flatten(0, 1)


def frame_differences(five: Tensor) -> Tensor:
    """(N, 5, 3, S, S) -> the four differences to the frame before, (N, 12, S, S)."""
    return (five[:, 1:] - five[:, :-1]).flatten(1, 2)


class LongTerm(nn.Module):
    """The long-term module; names of parts are the published ones."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow = max(1, channels // REDUCTION)
        self.conv1 = nn.Conv2d(channels, narrow, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(narrow)
        self.conv2 = nn.Conv2d(narrow, narrow, 3, padding=1, groups=narrow, bias=False)
        self.conv3 = nn.Conv2d(narrow, channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)
        self.conv3_smallscale2 = nn.Conv2d(narrow, narrow, 3, padding=1, bias=False)
        self.bn3_smallscale2 = nn.BatchNorm2d(narrow)
        self.conv3_smallscale4 = nn.Conv2d(narrow, narrow, 3, padding=1, bias=False)
        self.bn3_smallscale4 = nn.BatchNorm2d(narrow)

    def differences(self, x: Tensor, frames: int) -> tuple[Tensor, Tensor]:
        """(B*T, C, H, W) -> C(F_t, F_t+1) and C(F_t, F_t-1), each (B*T, C/16, H, W), 0 beyond the ends."""
        narrow = self.bn1(self.conv1(x))
        f = narrow.reshape(-1, frames, *narrow.shape[1:])
        g = self.conv2(narrow).reshape(f.shape)
        nothing = torch.zeros_like(f[:, :1])
        ahead = torch.cat([g[:, 1:] - f[:, :-1], nothing], 1)
        behind = torch.cat([nothing, g[:, :-1] - f[:, 1:]], 1)
        return ahead.flatten(0, 1), behind.flatten(0, 1)

    def attention(self, difference: Tensor) -> Tensor:
        """(N, C/16, H, W) -> M in -1/2 .. 1/2, (N, C, H, W)."""
        half = self.bn3_smallscale2(self.conv3_smallscale2(F.avg_pool2d(difference, 2)))
        full = self.bn3_smallscale4(self.conv3_smallscale4(difference))
        mixed = (difference + F.interpolate(half, difference.shape[-2:]) + full) / 3
        return torch.sigmoid(self.bn3(self.conv3(mixed))) - 0.5

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """(B*T, C, H, W), T = frames -> same."""
        ahead, behind = self.differences(x, frames)
        return x + x * (self.attention(ahead) + self.attention(behind)) / 2


class TimeFilter(nn.Module):
    """A three-tap filter in time for each channel, zeros beyond the ends; starts as TSM's shift."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, channels, 3, padding=1, groups=channels, bias=False)
        part = channels // SHARE
        with torch.no_grad():
            self.conv.weight.zero_()
            self.conv.weight[:part, 0, 2] = 1
            self.conv.weight[part : 2 * part, 0, 0] = 1
            self.conv.weight[2 * part :, 0, 1] = 1

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """(B*T, C, H, W), T = frames -> same."""
        taps = self.conv.weight[:, 0].to(x.dtype)[:, :, None, None]
        video = F.pad(x.reshape(-1, frames, *x.shape[1:]), (0, 0, 0, 0, 0, 0, 1, 1))
        before, here, after = (video[:, k : k + frames] * taps[:, k] for k in range(3))
        return (before + here + after).reshape(x.shape)


class DifferenceBottleneck(Bottleneck):
    """A block with the long-term module."""

    def __init__(self, c_in: int, planes: int, stride: int = 1, *, bias: bool = False) -> None:
        super().__init__(c_in, planes, stride, bias=bias)
        self.mse = LongTerm(planes)
        self.shift = TimeFilter(planes)

    def second(self, x: Tensor, frames: int) -> Tensor:
        """See `Bottleneck.second`."""
        y: Tensor = self.shift(self.mse(x, frames), frames)
        return y


class TDN(Classifier):
    """See the module's head."""

    def __init__(self, config: ClassifierConfig, n_classes: int, size: int = SIZE) -> None:
        super().__init__(config, n_classes, size)
        stem, *_ = planes = [scaled(p, config.width) for p in PLANES]
        self.conv1 = nn.Conv2d(3, stem, 7, stride=2, padding=3, bias=True)
        self.bn1 = nn.BatchNorm2d(stem)
        self.conv_diff = nn.Conv2d(3 * (SNIPPET - 1), stem, 7, stride=2, padding=3, bias=False)
        self.bn_diff = nn.BatchNorm2d(stem)
        self.layer1_diff = Stage(Bottleneck, stem, stem, BLOCKS[0], 1, bias=True)
        channels = stem
        for number, (p, count) in enumerate(zip(planes, BLOCKS, strict=True)):
            block = Bottleneck if number == 0 else DifferenceBottleneck
            stage = Stage(block, channels, p, count, 1 if number == 0 else 2, bias=True)
            self.add_module(f"layer{number + 1}", stage)
            channels = EXPANSION * p
        self.dropout = nn.Dropout(_DROPOUT if config.dropout is None else config.dropout)
        self.fc = nn.Linear(channels, n_classes)
        initialise(self)

    def short_term(self, five: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 5, 3, S, S) -> h at 1/8 of the size after pooling, and after its stage 1."""
        difference = F.avg_pool2d(frame_differences(five), 2)
        pooled = F.max_pool2d(F.relu(self.bn_diff(self.conv_diff(difference))), 3, stride=2, padding=1)
        return pooled, self.layer1_diff(pooled, 1)

    def logits(self, video: Tensor) -> Tensor:
        """See `Classifier.logits`."""
        frames = self.config.segments
        five = snippets(video, frames)
        pooled, staged = self.short_term(five)
        x = F.relu(self.bn1(self.conv1(five[:, SNIPPET // 2])))
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        x = 0.5 * x + 0.5 * F.interpolate(pooled, x.shape[-2:])
        x = self.get_submodule("layer1")(x, frames)
        x = 0.5 * x + 0.5 * F.interpolate(staged, x.shape[-2:])
        for number in range(1, len(BLOCKS)):
            x = self.get_submodule(f"layer{number + 1}")(x, frames)
        return average_segments(self.fc(self.dropout(x.mean((2, 3)))), frames)
