"""Shortcut models: what is drawn, what is aimed at, and a two-mode latent on which few steps suffice."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from us_i2v.diffusion.loss import denoising_loss
from us_i2v.diffusion.samplers import Euler, Heun
from us_i2v.diffusion.sampling import sample
from us_i2v.diffusion.schedule import Rectified
from us_i2v.diffusion.shortcut import Shortcut, consistent_velocity, shortcut_loss
from us_i2v.errors import ScheduleError
from us_i2v.weights import ProcessConfig

from .gaussian import generator


def test_sizes() -> None:
    shortcut = Shortcut(steps=8)
    assert shortcut.known == (1, 2, 4, 8)
    assert [shortcut.size(n) for n in shortcut.known] == [1.0, 0.5, 0.25, 0.0]
    for steps in (3, 16, 0):
        with pytest.raises(ScheduleError, match="1, 2, 4, 8"):
            shortcut.size(steps)
    with pytest.raises(ValidationError, match="power of two"):
        Shortcut(steps=48)


@pytest.mark.parametrize(("share", "batch", "expected"), [(0.25, 16, 4), (0.25, 2, 1), (0.9, 4, 3), (0.01, 16, 1)])
def test_both_objectives_have_samples(share: float, batch: int, expected: int) -> None:
    assert Shortcut(share=share).rows(batch) == expected


def test_drawn_steps_lie_on_the_chain_of_their_size() -> None:
    shortcut = Shortcut(steps=8)
    t, size = shortcut.draw(torch.rand((2, 30_000), generator=generator(1)))
    assert t.dtype == size.dtype == torch.float32
    assert set(size.tolist()) == {1.0, 0.5, 0.25}
    for each in (1.0, 0.5, 0.25):
        drawn = t[size == each]
        assert abs(len(drawn) / 30_000 - 1 / 3) < 0.02
        places, counts = drawn.unique(return_counts=True)
        assert places.tolist() == [each * k for k in range(1, round(1 / each) + 1)]
        assert counts.min() > 0.9 * counts.max()
    ends, _ = shortcut.draw(torch.tensor([[0.0, 0.9999999], [0.0, 0.9999999]]))
    assert ends.tolist() == [1.0, 1.0]


def test_the_aim_is_the_mean_of_two_half_steps_by_hand() -> None:
    """Network 2 x + t + 10 d: at x = 1, t = 0.5, step 0.5, so two halves of 0.25, in plain floats."""
    seen: list[tuple[float, float]] = []
    weight = torch.tensor(2.0, requires_grad=True)

    def network(x: Tensor, t: Tensor, size: Tensor, rows: Tensor) -> Tensor:
        assert rows.tolist() == [3]
        seen.append((float(t), float(size)))
        return weight * x + t[:, None] + 10 * size[:, None]

    x, t, size, rows = torch.tensor([[1.0]]), torch.tensor([0.5]), torch.tensor([0.5]), torch.tensor([3])
    first = 2 * 1.0 + 0.5 + 2.5
    second = 2 * (1.0 - 0.25 * first) + 0.25 + 2.5
    aim = consistent_velocity(network, 8, x, t, size, rows)
    assert aim.item() == pytest.approx((first + second) / 2)
    assert seen == [(0.5, 0.25), (0.25, 0.25)]
    assert not aim.requires_grad
    seen.clear()
    consistent_velocity(network, 4, x, t, size, rows)  # halves of the finest size are infinitesimal
    assert seen == [(0.5, 0.0), (0.25, 0.0)]


def test_samples_without_a_size_learn_flow_matching() -> None:
    x0, eps = (torch.randn(6, 3, generator=generator(k)) for k in (1, 2))
    t, size = torch.tensor([1.0, 0.5, 0.3, 0.2, 0.8, 0.7]), torch.tensor([1.0, 0.5, 0.0, 0.0, 0.0, 0.0])

    def network(x: Tensor, t: Tensor, size: Tensor, rows: Tensor) -> Tensor:
        return torch.sin(x) * t[:, None] + size[:, None] + rows[:, None] / 10

    losses = shortcut_loss(network, Shortcut(), x0, eps, t, size)
    bias = torch.arange(6)[:, None] / 10
    plain = denoising_loss(lambda x, t: torch.sin(x) * t[:, None] + bias, Rectified(), "velocity", x0, eps, t)
    torch.testing.assert_close(losses[2:], plain[2:])
    assert not torch.allclose(losses[:2], plain[:2], rtol=0.05)


def test_a_network_that_is_consistent_has_no_shortcut_loss() -> None:
    """Data at one point: every path is straight, so that the velocity (x - point) / t serves every step size."""
    eps = torch.randn(5, 2, generator=generator(3), dtype=torch.float64)
    t, size = torch.tensor([1.0, 0.5, 0.75, 0.25, 1.0]), torch.tensor([1.0, 0.25, 0.25, 0.125, 0.5])
    losses = shortcut_loss(lambda x, t, d, rows: (x - 0.7) / t[:, None], Shortcut(), 0 * eps + 0.7, eps, t, size)
    assert float(losses.max()) < 1e-12


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"schedule": {"kind": "rectified"}}, "'velocity' or 'x0', not 'v'"),
        ({"schedule": {"kind": "rectified"}, "prediction": "velocity", "min_snr": 5.0}, "min_snr does not fit"),
        ({"shortcut": {}}, "needs schedule 'rectified'"),
        ({"schedule": {"kind": "rectified"}, "prediction": "x0", "shortcut": {}}, "prediction 'velocity'"),
    ],
)
def test_processes_that_do_not_fit_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ProcessConfig.model_validate(values)


def test_an_unused_option_is_not_written() -> None:
    """Files and runs of DDPM are what they were before the options existed."""
    assert set(ProcessConfig().model_dump(mode="json")) == {"schedule", "prediction"}
    chosen = ProcessConfig(schedule=Rectified(), prediction="velocity", shortcut=Shortcut(steps=16))
    assert ProcessConfig.model_validate_json(chosen.model_dump_json()) == chosen


class Tiny(nn.Module):
    """Velocity of a plane's points: (x, t, halvings of the step) -> two layers -> u."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(7, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 2))

    def forward(self, x: Tensor, t: Tensor, size: Tensor, rows: Tensor) -> Tensor:
        there = (size > 0).float()
        halvings = -torch.log2(torch.where(size > 0, size, 1.0)) * there
        wave = torch.stack([t, torch.sin(3 * t), torch.cos(3 * t), there, halvings / 3], dim=1)
        out: Tensor = self.layers(torch.cat([x, wave], dim=1))
        return out


def two_modes(count: int, g: torch.Generator) -> Tensor:
    """Narrow modes at (-1.5, 0.5) and (1.5, -0.5)."""
    side = torch.randint(2, (count, 1), generator=g) * 2.0 - 1.0
    return side * torch.tensor([1.5, -0.5]) + 0.2 * torch.randn(count, 2, generator=g)


def fit(network: Tiny, steps: int, shortcut: Shortcut | None, seed: int) -> None:
    g = generator(seed)
    batch = 256
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 3e-3 * 0.5 * (1 + math.cos(math.pi * step / steps))
        x0, eps = two_modes(batch, g), torch.randn(batch, 2, generator=g)
        t, size = Rectified().training_times(torch.rand(batch, generator=g)), torch.zeros(batch)
        if shortcut is not None:
            count = shortcut.rows(batch)
            t[:count], size[:count] = shortcut.draw(torch.rand((2, count), generator=g))
        loss = shortcut_loss(network, shortcut or Shortcut(), x0, eps, t, size).mean()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()


def drawn(network: Tiny, sampler: Euler | Heun, steps: int, size: float, noise: Tensor) -> Tensor:
    def model(x: Tensor, t: Tensor) -> Tensor:
        out: Tensor = network(x, t, torch.full_like(t, size), torch.arange(len(t)))
        return out

    return sample(model, Rectified(), "velocity", sampler, noise, steps)


def test_few_shortcut_steps_end_where_many_plain_ones_do() -> None:
    """Two modes: one plain step ends at the mean of both. Root mean square distance from 64 steps of Heun."""
    torch.manual_seed(0)
    network = Tiny()
    fit(network, 500, None, seed=1)
    noise = torch.randn(512, 2, generator=generator(5))

    def off(size_of: Shortcut | None, steps: int) -> float:
        exact = drawn(network, Heun(), 64, 0.0, noise)
        few = drawn(network, Euler(), steps, 0.0 if size_of is None else size_of.size(steps), noise)
        return float((few - exact).square().sum(1).mean().sqrt())

    plain = {steps: off(None, steps) for steps in (1, 2, 4)}
    shortcut = Shortcut(steps=32, share=0.5)
    fit(network, 700, shortcut, seed=2)
    quick = {steps: off(shortcut, steps) for steps in (1, 2, 4)}
    again = {steps: off(None, steps) for steps in (1, 2, 4)}
    for steps, share in ((1, 0.5), (2, 0.7), (4, 0.85)):
        # Stating the size is what helps: without it, the same network is as far off as before.
        assert quick[steps] < share * min(plain[steps], again[steps]), (steps, plain, quick, again)
    exact = drawn(network, Heun(), 64, 0.0, noise)
    assert 0.35 < float((exact[:, 0] > 0).float().mean()) < 0.65
    assert float(exact[:, 0].abs().mean()) == pytest.approx(1.5, abs=0.15)
