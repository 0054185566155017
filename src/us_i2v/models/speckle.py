"""The speckle process: unit-variance noise with the still's own grain, correlated in time.

    w_1 = e_1,   w_t = rho w_{t-1} + sqrt(1 - rho^2) e_t,   noise_t = k_y * k_x * w_t,   noise_0 = 0

A loop of N frames has the stationary process on a circle instead, whose correlation is that of both ways around:

    w_t = rho w_{t-1} + c e_t,   e_{t+N} = e_t,   w_0 = c sum_{j < N} rho^j e_{-j} / (1 - rho^N)
    c^2 = (1 - rho^2) (1 - rho^N) / (1 + rho^N),  correlation at lag k: (rho^k + rho^(N-k)) / (1 + rho^N)

rho is one number or a map of the still's places, as the decoder predicts it (`SpeckleConfig.at`).

The grain (k_y, k_x) comes from the autocorrelation of the still's own texture at output size, so that speckle
is as fine as the picture's at any resolution; how strong it is comes from the decoder's predicted scale. A scanner's
point spread function changes with depth (the beam widens away from its focus), so each row has kernels of its own:

    noise(y, x) = sum_j sum_i k_y(y, j) k_x(y, i) w(y + j, x + i),      sum_j k_y^2 = sum_i k_x^2 = 1 in every row
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
_DEPTHS = 6
_LEAN = 0.1
"""Weight of the whole picture's grain in that of each depth, as a share of the pixels that a depth has on average."""


@dataclass(frozen=True)
class Grain:
    """Separable kernels of the texture by depth, unit energy each.

    Attributes:
        rows: (D, 2 * 12 + 1), along y, at D depths: the middles of D equal parts of the height.
        columns: (D, 2 * 12 + 1), along x.
    """

    rows: Tensor
    columns: Tensor

    @classmethod
    def measure(cls, texture: FloatArray, hold: Mask | None = None) -> Grain:
        """Measure the grain of a texture at up to 6 depths; those with little texture lean on the whole picture.

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
        depths = max(1, min(_DEPTHS, len(values) // (2 * _LAGS)))
        return cls(*(_kernels(_correlations(values, weight, axis, depths)) for axis in (0, 1)))

    def of_phasors(self) -> Grain:
        """Return the grain of complex noise whose log-magnitude has this grain, see `envelope`."""

        def wider(kernels: Tensor) -> Tensor:
            own = np.stack([np.correlate(k, k, "full")[-len(k) :][: _LAGS + 1] for k in kernels.double().numpy()])
            return _kernels(phasor_correlation(torch.from_numpy(own).clamp(0, 1)).numpy())

        return Grain(wider(self.rows), wider(self.columns))

    def at_rows(self, height: int) -> Grain:
        """Return the kernels of each of `height` rows, D = height: interpolated between the depths."""
        depths = len(self.rows)
        place = (np.arange(height) + 0.5) / height * depths - 0.5
        mix = np.stack([np.interp(place, range(depths), one) for one in np.eye(depths)], axis=1)

        def between(kernels: Tensor) -> Tensor:
            mixed = torch.from_numpy(mix).float() @ kernels
            return mixed / mixed.square().sum(dim=1, keepdim=True).sqrt()

        return Grain(between(self.rows), between(self.columns))

    def neighbours(self) -> tuple[Tensor, Tensor]:
        """Return the correlation of noise in neighbouring pixels along y and x, each (D,)."""
        y, x = ((kernels[:, :-1] * kernels[:, 1:]).sum(dim=1) for kernels in (self.rows, self.columns))
        return y, x


def _correlations(texture: FloatArray, weight: FloatArray, axis: int, depths: int) -> FloatArray:
    """Autocorrelation of a texture along one axis, (depths, lags 0 .. 12), tapered."""
    height, width = texture.shape
    place = (np.arange(height) + 0.5) / height * depths - 0.5
    # Each depth looks at its own part of the height and, with falling weight, at the two beside it.
    near = np.clip(1 - np.abs(place[None] - np.arange(depths)[:, None]) / 1.5, 0, None)
    products, counts = np.zeros((depths, _LAGS + 1)), np.zeros((depths, _LAGS + 1))
    for lag in range(min(_LAGS, texture.shape[axis] - 1) + 1):
        a = (slice(0, height - lag), slice(None)) if axis == 0 else (slice(None), slice(0, width - lag))
        b = (slice(lag, None), slice(None)) if axis == 0 else (slice(None), slice(lag, None))
        both = weight[a] * weight[b]
        rows = near[:, : len(both)]
        products[:, lag] = rows @ (texture[a] * texture[b] * both).sum(axis=1)
        counts[:, lag] = rows @ both.sum(axis=1)
    lean = _LEAN / depths
    values = (products + lean * products.sum(axis=0)) / np.maximum(counts + lean * counts.sum(axis=0), 1.0)
    values[values[:, 0] <= 0, 0] = 1.0
    # Flat over the first half: a taper over all lags would blur the spectrum and lose fine grain.
    taper = 0.5 * (1 + np.cos(np.pi * np.clip(2 * np.arange(_LAGS + 1) / (_LAGS + 1) - 1, 0, 1)))
    correlations: FloatArray = values / values[:, :1] * taper
    return correlations


def _kernels(correlations: FloatArray) -> Tensor:
    """Symmetric kernels, unit energy, with these autocorrelations at lags 0 .. 12: (D, 13) -> (D, 25)."""
    length = 4 * _LAGS
    circular = np.zeros((len(correlations), length))
    circular[:, : _LAGS + 1] = correlations
    circular[:, -_LAGS:] = correlations[:, 1:][:, ::-1]
    amplitude = np.sqrt(np.clip(np.fft.rfft(circular).real, 0, None))
    kernels = np.roll(np.fft.irfft(amplitude, length), _LAGS, axis=1)[:, : 2 * _LAGS + 1]
    return torch.from_numpy(kernels / np.sqrt(np.square(kernels).sum(axis=1, keepdims=True))).float()


class SpeckleProcess:
    """Draws the noise of consecutive frames; frame 0 is zero.

    Args:
        seeds: One a sample; a sample's noise does not depend on its neighbours.
        size: (H, W) of the frames.
        grain: See `Grain`.
        correlation: rho, from frame to frame, 0 <= rho < 1; one number, or (B or 1, H, W) by place of the still.
        stream: Name of the random stream; processes of other names are independent.
        loop: Frames after which the noise repeats; None: never.
    """

    def __init__(
        self,
        seeds: Sequence[Seed],
        size: tuple[int, int],
        grain: Grain,
        correlation: float | Tensor,
        stream: str,
        loop: int | None = None,
    ) -> None:
        self.seeds, self.size, self.grain = list(seeds), size, grain.at_rows(size[0])
        self.correlation = torch.as_tensor(correlation, dtype=torch.float32).cpu()
        self.stream, self.loop = stream, loop
        around = torch.zeros(()) if loop is None else self.correlation**loop
        self._innovation = ((1 - self.correlation.square()) * (1 - around) / (1 + around)).sqrt()
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
                    self._state = self._state.mul_(self.correlation).addcmul_(fresh, self._innovation)
                out[:, 0, k] = self._state
            self._next += 1
        return out

    def _fresh(self, frame: int) -> Tensor:
        """Draw a frame's own noise, (B, H, W); in a loop it comes again every time around."""
        number = frame if self.loop is None else frame % self.loop
        fresh = per_sample_noise(self.seeds, self.size, "speckle", self.stream, number)
        # Filtering each draw instead of the state keeps the working set in the cache.
        return _filter(_filter(fresh, self.grain.rows, dim=-2), self.grain.columns, dim=-1)

    def _before(self, loop: int) -> Tensor:
        """Return the state w_0 that comes again after a time around; draws that weigh less than 1e-7 are left out."""
        rho, state = self.correlation, torch.zeros((len(self.seeds), *self.size))
        longest = float(rho.max())
        few = longest < 1e-7 ** (1 / loop)
        lags = max(1, math.ceil(math.log(1e-7) / math.log(max(longest, 1e-7)))) if few else loop
        for frame in range(loop - min(lags, loop) + 1, loop + 1):
            state = state.mul_(rho).addcmul_(self._fresh(frame), self._innovation)
        return state / (1 - rho**loop)


def _filter(x: Tensor, kernels: Tensor, dim: int) -> Tensor:
    """Correlate with symmetric kernels along one axis, wrapping around at the edges.

    Args:
        x: (B, H, W).
        kernels: (H, 2 * half + 1), one a row of the result.
        dim: The axis, -2 or -1.
    """
    half = kernels.shape[1] // 2
    size = x.shape[dim]
    padded = torch.cat([x.narrow(dim, size - half, half), x, x.narrow(dim, 0, half)], dim=dim)
    out = x * kernels[:, half, None]
    for k in range(1, half + 1):
        taps = kernels[:, half + k, None]
        if float(taps.abs().max()) > 1e-3:
            out.addcmul_(padded.narrow(dim, half - k, size) + padded.narrow(dim, half + k, size), taps)
    return out
