"""How drawn speckle lasts and how strong it is: what calibration finds, and a weights file states."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from pydantic import Field, field_validator

from us_i2v.config import Config

if TYPE_CHECKING:
    from torch import Tensor

MOST_ALIKE = 0.98
"""Largest correlation of drawn speckle from frame to frame, where it is predicted by place."""


class SpeckleConfig(Config):
    """The process that draws the residual at generation, measured on training clips."""

    correlation: float = Field(0.8, ge=0, lt=1, description="AR(1) correlation from frame to frame.")
    factor: float = Field(1.0, ge=0, le=4, description="Calibration of the predicted scale.")
    profile: tuple[float, ...] = Field((), max_length=1024, description="The same frame by frame; empty: alike in all.")
    shift: float = Field(0.0, ge=-8, le=8, description="Calibration of the predicted logits of the correlation.")
    interval_s: float | None = Field(
        None, gt=0, description="Time between frames at which the correlation holds; empty: at any."
    )

    later: ClassVar[tuple[str, ...]] = ("profile", "shift", "interval_s")

    @field_validator("profile")
    @classmethod
    def _factors(cls, profile: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 <= value <= 4 for value in profile):
            raise ValueError("factors lie in 0..4")
        return profile

    def at(self, persistence: Tensor | None, interval_s: float | None = None) -> float | Tensor:
        """Return the correlation from frame to frame; an AR(1) process loses it exponentially in time.

        Args:
            persistence: (B, 1, h, w), what the decoder predicts by place (`Autoencoder.persistence`), or None.
            interval_s: Time between frames, seconds; None: that of `self.interval_s`.

        Returns:
            0 .. 1, by place, or one number where nothing is predicted.
        """
        known = self.correlation if persistence is None else torch.sigmoid(persistence + self.shift) * MOST_ALIKE
        if interval_s is None or self.interval_s is None:
            return known
        return known ** (interval_s / self.interval_s)

    def factors(self, n_frames: int, *, loop: bool = False) -> Tensor:
        """Return what the scale of each frame is multiplied by, (n_frames,).

        Frames beyond the profile take its last value; in a loop what counts is the distance from the still either way.
        """
        if not self.profile:
            return torch.full((n_frames,), self.factor)
        frame = torch.arange(n_frames)
        away = torch.minimum(frame, n_frames - frame) if loop else frame
        return torch.tensor(self.profile)[away.clamp(max=len(self.profile) - 1)]
