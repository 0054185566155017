"""Motion of the phantom: the elastic field in the imaging plane, and the slice's drift across it.

The forward displacement of tissue at rest position X is u(X, t) = sum_m c_m(t) u_m(X), with the load cases of
`probe_motion` solved for this breast's own stiffness; scatterers follow it, X -> X + u. The plane drifts to
z = d(t). Frame t's backward flow b solves b(p) = -u(p + b(p), t): what lies at p was at p + b at rest, which
is frame 0, since all courses start at zero. Lengths in mm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from us_i2v.data.probe_motion import (
    MODES,
    draw_shares,
    draw_waves,
    invert_displacement,
    load_cases,
    time_courses,
)

if TYPE_CHECKING:
    from us_i2v.data.phantom.anatomy import Anatomy
    from us_i2v.data.phantom.config import PhantomConfig
    from us_i2v.types import FloatArray

_CELLS = 60  # along the picture's longer side
_SUBCELLS = 4  # samples of the stiffness a cell and axis


@dataclass(frozen=True)
class MotionPlan:
    """What the probe does.

    Attributes:
        courses: (T, 5) displacement of each load case, mm.
        drift: (T,) position of the imaging plane across itself, mm.
    """

    courses: npt.NDArray[np.float64]
    drift: npt.NDArray[np.float64]


def draw_plan(config: PhantomConfig, rng: np.random.Generator) -> MotionPlan:
    """Draw the probe's motion over the clip."""
    peak = config.depth_mm * _log_uniform(config.displacement, rng)
    shares = draw_shares(rng)
    drift = _log_uniform(config.drift_mm, rng) * rng.choice((-1.0, 1.0))
    waves = draw_waves(rng, len(MODES) + 1)
    times = np.arange(config.n_frames, dtype=np.float64) / config.fps
    courses = time_courses(waves, times)
    return MotionPlan(courses[:-1].T * (peak * shares), courses[-1] * drift)


class TissueMotion:
    """The displacement field of one breast under one plan.

    Args:
        config: Sizes and Poisson's ratio.
        anatomy: The breast.
        plan: The probe's motion.
    """

    def __init__(self, config: PhantomConfig, anatomy: Anatomy, plan: MotionPlan) -> None:
        width, depth = config.width_mm, config.depth_mm
        self.plan = plan
        self._cell = max(width, depth) / _CELLS
        columns, rows = max(4, round(width / self._cell)), max(4, round(depth / self._cell))
        side, below = columns // 4 + 1, rows // 3 + 1
        self._left = -side * self._cell
        stiffness = self._stiffness(anatomy, (rows + below, columns + 2 * side))
        nodal, self.strain_modes = load_cases(stiffness, config.poisson)
        # Modes are for a unit motion of one cell on this grid, hence dimensionless: mm in, mm out.
        self._modes = nodal
        self._forward = np.tensordot(plan.courses, nodal, axes=1)
        self._backward = invert_displacement(self._forward / self._cell) * self._cell

    @property
    def reach_mm(self) -> tuple[float, float]:
        """Largest displacement of the clip along x and y, mm."""
        return float(np.abs(self._forward[:, 0]).max()), float(np.abs(self._forward[:, 1]).max())

    def modes_at(self, x: FloatArray, y: FloatArray) -> npt.NDArray[np.float32]:
        """Return the load cases' displacement at rest positions (n,), as (2, 5, n)."""
        where = self._where(x, y)
        out = np.empty((2, len(MODES), x.size), dtype=np.float32)
        for mode in range(len(MODES)):
            for axis in (0, 1):
                ndimage.map_coordinates(self._modes[mode, axis], where, output=out[axis, mode], order=1, mode="nearest")
        return out

    def forward(self, modes: npt.NDArray[np.float32], t: int) -> FloatArray:
        """Return u at frame t, (2, n) mm, from `modes_at`'s answer."""
        course = self.plan.courses[t].astype(np.float32)
        moved: FloatArray = np.tensordot(course, modes, axes=(0, 1))
        return moved

    def backward(self, x: FloatArray, y: FloatArray, t: int) -> FloatArray:
        """Return b at frame t at positions in the picture that broadcast together, (2, ...) mm."""
        where = self._where(*np.broadcast_arrays(x, y))
        return np.stack([ndimage.map_coordinates(self._backward[t, a], where, order=1, mode="nearest") for a in (0, 1)])

    def _where(self, x: FloatArray, y: FloatArray) -> FloatArray:
        return np.stack([np.asarray(y) / self._cell, (np.asarray(x) - self._left) / self._cell])

    def _stiffness(self, anatomy: Anatomy, grid: tuple[int, int]) -> FloatArray:
        """Average the modulus over each cell, geometrically (best for the strain of small inclusions)."""
        rows, columns = grid
        fine_y = (np.arange(rows * _SUBCELLS) + 0.5) * self._cell / _SUBCELLS
        fine_x = self._left + (np.arange(columns * _SUBCELLS) + 0.5) * self._cell / _SUBCELLS
        modulus = np.log(anatomy.stiffness(fine_x[None, :], fine_y[:, None]))
        blocks = modulus.reshape(rows, _SUBCELLS, columns, _SUBCELLS)
        return np.asarray(np.exp(blocks.mean(axis=(1, 3))))


def _log_uniform(limits: tuple[float, float], rng: np.random.Generator) -> float:
    low, high = limits
    return float(low * (high / low) ** rng.random())
