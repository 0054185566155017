"""TSM-ResNet50: a 2-D ResNet whose blocks see a little of the frames before and after.

In the branch of every block, before its first convolution, an eighth of the channels is taken from the next frame
and an eighth from the frame before; beyond the ends are zeros:

    y[t, c] = x[t + 1, c]  for c < C/8,    x[t - 1, c]  for C/8 <= c < C/4,    x[t, c]  else

No parameters, no arithmetic. The window's segments give a frame each; their logits are averaged.
Source: Lin et al. 2019 (offline, bi-directional, residual shift).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from us_i2v.models.classifiers.base import Classifier, ClassifierConfig, average_segments, scaled, take_segments
from us_i2v.models.classifiers.resnet import BLOCKS, EXPANSION, PLANES, Bottleneck, Stage, initialise

SIZE = 224
SHARE = 8
"""One channel in this many goes each way."""
_DROPOUT = 0.5


def temporal_shift(x: Tensor, frames: int, share: int = SHARE) -> Tensor:
    """Shift channels in time: (B*T, C, H, W), T = frames -> same; see the module's head."""
    bt, c, h, w = x.shape
    video = x.reshape(bt // frames, frames, c, h, w)
    part = c // share
    ahead, behind, rest = video[:, :, :part], video[:, :, part : 2 * part], video[:, :, 2 * part :]
    nothing = torch.zeros_like(ahead[:, :1])
    parts = [torch.cat([ahead[:, 1:], nothing], 1), torch.cat([nothing, behind[:, :-1]], 1), rest]
    return torch.cat(parts, 2).reshape(bt, c, h, w)


class ShiftBottleneck(Bottleneck):
    """A block whose branch begins with the shift."""

    def first(self, x: Tensor, frames: int) -> Tensor:
        """See `Bottleneck.first`."""
        return temporal_shift(x, frames)


class TSM(Classifier):
    """See the module's head."""

    def __init__(self, config: ClassifierConfig, n_classes: int, size: int = SIZE) -> None:
        super().__init__(config, n_classes, size)
        stem, *_ = planes = [scaled(p, config.width) for p in PLANES]
        self.conv1 = nn.Conv2d(3, stem, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        channels = stem
        for number, (p, count) in enumerate(zip(planes, BLOCKS, strict=True)):
            self.add_module(f"layer{number + 1}", Stage(ShiftBottleneck, channels, p, count, 1 if number == 0 else 2))
            channels = EXPANSION * p
        self.dropout = nn.Dropout(_DROPOUT if config.dropout is None else config.dropout)
        self.fc = nn.Linear(channels, n_classes)
        initialise(self)

    def logits(self, video: Tensor) -> Tensor:
        """See `Classifier.logits`."""
        frames = self.config.segments
        x = F.relu(self.bn1(self.conv1(take_segments(video, frames))))
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        for number in range(len(BLOCKS)):
            x = self.get_submodule(f"layer{number + 1}")(x, frames)
        return average_segments(self.fc(self.dropout(x.mean((2, 3)))), frames)
