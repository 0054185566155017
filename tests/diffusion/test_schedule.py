from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from us_i2v.diffusion.prediction import diffuse
from us_i2v.diffusion.schedule import (
    SCHEDULES,
    BaseSchedule,
    Constant,
    Cosine,
    Linear,
    Rectified,
    Schedule,
    VariancePreserving,
    time_grid,
)
from us_i2v.errors import ConfigError, ScheduleError

from .gaussian import alpha_bars, generator, linear_betas

ALL = [kind() for kind in SCHEDULES.values()]
by_kind = pytest.mark.parametrize("schedule", ALL, ids=list(SCHEDULES))


def chain_times(count: int) -> torch.Tensor:
    return torch.arange(count + 1, dtype=torch.float64) / count


@by_kind
def test_contract(schedule: BaseSchedule) -> None:
    t = torch.linspace(0, 1, 2001, dtype=torch.float64)
    alpha, sigma = schedule.alpha_sigma(t)
    assert alpha[0] == 1
    assert sigma[0] == 0
    preserving = isinstance(schedule, VariancePreserving)
    kept = alpha**2 + sigma**2 if preserving else alpha + sigma
    torch.testing.assert_close(kept, torch.ones_like(t), rtol=0, atol=1e-14)
    assert bool((alpha.diff() < 0).all())
    assert bool((sigma.diff() >= 0).all())
    assert bool(alpha[-1] > 0) == preserving
    log_snr = schedule.log_snr(t)
    assert log_snr[0] == math.inf
    assert bool((log_snr.diff() < 0).all())
    torch.testing.assert_close(log_snr[1:], torch.log(alpha[1:] ** 2 / sigma[1:] ** 2), rtol=1e-9, atol=1e-9)


@by_kind
def test_dtype_and_shape_follow_t_and_float32_keeps_small_sigma(schedule: BaseSchedule) -> None:
    t = torch.tensor([[1e-6, 0.25], [0.5, 1.0]], dtype=torch.float32)
    alpha, sigma = schedule.alpha_sigma(t)
    assert alpha.dtype == sigma.dtype == torch.float32
    assert alpha.shape == t.shape
    exact = schedule.alpha_sigma(t.double())[1]
    torch.testing.assert_close(sigma.double(), exact, rtol=1e-6, atol=0)


@by_kind
def test_plain_level_equals_tensor(schedule: BaseSchedule) -> None:
    for t in (0.0, 0.013, 0.5, 1.0):
        level = schedule.at(t)
        alpha, sigma = schedule.alpha_sigma(torch.tensor(t, dtype=torch.float64))
        assert level.alpha == pytest.approx(float(alpha), rel=1e-14)
        assert level.sigma == pytest.approx(float(sigma), rel=1e-13)
        assert level.log_snr == pytest.approx(float(schedule.log_snr(torch.tensor(t, dtype=torch.float64))))


@pytest.mark.parametrize(("start", "end", "count"), [(1e-4, 0.02, 1000), (0.002, 0.35, 50), (0.1, 0.1, 7)])
def test_linear_equals_ddpm_product(start: float, end: float, count: int) -> None:
    schedule = Linear(beta_start=start, beta_end=end, timesteps=count)
    expected = torch.tensor(alpha_bars(linear_betas(start, end, count)), dtype=torch.float64)
    alpha, sigma = schedule.alpha_sigma(chain_times(count))
    torch.testing.assert_close(alpha**2, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(sigma**2, 1 - expected, rtol=1e-9, atol=1e-15)


def test_linear_default_end_point() -> None:
    product = float(np.prod(1 - np.linspace(1e-4, 0.02, 1000)))
    assert Linear().at(1.0).alpha ** 2 == pytest.approx(product, rel=1e-12)
    assert product == pytest.approx(4.04e-5, rel=1e-2)


def test_linear_is_smooth_between_knots() -> None:
    # Half-way values follow the parabola through three neighbouring knots to ten digits.
    schedule = Linear()
    i = torch.arange(1, 999, dtype=torch.float64)
    left, knot, right = (schedule.log_alpha_bar((i + d) / 1000) for d in (-1, 0, 1))
    middle = schedule.log_alpha_bar((i + 0.5) / 1000)
    torch.testing.assert_close(middle, -left / 8 + 3 * knot / 4 + 3 * right / 8, rtol=0, atol=1e-8)


def test_constant_equals_power() -> None:
    schedule = Constant(beta=0.03, timesteps=40)
    alpha, _ = schedule.alpha_sigma(chain_times(40))
    torch.testing.assert_close(alpha**2, 0.97 ** torch.arange(41, dtype=torch.float64), rtol=1e-12, atol=0)


@pytest.mark.parametrize("count", [20, 1000])
def test_cosine_equals_clamped_betas(count: int) -> None:
    def f(i: int) -> float:
        return math.cos((i / count + 0.008) / 1.008 * math.pi / 2) ** 2

    betas = [min(1 - f(i) / f(i - 1), 0.999) for i in range(1, count + 1)]
    assert betas[-1] == 0.999
    assert max(betas[:-1]) < 0.999
    expected = torch.tensor(alpha_bars(betas), dtype=torch.float64)
    alpha, _ = Cosine(timesteps=count).alpha_sigma(chain_times(count))
    torch.testing.assert_close(alpha**2, expected, rtol=1e-9, atol=0)


@by_kind
def test_forward_moments(schedule: BaseSchedule) -> None:
    mu, s, n = 0.7, 0.4, 200_000
    g = generator(5)
    for t in (0.05, 0.4, 0.9):
        x0 = mu + s * torch.randn(n, 1, generator=g, dtype=torch.float64)
        eps = torch.randn(n, 1, generator=g, dtype=torch.float64)
        alpha, sigma = schedule.alpha_sigma(torch.full((n,), t, dtype=torch.float64))
        x_t = diffuse(x0, eps, alpha, sigma)
        level = schedule.at(t)
        variance = (level.alpha * s) ** 2 + level.sigma**2
        assert abs(float(x_t.mean()) - level.alpha * mu) < 4 * math.sqrt(variance / n)
        assert abs(float(x_t.var()) - variance) < 4 * variance * math.sqrt(2 / n)


@by_kind
@pytest.mark.parametrize("bad", [-0.01, 1.001, math.nan])
def test_bad_time_is_named(schedule: BaseSchedule, bad: float) -> None:
    with pytest.raises(ScheduleError, match=f"{bad:g} is outside"):
        schedule.alpha_sigma(torch.tensor([0.5, bad]))
    with pytest.raises(ScheduleError):
        schedule.at(bad)


def test_integer_time_is_refused() -> None:
    with pytest.raises(ScheduleError, match="floating point"):
        Linear().alpha_sigma(torch.tensor([1]))


def test_config_round_trip_and_errors() -> None:
    adapter: TypeAdapter[Schedule] = TypeAdapter(Schedule)
    for schedule in ALL:
        assert adapter.validate_json(schedule.dump()) == schedule
    with pytest.raises(ConfigError, match="beta_end"):
        Linear.parse({"beta_start": 0.1, "beta_end": 0.01})
    with pytest.raises(ConfigError, match="beta"):
        Constant.parse({"beta": 0.0})


def test_training_times_are_the_chain() -> None:
    schedule = Constant(timesteps=4)
    u = torch.tensor([0.0, 0.2499, 0.25, 0.5, 0.9999])
    assert schedule.training_times(u).tolist() == [0.25, 0.25, 0.5, 0.75, 1.0]


def test_straight_path_by_hand() -> None:
    level = Rectified().at(0.25)
    assert (level.alpha, level.sigma) == (0.75, 0.25)
    assert level.log_snr == pytest.approx(2 * math.log(3), rel=1e-15)
    assert Rectified().at(1.0).log_snr == -math.inf


def test_logit_normal_times() -> None:
    """Quantiles of the normal law, stated from tables: 0.8413 is 1 standard deviation, 0.9772 is 2."""
    schedule = Rectified(mean=0.5, sd=2.0)
    u = torch.tensor([0.5, 0.841344746, 0.158655254, 0.977249868], dtype=torch.float64)
    logits = [0.5, 2.5, -1.5, 4.5]
    expected = torch.tensor([1 / (1 + math.exp(-x)) for x in logits], dtype=torch.float64)
    torch.testing.assert_close(schedule.training_times(u), expected, rtol=1e-7, atol=0)
    uniform = torch.rand(100_000, generator=generator(3))
    t = Rectified().training_times(uniform)
    assert t.dtype == torch.float32
    logit = torch.logit(t.double())
    assert abs(float(logit.mean())) < 4 / math.sqrt(100_000)
    assert abs(float(logit.var()) - 1) < 4 * math.sqrt(2 / 100_000)
    ends = Rectified().training_times(torch.tensor([0.0, 1.0 - 2**-24]))
    assert 0 < ends[0] < 0.01
    assert 0.99 < ends[1] < 1


@by_kind
@pytest.mark.parametrize("spacing", ["uniform", "quadratic", "log_snr"])
@pytest.mark.parametrize("steps", [1, 2, 25])
def test_grid_falls_to_zero(schedule: BaseSchedule, spacing: str, steps: int) -> None:
    times = time_grid(schedule, steps, spacing)  # type: ignore[arg-type]
    assert len(times) == steps + 1
    assert times[0] == 1.0
    assert times[-1] == 0.0
    assert all(a > b for a, b in itertools.pairwise(times))


def test_log_snr_grid_is_even() -> None:
    schedule = Linear()
    times = torch.tensor(time_grid(schedule, 21, "log_snr")[:-1], dtype=torch.float64)
    steps = schedule.log_snr(times).diff()
    torch.testing.assert_close(steps, steps.mean().expand(20), rtol=1e-9, atol=0)
    assert times[-1] == 1 / 1000


def test_uniform_grid_with_t_steps_is_the_chain() -> None:
    times = time_grid(Linear(timesteps=50), 50)
    assert times == [i / 50 for i in range(50, -1, -1)]


@pytest.mark.parametrize(("steps", "start"), [(0, 1.0), (-3, 1.0), (5, 0.0), (5, 1.5)])
def test_bad_grid(steps: int, start: float) -> None:
    with pytest.raises(ScheduleError):
        time_grid(Linear(), steps, start=start)
