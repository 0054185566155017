"""What a phantom is made with: the scanner, and the ranges from which a breast and its motion are drawn."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from us_i2v.config import Config

Label = Literal["benign", "malignant", "normal"]
"""The lesion's class; "normal" has none."""


def _ordered(limits: tuple[float, float]) -> tuple[float, float]:
    if limits[0] > limits[1]:
        raise ValueError("the first must not be above the second")
    return limits


Range = Annotated[tuple[float, float], AfterValidator(_ordered)]
"""(low, high) of what is drawn."""

Positive = Annotated[tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]], AfterValidator(_ordered)]
"""A range of what is drawn log-uniformly."""

Side = Annotated[int, Field(ge=16, le=2048)]


class Scanner(Config):
    """A linear probe. Widths are standard deviations of the two-way amplitude response, in mm."""

    frequency_mhz: float = Field(7.5, gt=0, le=40, description="Centre frequency.")
    sound_speed: float = Field(1.54, gt=0, description="Speed of sound, mm a microsecond.")
    axial_sigma_mm: float = Field(0.13, gt=0, description="Axial width of the pulse.")
    lateral_sigma_mm: float = Field(0.22, gt=0, description="Lateral width at the focus.")
    focus_mm: float = Field(16.0, ge=0, description="Depth of the lateral focus.")
    focal_zone_mm: float = Field(18.0, gt=0, description="Distance from the focus at which it is sqrt(2) wider.")
    looks: int = Field(
        3, ge=1, le=9, description="Steering angles compounded; each has speckle of its own. 1 is a raw envelope."
    )
    curvature: float = Field(0.3, description="Phase curvature away from the focus; 1 is a fixed Gaussian beam.")
    elevation_sigma_mm: float = Field(0.7, gt=0, description="Width across the imaging plane at its focus.")
    elevation_focus_mm: float = Field(18.0, ge=0, description="Depth of the lens's focus.")
    elevation_zone_mm: float = Field(22.0, gt=0, description="As `focal_zone_mm`, for the lens.")
    scatterers_per_mm3: float = Field(40.0, gt=0, description="Density; about 10 a resolution cell are needed.")
    noise_db: float = Field(-28.0, description="Electronic noise at the lower edge, relative to gland.")
    tgc_error_db: float = Field(2.0, ge=0, description="Spread of the gain sliders around the right gain.")


class PhantomConfig(Config):
    """One phantom clip; pairs are ranges (low, high)."""

    label: Label = Field("benign", description="Class of the lesion.")
    motion_only: bool = Field(
        False,
        description="Draw shape, echo and shadow alike for both classes; only stiffness tells them apart.",
    )
    n_frames: int = Field(16, ge=1, description="Frames of the clip.")
    fps: float = Field(20.0, gt=0, description="Frames a second.")
    size: tuple[Side, Side] = Field((128, 128), description="(height, width) in pixels.")
    depth_mm: float = Field(36.0, ge=15, le=80, description="Depth shown; pixels are square.")
    scanner: Scanner = Field(Scanner(), description="The probe.")
    displacement: Positive = Field(
        (0.01, 0.06), description="Peak of the leading load case over 1.5 s, share of the depth; log-uniform."
    )
    drift_mm: Positive = Field((0.05, 1.5), description="Peak out-of-plane drift over 1.5 s, mm; log-uniform.")
    dynamic_range_db: Positive = Field((50.0, 60.0), description="Range of the gray scale.")
    gland_below_white_db: Range = Field((22.0, 29.0), description="Level of gland below white; sets the overall gain.")
    benign_stiffness: Positive = Field((1.6, 2.4), description="Modulus over gland's; log-uniform.")
    malignant_stiffness: Positive = Field((3.0, 13.0), description="Modulus over gland's; log-uniform.")
    poisson: float = Field(0.499, ge=0, lt=0.5, description="Poisson's ratio of all tissue.")

    @property
    def width_mm(self) -> float:
        """Width shown, in mm."""
        return self.depth_mm * self.size[1] / self.size[0]
