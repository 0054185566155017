"""Heun: an Euler step, corrected by the velocity found at its end.

    x_s' = x_t + (s - t) u(x_t, t)
    x_s  = x_t + (s - t) (u(x_t, t) + u(x_s', s)) / 2

In flow matching's coordinates for every schedule, see `euler`. The last step (s = 0) is Euler's and ends at x_0, so N
steps cost 2 N - 1 network evaluations. Source: Karras 2022 (EDM), algorithm 1.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from us_i2v.diffusion.samplers.base import CleanPrediction, History, Sampler
from us_i2v.diffusion.samplers.euler import straightened, velocity
from us_i2v.diffusion.schedule import BaseSchedule
from us_i2v.errors import ScheduleError


class Heun(Sampler):
    """Heun sampler (deterministic, two network evaluations a step, one at the last)."""

    kind: Literal["heun"] = "heun"
    order: ClassVar[int] = 2
    looks_ahead: ClassVar[bool] = True

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
        if predict is None:
            raise ScheduleError("Heun looks ahead and got no network to evaluate.", "Pass `predict`.")
        if s == 0.0:
            return x0, None
        (start, scale), (end, scale_s) = straightened(at_t), straightened(at_s)
        x = x_t / scale
        before = velocity(x, x0, start)
        ahead = x + (end - start) * before
        after = velocity(ahead, predict(scale_s * ahead, s), end)
        return scale_s * (x + (end - start) / 2 * (before + after)), None
