from __future__ import annotations

import pytest
import torch
from torch import Tensor

from us_i2v.diffusion.samplers import DDIM, DDPM, SAMPLERS, DPMSolver
from us_i2v.diffusion.sampling import sample
from us_i2v.diffusion.schedule import Cosine, Linear, Rectified, time_grid
from us_i2v.errors import ScheduleError
from us_i2v.seeding import per_sample_noise

from .gaussian import IdealDenoiser


@pytest.mark.parametrize("kind", SAMPLERS)
def test_seeds_in_a_batch_equal_single_runs(kind: str) -> None:
    schedule, sampler = Linear(), SAMPLERS[kind]()
    model = IdealDenoiser(schedule, "v")

    def run(seeds: list[int]) -> Tensor:
        noise = per_sample_noise(seeds, (2, 3), "latent")
        return sample(model, schedule, "v", sampler, noise, 6, step_noise=seeds)

    batch = run([0, 1, 2, 3])
    assert all(torch.equal(batch[i : i + 1], run([i])) for i in range(4))
    assert torch.equal(batch.flip(0), run([3, 2, 1, 0]))
    assert not torch.equal(batch[0], batch[1])


def test_steps_use_fresh_noise() -> None:
    drawn: list[Tensor] = []
    reference = [per_sample_noise([5], (4,), "sampler-step", i) for i in range(3)]

    def take(index: int) -> Tensor:
        drawn.append(reference[index])
        return reference[index]

    noise = per_sample_noise([5], (4,), "latent")
    model = IdealDenoiser(Linear())
    by_call = sample(model, Linear(), "x0", DDPM(), noise, 3, step_noise=take)
    assert len(drawn) == 3
    assert not torch.equal(drawn[0], drawn[1])
    assert torch.equal(by_call, sample(model, Linear(), "x0", DDPM(), noise, 3, step_noise=[5]))


def test_model_sees_the_grid_and_progress_counts() -> None:
    seen: list[float] = []
    done: list[tuple[int, int]] = []

    def model(x: Tensor, t: Tensor) -> Tensor:
        assert t.shape == (2,)
        assert t.dtype == torch.float32
        seen.append(float(t[0]))
        return x

    sample(model, Linear(), "eps", DDIM(), torch.zeros(2, 1), 5, progress=lambda i, n: done.append((i, n)))
    assert seen == pytest.approx(time_grid(Linear(), 5)[:-1])
    assert done == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]


@pytest.mark.parametrize(("kind", "evaluations"), [("euler", 5), ("dpm-solver", 5), ("heun", 9)])
def test_network_evaluations(kind: str, evaluations: int) -> None:
    seen: list[float] = []

    def model(x: Tensor, t: Tensor) -> Tensor:
        seen.append(float(t[0]))
        return x

    sample(model, Rectified(), "velocity", SAMPLERS[kind](), torch.zeros(2, 1), 5)
    assert len(seen) == evaluations
    assert min(seen) == pytest.approx(0.2)


def test_a_look_ahead_is_clipped_too() -> None:
    noise = torch.full((1, 1), 4.0, dtype=torch.float64)
    looks: list[float] = []

    def model(x: Tensor, t: Tensor) -> Tensor:
        looks.append(float(x))
        return torch.full_like(x, 10.0)  # a clean sample far out of the bound

    out = sample(model, Rectified(), "x0", SAMPLERS["heun"](), noise, 2, clip_x0=1.0)
    assert float(out) == 1.0
    # Half way from 4 to 1, whether the velocity is taken at the start or at the end of the step.
    assert looks == pytest.approx([4.0, 2.5, 2.5])


def test_clip_bounds_x0_at_every_step() -> None:
    noise = torch.linspace(-3, 3, 7).reshape(7, 1)
    model = IdealDenoiser(Cosine(), "eps", mu=0.0, s=2.0)
    free = sample(model, Cosine(), "eps", DPMSolver(), noise, 10)
    clipped = sample(model, Cosine(), "eps", DPMSolver(), noise, 10, clip_x0=1.0)
    assert free.abs().max() > 3
    assert clipped.abs().max() <= 1


def test_partly_noised_start() -> None:
    model = IdealDenoiser(Linear())
    x = torch.linspace(-1, 2, 5, dtype=torch.float64).reshape(5, 1)
    out = sample(model, Linear(), "x0", DDIM(), x, 400, start=0.5)
    torch.testing.assert_close(out, model.transport(x, 0.5, 0.0), rtol=0, atol=0.01)


@pytest.mark.parametrize("spacing", ["uniform", "quadratic", "log_snr", "shifted_3", "shifted_5"])
def test_every_spacing_reaches_the_data(spacing: str) -> None:
    schedule = Rectified() if spacing.startswith("shifted") else Linear()
    model = IdealDenoiser(schedule)
    noise = torch.linspace(-2, 2, 5, dtype=torch.float64).reshape(5, 1)
    out = sample(model, schedule, "x0", DPMSolver(), noise, 60, spacing=spacing)  # type: ignore[arg-type]
    torch.testing.assert_close(out, model.transport(noise, 1.0, 0.0), rtol=0, atol=0.02)


@pytest.mark.parametrize(("spacing", "shift"), [("shifted_3", 3), ("shifted_5", 5)])
def test_shifted_times_have_the_even_ones_noise_times_the_factor(spacing: str, shift: int) -> None:
    even, moved = (time_grid(Rectified(), 8, kind) for kind in ("uniform", spacing))  # type: ignore[arg-type]
    assert moved[0] == 1.0
    assert moved[-1] == 0.0
    for u, t in zip(even[1:-1], moved[1:-1], strict=True):
        assert t / (1 - t) == pytest.approx(shift * u / (1 - u))


def test_spacing_decides_how_much_spread_few_steps_keep() -> None:
    model = IdealDenoiser(Linear(), mu=0.0, s=0.3)
    noise = torch.linspace(-2, 2, 5, dtype=torch.float64).reshape(5, 1)
    exact = model.transport(noise, 1.0, 0.0).std()

    def kept(spacing: str) -> float:
        out = sample(model, Linear(), "x0", DPMSolver(), noise, 10, spacing=spacing)  # type: ignore[arg-type]
        return float(out.std() / exact)

    assert kept("uniform") < 0.7
    assert kept("quadratic") == pytest.approx(1, abs=0.05)
    assert kept("log_snr") == pytest.approx(1, abs=0.05)


def test_half_precision_stays_half_and_no_graph_is_kept() -> None:
    weight = torch.ones((), requires_grad=True)

    def model(x: Tensor, t: Tensor) -> Tensor:
        assert t.dtype == torch.float32
        return x.float() * weight

    out = sample(model, Linear(), "v", DDIM(), torch.ones(1, 2, dtype=torch.bfloat16), 3)
    assert out.dtype == torch.bfloat16
    assert not out.requires_grad


def test_errors_are_one_clear_line() -> None:
    model = IdealDenoiser(Linear())
    noise = torch.zeros(2, 1)
    with pytest.raises(ScheduleError, match="0 sampling steps"):
        sample(model, Linear(), "x0", DDIM(), noise, 0)
    with pytest.raises(ScheduleError, match="3 seeds were given for a batch of 2"):
        sample(model, Linear(), "x0", DDPM(), noise, 4, step_noise=[1, 2, 3])
    with pytest.raises(ScheduleError, match="no noise"):
        sample(model, Linear(), "x0", DDPM(), noise, 4)
    with pytest.raises(ScheduleError, match="clip_x0"):
        sample(model, Linear(), "x0", DDIM(), noise, 4, clip_x0=0.0)
