"""Ordinary elastic augmentation as a maker of clips: a smooth random deformation of the still that grows in time.

    x_t(p) = still(p + d(p, t)),   d(p, t) = a(t) A(p) + b(t) B(p),   a(t) = t,  b(t) = sin(pi t) / 2,  t = 0 .. 1

A and B are white noise blurred by a Gaussian, one each for x and y, of unit deviation; the mean |d| over the clip is
what the training clips' block motion is. Tissue deforms, but neither as a body does nor does its speckle change.
Source of the field: Simard, Steinkraus and Platt 2003, section 2; the time course is that of
`baselines.RandomAffine`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from us_i2v.reproduction.baselines import RandomAffine
from us_i2v.seeding import numpy_generator

if TYPE_CHECKING:
    from collections.abc import Iterable

    from us_i2v.types import FloatArray, Frames, Image

GRAIN = 0.1
"""Deviation of the Gaussian that blurs the field, as a share of the picture's height."""


@dataclass(frozen=True)
class RandomElastic:
    """The still under a random elastic deformation.

    Attributes:
        shift: Mean displacement over the clip, as a share of the picture's height.
        length: Frames.
    """

    shift: float
    length: int

    @classmethod
    def fit(cls, windows: Iterable[FloatArray]) -> RandomElastic:
        """Take the mean displacement of windows (T, S, S) in 0..1, see `RandomAffine.fit`."""
        found = RandomAffine.fit(windows)
        return cls(found.shift, found.length)

    def __call__(self, still: Image, seed: int) -> Frames:
        """See `baselines.Maker`."""
        rng = numpy_generator(seed, "random-elastic")
        height, width = still.shape[:2]
        blur = GRAIN * height
        fields = ndimage.gaussian_filter(rng.standard_normal((2, 2, height, width)), (0, 0, blur, blur), mode="wrap")
        fields /= np.maximum(fields.std(axis=(-2, -1), keepdims=True), 1e-12)
        time = np.linspace(0.0, 1.0, self.length)
        path = np.stack([time, 0.5 * np.sin(np.pi * time)])
        lengths = [np.hypot(*np.tensordot(path[:, t], fields, 1)).mean() for t in range(1, self.length)]
        path *= self.shift * height / max(float(np.mean(lengths)), 1e-12)
        source = still.astype(np.float32)
        rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
        frames = np.empty((self.length, height, width), np.uint8)
        frames[0] = still
        for t in range(1, self.length):
            x, y = np.tensordot(path[:, t], fields, 1)
            moved = ndimage.map_coordinates(source, [rows + y, columns + x], order=1, mode="nearest")
            frames[t] = np.clip(np.round(moved), 0, 255)
        return frames
