"""Exchange of speckle as an envelope: closed forms against drawn phasors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from us_i2v.models.envelope import LOG_DEVIATION, LOG_MEAN, exchange, log_correlation, phasor_correlation

N = 400_000


def phasors(seed: int) -> torch.Tensor:
    """Complex Gaussians of mean square 1 as (1, 2, 1, 1, N), real and imaginary part of unit variance each."""
    return torch.randn((1, 2, 1, 1, N), generator=torch.Generator().manual_seed(seed))


def log_magnitude(z: torch.Tensor) -> torch.Tensor:
    return (z.square().sum(dim=1, keepdim=True) / 2).log() / 2


def test_logarithm_of_speckle_has_the_stated_mean_and_deviation():
    values = log_magnitude(phasors(1))
    assert float(values.mean()) == pytest.approx(LOG_MEAN, abs=0.005)
    assert float(values.std()) == pytest.approx(LOG_DEVIATION, abs=0.005)
    assert 20 * math.log10(math.e) * LOG_DEVIATION == pytest.approx(5.57, abs=0.005)


@pytest.mark.parametrize("rho", [0.0, 0.3, 0.6, 0.9, 0.99])
def test_correlation_of_logarithms(rho):
    first = phasors(2)
    second = rho * first + math.sqrt(1 - rho**2) * phasors(3)
    pair = torch.stack([log_magnitude(first).flatten(), log_magnitude(second).flatten()])
    assert float(torch.corrcoef(pair)[0, 1]) == pytest.approx(float(log_correlation(np.array(rho))), abs=0.006)


def test_phasor_correlation_is_its_inverse():
    rho = np.linspace(0, 1, 333)
    back = phasor_correlation(torch.from_numpy(log_correlation(rho)).float())
    assert np.abs(back.numpy() - rho).max() < 2e-3
    assert float(phasor_correlation(torch.tensor(1.0))) == 1.0
    assert float(phasor_correlation(torch.tensor(0.0))) == 0.0


@pytest.mark.parametrize("correlation", [0.0, 0.25, 0.7])
def test_exchange_keeps_the_distribution_and_gives_the_asked_correlation(correlation):
    unit = torch.full((1, 1, 1, 1, N), 0.05)
    fine = unit * (log_magnitude(phasors(4)) - LOG_MEAN)
    rho = phasor_correlation(torch.full_like(unit, correlation))
    changed = exchange(fine, phasors(5), rho, unit)
    assert float(changed.mean()) == pytest.approx(0, abs=0.0005)
    assert float(changed.std() / fine.std()) == pytest.approx(1, abs=0.01)
    third = [float((x / x.std()).pow(3).mean()) for x in (fine, changed)]
    assert third[1] == pytest.approx(third[0], abs=0.05)
    assert float(torch.corrcoef(torch.stack([fine.flatten(), changed.flatten()]))[0, 1]) == pytest.approx(
        correlation, abs=0.01
    )


def test_full_correlation_keeps_every_pixel_and_bright_structures_stay():
    unit = torch.full((1, 1, 1, 1, N), 0.05)
    fine = unit * (log_magnitude(phasors(6)) - LOG_MEAN)
    assert torch.equal(exchange(fine, phasors(7), torch.ones_like(unit), unit), fine)
    half = torch.full_like(unit, 0.7)
    bright = torch.full_like(unit, 0.05 * 4)  # e^4 times the speckle around it
    change = exchange(bright, phasors(8), half, unit) - bright
    assert float(change.mean()) == pytest.approx(0.05 * math.log(0.7), rel=0.01)
    assert float(change.std()) < 0.02 * 0.05
