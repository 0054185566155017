"""What the network predicts, and the conversions between its forms.

    x_t = alpha x_0 + sigma eps
    v   = alpha eps - sigma x_0          =>  x_0 = alpha x_t - sigma v,  eps = sigma x_t + alpha v
    u   = eps - x_0                      =>  x_0 = (x_t - sigma u) / (alpha + sigma),
                                             eps = (x_t + alpha u) / (alpha + sigma)

v belongs to the variance-preserving schedules, alpha^2 + sigma^2 = 1. u is flow matching's velocity dx_t/dt, there
alpha + sigma = 1. `alpha` and `sigma` are floats, or tensors of shape () or (B,); they are spread over x's other axes.
Source of v: Salimans & Ho 2022, section 4. Source of u: Lipman 2023, Eq. 23; Liu 2023, Eq. 1 (time reversed).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

Prediction = Literal["eps", "v", "x0", "velocity"]
"""What a network's output means: the noise, v, the clean sample, or the path's velocity u."""

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""A network with its conditions bound: (x_t (B, ...), t (B,)) -> output of x_t's shape."""

Coefficient = Tensor | float

SMALLEST = 1e-5
"""Floor for divisors: eps -> x0 divides by alpha, whose rounding error grows as 1/alpha near t = 1."""


def spread(coefficient: Coefficient, like: Tensor) -> Tensor:
    """Return a coefficient, (), (B,) or float, as a tensor that broadcasts over `like` (B, ...)."""
    value = torch.as_tensor(coefficient, dtype=like.dtype, device=like.device)
    return value.reshape(-1, *[1] * (like.ndim - 1)) if value.ndim else value


def diffuse(x0: Tensor, eps: Tensor, alpha: Coefficient, sigma: Coefficient) -> Tensor:
    """Return x_t = alpha x_0 + sigma eps, the forward process at one level a sample."""
    return spread(alpha, x0) * x0 + spread(sigma, x0) * eps


def target(prediction: Prediction, x0: Tensor, eps: Tensor, alpha: Coefficient, sigma: Coefficient) -> Tensor:
    """Return what the network should output for (x0, eps) at this level, in x0's shape."""
    if prediction == "eps":
        return eps
    if prediction == "x0":
        return x0
    if prediction == "velocity":
        return eps - x0
    return spread(alpha, x0) * eps - spread(sigma, x0) * x0


def to_x0(prediction: Prediction, output: Tensor, x_t: Tensor, alpha: Coefficient, sigma: Coefficient) -> Tensor:
    """Return the clean sample that a network output stands for, in x_t's shape."""
    if prediction == "x0":
        return output
    a, s = spread(alpha, x_t), spread(sigma, x_t)
    if prediction == "eps":
        return (x_t - s * output) / a.clamp(min=SMALLEST)
    if prediction == "velocity":
        return (x_t - s * output) / (a + s)
    return a * x_t - s * output


def to_eps(prediction: Prediction, output: Tensor, x_t: Tensor, alpha: Coefficient, sigma: Coefficient) -> Tensor:
    """Return the noise that a network output stands for, in x_t's shape."""
    if prediction == "eps":
        return output
    a, s = spread(alpha, x_t), spread(sigma, x_t)
    if prediction == "x0":
        return (x_t - a * output) / s.clamp(min=SMALLEST)
    if prediction == "velocity":
        return (x_t + a * output) / (a + s)
    return s * x_t + a * output
