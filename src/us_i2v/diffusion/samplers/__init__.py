"""Samplers: one file each, listed in `SAMPLERS`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from us_i2v.diffusion.samplers.base import History, Sampler
from us_i2v.diffusion.samplers.ddim import DDIM
from us_i2v.diffusion.samplers.ddpm import DDPM
from us_i2v.diffusion.samplers.dpm_solver import DPMSolver

AnySampler = Annotated[DDPM | DDIM | DPMSolver, Field(discriminator="kind")]
"""Any sampler, for use as a field of a config."""

SAMPLERS: dict[str, type[DDPM] | type[DDIM] | type[DPMSolver]] = {
    "ddpm": DDPM,
    "ddim": DDIM,
    "dpm-solver": DPMSolver,
}
"""Every sampler by its `kind`."""

__all__ = ["DDIM", "DDPM", "SAMPLERS", "AnySampler", "DPMSolver", "History", "Sampler"]
