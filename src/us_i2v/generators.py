"""What turns stills into motion: latents are drawn by a second stage, and decoded by the first.

    LDDM    noise -> denoised step by step -> latent          (Chen et al. 2024)
    CINN    noise -> through an inverted flow, once -> latent (Dorkenwald et al. 2021)

Which one a weights file holds stands in its header.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

import torch
from pydantic import Field

from us_i2v.config import Config
from us_i2v.diffusion.guidance import ClassifierFreeGuidance
from us_i2v.diffusion.samplers import DDIM, DDPM, DPMSolver, Sampler
from us_i2v.diffusion.sampling import sample
from us_i2v.diffusion.schedule import Spacing
from us_i2v.errors import ConfigError
from us_i2v.models.denoiser import Conditions
from us_i2v.models.motion import Motion
from us_i2v.models.render import TextureMode
from us_i2v.seeding import derived, per_sample_noise
from us_i2v.weights import ProcessConfig, Weights

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from us_i2v.models.autoencoder import Autoencoder
    from us_i2v.seeding import Seed

MOST_FRAMES = 512

CONTROLS = ("strength", "pressure", "slide")
"""Options that are conditions of the second stage, if it was trained with them."""


class GenerateOptions(Config):
    """What can be asked of a clip."""

    frames: int = Field(16, ge=2, le=MOST_FRAMES, description="Frames, the still included; from 17 on in segments.")
    steps: int | None = Field(None, ge=1, le=1000, description="Denoising steps; empty: the sampler's default.")
    sampler: Literal["ddpm", "ddim", "dpm-solver"] | None = Field(None, description="Empty: dpm-solver.")
    motion: float = Field(1.0, ge=0, le=3, description="Scales the movement; 0 = none.")
    speckle: float = Field(1.0, ge=0, le=1, description="Scales the drawn speckle change; 0 = none.")
    texture: TextureMode = Field("stationary", description="How drawn speckle enters, see models.render.")
    label: str | None = Field(None, description="Class condition, if the weights know classes.")
    guidance: float | None = Field(None, ge=0, le=20, description="Classifier-free guidance on what is asked for.")
    fps: float | None = Field(None, gt=0, le=200, description="Frames a second; empty: the weights' typical.")
    strength: float | None = Field(None, ge=0, le=4, description="Motion to draw, in medians of training clips.")
    pressure: float | None = Field(None, ge=-4, le=4, description="Compression at the end, likewise; < 0: release.")
    slide: float | None = Field(None, ge=-4, le=4, description="Slide at the end, likewise; > 0: to the right.")

    later: ClassVar[tuple[str, ...]] = ("strength", "pressure", "slide")


class Generator(Protocol):
    """Anything that turns stills into motion of `n_frames` frames, anchored at the stills."""

    autoencoder: Autoencoder

    def check(self, options: GenerateOptions) -> None:
        """Raise `ConfigError` if an option is given that does not fit the weights."""

    def latents(self, stills: Tensor, seeds: Sequence[Seed], options: GenerateOptions) -> Tensor:
        """Stills (B, 1, S, S) in 0..1, one seed each -> latents (B, C_z, T_z, H_z, W_z), drawn."""

    def motions(self, stills: Tensor, seeds: Sequence[Seed], options: GenerateOptions) -> Motion:
        """Stills as above, one seed each -> motion, drawn: `latents`, decoded."""

    def decode(self, latent: Tensor, stills: Tensor) -> Motion:
        """Latents (B, C_z, T_z, H_z, W_z) in the auto-encoder's units, stills as above -> motion."""

    def encode(self, video: Tensor) -> Tensor:
        """Clips (B, 1, T, S, S) in 0..1 -> latents (B, C_z, T_z, H_z, W_z): the posteriors' means, on the CPU."""


class FirstStage:
    """What all generators share: the auto-encoder, and the statistics that latents are standardised by.

    Args:
        weights: Weights of both stages.
        device: Where to compute.
    """

    def __init__(self, weights: Weights, device: torch.device) -> None:
        self.header, self.device = weights.header, device
        self.autoencoder = weights.autoencoder().to(device)
        mean, sd = weights.latent_statistics()
        self.mean, self.sd = mean.to(device), sd.to(device)

    @torch.no_grad()
    def decode(self, latent: Tensor, stills: Tensor) -> Motion:
        """See `Generator.decode`."""
        return self.autoencoder.decode(latent.to(self.device), stills.to(self.device)).in_float32().anchored()

    @torch.no_grad()
    def encode(self, video: Tensor) -> Tensor:
        """See `Generator.encode`."""
        return self.autoencoder.encode(video.to(self.device)).mean.cpu()

    def interval(self, options: GenerateOptions, batch: int) -> Tensor:
        """Seconds between frames, (batch,); raises `ConfigError` for a rate that the weights do not know."""
        seconds = frame_interval(self.header.frame_interval_s, self.header.interval_range_s, options.fps)
        return torch.full((batch,), seconds, device=self.device)


class LDDM(FirstStage):
    """Latent dynamic diffusion (Chen et al. 2024): noise -> latent -> motion."""

    def __init__(self, weights: Weights, device: torch.device) -> None:
        self.denoiser = weights.denoiser().to(device)
        super().__init__(weights, device)
        # A file of kind "lddm" always has one; the header's validation sees to it.
        self.process = weights.header.process or ProcessConfig()

    def check(self, options: GenerateOptions) -> None:
        """See `Generator.check`."""
        check_label(self.header.labels, options.label)
        check_controls(self.header.controls, options)

    @torch.no_grad()
    def motions(self, stills: Tensor, seeds: Sequence[Seed], options: GenerateOptions) -> Motion:
        """See `Generator.motions`; raises `ConfigError` for an unknown label or frame rate."""
        return self.decode(self.latents(stills, seeds, options), stills)

    @torch.no_grad()
    def latents(self, stills: Tensor, seeds: Sequence[Seed], options: GenerateOptions) -> Tensor:
        """Denoise one latent a seed: (B, C_z, T_z, H_z, W_z), in the auto-encoder's units."""
        process = self.process
        stills = stills.to(self.device)
        conditions = self._conditions(stills, options)
        features = self.denoiser.embed_still(stills)

        def model(x: Tensor, t: Tensor) -> Tensor:
            out: Tensor = self.denoiser(x, t, conditions, features)
            return out

        unguided = replace(conditions, label=None, motion=None, pressure=None, slide=None)

        def plain(x: Tensor, t: Tensor) -> Tensor:
            out: Tensor = self.denoiser(x, t, unguided, features)
            return out

        guided = ClassifierFreeGuidance(model, plain, 1.0 if options.guidance is None else options.guidance)
        noise = per_sample_noise(seeds, self.header.autoencoder.latent_shape, "latent").to(self.device)
        sampler, steps, spacing = choose_sampler(options)
        seeds = [derived(seed, "sampler") for seed in seeds]
        z = sample(
            guided,
            process.schedule,
            process.prediction,
            sampler,
            noise,
            steps,
            step_noise=seeds,
            spacing=spacing,
        )
        return z * self.sd + self.mean

    def _conditions(self, stills: Tensor, options: GenerateOptions) -> Conditions:
        b = stills.shape[0]
        self.check(options)
        label = None
        if options.label is not None:
            label = torch.full((b,), self.header.labels.index(options.label), device=self.device)

        def given(value: float | None) -> Tensor | None:
            return None if value is None else torch.full((b,), value, device=self.device)

        return Conditions(
            stills,
            label,
            given(options.strength),
            self.interval(options, b),
            given(options.pressure),
            given(options.slide),
        )


class CINN(FirstStage):
    """Conditional invertible network (Dorkenwald et al. 2021): noise -> latent in one pass -> motion."""

    def __init__(self, weights: Weights, device: torch.device) -> None:
        self.network = weights.cinn().to(device)
        super().__init__(weights, device)

    def check(self, options: GenerateOptions) -> None:
        """See `Generator.check`: a flow has no sampler and no guidance, and knows no classes."""
        refuse_options(
            options, ("steps", "sampler", "guidance"), "these weights hold a cINN, which samples in one pass"
        )
        check_label(self.header.labels, options.label)
        check_controls(self.header.controls, options)
        if options.fps is not None and not self.network.config.interval:
            refuse_options(options, ("fps",), "this cINN was trained without the frame rate as a condition")

    @torch.no_grad()
    def motions(self, stills: Tensor, seeds: Sequence[Seed], options: GenerateOptions) -> Motion:
        """See `Generator.motions`; raises `ConfigError` as `check` does."""
        return self.decode(self.latents(stills, seeds, options), stills)

    @torch.no_grad()
    def latents(self, stills: Tensor, seeds: Sequence[Seed], options: GenerateOptions) -> Tensor:
        """Draw one latent a seed: (B, C_z, T_z, H_z, W_z), in the auto-encoder's units."""
        self.check(options)
        code = self.network.still(stills.to(self.device))
        condition = self.network.condition(code, self.interval(options, len(code)))
        noise = per_sample_noise(seeds, self.header.autoencoder.latent_shape, "latent").to(self.device)
        return self.network.inverse(noise, condition) * self.sd + self.mean


def load_generator(weights: Weights, device: torch.device) -> Generator:
    """Build the generator that a weights file holds; raises `WeightsError` if it holds stage 1 only."""
    return CINN(weights, device) if weights.header.kind == "cinn" else LDDM(weights, device)


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


def choose_sampler(options: GenerateOptions) -> tuple[Sampler, int, Spacing]:
    """Return the sampler, its number of steps and how its times lie.

    Defaults: dpm-solver 12, ddim 25, ddpm 250 steps. Few steps are spaced evenly in sqrt(t): on a uniform grid
    12 of them lose up to half of the spread of a narrow latent, on this one under 4 % (ideal Gaussian denoiser).
    """
    name = options.sampler or "dpm-solver"
    table: dict[str, tuple[Sampler, int, Spacing]] = {
        "dpm-solver": (DPMSolver(), 12, "quadratic"),
        "ddim": (DDIM(), 25, "quadratic"),
        "ddpm": (DDPM(), 250, "uniform"),
    }
    sampler, steps, spacing = table[name]
    return sampler, options.steps or steps, spacing


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
