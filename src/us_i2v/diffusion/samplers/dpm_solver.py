"""DPM-Solver++ 2M: second-order multistep integration of the probability-flow ODE in log-SNR.

    lambda = ln(alpha / sigma),  h = lambda_s - lambda_t,  r = h_before / h
    D   = x_0(t) + (x_0(t) - x_0(before)) / (2 r)
    x_s = (sigma_s / sigma_t) x_t - alpha_s (e^{-h} - 1) D

The first step has no history and the last one (sigma_s = 0) has h = inf; both are of first order
with D = x_0(t), so that the last ends at x_0 exactly.
Source: Lu 2022 (DPM-Solver++), algorithm 2.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from torch import Tensor

from us_i2v.diffusion.samplers.base import CleanPrediction, History, Sampler
from us_i2v.diffusion.schedule import BaseSchedule


class DPMSolver(Sampler):
    """DPM-Solver++ 2M sampler (deterministic, one network evaluation a step)."""

    kind: Literal["dpm-solver"] = "dpm-solver"
    order: ClassVar[int] = 2

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
        remembered = History(x0, at_t.log_snr)
        if s == 0.0:
            return x0, remembered
        h = (at_s.log_snr - at_t.log_snr) / 2  # lambda is half the log-SNR.
        data = x0
        if history is not None:
            h_before = (at_t.log_snr - history.log_snr) / 2
            if h_before > 0.0:  # 0 only inside the flat end of a clamped schedule.
                data = x0 + (h / (2 * h_before)) * (x0 - history.x0)
        return (at_s.sigma / at_t.sigma) * x_t - (at_s.alpha * math.expm1(-h)) * data, remembered
