"""Euler: one straight step of the probability-flow ODE along flow matching's path.

    x_s = x_t + (s - t) u,    u = eps - x_0 = (x_t - x_0) / t        (Rectified: alpha = 1 - t, sigma = t)

Any other schedule is brought onto that path first: x / (alpha + sigma) = (1 - tau) x_0 + tau eps with
tau = sigma / (alpha + sigma). There the step is DDIM's without noise, written in other coordinates.
Source: Liu 2023, section 2; the change of coordinates: Karras 2022, Eq. 1-4.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from us_i2v.diffusion.samplers.base import CleanPrediction, History, Sampler
from us_i2v.diffusion.schedule import BaseSchedule, Level


class Euler(Sampler):
    """Euler sampler (deterministic, one network evaluation a step)."""

    kind: Literal["euler"] = "euler"
    order: ClassVar[int] = 1

    @property
    def stochastic(self) -> bool:
        """False."""
        return False

    def step(
        self,
        schedule: BaseSchedule,
        x_t: Tensor,
        x0: Tensor,
        t: float,
        s: float,
        noise: Tensor | None = None,
        history: History | None = None,
        predict: CleanPrediction | None = None,
    ) -> tuple[Tensor, History | None]:
        """Advance one step; see `Sampler.step`."""
        at_t, at_s = self._levels(schedule, t, s, noise)
        if s == 0.0:
            return x0, None
        (start, scale), (end, scale_s) = straightened(at_t), straightened(at_s)
        x = x_t / scale
        return scale_s * (x + (end - start) * velocity(x, x0, start)), None


def straightened(level: Level) -> tuple[float, float]:
    """Return (tau, alpha + sigma): the level's time on the straight path, and the factor that x is divided by."""
    scale = level.alpha + level.sigma
    return level.sigma / scale, scale


def velocity(x: Tensor, x0: Tensor, tau: float) -> Tensor:
    """Return u = eps - x_0 on the straight path, where x = (1 - tau) x_0 + tau eps."""
    return (x - x0) / tau
