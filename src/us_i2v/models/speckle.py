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
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from us_i2v.models.envelope import phasor_correlation
from us_i2v.seeding import per_sample_noise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from us_i2v.seeding import Seed
    from us_i2v.types import FloatArray

    Taps = list[tuple[int, Tensor]]

_LAGS = 12
_LOCAL_SIGMA, _LOCAL_CELL = 8.0, 4
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
    _known: dict[tuple[int, torch.device], tuple[Taps, Taps, Tensor]] = field(
        default_factory=dict, compare=False, repr=False
    )

    @classmethod
    def measure(cls, texture: Tensor, hold: Tensor | None = None) -> Grain:
        """Measure the grain of a texture at up to 6 depths; those with little texture lean on the whole picture.

        Args:
            texture: (H, W), zero mean: a picture less its local mean; on any device.
            hold: (H, W) bool, pixels that are no tissue, or None.

        Returns:
            Kernels on the CPU.
        """
        values = texture.float()
        local = _local_mean_square(values).sqrt() + 1e-3
        weight = (local > 4e-3).float()
        if hold is not None:
            weight = weight * ~hold.to(weight.device)
        weight = torch.where(weight.sum() < 64, torch.ones_like(weight), weight)
        values = values / local
        depths = max(1, min(_DEPTHS, len(values) // (2 * _LAGS)))
        found = torch.stack([_correlations(values * weight, weight, axis, depths) for axis in (0, 1)])
        rows, columns = (_kernels(one) for one in found.cpu().numpy())
        return cls(rows, columns)

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

    def at_work(self, height: int, device: torch.device) -> tuple[Taps, Taps, Tensor]:
        """Return what noise of `height` rows is made with, kept for the next clip.

        Returns:
            Kernels along y and x by lag, see `_taps`, and the correlation of neighbours along y and x, (2, height).
        """
        key = (height, device)
        if key not in self._known:
            kernels = self.at_rows(height)
            alike = torch.stack(kernels.neighbours()).to(device)
            self._known[key] = (_taps(kernels.rows, device), _taps(kernels.columns, device), alike)
        return self._known[key]

    def neighbours(self) -> tuple[Tensor, Tensor]:
        """Return the correlation of noise in neighbouring pixels along y and x, each (D,)."""
        y, x = ((kernels[:, :-1] * kernels[:, 1:]).sum(dim=1) for kernels in (self.rows, self.columns))
        return y, x


def _local_mean_square(values: Tensor) -> Tensor:
    """Mean square around every pixel, Gaussian window of 8 px, made of means over 4 x 4 px: (H, W) -> same."""
    sigma = _LOCAL_SIGMA / _LOCAL_CELL
    taps = torch.exp(-0.5 * (torch.arange(-round(4 * sigma), round(4 * sigma) + 1) / sigma).square())
    taps = (taps / taps.sum()).to(values.device)
    coarse = F.avg_pool2d(values.square()[None, None], _LOCAL_CELL, ceil_mode=True, count_include_pad=False)
    half = len(taps) // 2
    coarse = F.conv2d(F.pad(coarse, (0, 0, half, half), mode="replicate"), taps[None, None, :, None])
    coarse = F.conv2d(F.pad(coarse, (half, half, 0, 0), mode="replicate"), taps[None, None, None])
    smooth: Tensor = F.interpolate(coarse, values.shape, mode="bilinear")[0, 0]
    return smooth


def _correlations(texture: Tensor, weight: Tensor, axis: int, depths: int) -> Tensor:
    """Autocorrelation of a texture, weighted already, along one axis, (depths, lags 0 .. 12), tapered."""
    height = len(texture)
    place = (torch.arange(height) + 0.5) / height * depths - 0.5
    # Each depth looks at its own part of the height and, with falling weight, at the two beside it.
    near = (1 - (place[None] - torch.arange(depths)[:, None]).abs() / 1.5).clamp_min(0).to(texture)
    fields = torch.stack([texture, weight])
    by_row = texture.new_zeros((2, height, _LAGS + 1))
    for lag in range(min(_LAGS, texture.shape[axis] - 1) + 1):
        along, length = 1 + axis, texture.shape[axis] - lag
        rows = (fields.narrow(along, 0, length) * fields.narrow(along, lag, length)).sum(dim=2)
        by_row[:, : rows.shape[1], lag] = rows
    products, counts = near @ by_row
    lean = _LEAN / depths
    values = (products + lean * products.sum(dim=0)) / (counts + lean * counts.sum(dim=0)).clamp_min(1.0)
    values[:, 0] = torch.where(values[:, 0] > 0, values[:, 0], 1.0)
    # Flat over the first half: a taper over all lags would blur the spectrum and lose fine grain.
    lags = torch.arange(_LAGS + 1).to(values)
    taper = 0.5 * (1 + torch.cos(math.pi * (2 * lags / (_LAGS + 1) - 1).clamp(0, 1)))
    correlations: Tensor = values / values[:, :1] * taper
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

    On CUDA it is drawn by that device's own generator: there the same seed gives another pattern of the same kind.

    Args:
        seeds: One a sample; a sample's noise does not depend on its neighbours.
        size: (H, W) of the frames.
        grain: See `Grain`.
        correlation: rho, from frame to frame, 0 <= rho < 1; one number, or (B or 1, H, W) by place of the still.
        stream: Name of the random stream; processes of other names are independent.
        loop: Frames after which the noise repeats; None: never.
        device: Where the noise is made; None: on the CPU.
    """

    def __init__(
        self,
        seeds: Sequence[Seed],
        size: tuple[int, int],
        grain: Grain,
        correlation: float | Tensor,
        stream: str,
        loop: int | None = None,
        device: torch.device | None = None,
    ) -> None:
        self.seeds, self.size = list(seeds), size
        self.device = device or torch.device("cpu")
        self._rows, self._columns, _ = grain.at_work(size[0], self.device)
        self.correlation = torch.as_tensor(correlation, dtype=torch.float32).to(self.device)
        self.stream, self.loop = stream, loop
        around = torch.zeros((), device=self.device) if loop is None else self.correlation**loop
        self._innovation = ((1 - self.correlation.square()) * (1 - around) / (1 + around)).sqrt()
        self._next = 0
        self._state: Tensor | None = None

    def take(self, n_frames: int) -> Tensor:
        """Return the next frames of noise: (B, 1, n_frames, H, W), float32."""
        out = torch.zeros((len(self.seeds), 1, n_frames, *self.size), device=self.device)
        start, end = self._next, self._next + n_frames
        if start == 0 and n_frames > 0:
            self._state = None if self.loop is None else self._before(self.loop)
        # On a CPU frame by frame, so that what is worked on stays in the cache.
        together = 1 if self.device.type == "cpu" else n_frames
        for first in range(max(1, start), end, together):
            numbers = range(first, min(first + together, end))
            for k, fresh in zip(numbers, self._fresh(numbers), strict=True):
                if self._state is None:
                    self._state = fresh
                else:
                    self._state = (self._state * self.correlation).addcmul_(fresh, self._innovation)
                out[:, 0, k - start] = self._state
        self._next = end
        return out

    def _fresh(self, frames: Sequence[int]) -> Tensor:
        """Draw some frames' own noise, (n, B, H, W); in a loop it comes again every time around."""
        numbers = [frame if self.loop is None else frame % self.loop for frame in frames]
        there = self.device if self.device.type == "cuda" else None
        drawn = [per_sample_noise(self.seeds, self.size, "speckle", self.stream, k, device=there) for k in numbers]
        # Filtering each draw instead of the state keeps the working set in the cache.
        return _filter(_filter(torch.stack(drawn).to(self.device), self._rows, dim=-2), self._columns, dim=-1)

    def _before(self, loop: int) -> Tensor:
        """Return the state w_0 that comes again after a time around; draws that weigh less than 1e-7 are left out."""
        rho, state = self.correlation, torch.zeros((len(self.seeds), *self.size), device=self.device)
        longest = float(rho.max())
        few = longest < 1e-7 ** (1 / loop)
        lags = max(1, math.ceil(math.log(1e-7) / math.log(max(longest, 1e-7)))) if few else loop
        for frame in range(loop - min(lags, loop) + 1, loop + 1):
            state = state.mul_(rho).addcmul_(self._fresh([frame])[0], self._innovation)
        return state / (1 - rho**loop)


def _taps(kernels: Tensor, device: torch.device) -> Taps:
    """Symmetric kernels (H, 2 * half + 1), one a row -> (lag, weights (H, 1)) of lag 0 and those that count."""
    half = kernels.shape[1] // 2
    lags = [k for k in range(half + 1) if k == 0 or float(kernels[:, half + k].abs().max()) > 1e-3]
    there = kernels.to(device)
    return [(k, there[:, half + k, None]) for k in lags]


def _filter(x: Tensor, taps: Taps, dim: int) -> Tensor:
    """Correlate with symmetric kernels along one axis, wrapping around at the edges.

    Args:
        x: (..., H, W).
        taps: See `_taps`.
        dim: The axis, -2 or -1.
    """
    size, half = x.shape[dim], taps[-1][0]
    padded = torch.cat([x.narrow(dim, size - half, half), x, x.narrow(dim, 0, half)], dim=dim)
    out = x * taps[0][1]
    for k, weights in taps[1:]:
        out.addcmul_(padded.narrow(dim, half - k, size) + padded.narrow(dim, half + k, size), weights)
    return out
