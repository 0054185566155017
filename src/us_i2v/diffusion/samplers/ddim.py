"""DDIM: from the same prediction, any mixture of determinism and noise.

    x_s = alpha_s x_0 + sqrt(sigma_s^2 - std^2) eps + std noise,   std = eta (sigma_s / sigma_t) sqrt(beta_ts)
    eps = (x_t - alpha_t x_0) / sigma_t

eta = 0 is the first-order exponential integrator of the probability-flow ODE, eta = 1 is DDPM with
the small variance. Source: Song 2021, Eq. 12 and 16; their alpha is our alpha^2.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from us_i2v.diffusion.samplers.base import CleanPrediction, History, Sampler, transition_variance
from us_i2v.diffusion.schedule import BaseSchedule


class DDIM(Sampler):
    """DDIM sampler.

    Attributes:
        eta: Share of the posterior's noise that is put back at each step, 0..1.
    """

    kind: Literal["ddim"] = "ddim"
    eta: float = Field(default=0.0, ge=0.0, le=1.0, description="0: deterministic; 1: as random as DDPM")
    order: ClassVar[int] = 1

    @property
    def stochastic(self) -> bool:
        """Whether eta > 0."""
        return self.eta > 0.0

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
        """Advance one step; see `Sampler.step`. eps follows from x0, so a clipped x0 stays consistent."""
        at_t, at_s = self._levels(schedule, t, s, noise)
        if s == 0.0:
            return x0, None
        eps = (x_t - at_t.alpha * x0) / at_t.sigma
        std = self.eta * at_s.sigma / at_t.sigma * math.sqrt(transition_variance(at_t, at_s))
        x_s = at_s.alpha * x0 + math.sqrt(max(at_s.sigma**2 - std**2, 0.0)) * eps
        return (x_s if noise is None or std == 0.0 else x_s + std * noise), None
