"""Gaussian diffusion: schedules, predictions, the loss, guidance, samplers and the sampling loop."""

from __future__ import annotations

from us_i2v.diffusion.guidance import ClassifierFreeGuidance
from us_i2v.diffusion.loss import denoising_loss, min_snr_weight
from us_i2v.diffusion.prediction import Denoiser, Prediction, diffuse, target, to_eps, to_x0
from us_i2v.diffusion.samplers import DDIM, DDPM, SAMPLERS, AnySampler, DPMSolver, Euler, Heun, History, Sampler
from us_i2v.diffusion.sampling import sample
from us_i2v.diffusion.schedule import (
    SCHEDULES,
    BaseSchedule,
    Constant,
    Cosine,
    Level,
    Linear,
    Rectified,
    Schedule,
    Spacing,
    VariancePreserving,
    time_grid,
)
from us_i2v.diffusion.shortcut import Shortcut, shortcut_loss

__all__ = [
    "DDIM",
    "DDPM",
    "SAMPLERS",
    "SCHEDULES",
    "AnySampler",
    "BaseSchedule",
    "ClassifierFreeGuidance",
    "Constant",
    "Cosine",
    "DPMSolver",
    "Denoiser",
    "Euler",
    "Heun",
    "History",
    "Level",
    "Linear",
    "Prediction",
    "Rectified",
    "Sampler",
    "Schedule",
    "Shortcut",
    "Spacing",
    "VariancePreserving",
    "denoising_loss",
    "diffuse",
    "min_snr_weight",
    "sample",
    "shortcut_loss",
    "target",
    "time_grid",
    "to_eps",
    "to_x0",
]
