"""The breast: layers of skin, fat, gland and muscle, ligaments, texture, and perhaps a lesion.

Owns what lies where at rest, as functions of position: echo amplitude, attenuation, stiffness. Layers are
divided by wavy surfaces y = s_k(x + slope z); fat bulges into gland in lobules between Cooper's ligaments.
Relative moduli follow Samani, Zubovits and Plewes, Phys Med Biol 52 (2007) 1565: fat and gland about equal,
fibroadenoma twice, carcinoma 3 to 13 times as stiff. Lengths in mm; x may lie beside the picture, since
tissue moves into view.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from us_i2v.data.phantom.lesion import Lesion, Style, draw_lesion

if TYPE_CHECKING:
    from us_i2v.data.phantom.config import PhantomConfig
    from us_i2v.types import FloatArray

SKIN, FAT, GLAND, BACK_FAT, MUSCLE = range(5)
"""Tissues, from the probe down."""

_ECHO_DB = np.array([4.0, -11.0, 0.0, -10.5, -9.0])  # relative to gland
_TEXTURE_DB = np.array([1.2, 2.5, 3.5, 2.5, 4.0])  # spread of the tissue's own texture
_ATTENUATION = np.array([1.2, 0.45, 0.65, 0.45, 0.9])  # dB per cm and MHz, one way
_STIFFNESS = np.array([4.0, 1.0, 1.0, 1.0, 2.5])  # Young's moduli relative to gland
_COARSE = 2.5  # a texture's coarse scale over its fine one
_TABLE_MM = 0.25  # spacing of tables along x and of texture maps


@dataclass(frozen=True)
class Line:
    """A thin bright sheet y = s(x), x = x_0 + s(y) or any curve, extended across the imaging plane.

    Attributes:
        x: (n,) mm, points of the curve.
        y: (n,) mm.
        level_db: Level over gland at the sheet's middle, (n,).
    """

    x: npt.NDArray[np.float64]
    y: npt.NDArray[np.float64]
    level_db: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Anatomy:
    """One breast at rest.

    Attributes:
        origin: x of the tables' first entry, mm (negative: they reach beyond the picture).
        surfaces: (4, n) depth of the surfaces between the five tissues, every 0.25 mm.
        slope: x shift of the surfaces a mm across the imaging plane.
        textures: (5, rows, columns) standard normal maps every 0.25 mm, repeated without seam.
        lines: Ligaments and fasciae.
        lesion: The lesion or None.
        lesion_stiffness: Its modulus relative to gland.
    """

    origin: float
    surfaces: npt.NDArray[np.float64]
    slope: float
    textures: npt.NDArray[np.float32]
    lines: tuple[Line, ...]
    lesion: Lesion | None
    lesion_stiffness: float

    def tissue(self, x: FloatArray, y: FloatArray, z: FloatArray | float = 0.0) -> npt.NDArray[np.intp]:
        """Return the tissue's index (lesion aside) at positions that broadcast together."""
        at = (x + self.slope * np.asarray(z) - self.origin) / _TABLE_MM
        knots = np.arange(self.surfaces.shape[1])
        index = np.zeros(np.broadcast(at, y).shape, dtype=np.intp)
        for surface in self.surfaces:
            index += y > np.interp(at, knots, surface)
        return index

    def echo(self, x: FloatArray, y: FloatArray, z: FloatArray) -> FloatArray:
        """Return the scatterers' amplitude at (n,) positions; 1 is gland."""
        tissue = self.tissue(x, y, z)
        level = _ECHO_DB[tissue]
        where = np.stack([tissue, y / _TABLE_MM, (x + self.slope * z - self.origin) / _TABLE_MM])
        rows, columns = self.textures.shape[1:]
        where[1] %= rows - 1
        where[2] %= columns - 1
        level = level + _TEXTURE_DB[tissue] * ndimage.map_coordinates(self.textures, where, order=1)
        if self.lesion is not None:
            lesion = self.lesion
            distance = lesion.distance(x, y, z)
            share = 0.5 * (1.0 - np.tanh(distance / lesion.edge_mm))
            inner = lesion.echo_db + 1.2 * ndimage.map_coordinates(
                self.textures[GLAND], where[1:], order=1, mode="nearest"
            )
            level = (1.0 - share) * level + share * inner
            level = level + lesion.rim_db * np.exp(-0.5 * (distance / lesion.rim_mm) ** 2)
        return np.asarray(10.0 ** (level / 20.0))

    def attenuation(self, x: FloatArray, y: FloatArray, z: float, frequency_mhz: float) -> FloatArray:
        """Return two-way attenuation, dB a mm of depth."""
        coefficient = _ATTENUATION[self.tissue(x, y, z)]
        if self.lesion is None:
            return np.asarray(0.2 * frequency_mhz * coefficient)
        coefficient = np.where(self.lesion.inside(x, y, z), self.lesion.attenuation, coefficient)
        return np.asarray(0.2 * frequency_mhz * coefficient + self.lesion.edge_loss(x, y, z))

    def stiffness(self, x: FloatArray, y: FloatArray) -> FloatArray:
        """Return Young's modulus relative to gland in the middle plane."""
        modulus = _STIFFNESS[self.tissue(x, y)]
        if self.lesion is not None:
            modulus = np.where(self.lesion.inside(x, y), self.lesion_stiffness, modulus)
        return modulus


def typical_attenuation(frequency_mhz: float) -> float:
    """Return what the time-gain compensation assumes: two-way, dB a mm."""
    return 0.2 * frequency_mhz * 0.65


def draw_anatomy(config: PhantomConfig, rng: np.random.Generator, stiffness_rng: np.random.Generator) -> Anatomy:
    """Draw a breast.

    Args:
        config: Sizes and class; with `motion_only` the class sets the lesion's stiffness and nothing else.
        rng: Source of everything but the stiffness.
        stiffness_rng: Source of the lesion's stiffness.
    """
    width, depth = config.width_mm, config.depth_mm
    x = np.arange(-0.6 * width - 8.0, 1.6 * width + 8.0, _TABLE_MM)
    surfaces, ligament_x = _draw_surfaces(x, depth, rng)
    slope = rng.normal(0, 0.15)
    textures = _draw_textures(x.size, int(2 * depth / _TABLE_MM), rng)
    middle = (x > 0) & (x < width)
    room = (float(surfaces[FAT][middle].mean()) - 1.5, float(surfaces[GLAND][middle].mean()))
    style: Style = "irregular" if config.label == "malignant" else "oval"
    if config.motion_only:
        style = "irregular" if rng.random() < 0.5 else "oval"
    lesion = None if config.label == "normal" else draw_lesion(style, width, room, rng)
    low, high = config.malignant_stiffness if config.label == "malignant" else config.benign_stiffness
    return Anatomy(
        origin=float(x[0]),
        surfaces=surfaces,
        slope=slope,
        textures=textures,
        lines=_draw_lines(x, surfaces, ligament_x, lesion, rng),
        lesion=lesion,
        lesion_stiffness=low * (high / low) ** stiffness_rng.random(),
    )


def _draw_surfaces(
    x: npt.NDArray[np.float64], depth: float, rng: np.random.Generator
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the four surfaces (4, n) and the x of the ligaments, where lobules of fat meet."""
    skin = rng.uniform(1.4, 2.0) + _waves(x, 0.06, rng)
    fat = depth * rng.uniform(0.18, 0.32) + _waves(x, 0.035 * depth, rng)
    gaps = rng.uniform(0.12, 0.34, 60) * depth
    ligament_x = x[0] + np.cumsum(gaps)
    ligament_x = ligament_x[ligament_x < x[-1]]
    near = np.abs(x[:, None] - ligament_x[None]).min(axis=1)
    # Lobules are round below: the surface rises steeply towards each ligament.
    fat = fat - depth * rng.uniform(0.06, 0.13) * np.exp(-np.hypot(near, 0.4) / (0.06 * depth))
    gland = depth * rng.uniform(0.56, 0.68) + _waves(x, 0.025 * depth, rng)
    back = gland + depth * rng.uniform(0.04, 0.1) + _waves(x, 0.012 * depth, rng)
    gland = np.maximum(gland, fat + 0.2 * depth)
    surfaces = np.stack([skin, np.maximum(fat, skin + 1.0), gland, np.maximum(back, gland + 0.6)])
    return surfaces, ligament_x


def _waves(x: npt.NDArray[np.float64], amplitude: float, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    total = np.zeros_like(x)
    for length in (55.0, 30.0, 16.0):
        total += rng.normal(0, length / 55.0) * np.sin(2 * np.pi * (x / length + rng.random()))
    return np.asarray(amplitude * total)


def _draw_textures(columns: int, rows: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Draw a texture map for each tissue, in equal parts of two scales; grain is (axial, lateral) in mm."""
    grains = ((0.3, 1.5), (0.2, 1.4), (0.25, 1.1), (0.2, 1.4), (0.2, 3.0))
    maps = []
    for axial, lateral in grains:
        total = np.zeros((rows, columns), dtype=np.float32)
        for scale in (1.0, _COARSE):
            noise = rng.standard_normal((rows, columns), dtype=np.float32)
            widths = (scale * axial / _TABLE_MM, scale * lateral / _TABLE_MM)
            smooth = ndimage.gaussian_filter(noise, widths, mode="wrap")
            total += smooth / (np.sqrt(2.0) * smooth.std())
        maps.append(total)
    return np.stack(maps)


def _draw_lines(
    x: npt.NDArray[np.float64],
    surfaces: npt.NDArray[np.float64],
    ligament_x: FloatArray,
    lesion: Lesion | None,
    rng: np.random.Generator,
) -> tuple[Line, ...]:
    lines = [Line(x, np.full_like(x, 0.25), np.full_like(x, 10.0))]  # entry echo of the skin
    # Skin's lower edge, the capsule of the fat lobules, and the fasciae behind the gland and over the muscle.
    for surface, level in ((surfaces[0], 3.0), (surfaces[1], -3.0), (surfaces[2], 1.0), (surfaces[3], 6.0)):
        patchy = level + 2.5 * ndimage.gaussian_filter1d(rng.standard_normal(x.size), 12) * np.sqrt(2 * 12 * 1.77)
        lines.append(Line(x, surface, patchy))
    for start in ligament_x:
        lines.append(_ligament(float(start), x, surfaces, rng))
        lines.append(_septum(float(start), x, surfaces, rng))
    for _ in range(int(rng.integers(8, 16))):  # fibres within muscle
        shift = rng.uniform(0.8, 12.0)
        level = -5.0 + 4.0 * ndimage.gaussian_filter1d(rng.standard_normal(x.size), 16) * np.sqrt(2 * 16 * 1.77)
        lines.append(Line(x, surfaces[3] + shift + _waves(x, 0.15, rng), level))
    if lesion is None:
        return tuple(lines)
    return tuple(_without(line, lesion) for line in lines)


def _ligament(start: float, x: FloatArray, surfaces: npt.NDArray[np.float64], rng: np.random.Generator) -> Line:
    """Draw one of Cooper's ligaments, from the skin through fat into the gland, bent to one side.

    Parts that run along the beam return less of it.
    """
    column = int(np.clip(np.searchsorted(x, start), 0, x.size - 1))
    top, end = surfaces[0][column], surfaces[1][column] + rng.uniform(0.5, 3.0)
    along = np.linspace(0.0, 1.0, 60)
    lean = rng.choice((-1.0, 1.0)) * rng.uniform(0.2, 1.3) * (end - top)
    bow = rng.normal(0, 0.2) * (end - top)
    across = start + lean * (1.0 - along) ** 1.6 + bow * np.sin(np.pi * along)
    down = top + (end - top) * along
    steep = np.gradient(down) / np.hypot(np.gradient(down), np.gradient(across))
    level = rng.uniform(-2.0, 4.0) - 5.0 * steep**2
    level = level + 2.5 * np.sin(2 * np.pi * (along * rng.uniform(0.5, 1.5) + rng.random()))
    return Line(across, down, level)


def _septum(start: float, x: FloatArray, surfaces: npt.NDArray[np.float64], rng: np.random.Generator) -> Line:
    """Draw a thin curved sheet between two layers of fat lobules."""
    across = start + np.linspace(-0.5, 0.5, 60) * rng.uniform(3.0, 9.0)
    share = rng.uniform(0.25, 0.75)
    top, bottom = (np.interp(across, x, surface) for surface in surfaces[:2])
    arch = rng.normal(0, 0.12) * np.cos(np.linspace(-0.5, 0.5, 60) * np.pi)
    level = rng.uniform(-9.0, -2.0) - 8.0 * np.linspace(-1.0, 1.0, 60) ** 4
    return Line(across, top + (bottom - top) * (share + arch), level)


def _without(line: Line, lesion: Lesion) -> Line:
    """Silence a line where it crosses the lesion."""
    inside = lesion.distance(line.x, line.y) < 0.3
    return Line(line.x, line.y, np.where(inside, -60.0, line.level_db))
