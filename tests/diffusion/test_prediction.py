from __future__ import annotations

from typing import get_args

import pytest
import torch

from us_i2v.diffusion.prediction import Prediction, diffuse, target, to_eps, to_x0
from us_i2v.diffusion.schedule import Linear, Rectified

from .gaussian import generator

every = pytest.mark.parametrize("prediction", get_args(Prediction))


@every
def test_round_trip(prediction: Prediction) -> None:
    g = generator(1)
    x0, eps = (torch.randn(6, 2, 3, 4, generator=g, dtype=torch.float64) for _ in range(2))
    alpha, sigma = Linear().alpha_sigma(torch.tensor([0.001, 0.1, 0.3, 0.5, 0.8, 1.0], dtype=torch.float64))
    x_t = diffuse(x0, eps, alpha, sigma)
    output = target(prediction, x0, eps, alpha, sigma)
    torch.testing.assert_close(to_x0(prediction, output, x_t, alpha, sigma), x0, rtol=0, atol=1e-12)
    torch.testing.assert_close(to_eps(prediction, output, x_t, alpha, sigma), eps, rtol=0, atol=1e-12)


def test_v_by_hand() -> None:
    # alpha = 0.6, sigma = 0.8: v = 0.6 * 2 - 0.8 * 3 = -1.2
    x0, eps = torch.tensor([[3.0]]), torch.tensor([[2.0]])
    assert target("v", x0, eps, 0.6, 0.8).item() == pytest.approx(-1.2)
    x_t = diffuse(x0, eps, 0.6, 0.8)
    assert x_t.item() == pytest.approx(3.4)
    assert to_x0("v", torch.tensor([[-1.2]]), x_t, 0.6, 0.8).item() == pytest.approx(3.0)


def test_velocity_by_hand() -> None:
    # On the straight path, t = 0.25: x = 0.75 * 3 + 0.25 * 2 = 2.75, u = 2 - 3 = -1.
    x0, eps = torch.tensor([[3.0]]), torch.tensor([[2.0]])
    level = Rectified().at(0.25)
    assert target("velocity", x0, eps, level.alpha, level.sigma).item() == -1.0
    x_t = diffuse(x0, eps, level.alpha, level.sigma)
    assert x_t.item() == 2.75
    assert to_x0("velocity", torch.tensor([[-1.0]]), x_t, level.alpha, level.sigma).item() == 3.0
    assert to_eps("velocity", torch.tensor([[-1.0]]), x_t, level.alpha, level.sigma).item() == 2.0


@every
def test_finite_at_both_ends(prediction: Prediction) -> None:
    x, output = torch.ones(1, 2), torch.full((1, 2), 0.5)
    for alpha, sigma in ((1.0, 0.0), (0.0, 1.0)):
        assert bool(torch.isfinite(to_x0(prediction, output, x, alpha, sigma)).all())
        assert bool(torch.isfinite(to_eps(prediction, output, x, alpha, sigma)).all())
