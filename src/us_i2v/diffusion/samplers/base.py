"""What every sampler is: one stateless step from level t down to level s < t.

The network has been evaluated already: a step gets the clean sample `x0` that it predicts at t.
Whatever a method must remember goes in and out as `History`; a method that looks ahead gets `predict`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from us_i2v.config import Config
from us_i2v.diffusion.schedule import BaseSchedule, Level
from us_i2v.errors import ScheduleError

CleanPrediction = Callable[[Tensor, float], Tensor]
"""The network as a step sees it: (x (B, ...), time) -> the clean sample predicted there."""


@dataclass(frozen=True)
class History:
    """What a multistep method remembers of the step before.

    Attributes:
        x0: Clean sample predicted there, (B, ...).
        log_snr: That level's log-SNR.
    """

    x0: Tensor
    log_snr: float


class Sampler(Config, ABC):
    """Base of all samplers.

    Attributes:
        order: Global order of convergence to the probability-flow ODE; 0 for a random chain.
        looks_ahead: Whether `step` needs `predict`.
    """

    order: ClassVar[int]
    looks_ahead: ClassVar[bool] = False

    @property
    @abstractmethod
    def stochastic(self) -> bool:
        """Whether `step` needs noise."""

    @abstractmethod
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
        """Advance from t to s.

        Args:
            schedule: Noise schedule.
            x_t: (B, ...), the sample at t.
            x0: (B, ...), the clean sample predicted at t.
            t: Present time.
            s: Next time, 0 <= s < t <= 1; at s = 0 the result is `x0` exactly.
            noise: (B, ...), standard normal; needed by a stochastic sampler, ignored by others.
            history: What the step before returned, None at the first.
            predict: Evaluates the network elsewhere; needed by a sampler that looks ahead, ignored by others.

        Returns:
            The sample at s (shape and dtype of x_t), and what the next step needs.

        Raises:
            ScheduleError: If s >= t, a time is outside 0..1, or noise or `predict` is missing.
        """

    def _levels(self, schedule: BaseSchedule, t: float, s: float, noise: Tensor | None) -> tuple[Level, Level]:
        if not s < t:
            raise ScheduleError(f"A sampling step from t = {t:g} to s = {s:g} does not go down.", "Pass s < t.")
        if self.stochastic and noise is None:
            raise ScheduleError(
                f"{type(self).__name__} is a random sampler and got no noise.",
                "Pass seeds or a noise callable.",
            )
        return schedule.at(t), schedule.at(s)


def transition_variance(at_t: Level, at_s: Level) -> float:
    """Return beta_{t|s} = sigma_t^2 - (alpha_t sigma_s / alpha_s)^2, the variance that is added from s to t.

    Where variance is preserved this is 1 - alpha_t^2 / alpha_s^2. Written with the ratio of the two signal-to-noise
    ratios, so that no digits are lost between near levels.
    """
    return -(at_t.sigma**2) * math.expm1(at_t.log_snr - at_s.log_snr)
