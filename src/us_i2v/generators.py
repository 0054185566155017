"""What turns stills into motion: latents are drawn by a second stage, and decoded by the first.

    LDDM    noise -> denoised step by step -> latent          (Chen et al. 2024)
    CINN    noise -> through an inverted flow, once -> latent (Dorkenwald et al. 2021)

Which one a weights file holds stands in its header.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Literal, Protocol

import torch

from us_i2v.diffusion.guidance import ClassifierFreeGuidance
from us_i2v.diffusion.sampling import sample
from us_i2v.diffusion.stitching import WINDOWS_AT_ONCE, Stitched, overlapping_windows
from us_i2v.lengths import halves, is_stitched
from us_i2v.models.continuation import eased, joined
from us_i2v.models.denoiser import Conditions
from us_i2v.models.motion import Motion
from us_i2v.models.replay import replayed
from us_i2v.options import GenerateOptions, check_controls, check_label, choose_sampler, frame_interval, refuse_options
from us_i2v.seeding import derived, per_sample_noise
from us_i2v.weights import ProcessConfig, Weights

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from us_i2v.diffusion.prediction import Denoiser
    from us_i2v.models.autoencoder import Autoencoder
    from us_i2v.models.denoiser import Denoiser as DenoiserNetwork
    from us_i2v.seeding import Seed

Precision = Literal["fp32", "bf16"]
"""What the networks compute in; sampling and rendering are float32 at either."""


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


def _decoded(autoencoder: Autoencoder, latent: Tensor, stills: Tensor) -> Tensor:
    """Latents and stills as in `FirstStage.decode` -> flow, gain, gate, mean and scale, (B, 6, T, h, w)."""
    motion = autoencoder.decode(latent, stills).in_float32()
    return torch.cat([motion.flow, motion.gain, motion.gate, motion.mean, motion.scale], dim=1)


def _predicted(
    denoiser: DenoiserNetwork, x: Tensor, t: Tensor, features: Tensor, size: Tensor | None, *stated: Tensor | None
) -> Tensor:
    """Call the denoiser, all conditions but the still one by one; of the still it looks at the features alone."""
    out: Tensor = denoiser(x, t, Conditions(features, *stated), features, size)
    return out


class FirstStage:
    """What all generators share: the auto-encoder, and the statistics that latents are standardised by.

    Args:
        weights: Weights of both stages.
        device: Where to compute.
        precision: See `Precision`.
    """

    def __init__(self, weights: Weights, device: torch.device, precision: Precision) -> None:
        self.header, self.device, self.precision = weights.header, device, precision
        self.autoencoder = weights.autoencoder().to(device)
        mean, sd = weights.latent_statistics()
        self.mean, self.sd = mean.to(device), sd.to(device)
        self._fields = replayed(partial(_decoded, self.autoencoder), device)

    def networks(self) -> AbstractContextManager[object]:
        """Context in which the networks compute in the chosen precision."""
        # A cache of cast weights would outlive them in recorded graphs; each weight is used once a call anyway.
        on = self.precision == "bf16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=on, cache_enabled=False)

    @torch.no_grad()
    def decode(self, latent: Tensor, stills: Tensor) -> Motion:
        """See `Generator.decode`."""
        with self.networks():
            fields = self._fields(latent.to(self.device), stills.to(self.device))
        flow, gain, gate, mean, scale = fields.split_with_sizes([2, 1, 1, 1, 1], dim=1)
        return Motion(flow, gain, gate, mean, scale).anchored()

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
        with self.networks():
            return self.autoencoder.encode(video.to(self.device)).mean.cpu()

    def interval(self, options: GenerateOptions, batch: int) -> Tensor:
        """Seconds between frames, (batch,); raises `ConfigError` for a rate that the weights do not know."""
        seconds = frame_interval(self.header.frame_interval_s, self.header.interval_range_s, options.fps)
        return torch.full((batch,), seconds, device=self.device)


class LDDM(FirstStage):
    """Latent dynamic diffusion (Chen et al. 2024): noise -> latent -> motion."""

    def __init__(self, weights: Weights, device: torch.device, precision: Precision = "fp32") -> None:
        self.denoiser = weights.denoiser().to(device)
        self._predict = replayed(partial(_predicted, self.denoiser), device)
        super().__init__(weights, device, precision)
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
        with self.networks():
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

        def told(given: Conditions) -> Denoiser:
            def model(x: Tensor, t: Tensor) -> Tensor:
                with self.networks():
                    stated = (given.label, given.motion, given.interval, given.pressure, given.slide)
                    return self._predict(x, t, features, plan.stated(x), *stated).to(x.dtype)

            return model

        unguided = replace(conditions, label=None, motion=None, pressure=None, slide=None)
        scale = 1.0 if options.guidance is None else options.guidance
        return ClassifierFreeGuidance(told(conditions), told(unguided), scale)

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
            label = torch.full((b,), self.header.labels.index(options.label), dtype=torch.int64, device=self.device)

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
    """Conditional invertible network (Dorkenwald et al. 2021): noise -> latent in one pass -> motion.

    The flow itself is computed in float32 at any precision, as in training.
    """

    def __init__(self, weights: Weights, device: torch.device, precision: Precision = "fp32") -> None:
        self.network = weights.cinn().to(device)
        super().__init__(weights, device, precision)

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


def load_generator(weights: Weights, device: torch.device, precision: Precision = "fp32") -> Generator:
    """Build the generator that a weights file holds; raises `WeightsError` if it holds stage 1 only."""
    kind = CINN if weights.header.kind == "cinn" else LDDM
    return kind(weights, device, precision)


class DrawnTogether:
    """Clips whose networks are run together: the motion of all of them is drawn when the first one's is asked for."""

    def __init__(self, generator: Generator, seeds: list[Seed], options: GenerateOptions, *, stitched: bool) -> None:
        self.generator, self.seeds, self.options, self.stitched = generator, seeds, options, stitched
        self._latents: list[Tensor] = []
        self._motions: Motion | None = None

    def motion(self, first: int, last: int, segment: int, seen: Tensor) -> Motion:
        """Motion of a segment of samples first .. last - 1, given what it starts from.

        Only a lone clip has more than one segment.
        """
        if self._motions is None or segment > 0:
            own = self.seeds if segment == 0 else [derived(seed, "segment", segment) for seed in self.seeds]
            stills = seen.repeat(len(own), 1, 1, 1)
            latents = self.generator.latents(stills, own, self.options)
            self._latents.append(latents)
            if self.stitched:
                options = self.options
                self._motions = self.generator.decode_chain(latents, stills, options.frames, loop=options.loop)
            else:
                self._motions = self.generator.decode(latents, stills)
        return self._motions.samples(first, last)

    def latent(self, sample: int) -> Tensor:
        """Latents of a sample's segments, see `GeneratedClip`."""
        return torch.cat([latents[sample : sample + 1] for latents in self._latents]).float().cpu()
