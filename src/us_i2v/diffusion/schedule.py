"""Noise schedules: continuous functions t -> (alpha, sigma) on 0 <= t <= 1.

    x_t = alpha(t) x_0 + sigma(t) eps,   eps ~ N(0, I)

Conventions
    t = 0 is clean data (alpha = 1, sigma = 0), t = 1 is the end of the forward process.
    DDPM's schedules are variance preserving, alpha^2 + sigma^2 = 1; flow matching's goes straight from the data to
    the noise, alpha + sigma = 1. Samplers and conversions know nothing but alpha and sigma.
    alpha is the square root of what DDPM and DDIM call alpha_bar (DDIM: alpha).
    The discrete chain of T transitions has its i-th level at t = i/T, and there every schedule
    gives that chain's alpha_bar exactly; between those points it is interpolated smoothly.
    Everything is computed in float64 on the CPU and returned in t's dtype and device: near t = 0
    sigma^2 = 1 - alpha_bar would lose all its digits in float32.

What a network predicts is left to `prediction`, how levels are walked down to `samplers`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from functools import lru_cache
from typing import Annotated, Literal, NamedTuple, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from us_i2v.config import Config
from us_i2v.errors import ScheduleError

Spacing = Literal["uniform", "quadratic", "log_snr", "shifted_3", "shifted_5"]
"""How a time grid's points lie: evenly in t, in sqrt(t), in log-SNR, or shifted towards noise by a factor."""

_SHIFTS = {"shifted_3": 3.0, "shifted_5": 5.0}


class Level(NamedTuple):
    """One noise level in plain floats.

    Attributes:
        t: Time, 0..1.
        alpha: Signal scale.
        sigma: Noise scale.
        log_snr: ln(alpha^2 / sigma^2); +inf at t = 0, -inf where alpha = 0.
    """

    t: float
    alpha: float
    sigma: float
    log_snr: float


class BaseSchedule(Config, ABC):
    """What all schedules share; a subclass gives its levels in float64, and how times are drawn in training."""

    @property
    @abstractmethod
    def finest(self) -> float:
        """Smallest time above 0 that a grid in log-SNR uses."""

    @abstractmethod
    def training_times(self, u: Tensor) -> Tensor:
        """Map uniform numbers 0 <= u < 1 to the times that a network is trained at, in u's shape and dtype."""

    @abstractmethod
    def _levels(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return (alpha, sigma, log-SNR) for float64 times `t` of any shape, 0..1."""

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return (alpha, sigma) at times `t`.

        Args:
            t: Floating-point times of any shape, 0..1.

        Returns:
            Two tensors of t's shape, dtype and device.

        Raises:
            ScheduleError: If a time is outside 0..1, NaN, or not floating point.
        """
        alpha, sigma, _ = self._levels(_checked(t))
        return alpha.to(device=t.device, dtype=t.dtype), sigma.to(device=t.device, dtype=t.dtype)

    def log_snr(self, t: Tensor) -> Tensor:
        """Return ln(alpha^2 / sigma^2) at times `t`; +inf at t = 0. Same shape, dtype and device as `t`."""
        return self._levels(_checked(t))[2].to(device=t.device, dtype=t.dtype)

    def at(self, t: float) -> Level:
        """Return the noise level at one time in plain floats; raises `ScheduleError` outside 0..1."""
        alpha, sigma, log_snr = self._levels(_checked(torch.tensor(t, dtype=torch.float64)))
        return Level(t, float(alpha), float(sigma), float(log_snr))


def _checked(t: Tensor) -> Tensor:
    if not t.is_floating_point():
        raise ScheduleError(f"Diffusion times are {t.dtype}, floating point is needed.", "Pass t = i / timesteps.")
    exact = t.detach().to(device="cpu", dtype=torch.float64)
    outside = ~((exact >= 0.0) & (exact <= 1.0))
    if bool(outside.any()):
        value = float(exact[outside][0])
        raise ScheduleError(f"Diffusion time {value:g} is outside 0..1.", "Pass t = i / timesteps.")
    return exact


class VariancePreserving(BaseSchedule):
    """DDPM's schedules, alpha^2 + sigma^2 = 1; a subclass gives only ln alpha_bar(t).

    Attributes:
        timesteps: T, the number of transitions of the discrete chain.
    """

    timesteps: int = Field(default=1000, ge=2, le=1_000_000, description="Transitions T of the discrete chain")

    @property
    def finest(self) -> float:
        """The chain's first level, 1/T."""
        return 1.0 / self.timesteps

    @abstractmethod
    def log_alpha_bar(self, t: Tensor) -> Tensor:
        """Return ln alpha^2 for float64 times `t` (any shape, 0..1), 0 at t = 0 and decreasing."""

    def training_times(self, u: Tensor) -> Tensor:
        """Map uniform numbers 0 <= u < 1 to the chain's times i/T, i uniform in 1..T (Eq. 3 of LDDM)."""
        return (torch.floor(u.double() * self.timesteps).clamp(0, self.timesteps - 1) + 1).div(self.timesteps).to(u)

    def _levels(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        log_ab = self.log_alpha_bar(t).clamp(max=0.0)
        variance = -torch.expm1(log_ab)
        return torch.exp(0.5 * log_ab), torch.sqrt(variance), log_ab - torch.log(variance)


class Linear(VariancePreserving):
    """beta_i grows linearly from `beta_start` (i = 1) to `beta_end` (i = T).

    alpha_bar_i = prod_{j<=i} (1 - beta_j); its logarithm is interpolated by cubic Hermite pieces,
    which are exact at the knots and nearly everywhere (the logarithm is almost a parabola).
    Source: Ho 2020, section 4.
    """

    kind: Literal["linear"] = "linear"
    beta_start: float = Field(default=1e-4, gt=0.0, lt=1.0, description="First transition's variance")
    beta_end: float = Field(default=0.02, gt=0.0, lt=1.0, description="Last transition's variance")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.beta_end < self.beta_start:
            raise ValueError(f"beta_end {self.beta_end:g} must not be below beta_start {self.beta_start:g}")
        return self

    def log_alpha_bar(self, t: Tensor) -> Tensor:
        """Return the interpolated logarithm of the discrete product."""
        values, slopes = _linear_knots(self.beta_start, self.beta_end, self.timesteps)
        position = t * self.timesteps
        left = position.floor().clamp(0, self.timesteps - 1).long()
        f = position - left
        rise = values[left + 1] - values[left]
        start, end = slopes[left], slopes[left + 1]
        # Cubic Hermite polynomial on 0 <= f <= 1, in Horner form.
        cubic, square = start + end - 2 * rise, 3 * rise - 2 * start - end
        return values[left] + f * (start + f * (square + f * cubic))


@lru_cache(maxsize=8)
def _linear_knots(beta_start: float, beta_end: float, timesteps: int) -> tuple[Tensor, Tensor]:
    """Return ln alpha_bar at i = 0..T and its slope per transition there, float64 (T + 1,)."""
    betas = torch.linspace(beta_start, beta_end, timesteps, dtype=torch.float64)
    values = torch.cat([torch.zeros(1, dtype=torch.float64), torch.log1p(-betas).cumsum(0)])
    slopes = torch.empty_like(values)
    slopes[1:-1] = (values[2:] - values[:-2]) / 2
    # One-sided differences of second order, so that the ends follow the same parabola.
    slopes[0] = (-3 * values[0] + 4 * values[1] - values[2]) / 2
    slopes[-1] = (3 * values[-1] - 4 * values[-2] + values[-3]) / 2
    return values, slopes


class Constant(VariancePreserving):
    """The same beta at every transition: alpha_bar(t) = (1 - beta)^(t T).

    The default ends at the same noise level as the linear schedule's default (ln alpha_bar = -10).
    """

    kind: Literal["constant"] = "constant"
    beta: float = Field(default=0.01, gt=0.0, lt=1.0, description="Each transition's variance")

    def log_alpha_bar(self, t: Tensor) -> Tensor:
        """Return t T ln(1 - beta)."""
        return t * (self.timesteps * math.log1p(-self.beta))


class Cosine(VariancePreserving):
    """alpha_bar(t) = cos^2(angle(t)) / cos^2(angle(0)), angle(t) = (t + s)/(1 + s) pi/2, clamped.

    The last transition's beta is clamped to `max_beta`: alpha_bar never falls below
    (1 - max_beta) alpha_bar(1 - 1/T), so that alpha(1) > 0. Source: Nichol & Dhariwal 2021, Eq. 17.
    """

    kind: Literal["cosine"] = "cosine"
    offset: float = Field(default=0.008, gt=0.0, le=0.5, description="s, keeps sigma from vanishing near t = 0")
    max_beta: float = Field(default=0.999, gt=0.0, lt=1.0, description="Largest transition variance")

    def log_alpha_bar(self, t: Tensor) -> Tensor:
        """Return the clamped logarithm."""
        last = torch.tensor(1.0 - 1.0 / self.timesteps, dtype=torch.float64)
        floor = self._unclamped(last) + math.log1p(-self.max_beta)
        return torch.maximum(self._unclamped(t), floor)

    def _unclamped(self, t: Tensor) -> Tensor:
        scale = 0.5 * math.pi / (1.0 + self.offset)
        # cos(pi/2) is 6e-17 in float64, never exactly 0, so the logarithm stays finite.
        return 2.0 * (torch.log(torch.cos((t + self.offset) * scale)) - math.log(math.cos(self.offset * scale)))


class Rectified(BaseSchedule):
    """Flow matching's straight path from data to noise: alpha = 1 - t, sigma = t.

    The velocity dx_t/dt = eps - x_0 does not change along a path, so an ODE solver needs few steps. Times are drawn
    from a logit-normal law, ln(t / (1 - t)) ~ N(mean, sd^2): the ends of the path are easy, its middle is not.
    Source: Lipman 2023; Liu 2023 (rectified flow), whose t runs the other way; Esser 2024, section 3.1.
    """

    kind: Literal["rectified"] = "rectified"
    mean: float = Field(default=0.0, ge=-5.0, le=5.0, description="Mean of ln(t / (1 - t)) in training")
    sd: float = Field(default=1.0, gt=0.0, le=5.0, description="Standard deviation of ln(t / (1 - t)) in training")

    @property
    def finest(self) -> float:
        """0.001, as a chain of 1000 transitions."""
        return 1e-3

    def training_times(self, u: Tensor) -> Tensor:
        """Map uniform numbers 0 <= u < 1 to logit-normal times, by the quantiles of the normal law."""
        # float32 draws have 24 bits: the quantile of 0 would be -inf.
        normal = torch.special.ndtri(u.double().clamp(2.0**-25, 1.0 - 2.0**-25))
        return torch.sigmoid(self.mean + self.sd * normal).to(u)

    def _levels(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return 1.0 - t, t.clone(), 2.0 * (torch.log1p(-t) - torch.log(t))


Schedule = Annotated[Linear | Constant | Cosine | Rectified, Field(discriminator="kind")]
"""Any schedule, for use as a field of a config."""

SCHEDULES: dict[str, type[Linear] | type[Constant] | type[Cosine] | type[Rectified]] = {
    "linear": Linear,
    "constant": Constant,
    "cosine": Cosine,
    "rectified": Rectified,
}
"""Every schedule by its `kind`."""


def time_grid(schedule: BaseSchedule, steps: int, spacing: Spacing = "uniform", start: float = 1.0) -> list[float]:
    """Return steps + 1 falling times, from `start` to exactly 0.

    With few steps the spacing decides how much of the data's spread survives: narrow data are made
    near t = 0, where even steps are too coarse. An ideal denoiser of N(0, 0.3^2), linear schedule,
    DPM-Solver++ 2M, 10 steps: samples lose 35 % of the standard deviation with "uniform", 4 % with
    "quadratic", 3 % with "log_snr". "uniform" is for the full chain.

    Args:
        schedule: Only the log-SNR spacing needs it.
        steps: Number of network evaluations, >= 1.
        spacing: "uniform": even in t (with `steps` = T this is the discrete chain itself);
            "quadratic": even in sqrt(t), denser near the data; "log_snr": even in log-SNR from
            `start` down to t = 1/T, then one step to 0 (DPM-Solver's logSNR grid). Pure noise has
            log-SNR -inf: there the even part is counted from 1/T below `start`. "shifted_N": t = N u / (1 + (N - 1) u),
            u even, so that sigma / alpha of a straight path is N times that of even steps: for large latents
            whose coarse structure, the amount of motion above all, is decided near t = 1 (Esser 2024, section 5.3.2).
        start: First time, 0 < start <= 1; below 1 for a partly noised start.

    Raises:
        ScheduleError: If `steps` or `start` is out of range.
    """
    if steps < 1:
        raise ScheduleError(f"{steps} sampling steps were asked for, at least 1 is needed.", "Use --steps 25.")
    if not 0.0 < start <= 1.0:
        raise ScheduleError(f"Start time {start:g} is outside 0..1 (0 excluded).", "Start at 1 for pure noise.")
    if spacing == "log_snr":
        return _log_snr_grid(schedule, steps, start)
    shift = _SHIFTS.get(spacing)
    if shift is not None:
        even = [(steps - i) / steps for i in range(steps + 1)]
        return [start * shift * u / (1 + (shift - 1) * u) for u in even]
    power = 2 if spacing == "quadratic" else 1
    return [start * ((steps - i) / steps) ** power for i in range(steps + 1)]


def _log_snr_grid(schedule: BaseSchedule, steps: int, start: float) -> list[float]:
    end = schedule.finest
    if steps == 1 or start <= end:
        return time_grid(schedule, steps, "uniform", start)
    begin = start if math.isfinite(schedule.at(start).log_snr) else start - end
    first, last = schedule.at(begin).log_snr, schedule.at(end).log_snr
    wanted = torch.linspace(first, last, steps, dtype=torch.float64)
    low = torch.full_like(wanted, end)
    high = torch.full_like(wanted, start)
    for _ in range(60):  # Bisection: log-SNR falls with t, 60 halvings exhaust float64.
        middle = (low + high) / 2
        too_clean = schedule.log_snr(middle) > wanted
        low, high = torch.where(too_clean, middle, low), torch.where(too_clean, high, middle)
    inner = [float(value) for value in (low + high)[1:-1] / 2]
    return [start, *inner, end, 0.0]
