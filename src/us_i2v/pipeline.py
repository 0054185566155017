"""From a still to clips: the object that users call.

    still -> (model-size still) -> a latent -> decode a `Motion` -> resample it to the still's own size
          -> render the still itself

Pictures are never generated at the model's size and enlarged: flow, residual and scale are smooth maps, and it
is the full-size still that is warped, so speckle stays as sharp as it was. Clips longer than the model's are stitched:
one long latent is drawn, all of it told relative to the still. Where that cannot be, they go on in segments, each
with a new latent given the last frame; see `diffusion.stitching` and `models.continuation`.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from us_i2v.data.stills import read_still
from us_i2v.data.transforms import Fit, fit_frames, to_float, to_gray
from us_i2v.devices import choose_device
from us_i2v.errors import ConfigError, InputError, WeightsError
from us_i2v.generators import CINN, LDDM, DrawnTogether, Generator, Precision, load_generator
from us_i2v.hub import fetch_weights, is_hub_name, push_weights
from us_i2v.latents_file import latent_space
from us_i2v.lengths import check_latents, is_stitched, segments
from us_i2v.options import CONTROLS, GenerateOptions, choose_sampler, frame_interval, known_rates, refuse_options
from us_i2v.prompts import Known, parse_prompt
from us_i2v.rendering import GeneratedClip, Renderer
from us_i2v.seeding import SeedBlend, blends
from us_i2v.still import Still, check_picture, resize_longer
from us_i2v.weights import Weights, load_weights

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from us_i2v.models.motion import Motion
    from us_i2v.seeding import Seed
    from us_i2v.types import Frames, Image, Mask

__all__ = [
    "CINN",
    "CPU_THREADS",
    "LDDM",
    "GenerateOptions",
    "GeneratedClip",
    "Generator",
    "ImageToVideo",
    "Precision",
    "Still",
    "choose_sampler",
    "frame_interval",
]

CPU_THREADS = 2
"""Threads on a CPU: fixed, since sums depend on it and the same seed shall give the same bytes."""

BATCH = 32
"""Clips that the networks make together on an accelerator."""


class ImageToVideo:
    """Turns stills into clips.

    Example:
        >>> clip = ImageToVideo.from_pretrained()(image, seed=1)[0]  # doctest: +SKIP
    """

    def __init__(
        self, weights: Weights, device: torch.device, threads: int = CPU_THREADS, precision: Precision = "fp32"
    ) -> None:
        self.info = weights.header
        self.weights_sha256, self._source = weights.sha256, weights.source
        self.device, self.threads = device, threads
        self.generator: Generator = load_generator(weights, device, precision)

    @classmethod
    def from_pretrained(
        cls,
        weights: str | Path | None = None,
        device: str = "auto",
        threads: int = CPU_THREADS,
        precision: Precision = "fp32",
        *,
        revision: str | None = None,
        sha256: str | None = None,
    ) -> ImageToVideo:
        """Load weights.

        Args:
            weights: A file, a run folder, None for the bundled ones, or "org/name" on the hub, see `hub`.
            device: See `devices`.
            threads: Threads on a CPU.
            precision: What networks compute in.
            revision: Branch, tag or commit on the hub.
            sha256: Digest that the file must have.

        Raises:
            WeightsError: There are no such weights, or they are damaged, too large or others than the digest says.
        """
        if is_hub_name(weights):
            weights = fetch_weights(str(weights), revision=revision, sha256=sha256).path
        elif revision is not None:
            raise WeightsError(f"Revision '{revision}' was given for weights that are not on the hub.", "Leave it out.")
        found = load_weights(weights)
        if sha256 is not None and found.sha256 != sha256:
            raise WeightsError(f"'{found.source}' has sha256 {found.sha256}; {sha256} is needed.", "Check the file.")
        return cls(found, choose_device(device), threads, precision)

    def push_to_hub(self, repo: str, *, private: bool = True, license: str = "other", revision: str = "main") -> str:
        """Publish these weights with a model card as "org/name"; returns the commit; see `hub.push_weights`."""
        return push_weights(Path(self._source), repo, private=private, license_=license, revision=revision)

    def __call__(
        self,
        image: Image | str | Path,
        *,
        mask: Mask | None = None,
        seed: Seed = 0,
        num_clips: int = 1,
        options: GenerateOptions | None = None,
        size: int | None = None,
        batch: int | None = None,
    ) -> list[GeneratedClip]:
        """Make clips from one still.

        Args:
            image: uint8 (H, W) or (H, W, 3), or the path of a still.
            mask: (H, W) bool, carried along with the picture.
            seed: Seed of the first clip; the others take seed + 1, seed + 2, ... A `SeedBlend` gives one clip.
            num_clips: How many.
            options: See `GenerateOptions`.
            size: Length of the longer side of the output; None keeps the still's own size.
            batch: Clips that the networks make together, if they are made in one piece; None takes 1 on a CPU, where
                nothing is gained, and 32 elsewhere.

        Returns:
            `num_clips` clips; the same seed gives the same clip, alone or among others: at a batch of 1 to the last
            bit, else but for rounding.

        Raises:
            InputError: The still cannot be read, or the mask's size differs.
            ConfigError: An option does not fit the weights.
        """
        seeds: list[Seed] = [seed] if isinstance(seed, SeedBlend) else [seed + k for k in range(num_clips)]
        if len(seeds) != num_clips:
            raise ConfigError(f"{num_clips} clips of one blend of seeds were asked for.", "Give a blend for each.")
        chosen = options or GenerateOptions()
        self.generator.check(chosen)
        fps = 1 / frame_interval(self.info.frame_interval_s, self.info.interval_range_s, chosen.fps)
        stitched = is_stitched(self.info, chosen)
        with torch.no_grad(), self._fixed_threads():
            renderer = self._renderer(image, mask, size)
            count = 1 if stitched else self.segments(chosen.frames)
            together = 1 if count > 1 else batch or (1 if self.device.type == "cpu" else BATCH)
            made = []
            for first in range(0, len(seeds), together):
                group = DrawnTogether(self.generator, seeds[first : first + together], chosen, stitched=stitched)
                at_once = max(1, min(together, renderer.frames_together // chosen.frames))
                for start in range(0, len(group.seeds), at_once):
                    own = group.seeds[start : start + at_once]
                    clips = renderer.clips(partial(group.motion, start, start + len(own)), count, own, chosen, fps)
                    made += [replace(clip, latent=group.latent(start + k)) for k, clip in enumerate(clips)]
            return made

    def interpolate(
        self,
        image: Image | str | Path,
        *,
        seed: int,
        other: int,
        num_clips: int,
        mask: Mask | None = None,
        options: GenerateOptions | None = None,
        size: int | None = None,
    ) -> list[GeneratedClip]:
        """Make clips on the way from one seed's clip to another's: all noise is interpolated on the sphere.

        Args:
            image: As in `__call__`.
            seed: Its clip is the first one.
            other: Its clip is the last one.
            num_clips: How many, both ends included; at least 2.
            mask: As in `__call__`.
            options: As in `__call__`.
            size: As in `__call__`.

        Raises:
            InputError: As in `__call__`.
            ConfigError: As in `__call__`; also fewer than 2 clips.
        """
        if num_clips < 2:
            raise ConfigError(f"{num_clips} clips were asked for; an interpolation takes 2.", "Ask for more.")
        return [
            self(image, mask=mask, seed=blend, options=options, size=size)[0]
            for blend in blends(seed, other, num_clips)
        ]

    def prompted(self, prompt: str, options: GenerateOptions | None = None) -> GenerateOptions:
        """Add what a prompt says to options; see `prompts` for the words.

        Raises:
            ConfigError: A word is not known, to the vocabulary or to these weights; the prompt contradicts itself; or
                it says what `options` say already.
        """
        chosen = options or GenerateOptions()
        known = Known(self.info.labels, self.info.controls, frozenset(GenerateOptions.model_fields))
        wish = parse_prompt(prompt, known).given()
        for name, value in wish.items():
            if name in chosen.model_fields_set:
                raise ConfigError(
                    f"Prompt '{prompt}' says {name} = {value}; the option is given as {getattr(chosen, name)} too.",
                    "Say it in one way only.",
                )
        return GenerateOptions.parse({**{n: getattr(chosen, n) for n in chosen.model_fields_set}, **wish}, "prompt")

    @cached_property
    def latent_space(self) -> str:
        """Identity of the space that latents live in: they can be shared by weights of the same first stage."""
        return latent_space(self.generator.autoencoder)

    def animate(
        self,
        image: Image | str | Path,
        latent: Tensor,
        *,
        seed: Seed = 0,
        mask: Mask | None = None,
        options: GenerateOptions | None = None,
        size: int | None = None,
    ) -> GeneratedClip:
        """Make a clip from a still and a latent that is given, for example that of another clip.

        Args:
            image: As in `__call__`.
            latent: (C_z, T_z, H_z, W_z) as `encode` returns it; (K, C_z, T_z, H_z, W_z) for K segments; or the long
                latent of a stitched clip, (C_z, L, H_z, W_z) or (1, C_z, L, H_z, W_z).
            seed: Seed of the drawn speckle, the only chance that is left.
            mask: As in `__call__`.
            options: As in `__call__`; `fps` only says how fast the clip is shown, and so how fast its speckle changes.
                Options that draw the latent are refused.
            size: As in `__call__`.

        Raises:
            InputError: The still cannot be read, the mask's size differs, or the latent is of another shape or
                too short for the frames that are asked for.
            ConfigError: An option does not apply.
        """
        chosen = options or GenerateOptions()
        drawing = ("steps", "sampler", "guidance", "label", "longer", *CONTROLS)
        refuse_options(chosen, drawing, "the latent is given, not drawn")
        latents = latent[None] if latent.ndim == 4 else latent
        stitched = check_latents(self.info, latents, chosen)

        def given(segment: int, seen: Tensor) -> Motion:
            if stitched:
                return self.generator.decode_chain(latents.float(), seen, chosen.frames, loop=chosen.loop)
            return self.generator.decode(latents[segment : segment + 1].float(), seen)

        with torch.no_grad(), self._fixed_threads():
            fps = chosen.fps if chosen.fps is not None else 1 / self.info.frame_interval_s
            count = 1 if stitched else self.segments(chosen.frames)
            return self._renderer(image, mask, size).clips(given, count, [seed], chosen, fps)[0]

    def encode(self, frames: Frames, fps: float | None = None) -> Tensor:
        """Turn a clip into the latent that stands for its motion.

        Args:
            frames: uint8 (16, H, W) or (16, H, W, 3).
            fps: Its rate, checked against what the weights were trained on; None is not checked.

        Returns:
            (C_z, T_z, H_z, W_z), float32, on the CPU: the mean of the posterior, in the auto-encoder's units.

        Raises:
            InputError: The clip is of another length or type.
            ConfigError: The weights do not know that rate.
        """
        length = self.info.autoencoder.n_frames
        if frames.dtype != np.uint8 or frames.ndim not in (3, 4) or len(frames) != length:
            raise InputError(
                f"The clip is {frames.dtype} of shape {frames.shape}; uint8 ({length}, H, W[, 3]) is needed.",
                "Choose a window of that many frames.",
            )
        low, high = known_rates(self.info.interval_range_s)
        if fps is not None and not low <= fps <= high:
            raise ConfigError(
                f"The clip's window has {fps:.3g} frames a second; these weights know {low:.1f} to {high:.0f}.",
                "Take its frames at another spacing (--stride, --dt).",
            )
        fitted, _ = fit_frames(to_gray(frames), Fit(self.info.fit, self.info.autoencoder.size))
        with self._fixed_threads():
            return self.generator.encode(torch.from_numpy(to_float(fitted))[None, None])[0]

    def segments(self, frames: int) -> int:
        """Count the latents that a clip of so many frames takes segment by segment."""
        return segments(self.info, frames)

    def _renderer(self, image: Image | str | Path, mask: Mask | None, size: int | None) -> Renderer:
        picture = read_still(Path(image)) if isinstance(image, str | Path) else image
        check_picture(picture, mask)
        if size is not None:
            picture, mask = resize_longer(picture, mask, size)
        still = Still.prepare(picture, Fit(self.info.fit, self.info.autoencoder.size), self.device)
        return Renderer(self.info, self.generator.autoencoder, self.device, still, mask)

    @contextmanager
    def _fixed_threads(self) -> Iterator[None]:
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)
