"""The only sampling loop: from noise at t = 1 down to a clean sample at t = 0.

Times fall along `schedule.time_grid`; at each the network is evaluated once, its output is turned
into a clean sample, and the sampler takes one step; a sampler that looks ahead evaluates it once more, elsewhere.
The last step returns the clean sample itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from us_i2v.diffusion.prediction import Denoiser, Prediction, to_x0
from us_i2v.diffusion.samplers.base import History, Sampler
from us_i2v.diffusion.schedule import BaseSchedule, Spacing, time_grid
from us_i2v.errors import ScheduleError
from us_i2v.seeding import Seed, per_sample_noise

StepNoise = Callable[[int], Tensor]
"""Noise of one step: (index of the step from 0) -> standard normal tensor of x's shape."""

Progress = Callable[[int, int], None]
"""Called after each step with (steps done, steps in all)."""


@torch.no_grad()
def sample(
    model: Denoiser,
    schedule: BaseSchedule,
    prediction: Prediction,
    sampler: Sampler,
    noise: Tensor,
    steps: int,
    *,
    step_noise: StepNoise | Sequence[Seed] | None = None,
    progress: Progress | None = None,
    clip_x0: float | None = None,
    spacing: Spacing = "uniform",
    start: float = 1.0,
) -> Tensor:
    """Return clean samples.

    Args:
        model: (x_t (B, ...), t (B,)) -> output of x_t's shape, its conditions bound.
        schedule: Noise schedule that the network was trained with.
        prediction: What the network's output means.
        sampler: Config object of the method.
        noise: (B, ...), the start x at time `start`: standard normal at 1.
        steps: Steps, >= 1: network evaluations, unless the sampler looks ahead (Heun: 2 steps - 1).
        step_noise: Noise of a stochastic sampler: one seed a sample (a sample does not depend on
            its neighbours in the batch, nor on the device), or a callable.
        progress: Called after each step.
        clip_x0: Bound on |x0| at each step, for data of a known range; None does not clip.
        spacing: How the times lie, see `time_grid`.
        start: First time; below 1 for a partly noised start.

    Returns:
        x at t = 0, shape and dtype of `noise`.

    Raises:
        ScheduleError: If steps, start, bound or seeds are out of range, or a random sampler has no noise.
    """
    if clip_x0 is not None and not clip_x0 > 0.0:
        raise ScheduleError(f"clip_x0 is {clip_x0:g}, a positive bound is needed.", "Use None to switch clipping off.")
    times = time_grid(schedule, steps, spacing, start)
    draw = _noise_source(step_noise, noise) if sampler.stochastic else None
    time_type = torch.promote_types(noise.dtype, torch.float32)  # bfloat16 cannot tell t = 0.997 from 1.

    def predict(x: Tensor, t: float) -> Tensor:
        level = schedule.at(t)
        output = model(x, torch.full(x.shape[:1], t, dtype=time_type, device=x.device)).to(x.dtype)
        x0 = to_x0(prediction, output, x, level.alpha, level.sigma)
        return x0 if clip_x0 is None else x0.clamp(-clip_x0, clip_x0)

    x = noise
    history: History | None = None
    for index, (t, s) in enumerate(pairwise(times)):
        x0 = predict(x, t)
        fresh = None if draw is None else draw(index).to(x)
        x, history = sampler.step(schedule, x, x0, t, s, fresh, history, predict)
        if progress is not None:
            progress(index + 1, steps)
    return x


def _noise_source(step_noise: StepNoise | Sequence[Seed] | None, like: Tensor) -> StepNoise | None:
    """Turn seeds into a callable; each sample and step has a stream of its own."""
    if step_noise is None or callable(step_noise):
        return step_noise
    seeds = step_noise
    if len(seeds) != like.shape[0]:
        raise ScheduleError(
            f"{len(seeds)} seeds were given for a batch of {like.shape[0]} samples.",
            "Give one seed a sample.",
        )
    return lambda index: per_sample_noise(seeds, tuple(like.shape[1:]), "sampler-step", index)
