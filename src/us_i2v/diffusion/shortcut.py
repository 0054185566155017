"""Shortcut models: flow matching with the step's size as a condition, so that few steps suffice.

    u(x_t, t, d)     mean velocity over a step of size d; u(x_t, t, 0) is flow matching's own
    x_{t-d}          = x_t - d u(x_t, t, d)
    u(x_t, t, 2 d)   = (u(x_t, t, d) + u(x_{t-d}, t - d, d)) / 2          (self-consistency)

One step of size 2 d must end where two of size d do. Most of a batch learns flow matching, d = 0; a share of it learns
the line above, whose right side is computed by the network itself without gradient. No Jacobian is needed. The path is
`schedule.Rectified`'s: t = 1 is noise; sizes are halves of halves of 1, and the finest chain's steps count as d = 0.

Source: Frans 2024 (One Step Diffusion via Shortcut Models), Eq. 4-5 and algorithm 1. Their targets come from averaged
weights; here they come from the present ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from us_i2v.config import Config
from us_i2v.diffusion.loss import squared_error
from us_i2v.diffusion.prediction import diffuse, target
from us_i2v.diffusion.schedule import Rectified
from us_i2v.errors import ScheduleError

StepDenoiser = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""A network that knows the step's size: (x_t (N, ...), t (N,), d (N,), rows (N,)) -> velocity of x_t's shape.

`rows` are the samples' places in the batch, so that their conditions are found; d = 0 is flow matching.
"""


class Shortcut(Config):
    """How shortcuts are trained, and thus which steps the network knows."""

    steps: int = Field(
        default=64, ge=2, le=4096, description="Steps of the finest chain, a power of two; 1 / steps counts as size 0"
    )
    share: float = Field(default=0.25, gt=0.0, lt=1.0, description="Share of a batch that learns self-consistency")

    @model_validator(mode="after")
    def _power_of_two(self) -> Self:
        if self.steps & (self.steps - 1):
            raise ValueError(f"steps {self.steps} must be a power of two")
        return self

    @property
    def known(self) -> tuple[int, ...]:
        """Numbers of steps that the network can be asked for: 1, 2, 4, ..., steps."""
        return tuple(2**k for k in range(self.steps.bit_length()))

    def size(self, steps: int) -> float:
        """Return the size to state for a chain of so many steps, 0 for the finest; raises `ScheduleError`."""
        if steps not in self.known:
            raise ScheduleError(
                f"{steps} steps were asked for; these shortcuts know {', '.join(map(str, self.known))}.",
                "Choose one of them.",
            )
        return 0.0 if steps == self.steps else 1.0 / steps

    def rows(self, batch: int) -> int:
        """Return how many samples of a batch learn self-consistency: at least one, and not all."""
        return max(1, min(batch - 1, round(self.share * batch)))

    def draw(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Map uniform numbers (2, N) in 0..1 to steps: (their start t, their size d), each (N,), float32.

        All sizes 1, 1/2, ..., 2 / steps are drawn equally often, and all places of the chain of that size.
        """
        levels = torch.floor(u[0].double() * (self.steps.bit_length() - 1))
        count = 2.0**levels
        places = torch.floor(u[1].double() * count).clamp(max=count - 1) + 1
        return (places / count).float(), (1 / count).float()


def consistent_velocity(
    network: StepDenoiser, finest: int, x_t: Tensor, t: Tensor, size: Tensor, rows: Tensor
) -> Tensor:
    """Return the mean velocity of two steps of half the size, without gradient.

    Args:
        network: See `StepDenoiser`.
        finest: Steps of the finest chain.
        x_t: (N, ...), samples at `t`.
        t: (N,), starts of the steps.
        size: (N,), sizes of the whole steps, >= 2 / finest.
        rows: (N,), places in the batch.

    Returns:
        (N, ...), the right side of the self-consistency.
    """
    with torch.no_grad():
        half = size / 2
        stated = torch.where(half * finest > 1.0, half, torch.zeros_like(half))
        first = network(x_t, t, stated, rows).to(x_t.dtype)
        middle = x_t - half.to(x_t.dtype).reshape(-1, *[1] * (x_t.ndim - 1)) * first
        second = network(middle, t - half, stated, rows).to(x_t.dtype)
        return (first + second) / 2


def shortcut_loss(
    network: StepDenoiser, shortcut: Shortcut, x0: Tensor, eps: Tensor, t: Tensor, size: Tensor
) -> Tensor:
    """Return each sample's mean squared error of the velocity.

    Args:
        network: See `StepDenoiser`.
        shortcut: Settings.
        x0: (B, ...), clean, standardised latents.
        eps: (B, ...), standard normal noise.
        t: (B,), times; those of samples with a size come from `Shortcut.draw`.
        size: (B,), step sizes; 0 for flow matching.

    Returns:
        (B,), as `loss.denoising_loss`.
    """
    alpha, sigma = Rectified().alpha_sigma(t)
    x_t = diffuse(x0, eps, alpha, sigma)
    wanted = target("velocity", x0, eps, alpha, sigma)
    rows = torch.arange(len(t), device=t.device)
    jump = rows[size > 0]
    if len(jump):
        consistent = consistent_velocity(network, shortcut.steps, x_t[jump], t[jump], size[jump], jump)
        wanted = wanted.index_copy(0, jump, consistent)
    return squared_error(network(x_t, t, size, rows), wanted)
