"""C3D: eight 3x3x3 convolutions, five max-poolings and three linear layers, no norms.

Channels 64, 128, 256 256, 512 512, 512 512; poolings halve space and, but for the first, time; the last one pads
space, so that 112 x 112 x 16 ends as 512 channels of 4 x 4 x 1 = 8192 numbers; then 4096, 4096, K.
Source: Tran et al. 2015, Figure 3.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from us_i2v.models.blocks import Conv3d
from us_i2v.models.classifiers.base import Classifier, ClassifierConfig, scaled

SIZE = 112
_STAGES = (
    (("1a", 64),),
    (("2a", 128),),
    (("3a", 256), ("3b", 256)),
    (("4a", 512), ("4b", 512)),
    (("5a", 512), ("5b", 512)),
)
_HIDDEN = 4096
_DROPOUT = 0.5


class C3D(Classifier):
    """See the module's head; the number of linear weights follows the size of the frames."""

    last_layer = "fc8"

    def __init__(self, config: ClassifierConfig, n_classes: int, size: int = SIZE) -> None:
        super().__init__(config, n_classes, size)
        channels = 3
        for stage in _STAGES:
            for name, width in stage:
                out = scaled(width, config.width)
                self.add_module(f"conv{name}", Conv3d(channels, out, 3, padding=1))
                channels = out
        side = size // 16 // 2 + 1
        hidden = scaled(_HIDDEN, config.width)
        self.fc6 = nn.Linear(channels * (config.n_frames // 16) * side * side, hidden)
        self.fc7 = nn.Linear(hidden, hidden)
        self.fc8 = nn.Linear(hidden, n_classes)
        self.dropout = nn.Dropout(_DROPOUT if config.dropout is None else config.dropout)
        for module in self.modules():
            if isinstance(module, nn.Conv3d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.normal_(self.fc8.weight, std=0.01)

    def logits(self, video: Tensor) -> Tensor:
        """See `Classifier.logits`."""
        x = video
        for number, stage in enumerate(_STAGES):
            for name, _ in stage:
                x = F.relu(self.get_submodule(f"conv{name}")(x))
            step = (1, 2, 2) if number == 0 else (2, 2, 2)
            x = F.max_pool3d(x, step, step, (0, 1, 1) if number == len(_STAGES) - 1 else 0)
        x = self.dropout(F.relu(self.fc6(x.flatten(1))))
        x = self.dropout(F.relu(self.fc7(x)))
        out: Tensor = self.fc8(x)
        return out
