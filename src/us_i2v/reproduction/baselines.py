"""Clips that a model must beat: made of the still and of what training clips look like, by no learned network.

A maker turns (still, seed) into a clip. All are fitted on training windows only:

    AddedDifferences    still + (x_t - x_0) of a random training window: real texture and timing in the wrong place
    FittedNoise         still + first-order autoregressive noise of the fitted size, grain and correlation
    RandomAffine        the still under a slow random shift, rotation and scaling of the fitted size

Repeating frame 0 needs no maker of its own (`evaluation.clips`), and a random training latent decoded on the still
is made by the model whose latent it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage

from us_i2v.errors import DataError
from us_i2v.metrics.block_matching import block_motion
from us_i2v.metrics.motion import motion_statistics
from us_i2v.seeding import numpy_generator

if TYPE_CHECKING:
    from collections.abc import Iterable

    from us_i2v.data.training_clips import ClipSampler
    from us_i2v.types import FloatArray, Frames, Image

LEVELS = 8
"""Bins of the still's gray level in which noise is fitted: dark areas change less than bright ones."""

_BIN = 256 // LEVELS


class Maker(Protocol):
    """Makes a clip from a still."""

    def __call__(self, still: Image, seed: int) -> Frames:
        """Still uint8 (H, W), seed -> clip uint8 (T, H, W) whose frame 0 is the still."""


class AddedDifferences:
    """The still plus the frame differences of a training window, resized to the still.

    Args:
        windows: Draws training windows; without augmentation.
    """

    def __init__(self, windows: ClipSampler) -> None:
        self.windows = windows

    def __call__(self, still: Image, seed: int) -> Frames:
        """See `Maker`."""
        frames = self.windows.draw(seed, 0).frames
        return _added(still, _resized((frames - frames[0]) * 255, still.shape[:2]))


@dataclass(frozen=True)
class FittedNoise:
    """The still plus noise: e_0 = 0, e_1 ~ N(0, s^2), e_t = r e_{t-1} + sqrt(1 - r^2) s n_t, n blurred.

    Attributes:
        deviation: s in gray levels by bin of the still's gray level, (LEVELS,).
        correlation: r, from frame to frame.
        blur: Deviation of the Gaussian blur of n, as a share of the picture's height.
        length: Frames.
    """

    deviation: FloatArray
    correlation: float
    blur: float
    length: int

    @classmethod
    def fit(cls, windows: Iterable[FloatArray]) -> FittedNoise:
        """Fit on windows (T, S, S) in 0..1; raises `DataError` if there are none.

        s is the deviation of x_t - x_0 (t >= 1) by bin; a bin without pixels takes its neighbour's. r is the
        correlation of neighbouring frames of (x_t - x_0) / s. White noise blurred by b pixels has
        the correlation exp(-1 / 4b^2) between neighbours, hence b from the measured one.
        """
        square, count = np.zeros(LEVELS), np.zeros(LEVELS)
        kept: list[FloatArray] = []
        for window in windows:
            change = (window[1:] - window[0]).astype(np.float64) * 255
            level = _bins(window[0] * 255)
            square += np.bincount(level.ravel(), np.square(change).sum(0).ravel(), LEVELS)
            count += np.bincount(level.ravel(), minlength=LEVELS) * len(change)
            kept.append(window)
        if not kept:
            raise DataError("No training windows were given to fit noise on.", "Give at least one.")
        there = count > 0
        nearest = np.argmin(np.abs(np.arange(LEVELS)[:, None] - np.flatnonzero(there)[None]), axis=1)
        deviation = np.sqrt(square[there] / count[there])[nearest]
        time, space = np.zeros(2), np.zeros(2)
        for window in kept:
            level = _bins(window[0] * 255)
            unit = (window[1:] - window[0]) * 255 / np.maximum(deviation[level], 1e-3)
            time += np.array([(unit[1:] * unit[:-1]).mean(), np.square(unit).mean()])
            sides = [(unit[:, 1:] * unit[:, :-1]).mean(), (unit[:, :, 1:] * unit[:, :, :-1]).mean()]
            space += np.array([np.mean(sides), np.square(unit).mean()])
        r = float(np.clip(time[0] / max(time[1], 1e-9), 0.0, 0.99))
        neighbours = float(np.clip(space[0] / max(space[1], 1e-9), 1e-3, 0.999))
        blur = np.sqrt(-1.0 / (4.0 * np.log(neighbours))) / kept[0].shape[1]
        return cls(deviation, r, float(blur), len(kept[0]))

    def __call__(self, still: Image, seed: int) -> Frames:
        """See `Maker`."""
        rng = numpy_generator(seed, "fitted-noise")
        height, width = still.shape[:2]
        sigma = self.blur * height
        noise = ndimage.gaussian_filter(rng.standard_normal((self.length - 1, height, width)), (0, sigma, sigma))
        noise /= max(float(noise.std()), 1e-9)
        for t in range(1, len(noise)):
            noise[t] = self.correlation * noise[t - 1] + np.sqrt(1 - self.correlation**2) * noise[t]
        change = noise * self.deviation[_bins(still)]
        return _added(still, np.concatenate([np.zeros((1, height, width)), change]))


@dataclass(frozen=True)
class RandomAffine:
    """The still under a slow random rigid motion with scaling: no tissue deforms, no speckle changes.

    Shift, angle and log scale are each a straight path plus half a sine in time, with random directions and lengths.

    Attributes:
        shift: Mean displacement of the picture's middle over the clip, as a share of its height.
        length: Frames.
    """

    shift: float
    length: int

    @classmethod
    def fit(cls, windows: Iterable[FloatArray]) -> RandomAffine:
        """Take the mean displacement against frame 0 that block matching finds in windows (T, S, S), 0..1."""
        lengths, frames, side = [], 2, 1
        for window in windows:
            frames, side = len(window), window.shape[1]
            lengths.append(motion_statistics(block_motion((window * 255).round().astype(np.uint8))).mean)
        if not lengths:
            raise DataError("No training windows were given to fit motion on.", "Give at least one.")
        return cls(float(np.mean(lengths)) / side, frames)

    def __call__(self, still: Image, seed: int) -> Frames:
        """See `Maker`."""
        rng = numpy_generator(seed, "random-affine")
        time = np.linspace(0.0, 1.0, self.length)
        ends, bows = rng.standard_normal((2, 4))
        # Columns: x and y shift in heights, angle in radians, log scale; a quarter of the height away from
        # the middle, an angle or a log scale of a moves by a / 4.
        path = time[:, None] * ends + 0.5 * np.sin(np.pi * time)[:, None] * bows
        # Mean length of a two-dimensional normal path whose deviation at t is sqrt(t^2 + sin^2(pi t) / 4).
        path *= self.shift / (np.sqrt(np.pi / 2) * np.hypot(time, 0.5 * np.sin(np.pi * time))[1:].mean())
        path[:, 2:] *= 2.0
        height, width = still.shape[:2]
        theta = np.zeros((self.length, 2, 3))
        cos, sin, zoom = np.cos(path[:, 2]), np.sin(path[:, 2]), np.exp(path[:, 3])
        theta[:, 0] = np.stack([zoom * cos, -zoom * sin * height / width, 2 * path[:, 0] * height / width], axis=1)
        theta[:, 1] = np.stack([zoom * sin * width / height, zoom * cos, 2 * path[:, 1]], axis=1)
        source = torch.from_numpy(still.astype(np.float32))[None, None].expand(self.length, -1, -1, -1)
        grid = F.affine_grid(torch.from_numpy(theta).float(), [self.length, 1, height, width], align_corners=False)
        moved = F.grid_sample(source, grid, mode="bilinear", padding_mode="border", align_corners=False)
        frames: Frames = moved[:, 0].round().clamp(0, 255).byte().numpy()
        frames[0] = still
        return frames


def _bins(gray: FloatArray | Image) -> np.ndarray[tuple[int, ...], np.dtype[np.intp]]:
    return np.clip(gray.astype(np.intp) // _BIN, 0, LEVELS - 1)


def _resized(change: FloatArray, size: tuple[int, int]) -> FloatArray:
    video = torch.from_numpy(np.ascontiguousarray(change, dtype=np.float32))[:, None]
    resized: FloatArray = F.interpolate(video, size, mode="bilinear", align_corners=False)[:, 0].numpy()
    return resized


def _added(still: Image, change: FloatArray) -> Frames:
    return np.clip(np.round(still.astype(np.float64) + change), 0, 255).astype(np.uint8)
