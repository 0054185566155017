"""The speckle process: unit-variance noise with the still's own grain, correlated in time.

    w_1 = e_1,   w_t = rho w_{t-1} + sqrt(1 - rho^2) e_t,   noise_t = k_y * k_x * w_t,   noise_0 = 0

A loop of N frames has the stationary process on a circle instead, whose correlation is that of both ways around:

    w_t = rho w_{t-1} + c e_t,   e_{t+N} = e_t,   w_0 = c sum_{j < N} rho^j e_{-j} / (1 - rho^N)
    c^2 = (1 - rho^2) (1 - rho^N) / (1 + rho^N),  correlation at lag k: (rho^k + rho^(N-k)) / (1 + rho^N)

The grain (k_y, k_x) comes from the autocorrelation of the still's own texture at output size, so that speckle
is as fine as the picture's at any resolution; how strong it is comes from the decoder's predicted scale.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import ndimage

from us_i2v.models.envelope import phasor_correlation
from us_i2v.seeding import per_sample_noise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from us_i2v.seeding import Seed
    from us_i2v.types import FloatArray, Mask

_LAGS = 12
_LOCAL_SIGMA = 8.0


@dataclass(frozen=True)
class Grain:
    """Separable kernels of the texture, unit energy each.

    Attributes:
        rows: (2 * 12 + 1,), along y.
        columns: (2 * 12 + 1,), along x.
    """

    rows: Tensor
    columns: Tensor

    @classmethod
    def measure(cls, texture: FloatArray, hold: Mask | None = None) -> Grain:
        """Measure the grain of a texture.

        Args:
            texture: (H, W), zero mean: a picture less its local mean.
            hold: (H, W), pixels that are no tissue, or None.
        """
        values = texture.astype(np.float64)
        local = np.sqrt(ndimage.gaussian_filter(values**2, _LOCAL_SIGMA)) + 1e-3
        weight = np.ones_like(values) if hold is None else (~hold).astype(np.float64)
        weight *= local > 4e-3
        if weight.sum() < 64:
            weight[:] = 1.0
        values = values / local
        return cls(*(_kernel(_correlation(values, weight, axis)) for axis in (0, 1)))

    def of_phasors(self) -> Grain:
        """Return the grain of complex noise whose log-magnitude has this grain, see `envelope`."""

        def wider(kernel: Tensor) -> Tensor:
            own = np.correlate(kernel.double().numpy(), kernel.double().numpy(), "full")[-len(kernel) :][: _LAGS + 1]
            return _kernel(phasor_correlation(torch.from_numpy(own).clamp(0, 1)).numpy())

        return Grain(wider(self.rows), wider(self.columns))


def _correlation(texture: FloatArray, weight: FloatArray, axis: int) -> FloatArray:
    """Autocorrelation of a texture along one axis, lags 0 .. 12, tapered."""
    t, w = np.moveaxis(texture, axis, 0), np.moveaxis(weight, axis, 0)
    lags = min(_LAGS, t.shape[0] - 1)
    values = np.zeros(_LAGS + 1)
    for lag in range(lags + 1):
        a, b = slice(0, t.shape[0] - lag), slice(lag, None)
        both = w[a] * w[b]
        values[lag] = (t[a] * t[b] * both).sum() / max(both.sum(), 1.0)
    if values[0] <= 0:
        values[0] = 1.0
    # Flat over the first half: a taper over all lags would blur the spectrum and lose fine grain.
    taper = 0.5 * (1 + np.cos(np.pi * np.clip(2 * np.arange(_LAGS + 1) / (_LAGS + 1) - 1, 0, 1)))
    correlation: FloatArray = values / values[0] * taper
    return correlation


def _kernel(correlation: FloatArray) -> Tensor:
    """Symmetric kernel, unit energy, with this autocorrelation at lags 0 .. 12."""
    length = 4 * _LAGS
    circular = np.zeros(length)
    circular[: _LAGS + 1] = correlation
    circular[-_LAGS:] = correlation[1:][::-1]
    amplitude = np.sqrt(np.clip(np.fft.rfft(circular).real, 0, None))
    kernel = np.roll(np.fft.irfft(amplitude, length), _LAGS)[: 2 * _LAGS + 1]
    return torch.from_numpy(kernel / np.sqrt(np.square(kernel).sum())).float()


class SpeckleProcess:
    """Draws the noise of consecutive frames; frame 0 is zero.

    Args:
        seeds: One a sample; a sample's noise does not depend on its neighbours.
        size: (H, W) of the frames.
        grain: See `Grain`.
        correlation: rho, from frame to frame, 0 <= rho < 1.
        stream: Name of the random stream; processes of other names are independent.
        loop: Frames after which the noise repeats; None: never.
    """

    def __init__(
        self,
        seeds: Sequence[Seed],
        size: tuple[int, int],
        grain: Grain,
        correlation: float,
        stream: str,
        loop: int | None = None,
    ) -> None:
        self.seeds, self.size, self.grain, self.correlation = list(seeds), size, grain, correlation
        self.stream, self.loop = stream, loop
        self._next = 0
        self._state: Tensor | None = None

    def take(self, n_frames: int) -> Tensor:
        """Return the next frames of noise: (B, 1, n_frames, H, W), float32."""
        out = torch.zeros((len(self.seeds), 1, n_frames, *self.size))
        for k in range(n_frames):
            if self._next == 0 and self.loop is not None:
                self._state = self._before(self.loop)
            if self._next > 0:
                fresh = self._fresh(self._next)
                if self._state is None:
                    self._state = fresh
                else:
                    self._state = self._state.mul_(self.correlation).add_(fresh, alpha=self._innovation())
                out[:, 0, k] = self._state
            self._next += 1
        return out

    def _fresh(self, frame: int) -> Tensor:
        """Draw a frame's own noise, (B, H, W); in a loop it comes again every time around."""
        number = frame if self.loop is None else frame % self.loop
        fresh = per_sample_noise(self.seeds, self.size, "speckle", self.stream, number)
        # Filtering each draw instead of the state keeps the working set in the cache.
        return _filter(_filter(fresh, self.grain.rows, dim=-2), self.grain.columns, dim=-1)

    def _innovation(self) -> float:
        """Return c, the amplitude of a frame's own noise."""
        around = 0.0 if self.loop is None else self.correlation**self.loop
        return float(((1 - self.correlation**2) * (1 - around) / (1 + around)) ** 0.5)

    def _before(self, loop: int) -> Tensor:
        """Return the state w_0 that comes again after a time around; draws that weigh less than 1e-7 are left out."""
        rho, state = self.correlation, torch.zeros((len(self.seeds), *self.size))
        lags = loop if rho >= 1e-7 ** (1 / loop) else max(1, math.ceil(math.log(1e-7) / math.log(max(rho, 1e-7))))
        for frame in range(loop - min(lags, loop) + 1, loop + 1):
            state = state.mul_(rho).add_(self._fresh(frame), alpha=self._innovation())
        return state / (1 - rho**loop)


def _filter(x: Tensor, kernel: Tensor, dim: int) -> Tensor:
    """Correlate with a symmetric kernel along one axis, wrapping around at the edges."""
    half = len(kernel) // 2
    size = x.shape[dim]
    padded = torch.cat([x.narrow(dim, size - half, half), x, x.narrow(dim, 0, half)], dim=dim)
    out = x * float(kernel[half])
    for k in range(1, half + 1):
        if abs(float(kernel[half + k])) > 1e-3:
            pair = padded.narrow(dim, half - k, size) + padded.narrow(dim, half + k, size)
            out.add_(pair, alpha=float(kernel[half + k]))
    return out
