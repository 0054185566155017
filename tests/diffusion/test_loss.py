from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import Tensor

from us_i2v.diffusion.loss import denoising_loss, min_snr_weight
from us_i2v.diffusion.prediction import Prediction, target
from us_i2v.diffusion.schedule import Cosine, Linear
from us_i2v.errors import ScheduleError

from .gaussian import generator

every = pytest.mark.parametrize("prediction", get_args(Prediction))


def draws(batch: int) -> tuple[Tensor, Tensor, Tensor]:
    g = generator(3)
    return (
        torch.randn(batch, 2, 3, generator=g, dtype=torch.float64),
        torch.randn(batch, 2, 3, generator=g, dtype=torch.float64),
        torch.rand(batch, generator=g, dtype=torch.float64),
    )


@every
def test_perfect_network_has_no_loss_and_offset_has_its_square(prediction: Prediction) -> None:
    x0, eps, t = draws(4)
    schedule = Cosine()
    alpha, sigma = schedule.alpha_sigma(t)
    right = target(prediction, x0, eps, alpha, sigma)
    offset = torch.tensor([0.0, 1.0, 2.0, 3.0], dtype=torch.float64).reshape(4, 1, 1)
    loss = denoising_loss(lambda x, time: right + offset, schedule, prediction, x0, eps, t)
    torch.testing.assert_close(loss, torch.tensor([0.0, 1.0, 4.0, 9.0], dtype=torch.float64))


def test_equation_3_by_hand() -> None:
    x0, eps, t = draws(3)
    schedule = Linear()
    seen: list[tuple[Tensor, Tensor]] = []

    def network(x_t: Tensor, time: Tensor) -> Tensor:
        seen.append((x_t, time))
        return torch.zeros_like(x_t)

    loss = denoising_loss(network, schedule, "eps", x0, eps, t)
    torch.testing.assert_close(loss, eps.square().mean((1, 2)))
    for b in range(3):
        level = schedule.at(float(t[b]))
        torch.testing.assert_close(seen[0][0][b], level.alpha * x0[b] + level.sigma * eps[b])
    assert torch.equal(seen[0][1], t)


def test_gradient_reaches_the_network_and_bfloat16_is_summed_in_float32() -> None:
    x0, eps, t = (value.float() for value in draws(2))
    weight = torch.tensor(0.5, requires_grad=True)
    loss = denoising_loss(lambda x, time: weight * x, Linear(), "v", x0, eps, t)
    loss.mean().backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    assert weight.grad.abs() > 0
    half = denoising_loss(lambda x, time: x.bfloat16(), Linear(), "v", x0.bfloat16(), eps.bfloat16(), t)
    assert half.dtype == torch.float32


def test_shapes_are_checked() -> None:
    x0, eps, t = draws(2)
    with pytest.raises(ScheduleError, match="do not match"):
        denoising_loss(lambda x, time: x, Linear(), "eps", x0, eps[:1], t)
    with pytest.raises(ScheduleError, match="do not match"):
        denoising_loss(lambda x, time: x, Linear(), "eps", x0, eps, t[:1])


@every
@pytest.mark.parametrize("gamma", [1.0, 5.0])
def test_min_snr_weights_in_plain_floats(prediction: Prediction, gamma: float) -> None:
    """Hang 2023: the error of x0 counts min(SNR, gamma) times, whatever the network predicts."""
    schedule = Linear() if prediction != "velocity" else Cosine()
    for t in (0.001, 0.05, 0.2, 0.5, 0.9, 1.0):
        level = schedule.at(t)
        snr = level.alpha**2 / level.sigma**2
        per_x0 = {  # (error of the output / error of x0)^2
            "x0": 1.0,
            "eps": level.alpha**2 / level.sigma**2,
            "v": 1 / level.sigma**2,
            "velocity": (level.alpha + level.sigma) ** 2 / level.sigma**2,
        }[prediction]
        log_snr = torch.tensor(level.log_snr, dtype=torch.float64)
        weight = min_snr_weight(prediction, log_snr, gamma).item()
        assert weight * per_x0 == pytest.approx(min(snr, gamma), rel=1e-12)


@every
def test_min_snr_weights_of_clean_data_are_finite(prediction: Prediction) -> None:
    weight = min_snr_weight(prediction, torch.tensor([torch.inf]), 5.0).item()
    assert weight == (5.0 if prediction == "x0" else 0.0)


@every
def test_min_snr_scales_each_samples_loss(prediction: Prediction) -> None:
    x0, eps, t = draws(4)
    schedule = Cosine()
    plain = denoising_loss(lambda x, time: 0.3 * x, schedule, prediction, x0, eps, t)
    weighted = denoising_loss(lambda x, time: 0.3 * x, schedule, prediction, x0, eps, t, min_snr=5.0)
    torch.testing.assert_close(weighted, plain * min_snr_weight(prediction, schedule.log_snr(t), 5.0))
    assert not torch.allclose(weighted, plain)
