"""The weight average, against its recursion in plain floats."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from us_i2v.training.ema import EMA


class Scalar(nn.Module):
    """One weight, one buffer of floats and one of integers."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([value]))
        self.register_buffer("running", torch.tensor([value]))
        self.register_buffer("count", torch.tensor([0]))


def set_values(module: Scalar, value: float, count: int) -> None:
    with torch.no_grad():
        module.weight.fill_(value)
        module.running.fill_(10 * value)
        module.count.fill_(count)


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.999])
def test_recursion_with_warm_up(decay: float) -> None:
    module = Scalar(2.0)
    ema = EMA(module, decay)
    weight, running = 2.0, 2.0
    for step, value in enumerate([1.0, -3.0, 5.0, 0.5], start=1):
        set_values(module, value, step)
        ema.update(module, step)
        kept = min(decay, (1 + step) / (10 + step))
        weight = kept * weight + (1 - kept) * value
        running = kept * running + (1 - kept) * 10 * value
        assert float(ema.module.weight) == pytest.approx(weight, rel=1e-5)
        assert float(ema.module.running) == pytest.approx(running, rel=1e-5)
        assert int(ema.module.count) == step


def test_late_steps_use_the_full_decay() -> None:
    module = Scalar(0.0)
    ema = EMA(module, 0.9)
    set_values(module, 1.0, 0)
    ema.update(module, 10_000)
    assert float(ema.module.weight) == pytest.approx(0.1, rel=1e-5)


def test_the_shadow_is_a_copy_that_is_not_trained() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)).train()
    ema = EMA(module, 0.9)
    before = ema.module[0].weight.clone()
    with torch.no_grad():
        module[0].weight.add_(1)
    assert torch.equal(ema.module[0].weight, before)
    assert not any(parameter.requires_grad for parameter in ema.module.parameters())
    assert not ema.module.training
    assert module.training
    assert all(parameter.requires_grad for parameter in module.parameters())
