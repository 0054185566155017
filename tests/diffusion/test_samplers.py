"""Each sampler against its own chain in plain floats, and against the exact ODE solution."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor

from us_i2v.diffusion.prediction import Prediction
from us_i2v.diffusion.samplers import DDIM, DDPM, SAMPLERS, AnySampler, DPMSolver, Euler, Heun, History, Sampler
from us_i2v.diffusion.sampling import sample
from us_i2v.diffusion.schedule import SCHEDULES, BaseSchedule, Cosine, Linear, Rectified, time_grid
from us_i2v.errors import ScheduleError

from .gaussian import IdealDenoiser, alpha_bars, generator, linear_betas

VARIANTS: dict[str, Sampler] = {
    **{kind: sampler() for kind, sampler in SAMPLERS.items()},
    "ddpm-large": DDPM(variance="large"),
    "ddim-half": DDIM(eta=0.5),
    "ddim-full": DDIM(eta=1.0),
}
DETERMINISTIC = {kind: sampler for kind, sampler in VARIANTS.items() if not sampler.stochastic}
deterministic_samplers = pytest.mark.parametrize("sampler", DETERMINISTIC.values(), ids=list(DETERMINISTIC))
all_samplers = pytest.mark.parametrize("sampler", VARIANTS.values(), ids=list(VARIANTS))
all_schedules = pytest.mark.parametrize("schedule", [kind() for kind in SCHEDULES.values()], ids=list(SCHEDULES))

STEPS = 40
BETAS = linear_betas(0.002, 0.3, STEPS)
CHAIN = Linear(beta_start=0.002, beta_end=0.3, timesteps=STEPS)


def plain_moments(variance: str, eta: float | None) -> tuple[float, float]:
    """Mean and variance that the discrete chain ends with, from the published update rules."""
    ab = alpha_bars(BETAS)
    model = IdealDenoiser(CHAIN)
    mean, var = 0.0, 1.0
    for i in range(STEPS, 0, -1):
        beta, signal, noise = BETAS[i - 1], math.sqrt(ab[i]), math.sqrt(1 - ab[i])
        a, b = model.gain(signal, noise)  # x0 = a x + b
        e, f = (1 - signal * a) / noise, -signal * b / noise  # eps = e x + f
        if eta is None:  # Ho 2020, algorithm 2
            slope = (1 - beta / noise * e) / math.sqrt(1 - beta)
            offset = -beta / noise * f / math.sqrt(1 - beta)
            added = beta if variance == "large" else beta * (1 - ab[i - 1]) / (1 - ab[i])
            added = added if i > 1 else 0.0
        else:  # Song 2021, Eq. 12
            added = eta**2 * (1 - ab[i - 1]) / (1 - ab[i]) * (1 - ab[i] / ab[i - 1])
            direction = math.sqrt(1 - ab[i - 1] - added)
            slope = math.sqrt(ab[i - 1]) * a + direction * e
            offset = math.sqrt(ab[i - 1]) * b + direction * f
        mean, var = slope * mean + offset, slope**2 * var + added
    return mean, var


@pytest.mark.parametrize(
    ("sampler", "variance", "eta"),
    [
        (DDPM(), "small", None),
        (DDPM(variance="large"), "large", None),
        (DDIM(eta=0.0), "", 0.0),
        (DDIM(eta=0.5), "", 0.5),
        (DDIM(eta=1.0), "", 1.0),
    ],
)
@pytest.mark.parametrize("prediction", ["eps", "v", "x0"])
def test_moments_equal_the_plain_chain(sampler: Sampler, variance: str, eta: float | None, prediction: str) -> None:
    n = 40_000
    g = generator(11)
    noise = torch.randn(n, 1, generator=g, dtype=torch.float64)
    out = sample(
        IdealDenoiser(CHAIN, prediction),  # type: ignore[arg-type]
        CHAIN,
        prediction,  # type: ignore[arg-type]
        sampler,
        noise,
        STEPS,
        step_noise=lambda index: torch.randn(n, 1, generator=g, dtype=torch.float64),
    )
    mean, var = plain_moments(variance, eta)
    assert abs(float(out.mean()) - mean) < 4 * math.sqrt(var / n)
    assert abs(float(out.var()) - var) < 4 * var * math.sqrt(2 / n)


def test_the_moment_test_can_tell_variances_apart() -> None:
    small, large = plain_moments("small", None)[1], plain_moments("large", None)[1]
    assert abs(large - small) > 8 * small * math.sqrt(2 / 40_000)


def test_dpm_solver_equals_the_plain_recursion() -> None:
    schedule, steps = Cosine(), 12
    model = IdealDenoiser(schedule)
    levels = [schedule.at(t) for t in time_grid(schedule, steps)]
    half = [level.log_snr / 2 for level in levels]
    slope, offset, before = 1.0, 0.0, None
    for i in range(steps):
        a, b = model.gain(levels[i].alpha, levels[i].sigma)
        now = (a * slope, a * offset + b)  # x0 as an affine function of the first noise
        if i == steps - 1:
            slope, offset = now
            break
        h, d = half[i + 1] - half[i], now
        if before is not None:
            r = (half[i] - half[i - 1]) / h
            d = tuple((1 + 0.5 / r) * p - 0.5 / r * q for p, q in zip(now, before, strict=True))  # type: ignore[assignment]
        keep, add = levels[i + 1].sigma / levels[i].sigma, -levels[i + 1].alpha * math.expm1(-h)
        slope, offset, before = keep * slope + add * d[0], keep * offset + add * d[1], now
    noise = torch.linspace(-3, 3, 13, dtype=torch.float64).reshape(13, 1)
    out = sample(model, schedule, "x0", DPMSolver(), noise, steps)
    torch.testing.assert_close(out, slope * noise + offset, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("sampler", "spacing"), [(Euler(), "uniform"), (Heun(), "uniform"), (Heun(), "quadratic")])
@pytest.mark.parametrize("prediction", ["velocity", "x0"])
def test_flow_matching_equals_the_plain_recursion(sampler: Sampler, spacing: str, prediction: str) -> None:
    """x is an affine function of the first noise all along; u = (x - x0) / t on the straight path."""
    steps, mu, s2 = 7, 0.7, 0.16
    times = [((steps - i) / steps) ** (2 if spacing == "quadratic" else 1) for i in range(steps + 1)]

    def velocity(x: tuple[float, float], t: float) -> tuple[float, float]:
        a = s2 * (1 - t) / ((1 - t) ** 2 * s2 + t**2)
        b = mu * (1 - a * (1 - t))
        return (x[0] - a * x[0]) / t, (x[1] - a * x[1] - b) / t

    x = (1.0, 0.0)
    for t, s in itertools.pairwise(times):
        u = velocity(x, t)
        if isinstance(sampler, Heun) and s > 0:
            ahead = velocity((x[0] + (s - t) * u[0], x[1] + (s - t) * u[1]), s)
            u = ((u[0] + ahead[0]) / 2, (u[1] + ahead[1]) / 2)
        x = (x[0] + (s - t) * u[0], x[1] + (s - t) * u[1])
    noise = torch.linspace(-3, 3, 13, dtype=torch.float64).reshape(13, 1)
    model = IdealDenoiser(Rectified(), prediction)  # type: ignore[arg-type]
    out = sample(model, Rectified(), prediction, sampler, noise, steps, spacing=spacing)  # type: ignore[arg-type]
    torch.testing.assert_close(out, x[0] * noise + x[1], rtol=0, atol=1e-12)


@all_schedules
def test_euler_is_ddim_in_other_coordinates(schedule: BaseSchedule) -> None:
    x, x0 = (torch.randn(3, 2, generator=generator(seed), dtype=torch.float64) for seed in (6, 7))
    for t, s in ((1.0, 0.7), (0.6, 0.2), (0.1, 0.001), (0.2, 0.0)):
        a, _ = Euler().step(schedule, x, x0, t, s)
        b, _ = DDIM().step(schedule, x, x0, t, s)
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def ode_error(sampler: Sampler, schedule: BaseSchedule, steps: int, start: float, end: float) -> float:
    model = IdealDenoiser(schedule)
    first = torch.linspace(-2, 3, 11, dtype=torch.float64).reshape(11, 1)
    x, history = first, None
    times = [start + (end - start) * i / steps for i in range(steps + 1)]

    def predict(x: Tensor, t: float) -> Tensor:
        return model(x, torch.full((11,), t, dtype=torch.float64))

    for t, s in itertools.pairwise(times):
        x, history = sampler.step(schedule, x, predict(x, t), t, s, None, history, predict)
    return float((x - model.transport(first, start, end)).abs().max())


@all_schedules
@deterministic_samplers
def test_declared_order_of_convergence(sampler: Sampler, schedule: BaseSchedule) -> None:
    errors = [ode_error(sampler, schedule, steps, 0.9, 0.1) for steps in (80, 160, 320, 640)]
    orders = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert orders[-1] == pytest.approx(sampler.order, abs=0.12), (errors, orders)
    assert errors[-1] < 0.02


@all_schedules
def test_second_order_beats_first_at_equal_steps(schedule: BaseSchedule) -> None:
    first, *second = (ode_error(sampler, schedule, 20, 0.9, 0.1) for sampler in (DDIM(), DPMSolver(), Heun()))
    assert max(second) < first / 3


@all_schedules
@deterministic_samplers
def test_whole_run_reaches_the_data(sampler: Sampler, schedule: BaseSchedule) -> None:
    prediction: Prediction = "velocity" if isinstance(schedule, Rectified) else "v"
    model = IdealDenoiser(schedule, prediction)
    noise = torch.linspace(-2, 2, 9, dtype=torch.float64).reshape(9, 1)
    # Quadratic spacing: the constant schedule's sigma grows as sqrt(10 t), too fast for even steps near 0.
    out = sample(model, schedule, prediction, sampler, noise, 200, spacing="quadratic")
    torch.testing.assert_close(out, model.transport(noise, 1.0, 0.0), rtol=0, atol=0.02)


@all_schedules
def test_full_eta_is_ancestral_sampling(schedule: BaseSchedule) -> None:
    g = generator(2)
    x, x0, noise = (torch.randn(3, 2, generator=g, dtype=torch.float64) for _ in range(3))
    for t, s in ((1.0, 0.9), (0.5, 0.2), (0.1, 0.001)):
        a, _ = DDIM(eta=1.0).step(schedule, x, x0, t, s, noise)
        b, _ = DDPM(variance="small").step(schedule, x, x0, t, s, noise)
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_ddpm_step_by_hand() -> None:
    # T = 2, betas 0.2 and 0.5: alpha_bar = 0.8, 0.4; posterior of x_1 given x_2 and x_0.
    schedule = Linear(beta_start=0.2, beta_end=0.5, timesteps=2)
    x, x0 = torch.tensor([[1.0]], dtype=torch.float64), torch.tensor([[2.0]], dtype=torch.float64)
    noise = torch.tensor([[3.0]], dtype=torch.float64)
    mean = math.sqrt(0.8) * 0.5 / 0.6 * 2.0 + math.sqrt(0.5) * 0.2 / 0.6 * 1.0
    for variance, expected in (("small", 0.2 / 0.6 * 0.5), ("large", 0.5)):
        out, _ = DDPM(variance=variance).step(schedule, x, x0, 1.0, 0.5, noise)  # type: ignore[arg-type]
        assert out.item() == pytest.approx(mean + 3.0 * math.sqrt(expected), rel=1e-12)


def halved(x: Tensor, t: float) -> Tensor:
    return 0.5 * x - t


@all_samplers
@all_schedules
def test_contract_step(sampler: Sampler, schedule: BaseSchedule) -> None:
    g = generator(4)
    for dtype in (torch.float32, torch.float64):
        x, x0, noise, old = (torch.randn(2, 3, 4, generator=g, dtype=dtype) for _ in range(4))
        copies = [value.clone() for value in (x, x0, noise, old)]
        history = History(old, schedule.at(0.7).log_snr)
        out, _ = sampler.step(schedule, x, x0, 0.6, 0.5, noise, history, halved)
        assert out.shape == x.shape
        assert out.dtype == dtype
        assert bool(torch.isfinite(out).all())
        assert all(torch.equal(a, b) for a, b in zip(copies, (x, x0, noise, old), strict=True))
        again, _ = sampler.step(schedule, x, x0, 0.6, 0.5, noise, history, halved)
        assert torch.equal(out, again)
        last, _ = sampler.step(schedule, x, x0, 0.1, 0.0, noise, history, halved)
        assert torch.equal(last, x0)


@all_samplers
@all_schedules
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_contract_one_point_data_is_hit_exactly(sampler: Sampler, schedule: BaseSchedule, steps: int) -> None:
    point = torch.tensor([[0.25, -1.5]]).expand(3, 2)

    def model(x: Tensor, t: Tensor) -> Tensor:
        return point

    noise = torch.randn(3, 2, generator=generator(9))
    assert torch.equal(sample(model, schedule, "x0", sampler, noise, steps, step_noise=[1, 2, 3]), point)


@all_samplers
@pytest.mark.parametrize(("t", "s"), [(0.5, 0.5), (0.4, 0.5), (0.5, -0.1), (1.2, 0.5), (0.5, math.nan)])
def test_contract_bad_times(sampler: Sampler, t: float, s: float) -> None:
    x = torch.zeros(1, 1)
    with pytest.raises(ScheduleError):
        sampler.step(Linear(), x, x, t, s, x, None, halved)


@all_samplers
def test_contract_missing_noise(sampler: Sampler) -> None:
    x = torch.zeros(1, 1)
    if sampler.stochastic:
        with pytest.raises(ScheduleError, match="no noise"):
            sampler.step(Linear(), x, x, 0.5, 0.4, predict=halved)
    else:
        sampler.step(Linear(), x, x, 0.5, 0.4, predict=halved)


@all_samplers
def test_contract_missing_network(sampler: Sampler) -> None:
    x = torch.zeros(1, 1)
    if sampler.looks_ahead:
        with pytest.raises(ScheduleError, match="no network"):
            sampler.step(Linear(), x, x, 0.5, 0.4, x)
    else:
        sampler.step(Linear(), x, x, 0.5, 0.4, x)


def test_config_round_trip() -> None:
    adapter: TypeAdapter[AnySampler] = TypeAdapter(AnySampler)
    for sampler in VARIANTS.values():
        assert adapter.validate_json(sampler.dump()) == sampler
    assert all(kind == sampler().kind for kind, sampler in SAMPLERS.items())
