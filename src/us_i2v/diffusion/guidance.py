"""Guidance: denoisers made of denoisers, so that a sampler never knows of it.

    output = uncond + scale (cond - uncond)

This holds alike for eps, v, x0 and velocity, since each is affine in the others at a fixed (x_t, t).
Source: Ho & Salimans 2022, Eq. 6; their w is scale - 1.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from us_i2v.diffusion.prediction import Denoiser


@dataclass(frozen=True)
class ClassifierFreeGuidance:
    """A denoiser that moves away from the unconditional one.

    Attributes:
        cond: Denoiser with its conditions.
        uncond: The same network with the conditions dropped.
        scale: 0: unconditional; 1: conditional (no second evaluation); above 1: exaggerated.
    """

    cond: Denoiser
    uncond: Denoiser
    scale: float

    def __call__(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Return the guided output, of x_t's shape."""
        if self.scale == 1.0:
            return self.cond(x_t, t)
        uncond = self.uncond(x_t, t)
        if self.scale == 0.0:
            return uncond
        return uncond + self.scale * (self.cond(x_t, t) - uncond)
