"""From a still to clips: the object that users call.

    still -> (model-size still) -> denoise latents -> decode a `Motion` -> resample it to the still's own size
          -> render the still itself

Pictures are never generated at the model's size and enlarged: flow, residual and scale are smooth maps, and it
is the full-size still that is warped, so speckle stays as sharp as it was.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field

from us_i2v.config import Config
from us_i2v.data.hold import fill_held, find_hold
from us_i2v.data.stills import read_still
from us_i2v.data.transforms import Fit, Placement, fit_still, to_float, to_gray
from us_i2v.devices import choose_device
from us_i2v.diffusion.guidance import ClassifierFreeGuidance
from us_i2v.diffusion.samplers import DDIM, DDPM, DPMSolver, Sampler
from us_i2v.diffusion.sampling import sample
from us_i2v.diffusion.schedule import Spacing
from us_i2v.errors import ConfigError, InputError
from us_i2v.models.denoiser import Conditions
from us_i2v.models.motion import Motion, warp_mask
from us_i2v.models.render import SpeckleNoise, StillTexture, TextureMode, render
from us_i2v.seeding import derive_seed, per_sample_noise
from us_i2v.weights import ProcessConfig, Weights, load_weights

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from us_i2v.types import FloatArray, Frames, Image, Mask

CPU_THREADS = 2
"""Threads on a CPU: fixed, since sums depend on it and the same seed shall give the same bytes."""

_PIXELS_AT_ONCE = 1_200_000


class GenerateOptions(Config):
    """What can be asked of a clip."""

    frames: int = Field(16, ge=2, le=16, description="Frames, the still included.")
    steps: int | None = Field(None, ge=1, le=1000, description="Denoising steps; empty: the sampler's default.")
    sampler: Literal["ddpm", "ddim", "dpm-solver"] | None = Field(None, description="Empty: dpm-solver.")
    motion: float = Field(1.0, ge=0, le=3, description="Scales the movement; 0 = none.")
    speckle: float = Field(1.0, ge=0, le=1, description="Scales the drawn speckle change; 0 = none.")
    texture: TextureMode = Field("stationary", description="How drawn speckle enters, see models.render.")
    label: str | None = Field(None, description="Class condition, if the weights know classes.")
    guidance: float | None = Field(None, ge=0, le=20, description="Classifier-free guidance on the label.")
    fps: float | None = Field(None, gt=0, le=200, description="Frames a second; empty: the weights' typical.")


@dataclass(frozen=True)
class GeneratedClip:
    """One clip.

    Attributes:
        frames: uint8, (T, H, W) or (T, H, W, 3) as the still; frame 0 is the still.
        masks: (T, H, W) bool, the carried mask, or None.
        fps: Frames a second.
        seed: Seed that made it.
        flow: float32 (T, 2, h, w), backward flow in cells of the model's grid.
    """

    frames: Frames
    masks: Mask | None
    fps: float
    seed: int
    flow: FloatArray


class Generator(Protocol):
    """Anything that turns stills into motion: LDDM, and later others."""

    def motions(self, stills: Tensor, seeds: Sequence[int], options: GenerateOptions) -> Motion:
        """Stills (B, 1, S, S) in 0..1, one seed each -> motion of 16 frames, anchored at the stills."""


class LDDM:
    """Latent dynamic diffusion (Chen et al. 2024): noise -> latent -> motion.

    Args:
        weights: Weights of both stages.
        device: Where to compute.
    """

    def __init__(self, weights: Weights, device: torch.device) -> None:
        self.header, self.device = weights.header, device
        self.autoencoder = weights.autoencoder().to(device)
        self.denoiser = weights.denoiser().to(device)
        mean, sd = weights.latent_statistics()
        self.mean, self.sd = mean.to(device), sd.to(device)
        # A file of kind "lddm" always has one; the header's validation sees to it.
        self.process = weights.header.process or ProcessConfig()

    @torch.no_grad()
    def motions(self, stills: Tensor, seeds: Sequence[int], options: GenerateOptions) -> Motion:
        """See `Generator.motions`; raises `ConfigError` for an unknown label or frame rate."""
        latent = self.latents(stills, seeds, options)
        return self.autoencoder.decode(latent, stills.to(self.device)).in_float32().anchored()

    @torch.no_grad()
    def latents(self, stills: Tensor, seeds: Sequence[int], options: GenerateOptions) -> Tensor:
        """Denoise one latent a seed: (B, C_z, T_z, H_z, W_z), in the auto-encoder's units."""
        process = self.process
        stills = stills.to(self.device)
        conditions = self._conditions(stills, options)
        features = self.denoiser.embed_still(stills)

        def model(x: Tensor, t: Tensor) -> Tensor:
            out: Tensor = self.denoiser(x, t, conditions, features)
            return out

        def unlabelled(x: Tensor, t: Tensor) -> Tensor:
            out: Tensor = self.denoiser(x, t, replace(conditions, label=None), features)
            return out

        guidance = 1.0 if conditions.label is None or options.guidance is None else options.guidance
        guided = ClassifierFreeGuidance(model, unlabelled, guidance)
        noise = per_sample_noise(seeds, self.header.autoencoder.latent_shape, "latent").to(self.device)
        sampler, steps, spacing = choose_sampler(options)
        seeds = [derive_seed(seed, "sampler") for seed in seeds]
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
        label = None
        if options.label is not None:
            if options.label not in self.header.labels:
                known = ", ".join(self.header.labels) or "none"
                raise ConfigError(
                    f"Label '{options.label}' is not known to these weights (known: {known}).",
                    "Leave --label out.",
                )
            label = torch.full((b,), self.header.labels.index(options.label), device=self.device)
        interval = frame_interval(self.header.frame_interval_s, self.header.interval_range_s, options.fps)
        return Conditions(stills, label, None, torch.full((b,), interval, device=self.device))


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
    interval = 1 / fps
    if not 0.5 * known[0] <= interval <= 2 * known[1]:
        raise ConfigError(
            f"{fps:g} frames a second were asked for; these weights know {0.5 / known[1]:.1f} to {2 / known[0]:.0f}.",
            "Choose --fps in that range, or re-time the clip afterwards.",
        )
    return interval


class ImageToVideo:
    """Turns stills into clips.

    Example:
        >>> clip = ImageToVideo.from_pretrained()(image, seed=1)[0]  # doctest: +SKIP
    """

    def __init__(self, weights: Weights, device: torch.device, threads: int = CPU_THREADS) -> None:
        self.info = weights.header
        self.weights_sha256 = weights.sha256
        self.device, self.threads = device, threads
        self.generator: Generator = LDDM(weights, device)

    @classmethod
    def from_pretrained(
        cls, weights: str | Path | None = None, device: str = "auto", threads: int = CPU_THREADS
    ) -> ImageToVideo:
        """Load weights: a file, a run folder, or None for the bundled ones; raises `WeightsError`."""
        return cls(load_weights(weights), choose_device(device), threads)

    def __call__(
        self,
        image: Image | str | Path,
        *,
        mask: Mask | None = None,
        seed: int = 0,
        num_clips: int = 1,
        options: GenerateOptions | None = None,
        size: int | None = None,
    ) -> list[GeneratedClip]:
        """Make clips from one still.

        Args:
            image: uint8 (H, W) or (H, W, 3), or the path of a still.
            mask: (H, W) bool, carried along with the picture.
            seed: Seed of the first clip; the others take seed + 1, seed + 2, ...
            num_clips: How many.
            options: See `GenerateOptions`.
            size: Length of the longer side of the output; None keeps the still's own size.

        Returns:
            `num_clips` clips; the same seed gives the same clip, alone or among others.

        Raises:
            InputError: The still cannot be read, or the mask's size differs.
            ConfigError: An option does not fit the weights.
        """
        chosen = options or GenerateOptions()
        picture = read_still(Path(image)) if isinstance(image, str | Path) else image
        check_picture(picture, mask)
        if size is not None:
            picture, mask = resize_longer(picture, mask, size)
        with torch.no_grad(), self._fixed_threads():
            still = Still.prepare(picture, Fit(self.info.fit, self.info.autoencoder.size))
            return [self._one(still, mask, seed + k, chosen) for k in range(num_clips)]

    def _one(self, still: Still, mask: Mask | None, seed: int, options: GenerateOptions) -> GeneratedClip:
        motion = still.from_square(self.generator.motions(still.seen, [seed], options).first(options.frames))
        factor = options.speckle * self.info.speckle.factor
        motion = motion.scaled(options.motion, factor)
        flow = motion.flow[0].transpose(0, 1).cpu().numpy()
        height, width = still.size
        per_part = max(1, _PIXELS_AT_ONCE // (height * width))
        texture = still.texture(motion.grid) if options.speckle > 0 else None
        noise = None
        if texture is not None:
            noise = SpeckleNoise([seed], texture, still.small.shape[-1], self.info.speckle.correlation)
        frames, masks = [], []
        filled = still.filled.to(self.device)
        for first in range(0, options.frames, per_part):
            part = motion.frames(first, first + per_part)
            out = render(filled, part, noise, texture, mode=options.texture)
            frames.append(still.compose(out[0].cpu()))
            if mask is not None:
                full = part.at_size(still.size)
                given = torch.from_numpy(mask)[None, None].to(self.device)
                masks.append(warp_mask(given, full.flow)[0, 0].cpu().numpy())
        stacked = np.concatenate(frames)
        stacked[0] = still.picture
        carried = None
        if mask is not None:
            carried = np.concatenate(masks)
            carried[0] = mask
        interval = frame_interval(self.info.frame_interval_s, self.info.interval_range_s, options.fps)
        return GeneratedClip(stacked, carried, 1 / interval, seed, flow)

    @contextmanager
    def _fixed_threads(self) -> Iterator[None]:
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


@dataclass(frozen=True)
class Still:
    """A still, prepared once for all of its clips.

    Attributes:
        picture: uint8 (H, W) or (H, W, 3), as given.
        filled: float (1, C, H, W) in 0..1, the tissue continued under held pixels.
        hold: (H, W) bool, pixels that do not move.
        seen: float (1, 1, S, S), what the networks see: the still fitted as in their training.
        small: float (1, 1, S, S), the whole picture in the square, for the statistics of its speckle.
        placement: How `seen` lies on the picture.
    """

    picture: Image
    filled: Tensor
    hold: Mask
    seen: Tensor
    small: Tensor
    placement: Placement

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return int(self.picture.shape[0]), int(self.picture.shape[1])

    @classmethod
    def prepare(cls, picture: Image, fit: Fit) -> Still:
        """Find what must not move, and make the networks' view of the picture."""
        hold = find_hold(picture)
        gray = to_gray(picture[None])[0]
        seen, placement = fit_still(gray, fit)
        filled = fill_held(picture.astype(np.float32) / 255, hold)
        channels = filled[None] if filled.ndim == 2 else filled.transpose(2, 0, 1)
        small = fit_still(gray, Fit("stretch", fit.size))[0]
        return cls(
            picture=picture,
            filled=torch.from_numpy(np.ascontiguousarray(channels))[None],
            hold=hold,
            seen=torch.from_numpy(to_float(seen))[None, None],
            small=torch.from_numpy(to_float(small))[None, None],
            placement=placement,
        )

    def from_square(self, motion: Motion) -> Motion:
        """Turn a motion of the model's square into one whose grid covers the whole picture.

        Where the square shows only a part (centre crop), the rest moves as the nearest shown place.
        """
        place, (rows, columns) = self.placement, motion.grid
        side = place.model_size[0]
        (scale_y, scale_x), (height, width) = place.scale, self.size
        top = (place.box.top - place.region.top / scale_y) / side * rows
        left = (place.box.left - place.region.left / scale_x) / side * columns
        box = (top, left, height / scale_y / side * rows, width / scale_x / side * columns)
        whole = (0.0, 0.0, float(rows), float(columns))
        return motion if np.allclose(box, whole) else motion.resample(box, motion.grid)

    def texture(self, grid: tuple[int, int]) -> StillTexture:
        """Measure the speckle on the filled picture; held pixels count in no statistic."""
        gray = self.filled.mean(dim=1, keepdim=True)
        weight = torch.from_numpy(~self.hold)[None, None].float()
        return StillTexture.measure(gray, self.small, grid, weight)

    def compose(self, frames: Tensor) -> Frames:
        """(C, T, H, W) in 0..1 -> uint8 (T, H, W[, C]) with held pixels put back."""
        array = (frames * 255).round().to(torch.uint8).numpy()
        out = array[0].copy() if self.picture.ndim == 2 else np.ascontiguousarray(array.transpose(1, 2, 3, 0))
        out[:, self.hold] = self.picture[self.hold]
        return out


def check_picture(picture: Image, mask: Mask | None) -> None:
    """Raise `InputError` for a picture or mask of a wrong shape or type."""
    if picture.dtype != np.uint8 or picture.ndim not in (2, 3) or (picture.ndim == 3 and picture.shape[2] != 3):
        raise InputError(
            f"The still is {picture.dtype} of shape {picture.shape}; uint8 (H, W) or (H, W, 3) is needed.",
            "Scale it to 0..255.",
        )
    if min(picture.shape[:2]) < 16:
        raise InputError(f"The still is {picture.shape[1]}x{picture.shape[0]} px; at least 16x16 is needed.", "")
    if mask is not None and mask.shape != picture.shape[:2]:
        raise InputError(
            f"The mask is {mask.shape[1]}x{mask.shape[0]} px, the still {picture.shape[1]}x{picture.shape[0]}.",
            "Give a mask of the still's size.",
        )


def resize_longer(picture: Image, mask: Mask | None, size: int) -> tuple[Image, Mask | None]:
    """Resize so that the longer side has `size` pixels (antialiased; masks cut at one half)."""
    if not 16 <= size <= 8192:
        raise ConfigError(f"Size {size} px was asked for; 16 to 8192 is possible.", "Choose --size in that range.")
    factor = size / max(picture.shape[:2])
    shape = [max(16, round(side * factor)) for side in picture.shape[:2]]

    def resize(x: Tensor) -> Tensor:
        return F.interpolate(x, size=shape, mode="bilinear", antialias=True)

    channels = picture[None] if picture.ndim == 2 else picture.transpose(2, 0, 1)
    resized = resize(torch.from_numpy(channels.astype(np.float32))[None])[0].round().clamp(0, 255)
    array = resized.to(torch.uint8).numpy()
    out = array[0] if picture.ndim == 2 else np.ascontiguousarray(array.transpose(1, 2, 0))
    if mask is None:
        return out, None
    return out, (resize(torch.from_numpy(mask)[None, None].float())[0, 0] > 0.5).numpy()
