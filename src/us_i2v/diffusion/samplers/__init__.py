"""Samplers: one file each, listed in `SAMPLERS`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from us_i2v.diffusion.samplers.base import CleanPrediction, History, Sampler
from us_i2v.diffusion.samplers.ddim import DDIM
from us_i2v.diffusion.samplers.ddpm import DDPM
from us_i2v.diffusion.samplers.dpm_solver import DPMSolver
from us_i2v.diffusion.samplers.euler import Euler
from us_i2v.diffusion.samplers.heun import Heun

AnySampler = Annotated[DDPM | DDIM | DPMSolver | Euler | Heun, Field(discriminator="kind")]
"""Any sampler, for use as a field of a config."""

SAMPLERS: dict[str, type[DDPM] | type[DDIM] | type[DPMSolver] | type[Euler] | type[Heun]] = {
    "ddpm": DDPM,
    "ddim": DDIM,
    "dpm-solver": DPMSolver,
    "euler": Euler,
    "heun": Heun,
}
"""Every sampler by its `kind`."""

__all__ = [
    "DDIM",
    "DDPM",
    "SAMPLERS",
    "AnySampler",
    "CleanPrediction",
    "DPMSolver",
    "Euler",
    "Heun",
    "History",
    "Sampler",
]
