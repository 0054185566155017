"""The ideal denoiser of data N(mu, s^2), the exact ODE solution, and the chain in plain floats."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from us_i2v.diffusion.prediction import Prediction
from us_i2v.diffusion.schedule import BaseSchedule


@dataclass(frozen=True)
class IdealDenoiser:
    """E[x0 | x_t] = mu + s^2 alpha / (alpha^2 s^2 + sigma^2) (x_t - alpha mu), in any prediction."""

    schedule: BaseSchedule
    prediction: Prediction = "x0"
    mu: float = 0.7
    s: float = 0.4

    def gain(self, alpha: float, sigma: float) -> tuple[float, float]:
        """Return (a, b) of x0 = a x_t + b."""
        a = self.s**2 * alpha / (alpha**2 * self.s**2 + sigma**2)
        return a, self.mu * (1 - a * alpha)

    def __call__(self, x_t: Tensor, t: Tensor) -> Tensor:
        # The network sees t in x's dtype; the level is taken in float64 from that.
        level = self.schedule.at(float(t[0]))
        a, b = self.gain(level.alpha, level.sigma)
        x0 = a * x_t + b
        if self.prediction == "x0":
            return x0
        eps = (x_t - level.alpha * x0) / level.sigma
        if self.prediction == "velocity":
            return eps - x0
        return eps if self.prediction == "eps" else level.alpha * eps - level.sigma * x0

    def transport(self, x_t: Tensor, t: float, s: float) -> Tensor:
        """Exact probability-flow ODE solution: quantiles are kept."""
        at_t, at_s = self.schedule.at(t), self.schedule.at(s)
        scale_t = math.hypot(at_t.alpha * self.s, at_t.sigma)
        scale_s = math.hypot(at_s.alpha * self.s, at_s.sigma)
        return at_s.alpha * self.mu + scale_s / scale_t * (x_t - at_t.alpha * self.mu)


def linear_betas(start: float, end: float, count: int) -> list[float]:
    """beta_1..beta_T of DDPM."""
    return [start + (end - start) * i / (count - 1) for i in range(count)]


def alpha_bars(betas: list[float]) -> list[float]:
    """alpha_bar_0 = 1, alpha_bar_1, ..."""
    out = [1.0]
    for beta in betas:
        out.append(out[-1] * (1 - beta))
    return out


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
