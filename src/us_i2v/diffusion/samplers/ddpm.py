"""DDPM: ancestral sampling from the Gaussian posterior q(x_s | x_t, x_0).

    x_s = (alpha_ts sigma_s^2 / sigma_t^2) x_t + (alpha_s beta_ts / sigma_t^2) x_0 + std noise
    alpha_ts = alpha_t / alpha_s,  beta_ts = 1 - alpha_ts^2

Source: Ho 2020, Eq. 6-7, for any s < t; their sqrt(alpha_bar) is our alpha.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from us_i2v.diffusion.samplers.base import CleanPrediction, History, Sampler, transition_variance
from us_i2v.diffusion.schedule import BaseSchedule


class DDPM(Sampler):
    """Ancestral sampler.

    Attributes:
        variance: "small": beta_ts sigma_s^2 / sigma_t^2, exact for one-point data;
            "large": beta_ts, exact for standard normal data (Ho 2020, section 3.2).
    """

    kind: Literal["ddpm"] = "ddpm"
    variance: Literal["small", "large"] = Field(default="small", description="Variance of each reverse transition")
    order: ClassVar[int] = 0

    @property
    def stochastic(self) -> bool:
        """True: every step but the last adds noise."""
        return True

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
        """Draw x_s; see `Sampler.step`. The last step (s = 0) adds no noise."""
        at_t, at_s = self._levels(schedule, t, s, noise)
        if s == 0.0 or noise is None:
            return x0, None
        beta = transition_variance(at_t, at_s)
        shrink = (at_s.sigma / at_t.sigma) ** 2
        mean = (at_t.alpha / at_s.alpha * shrink) * x_t + (at_s.alpha * beta / at_t.sigma**2) * x0
        std = math.sqrt(beta * shrink if self.variance == "small" else beta)
        return mean + std * noise, None
