"""What turns stills into motion: latents are drawn by a second stage, and decoded by the first.

    LDDM    noise -> denoised step by step -> latent          (Chen et al. 2024)
    CINN    noise -> through an inverted flow, once -> latent (Dorkenwald et al. 2021)

Which one a weights file holds stands in its header.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple, Protocol

import torch
from pydantic import Field

from us_i2v.config import Config
from us_i2v.diffusion.guidance import ClassifierFreeGuidance
from us_i2v.diffusion.samplers import DDIM, DDPM, DPMSolver, Euler, Heun, Sampler
from us_i2v.diffusion.sampling import sample
from us_i2v.diffusion.schedule import Spacing
from us_i2v.diffusion.stitching import WINDOWS_AT_ONCE, Stitched, overlapping_windows
from us_i2v.errors import ConfigError
from us_i2v.lengths import Longer, halves, is_stitched
from us_i2v.models.continuation import eased, joined
from us_i2v.models.denoiser import Conditions
from us_i2v.models.motion import Motion
from us_i2v.models.render import TextureMode
from us_i2v.seeding import derived, per_sample_noise
from us_i2v.weights import ProcessConfig, Weights

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from us_i2v.diffusion.prediction import Denoiser
    from us_i2v.models.autoencoder import Autoencoder
    from us_i2v.seeding import Seed

MOST_FRAMES = 512

CONTROLS = ("strength", "pressure", "slide")
"""Options that are conditions of the second stage, if it was trained with them."""


class GenerateOptions(Config):
    """What can be asked of a clip."""

    frames: int = Field(16, ge=2, le=MOST_FRAMES, description="Frames, the still included; see docs/long-clips.md.")
    steps: int | None = Field(None, ge=1, le=1000, description="Denoising steps; empty: the sampler's default.")
    sampler: Literal["ddpm", "ddim", "dpm-solver", "euler", "heun"] | None = Field(
        None,
        description="Empty: dpm-solver; for flow matching heun, for its shortcuts euler.",
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


class Generator(Protocol):
    """Anything that turns stills into motion of `n_frames` frames, anchored at the stills."""

    autoencoder: Autoencoder

    def check(self, options: GenerateOptions) -> None:
        """Raise `ConfigError` if an option is given that does not fit the weights."""

    def latents(self, stills: Tensor, seeds: Sequence[Seed], options: GenerateOptions) -> Tensor:
        """Stills (B, 1, S, S) in 0..1, one seed each -> latents (B, C_z, T_z, H_z, W_z), drawn.

        A clip that `is_stitched` has one long latent, (B, C_z, L, H_z, W_z).
        """

    def motions(self, stills: Tensor, seeds: Sequence[Seed], options: GenerateOptions) -> Motion:
        """Stills as above, one seed each -> motion, drawn: of the whole clip if `is_stitched`, else one segment's."""

    def decode(self, latent: Tensor, stills: Tensor) -> Motion:
        """Latents (B, C_z, T_z, H_z, W_z) in the auto-encoder's units, stills as above -> motion."""

    def decode_chain(self, chain: Tensor, stills: Tensor, n_frames: int, *, loop: bool = False) -> Motion:
        """Long latents (B, C_z, L, H_z, W_z), L whole half windows, stills as above -> motion of the whole clip."""

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
    def decode_chain(self, chain: Tensor, stills: Tensor, n_frames: int, *, loop: bool = False) -> Motion:
        """See `Generator.decode_chain`."""
        shape = self.header.autoencoder

        def windows() -> Iterator[Motion]:
            every = overlapping_windows(chain.shape[2], shape.latent_shape[1], loop=loop)
            for first in range(0, len(every), WINDOWS_AT_ONCE):
                some = every[first : first + WINDOWS_AT_ONCE]
                latents = torch.cat([chain[:, :, index] for index in some])
                motion = self.decode(latents, stills.repeat(len(some), 1, 1, 1))
                for each in range(len(some)):
                    yield motion.samples(each * len(stills), (each + 1) * len(stills))

        motion = joined(windows(), shape.n_frames // 2, n_frames, loop=loop)
        # Painted frames are whole pictures: their mean over time would blur what moves.
        return motion if shape.decoder == "adain" else eased(motion, loop=loop)

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
        choose_sampler(options, self.process)
        check_label(self.header.labels, options.label)
        check_controls(self.header.controls, options)
        is_stitched(self.header, options)

    @torch.no_grad()
    def motions(self, stills: Tensor, seeds: Sequence[Seed], options: GenerateOptions) -> Motion:
        """See `Generator.motions`; raises `ConfigError` for an unknown label or frame rate."""
        latents = self.latents(stills, seeds, options)
        if is_stitched(self.header, options):
            return self.decode_chain(latents, stills, options.frames, loop=options.loop)
        return self.decode(latents, stills)

    @torch.no_grad()
    def latents(self, stills: Tensor, seeds: Sequence[Seed], options: GenerateOptions) -> Tensor:
        """Denoise one latent a seed: (B, C_z, T_z or L, H_z, W_z), in the auto-encoder's units."""
        shape = self.header.autoencoder.latent_shape
        stills = stills.to(self.device)
        features = self.denoiser.embed_still(stills)
        if not is_stitched(self.header, options):
            noise = per_sample_noise(seeds, shape, "latent")
            return self._denoise(self._guided(stills, features, options), noise, seeds, options)
        channels, window, *place = shape
        length = window // 2 * halves(self.header, options.frames)

        def model(x: Tensor, t: Tensor, sample_of: Tensor) -> Tensor:
            rows = sample_of.to(self.device)
            return self._guided(stills[rows], features[rows], options)(x, t)

        frames = [per_sample_noise(seeds, (channels, *place), "chain", frame) for frame in range(length)]
        stitched = Stitched(model, overlapping_windows(length, window, loop=options.loop))
        return self._denoise(stitched, torch.stack(frames, dim=2), seeds, options)

    def _guided(self, stills: Tensor, features: Tensor, options: GenerateOptions) -> ClassifierFreeGuidance:
        """Bind the conditions to the network: stills (B, 1, S, S) with their features -> denoiser of B latents."""
        conditions = self._conditions(stills, options)
        plan = choose_sampler(options, self.process)

        def model(x: Tensor, t: Tensor) -> Tensor:
            out: Tensor = self.denoiser(x, t, conditions, features, plan.stated(x))
            return out

        unguided = replace(conditions, label=None, motion=None, pressure=None, slide=None)

        def plain(x: Tensor, t: Tensor) -> Tensor:
            out: Tensor = self.denoiser(x, t, unguided, features, plan.stated(x))
            return out

        return ClassifierFreeGuidance(model, plain, 1.0 if options.guidance is None else options.guidance)

    def _denoise(self, model: Denoiser, noise: Tensor, seeds: Sequence[Seed], options: GenerateOptions) -> Tensor:
        """Run the sampler from `noise`: latents of its shape, in the auto-encoder's units."""
        plan = choose_sampler(options, self.process)
        seeds = [derived(seed, "sampler") for seed in seeds]
        z = sample(
            model,
            self.process.schedule,
            self.process.prediction,
            plan.sampler,
            noise.to(self.device),
            plan.steps,
            step_noise=seeds,
            spacing=plan.spacing,
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
        is_stitched(self.header, options)
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

    Defaults: for DDPM's processes dpm-solver 12, ddim 25, ddpm 250, heun 6 steps; for flow matching heun 6,
    dpm-solver 12, euler 25; for shortcuts euler 4. Few steps are spaced evenly in sqrt(t): on a uniform grid
    12 of dpm-solver lose up to half of the spread of a narrow latent, on this one under 4 % (ideal Gaussian denoiser).

    Raises:
        ConfigError: The sampler does not fit the process, or shortcuts were not trained for so many steps.
    """
    euler = SamplingPlan(Euler(), 25, "uniform")
    both = {"heun": SamplingPlan(Heun(), 6, "quadratic"), "dpm-solver": SamplingPlan(DPMSolver(), 12, "quadratic")}
    chain = {"ddim": SamplingPlan(DDIM(), 25, "quadratic"), "ddpm": SamplingPlan(DDPM(), 250, "uniform")}
    shortcut = process.shortcut
    if process.flow_matching:
        known, usual = {"euler": euler, **both}, "heun" if shortcut is None else "euler"
    else:
        known, usual = {**both, **chain}, "dpm-solver"
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
