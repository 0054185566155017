from __future__ import annotations

import pytest
import torch
from torch import Tensor

from us_i2v.diffusion.guidance import ClassifierFreeGuidance
from us_i2v.diffusion.prediction import to_x0
from us_i2v.diffusion.samplers import DDIM
from us_i2v.diffusion.sampling import sample
from us_i2v.diffusion.schedule import Linear

from .gaussian import IdealDenoiser


def cond(x: Tensor, t: Tensor) -> Tensor:
    return 3 * x


def uncond(x: Tensor, t: Tensor) -> Tensor:
    return x + 1


def refuse(x: Tensor, t: Tensor) -> Tensor:
    raise AssertionError("not to be evaluated")


@pytest.mark.parametrize(("scale", "expected"), [(0.0, 3.0), (1.0, 6.0), (2.5, 10.5), (-1.0, 0.0)])
def test_formula(scale: float, expected: float) -> None:
    guided = ClassifierFreeGuidance(cond, uncond, scale)
    assert guided(torch.tensor([2.0]), torch.tensor([0.5])).item() == expected


def test_only_the_needed_network_runs() -> None:
    x, t = torch.ones(1), torch.ones(1)
    assert ClassifierFreeGuidance(cond, refuse, 1.0)(x, t).item() == 3.0
    assert ClassifierFreeGuidance(refuse, uncond, 0.0)(x, t).item() == 2.0


def test_same_x0_in_every_prediction() -> None:
    schedule, level = Linear(), Linear().at(0.4)
    x, t = torch.tensor([[0.3], [-1.2]], dtype=torch.float64), torch.full((2,), 0.4, dtype=torch.float64)
    guided_x0 = []
    for prediction in ("eps", "v", "x0"):
        a = IdealDenoiser(schedule, prediction, mu=1.0)  # type: ignore[arg-type]
        b = IdealDenoiser(schedule, prediction, mu=-0.5)  # type: ignore[arg-type]
        output = ClassifierFreeGuidance(a, b, 3.0)(x, t)
        guided_x0.append(to_x0(prediction, output, x, level.alpha, level.sigma))  # type: ignore[arg-type]
    torch.testing.assert_close(guided_x0[0], guided_x0[1])
    torch.testing.assert_close(guided_x0[0], guided_x0[2])


def test_guidance_moves_samples_beyond_the_condition() -> None:
    schedule = Linear()
    noise = torch.linspace(-2, 2, 9, dtype=torch.float64).reshape(9, 1)
    a, b = IdealDenoiser(schedule, mu=1.0), IdealDenoiser(schedule, mu=0.0)
    means = [
        sample(ClassifierFreeGuidance(a, b, scale), schedule, "x0", DDIM(), noise, 50).mean().item()
        for scale in (0.0, 1.0, 2.0)
    ]
    assert means[0] < means[1] < means[2]
    assert means[2] == pytest.approx(2.0, abs=0.05)
