"""What can be asked of a clip, and whether given weights can answer it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

from pydantic import Field

from us_i2v.config import Config
from us_i2v.diffusion.samplers import DDIM, DDPM, DPMSolver, Euler, Heun, Sampler
from us_i2v.diffusion.schedule import Spacing
from us_i2v.errors import ConfigError
from us_i2v.lengths import Longer
from us_i2v.models.render import TextureMode
from us_i2v.weights import ProcessConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

MOST_FRAMES = 512

CONTROLS = ("strength", "pressure", "slide")
"""Options that are conditions of the second stage, if it was trained with them."""


class GenerateOptions(Config):
    """What can be asked of a clip."""

    frames: int = Field(16, ge=2, le=MOST_FRAMES, description="Frames, the still included; see docs/long-clips.md.")
    steps: int | None = Field(None, ge=1, le=1000, description="Denoising steps; empty: the sampler's default.")
    sampler: Literal["ddpm", "ddim", "dpm-solver", "euler", "heun"] | None = Field(
        None,
        description="Empty: dpm-solver; for flow matching's shortcuts euler.",
    )
    motion: float = Field(1.0, ge=0, le=3, description="Scales the movement; 0 = none.")
    speckle: float = Field(1.0, ge=0, le=1, description="Scales the drawn speckle change; 0 = none.")
    texture: TextureMode = Field("stationary", description="How drawn speckle enters, see models.render.")
    label: str | None = Field(None, description="Class condition, if the weights know classes.")
    guidance: float | None = Field(None, ge=0, le=20, description="Classifier-free guidance on what is asked for.")
    fps: float | None = Field(None, gt=0, le=200, description="Frames a second; empty: the weights' typical.")
    strength: float | None = Field(None, ge=0, le=4, description="Motion to draw, in medians of training clips.")
    pressure: float | None = Field(None, ge=-4, le=4, description="Compression at the end, likewise; < 0: release.")
    slide: float | None = Field(None, ge=-4, le=4, description="Slide at the end, likewise; > 0: to the right.")

    loop: bool = Field(False, description="The last frame leads into the first.")
    longer: Longer | None = Field(None, description="How frames from 17 on are made; empty: as the weights can.")

    later: ClassVar[tuple[str, ...]] = ("strength", "pressure", "slide", "loop", "longer")


def check_label(known: Sequence[str], label: str | None) -> None:
    """Raise `ConfigError` for a class that the weights do not know."""
    if label is not None and label not in known:
        names = ", ".join(known) or "none"
        raise ConfigError(f"Label '{label}' is not known to these weights (known: {names}).", "Leave --label out.")


def check_controls(known: Sequence[str], options: GenerateOptions) -> None:
    """Raise `ConfigError` for a motion condition that was not trained, or guidance by nothing.

    Args:
        known: Those that were trained, see `weights.Header.controls`.
        options: What is asked for.
    """
    for name in CONTROLS:
        value = getattr(options, name)
        if value is not None and name not in known:
            raise ConfigError(
                f"Option '{name}' = {value:g} was given; these weights were trained without that condition "
                f"(known: {', '.join(known) or 'none'}).",
                f"Leave --{name} out, or use weights that know it.",
            )
    if options.guidance is not None and all(getattr(options, name) is None for name in ("label", *CONTROLS)):
        raise ConfigError(
            f"Option 'guidance' = {options.guidance:g} was given without anything to guide by.",
            f"Add one of --label, {', '.join(f'--{name}' for name in CONTROLS)}, or leave --guidance out.",
        )


def refuse_options(options: GenerateOptions, names: Sequence[str], reason: str) -> None:
    """Raise `ConfigError` if one of these options is given."""
    for name in names:
        value = getattr(options, name)
        if value is not None:
            raise ConfigError(f"Option '{name}' = {value} was given; {reason}.", f"Leave --{name} out.")


class SamplingPlan(NamedTuple):
    """How a latent is drawn.

    Attributes:
        sampler: Method.
        steps: Number of its steps.
        spacing: How their times lie.
        step_size: Size to state to the denoiser, see `diffusion.shortcut`; None states none.
    """

    sampler: Sampler
    steps: int
    spacing: Spacing
    step_size: float | None = None

    def stated(self, x: Tensor) -> Tensor | None:
        """Return the step size for each sample of a batch x (B, ...): (B,)."""
        return None if self.step_size is None else x.new_full(x.shape[:1], self.step_size)


def choose_sampler(options: GenerateOptions, process: ProcessConfig) -> SamplingPlan:
    """Return the sampler, its number of steps and how its times lie.

    Defaults: for DDPM's processes dpm-solver 12, ddim 25, ddpm 250, heun 6 steps; for flow matching dpm-solver 8,
    heun 6, euler 25; for shortcuts euler 4. dpm-solver's few steps over DDPM's weights lie evenly in log-SNR
    (Lu 2022): of a trained denoiser's latents 12 of them keep 1.07 of the spread there, 0.74 when even in sqrt(t).
    Flow matching's are shifted towards noise, see docs/diffusion.md.

    Raises:
        ConfigError: The sampler does not fit the process, or shortcuts were not trained for so many steps.
    """
    flow = {
        "euler": SamplingPlan(Euler(), 25, "uniform"),
        "heun": SamplingPlan(Heun(), 6, "shifted_3"),
        "dpm-solver": SamplingPlan(DPMSolver(), 8, "shifted_5"),
    }
    chain = {
        "heun": SamplingPlan(Heun(), 6, "quadratic"),
        "dpm-solver": SamplingPlan(DPMSolver(), 12, "log_snr"),
        "ddim": SamplingPlan(DDIM(), 25, "quadratic"),
        "ddpm": SamplingPlan(DDPM(), 250, "uniform"),
    }
    shortcut = process.shortcut
    if process.flow_matching:
        known, usual = flow, "dpm-solver" if shortcut is None else "euler"
    else:
        known, usual = chain, "dpm-solver"
    name = options.sampler or usual
    if name not in known:
        trained = "by flow matching" if process.flow_matching else "as DDPM"
        raise ConfigError(
            f"Sampler '{name}' does not fit these weights, which were trained {trained}.",
            f"Use --sampler {', '.join(sorted(known))}, or leave it out.",
        )
    plan = known[name]
    if shortcut is None or name != "euler":
        return plan._replace(steps=options.steps or plan.steps)
    steps = options.steps or min(4, shortcut.steps)
    if steps not in shortcut.known:
        raise ConfigError(
            f"{steps} steps were asked for; the shortcuts of these weights take {', '.join(map(str, shortcut.known))}.",
            "Choose one of these --steps, or add --sampler heun.",
        )
    return SamplingPlan(Euler(), steps, "uniform", shortcut.size(steps))


def frame_interval(typical: float, known: tuple[float, float], fps: float | None) -> float:
    """Seconds between frames; raises `ConfigError` where the weights were not trained for that rate."""
    if fps is None:
        return typical
    low, high = known_rates(known)
    if not low <= fps <= high:
        raise ConfigError(
            f"{fps:g} frames a second were asked for; these weights know {low:.1f} to {high:.0f}.",
            "Choose --fps in that range, or re-time the clip afterwards.",
        )
    return 1 / fps


def known_rates(intervals: tuple[float, float]) -> tuple[float, float]:
    """Frame rates that weights can be used at: twice beyond those of their training, either way."""
    return 0.5 / intervals[1], 2 / intervals[0]


def nearest_rate(fps: float, intervals: tuple[float, float]) -> float:
    """Return the frame rate that is nearest to `fps` among those that weights can be used at, see `known_rates`."""
    low, high = known_rates(intervals)
    return min(max(fps, low), high)
