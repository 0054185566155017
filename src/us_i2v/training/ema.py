"""Exponential moving average of weights."""

from __future__ import annotations

import copy

import torch
from torch import nn


class EMA:
    """A shadow copy of a module: shadow = decay * shadow + (1 - decay) * weights.

    The decay warms up as min(decay, (1 + step) / (10 + step)), so that short runs are not stuck at their start.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.module = copy.deepcopy(module).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Move the shadow towards `module` after optimiser step `step` (1-based)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for shadow, weight in zip(self.module.state_dict().values(), module.state_dict().values(), strict=True):
            if shadow.dtype.is_floating_point:
                shadow.lerp_(weight.detach(), 1 - decay)
            else:
                shadow.copy_(weight)
