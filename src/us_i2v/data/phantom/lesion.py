"""The lesion: a star-shaped body with its echo, attenuation and stiffness.

Its outline in the imaging plane is r(angle) around a centre; across the plane it shrinks as an ellipsoid
does, r sqrt(1 - (z / half thickness)^2). Two styles follow the descriptors that radiologists use (BI-RADS):
"oval" is wider than tall, smooth, with a thin bright capsule, little attenuation (so echoes behind it are
enhanced) and shadows at its edges; "irregular" is taller than wide, lobed and spiculated, with a blurred edge
and halo, and shadows what lies behind it. Lengths in mm, levels in dB relative to gland.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from us_i2v.types import FloatArray

Style = Literal["oval", "irregular"]

_ANGLES = 360


@dataclass(frozen=True)
class Lesion:
    """One lesion.

    Attributes:
        style: "oval" or "irregular".
        centre: (x, y), mm.
        radius: (360,) r at whole degrees from the x axis towards y, mm.
        half_thickness: Half extent across the imaging plane, mm.
        echo_db: Level of the inside.
        edge_mm: Half width of the edge's transition.
        rim_db: Gain of the rim over its surroundings, and ...
        rim_mm: ... its half width.
        attenuation: dB per cm and MHz, one way.
        edge_shadow_db: Loss behind each lateral edge, two-way, by refraction.
    """

    style: Style
    centre: tuple[float, float]
    radius: npt.NDArray[np.float64]
    half_thickness: float
    echo_db: float
    edge_mm: float
    rim_db: float
    rim_mm: float
    attenuation: float
    edge_shadow_db: float

    def distance(self, x: FloatArray, y: FloatArray, z: FloatArray | float = 0.0) -> FloatArray:
        """Return roughly the signed distance to the surface along the ray from the centre, mm; < 0 inside."""
        dx, dy = x - self.centre[0], y - self.centre[1]
        angle = np.degrees(np.arctan2(dy, dx)) % _ANGLES
        knots = np.arange(_ANGLES + 1)
        radius = np.interp(angle, knots, np.append(self.radius, self.radius[0]))
        shrink = np.sqrt(np.clip(1.0 - (np.asarray(z) / self.half_thickness) ** 2, 0.0, None))
        distance: FloatArray = np.hypot(dx, dy) - radius * shrink
        return distance

    def inside(self, x: FloatArray, y: FloatArray, z: FloatArray | float = 0.0) -> npt.NDArray[np.bool_]:
        """Return where (x, y, z) lies in the lesion."""
        return np.asarray(self.distance(x, y, z) < 0)

    def edge_loss(self, x: FloatArray, y: FloatArray, z: float) -> FloatArray:
        """Return extra two-way attenuation, dB a mm of depth, that casts the edge shadows."""
        shrink = np.sqrt(max(1.0 - (z / self.half_thickness) ** 2, 0.0))
        loss = np.zeros(np.broadcast(x, y).shape)
        if self.edge_shadow_db <= 0 or shrink <= 0:
            return loss
        length = 0.35 * float(self.radius.mean())
        for degree in (0, 180):
            side = 1.0 if degree == 0 else -1.0
            at = self.centre[0] + side * self.radius[degree] * shrink
            ridge = np.exp(-0.5 * ((x - at) / 0.45) ** 2 - 0.5 * ((y - self.centre[1]) / length) ** 2)
            loss += self.edge_shadow_db / (np.sqrt(2 * np.pi) * length) * ridge
        return loss


def draw_lesion(style: Style, width_mm: float, depths_mm: tuple[float, float], rng: np.random.Generator) -> Lesion:
    """Draw a lesion of one style that fits between two depths of a picture `width_mm` wide."""
    top, bottom = depths_mm
    room = bottom - top
    if style == "oval":
        half_height = rng.uniform(0.24, 0.4) * room
        half_width = half_height * rng.uniform(1.3, 1.9)
    else:
        half_height = rng.uniform(0.3, 0.46) * room
        half_width = half_height * rng.uniform(0.6, 0.9)
    half_width = min(half_width, 0.3 * width_mm)
    x = width_mm * rng.uniform(0.36, 0.64)
    y = top + half_height + rng.uniform(0.05, 0.95) * max(room - 2 * half_height, 0.0)
    thickness = 0.5 * (half_height + half_width) * rng.uniform(0.9, 1.4)
    if style == "oval":
        return Lesion(
            style=style,
            centre=(x, y),
            radius=_oval(half_width, half_height, rng),
            half_thickness=thickness,
            echo_db=rng.uniform(-17.0, -11.0),
            edge_mm=0.12,
            rim_db=rng.uniform(2.0, 6.0),
            rim_mm=0.25,
            attenuation=rng.uniform(0.1, 0.3),
            edge_shadow_db=rng.uniform(3.0, 8.0),
        )
    return Lesion(
        style=style,
        centre=(x, y),
        radius=_irregular(half_width, half_height, rng),
        half_thickness=thickness,
        echo_db=rng.uniform(-22.0, -15.0),
        edge_mm=rng.uniform(0.35, 0.8),
        rim_db=rng.uniform(1.0, 4.0),
        rim_mm=rng.uniform(0.6, 1.2),
        attenuation=rng.uniform(1.1, 1.8),
        edge_shadow_db=0.0,
    )


def _ellipse(half_width: float, half_height: float, tilt: float) -> tuple[FloatArray, FloatArray]:
    angle = np.radians(np.arange(_ANGLES))
    c, s = np.cos(angle - tilt), np.sin(angle - tilt)
    return angle, half_width * half_height / np.hypot(half_height * c, half_width * s)


def _oval(half_width: float, half_height: float, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    angle, radius = _ellipse(half_width, half_height, np.radians(rng.uniform(-12, 12)))
    lobes = sum(rng.uniform(0, 0.05) * np.cos(order * angle + rng.uniform(0, 2 * np.pi)) for order in (2, 3, 4))
    return np.asarray(radius * (1.0 + lobes))


def _irregular(half_width: float, half_height: float, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    angle, radius = _ellipse(half_width, half_height, np.radians(rng.uniform(-20, 20)))
    lobes = sum(
        rng.normal(0, 0.17 / order) * np.cos(order * angle + rng.uniform(0, 2 * np.pi)) for order in range(2, 14)
    )
    outline = radius * np.clip(1.0 + lobes, 0.55, 1.5)
    for at in rng.uniform(0, 2 * np.pi, rng.integers(3, 8)):  # spicules: narrow spikes
        away = np.angle(np.exp(1j * (angle - at)))
        outline += rng.uniform(0.1, 0.3) * radius * np.exp(-0.5 * (away / np.radians(rng.uniform(4, 9))) ** 2)
    return np.asarray(outline)
