"""ResNet-50 over folded frames, the backbone of TSM and TDN; parameter names are torchvision's.

Bottleneck: 1x1 to p channels, 3x3 (with the stride), 1x1 to 4p, each with batch norm, and a shortcut. Stages of 3, 4,
6 and 3 blocks with p = 64, 128, 256, 512. Source: He et al. 2016, Table 1; the stride in the 3x3 convolution as in
torchvision ("v1.5"). Frames are folded into the batch: (B*T, C, H, W).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

EXPANSION = 4
BLOCKS = (3, 4, 6, 3)
PLANES = (64, 128, 256, 512)


class Bottleneck(nn.Module):
    """A block; subclasses mix frames in `first` or `second`.

    Args:
        c_in: Channels of the input.
        planes: p; the output has 4p channels.
        stride: Of the 3x3 convolution.
        bias: Whether convolutions have biases (which the batch norm behind them cancels in training).
    """

    def __init__(self, c_in: int, planes: int, stride: int = 1, *, bias: bool = False) -> None:
        super().__init__()
        out = EXPANSION * planes
        self.conv1 = nn.Conv2d(c_in, planes, 1, bias=bias)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride=stride, padding=1, bias=bias)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, out, 1, bias=bias)
        self.bn3 = nn.BatchNorm2d(out)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or c_in != out:
            self.downsample = nn.Sequential(nn.Conv2d(c_in, out, 1, stride=stride, bias=bias), nn.BatchNorm2d(out))

    def first(self, x: Tensor, frames: int) -> Tensor:
        """What is done to the branch's input; T = frames."""
        return x

    def second(self, x: Tensor, frames: int) -> Tensor:
        """What is done to the branch between its first and second convolution."""
        return x

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """(B*T, C_in, H, W) -> (B*T, 4p, H/stride, W/stride)."""
        y = F.relu(self.bn1(self.conv1(self.first(x, frames))))
        y = F.relu(self.bn2(self.conv2(self.second(y, frames))))
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class Stage(nn.ModuleList):
    """Blocks one after the other; the first one has the stride."""

    def __init__(
        self, block: type[Bottleneck], c_in: int, planes: int, count: int, stride: int, *, bias: bool = False
    ) -> None:
        widths = [c_in] + [EXPANSION * planes] * (count - 1)
        strides = [stride] + [1] * (count - 1)
        super().__init__(block(c, planes, s, bias=bias) for c, s in zip(widths, strides, strict=True))

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """(B*T, C_in, H, W) -> (B*T, 4p, H/stride, W/stride)."""
        for block in self:
            x = block(x, frames)
        return x


def initialise(module: nn.Module) -> None:
    """Draw convolutions from N(0, 2 / fan-out), biases 0; batch norms start as they are."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
