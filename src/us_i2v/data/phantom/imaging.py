"""From scatterers to B-mode: a complex separable point-spread function, compounding, noise, log compression.

The analytic signal of look j at (x, y) of scatterers at (x_s, y_s, z_s) with amplitudes a_s is, up to a
carrier that the envelope does not see,

    p_j(x, y) = sum_s a_s exp(-2 i k y_s - i h_j x_s) A(y - y_s) L(x - x_s; y) E(z_s; y_s),    k = 2 pi f / c,
    A(d) = g(d; s_a),   L(d; y) = g(d; s_l(y)) exp(-i c q d^2 / (2 s_l^2)),   E(z; y) = g(z; s_e(y)),
    g(d; s) = (pi s^2)^(-1/4) exp(-d^2 / (2 s^2)),   s_l(y) = s_l0 sqrt(1 + q^2),   q = (y - focus) / zone.

Each factor has unit energy, so n scatterers a mm^3 with a = 1 give E|p|^2 = n at every depth. Scatterers are
spread onto a fine grid by linear weights (their axial phase exact); the factors then are matrices from that
grid to the pixels: one for the axial direction, one for each block of rows for the lateral direction.

A look is a steering angle: h_j = 2 k sin(angle), evenly spaced by 2.5 / s_l0 around 0 (10 degrees with the
default probe). Signals of looks h apart correlate as exp(-h^2 s_l^2 / 4), so neighbours are nearly independent
and compounding, the mean of the looks' envelopes, calms speckle. The steps h_j lie on a scatterer wherever it
moves, so each look's speckle follows the tissue. That the response itself leans with the angle is neglected.

Conventions: mm; x = 0 and y = 0 are the picture's left and upper edge, z = 0 the imaging plane.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from us_i2v.data.phantom.config import Scanner
    from us_i2v.types import FloatArray

_Complex = npt.NDArray[np.complex64]
_Float32 = npt.NDArray[np.float32]

_OVERSAMPLING = 1.6  # fine cells a standard deviation of the response
_REACH = 3.3  # standard deviations at which the response is cut
_SLAB = 2.7  # the same, across the imaging plane
_PART = 8192  # scatterers handled at once
_BLOCK_MM = 1.0  # rows that share one lateral response
_LOOK_STEP = 2.5  # lateral wave number between neighbouring looks, times s_l0
_LOOK_CELLS = 0.8  # further fine cells across s_l0 for each further look
_CUT = 6.0  # standard deviations beyond which the lateral response is 0 (denormals are slow)


@dataclass(frozen=True)
class Scatterers:
    """Point scatterers: float64 arrays (n,) of positions in mm and amplitudes."""

    x: FloatArray
    y: FloatArray
    z: FloatArray
    amplitude: FloatArray

    def __getitem__(self, part: slice) -> Scatterers:
        """Return some of them."""
        return Scatterers(self.x[part], self.y[part], self.z[part], self.amplitude[part])

    def parts(self) -> Iterator[slice]:
        """Divide into runs whose working arrays stay small (fresh memory costs more than arithmetic)."""
        for start in range(0, self.x.size, _PART):
            yield slice(start, start + _PART)


class Imager:
    """Images scatterers with one scanner onto one grid of square pixels.

    Args:
        scanner: The probe.
        size: (height, width) in pixels.
        depth_mm: Depth shown; the pixel is depth / height.
    """

    def __init__(self, scanner: Scanner, size: tuple[int, int], depth_mm: float) -> None:
        self.scanner, self.size = scanner, size
        height, width = size
        pixel = depth_mm / height
        self.rows_mm = (np.arange(height) + 0.5) * pixel
        self.columns_mm = (np.arange(width) + 0.5) * pixel
        widest = float(lateral_sigma(scanner, np.array([0.0, depth_mm])).max())
        finer = _OVERSAMPLING + _LOOK_CELLS * (scanner.looks - 1)
        self._step = (scanner.axial_sigma_mm / _OVERSAMPLING, scanner.lateral_sigma_mm / finer)
        self._margin = (_REACH * scanner.axial_sigma_mm, _REACH * widest)
        self._cells = (
            int(np.ceil((depth_mm + 2 * self._margin[0]) / self._step[0])) + 2,
            int(np.ceil((width * pixel + 2 * self._margin[1]) / self._step[1])) + 2,
        )
        self._axial = self._axial_matrix()
        self._blocks = self._lateral_matrices(max(1, round(_BLOCK_MM / pixel)))
        self._carriers = self._look_carriers()
        self.reach_mm = _SLAB * float(elevation_sigma(scanner, np.array([0.0, depth_mm])).max())

    def field(self, points: Iterable[Scatterers]) -> _Complex:
        """Return the complex signals p_j at the pixels' centres, (looks, H, W).

        Args:
            points: The scatterers in parts; small parts that lie at similar depths are fastest. Scatterers
                beyond `reach_mm` of the imaging plane are left out.
        """
        grid = np.zeros(self._cells, dtype=np.complex64)
        for part in points:
            self._add(grid, part)
        rows = self._axial @ grid
        out = np.empty((len(self._carriers), *self.size), dtype=np.complex64)
        for block, matrix in self._blocks:
            for look, carrier in zip(out, self._carriers, strict=True):
                look[block] = (rows[block] * carrier) @ matrix
        return out

    def _add(self, grid: _Complex, part: Scatterers) -> None:
        """Add scatterers to the fine grid, each to its four nearest nodes by linear weights."""
        rows, columns = self._cells
        v = (part.y + self._margin[0]) / self._step[0]
        u = (part.x + self._margin[1]) / self._step[1]
        keep = (np.abs(part.z) < self.reach_mm) & (v >= 0) & (v < rows - 1) & (u >= 0) & (u < columns - 1)
        v, u = v[keep], u[keep]
        if v.size == 0:
            return
        signal = self._signal(part.y[keep], part.z[keep], part.amplitude[keep])
        i, j = v.astype(np.intp), u.astype(np.intp)
        dv, du = v - i, u - j
        first, last = int(i.min()), int(i.max()) + 2
        index = (i - first) * columns + j
        target = grid[first:last].reshape(-1)
        for value, component in zip(signal, (target.real, target.imag), strict=True):
            lower = value * dv
            upper = value - lower
            for shift, weight in ((0, upper), (columns, lower)):
                right = weight * du
                component += np.bincount(index + shift, weight - right, target.size)
                component += np.bincount(index + shift + 1, right, target.size)

    def _signal(self, y: FloatArray, z: FloatArray, amplitude: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the real and imaginary part of a E(z; y) exp(-2 i k y)."""
        sigma = elevation_sigma(self.scanner, y)
        # float32 is fast and enough here, once whole turns of the phase are gone.
        fall = np.exp((-0.5 * (z / sigma) ** 2).astype(np.float32))
        weight = amplitude * fall / (np.pi**0.25 * np.sqrt(sigma))
        turns = -2.0 * self.scanner.frequency_mhz / self.scanner.sound_speed * y
        angle = (2.0 * np.pi * (turns - np.floor(turns))).astype(np.float32)
        return weight * np.cos(angle), weight * np.sin(angle)

    def _axial_matrix(self) -> _Complex:
        nodes = np.arange(self._cells[0]) * self._step[0] - self._margin[0]
        distance = self.rows_mm[:, None] - nodes
        return _response(distance, self.scanner.axial_sigma_mm, self._step[0]).astype(np.complex64)

    def _lateral_matrices(self, rows: int) -> list[tuple[slice, _Complex]]:
        squared = ((self.columns_mm[None] - self._nodes_x[:, None]) ** 2).astype(np.float32)
        blocks = []
        for start in range(0, self.size[0], rows):
            block = slice(start, min(start + rows, self.size[0]))
            depth = self.rows_mm[block].mean()
            sigma = float(lateral_sigma(self.scanner, depth))
            q = (depth - self.scanner.focus_mm) / self.scanner.focal_zone_mm
            narrowed = _narrowed(sigma, self._step[1])
            exponent = np.complex64(-0.5 / narrowed**2 - 0.5j * self.scanner.curvature * q / sigma**2)
            matrix = np.zeros(squared.shape, dtype=np.complex64)
            np.exp(exponent * squared, out=matrix, where=squared < (_CUT * narrowed) ** 2)
            matrix *= np.float32(np.sqrt(sigma) / (np.pi**0.25 * narrowed))
            blocks.append((block, matrix))
        return blocks

    @property
    def _nodes_x(self) -> npt.NDArray[np.float64]:
        return np.asarray(np.arange(self._cells[1]) * self._step[1] - self._margin[1], dtype=np.float64)

    def _look_carriers(self) -> _Complex:
        """Return each look's phase at the fine grid's columns, (looks, columns).

        Linear weights weaken a signal that turns by h from node to node by sqrt(1 - (1 - cos h) / 3) on average.
        """
        count = self.scanner.looks
        wave = (np.arange(count) - (count - 1) / 2) * _LOOK_STEP / self.scanner.lateral_sigma_mm
        weakened = np.sqrt(1.0 - (1.0 - np.cos(wave * self._step[1])) / 3.0)
        carriers: _Complex = (np.exp(-1j * wave[:, None] * self._nodes_x) / weakened[:, None]).astype(np.complex64)
        return carriers


def compound(signals: _Complex) -> _Float32:
    """Return the mean envelope of the looks, (looks, H, W) -> (H, W).

    Developed speckle of n independent looks has a ratio of mean to spread of 1.91 sqrt(n).
    """
    envelope: _Float32 = np.abs(signals).mean(axis=0, dtype=np.float32)
    return envelope


def look_correlation(scanner: Scanner, apart: int, y: FloatArray | float) -> FloatArray:
    """Return the correlation of intensity between looks `apart` steps from each other, at depth y.

    This is for many scatterers; n in a resolution cell add about 1 / n, since all looks see the same clumps.
    """
    wave = apart * _LOOK_STEP / scanner.lateral_sigma_mm
    return np.asarray(np.exp(-0.5 * (wave * lateral_sigma(scanner, y)) ** 2))


def lateral_sigma(scanner: Scanner, y: FloatArray | float) -> FloatArray:
    """Return the lateral width s_l at depth y, mm."""
    q = (np.asarray(y, dtype=np.float64) - scanner.focus_mm) / scanner.focal_zone_mm
    return np.asarray(scanner.lateral_sigma_mm * np.sqrt(1.0 + q**2))


def elevation_sigma(scanner: Scanner, y: FloatArray | float) -> FloatArray:
    """Return the width s_e across the imaging plane at depth y, mm."""
    q = (np.asarray(y, dtype=np.float64) - scanner.elevation_focus_mm) / scanner.elevation_zone_mm
    return np.asarray(scanner.elevation_sigma_mm * np.sqrt(1.0 + q**2))


def slice_correlation(scanner: Scanner, shift_mm: FloatArray | float, y: FloatArray | float) -> FloatArray:
    """Return the correlation of intensity between two slices of fully developed speckle.

    The signals correlate as the overlap of their responses, exp(-d^2 / (4 s_e^2)); intensity as its square
    (Siegert's relation).
    """
    return np.asarray(np.exp(-0.5 * (np.asarray(shift_mm) / elevation_sigma(scanner, y)) ** 2))


def system_noise(shape: tuple[int, int, int], pixel_mm: float, scanner: Scanner, rng: np.random.Generator) -> _Complex:
    """Draw complex receiver noise, (n, H, W), E|n|^2 = 1, new in every look and frame.

    The receive filter smooths it axially, interpolation between scan lines laterally.
    """
    parts = rng.standard_normal((2, *shape), dtype=np.float32)
    widths = (0.7 * scanner.axial_sigma_mm / pixel_mm, 0.5 * scanner.lateral_sigma_mm / pixel_mm)
    smooth = ndimage.gaussian_filter(parts, (0, 0, *widths))
    noise: _Complex = (smooth[0] + 1j * smooth[1]).astype(np.complex64)
    noise /= np.float32(np.sqrt((np.abs(noise) ** 2).mean()))
    return noise


def log_compress(envelope: FloatArray, white_db: float, dynamic_range_db: float) -> npt.NDArray[np.uint8]:
    """Return 8-bit gray: `white_db` (and above) is 255, `dynamic_range_db` below it is 0."""
    level = 20.0 * np.log10(np.maximum(envelope, 1e-12))
    gray = 255.0 * np.clip(1.0 + (level - white_db) / dynamic_range_db, 0.0, 1.0)
    return np.rint(gray).astype(np.uint8)


def _response(distance: FloatArray, sigma: float, step: float) -> FloatArray:
    """Return g(distance), narrowed by what spreading by linear weights adds on average (step^2 / 6)."""
    narrowed = _narrowed(sigma, step)
    shape = np.exp(-0.5 * (distance / narrowed) ** 2) * sigma / narrowed
    return np.asarray(shape / (np.pi**0.25 * np.sqrt(sigma)))


def _narrowed(sigma: float, step: float) -> float:
    return float(np.sqrt(max(sigma**2 - step**2 / 6.0, 0.25 * sigma**2)))
