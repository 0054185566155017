"""How a hand-held probe moves tissue: load cases, smooth time courses, and their backward flow.

Owns what stills in motion and the phantom share. The tissue's displacement is a sum over five load cases of
one elastic solution, each with its own time course: u(X, t) = sum_m c_m(t) u_m(X). The pictures' frame is the
probe's: its face stays at the upper edge, and rigid motion of the probe shows as motion of the tissue.

Conventions: as in `elasticity`: x right, y down, forward displacement u in cells; the backward one is b with
b(x) = -u(x + b(x)).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.interpolate import make_interp_spline

from us_i2v.data.elasticity import ElasticSolver, strain
from us_i2v.types import FloatArray

_Float64 = npt.NDArray[np.float64]

MODES = ("pressure", "tilt", "drag", "skid", "breathing")
"""The load cases: pressing and tilting the probe, dragging the skin along, gliding over it, and motion of the
chest wall from below."""

REFERENCE_S = 1.5
"""Amplitudes are peaks over this time, in seconds."""

_BANDS_HZ = ((0.15, 0.4), (0.3, 0.9), (0.8, 1.8), (1.8, 4.0))  # breathing, slow hand, sway, tremor
_BAND_WEIGHTS = (1.0, 0.8, 0.3, 0.08)


def draw_shares(rng: np.random.Generator) -> _Float64:
    """Draw signed shares (5,) of the load cases: one leads with magnitude 1, mostly pressure."""
    share = rng.dirichlet((2.0, 0.5, 0.7, 1.2, 0.8)) * rng.choice((-1.0, 1.0), len(MODES))
    return np.asarray(share / np.abs(share).max())


def draw_waves(rng: np.random.Generator, rows: int) -> _Float64:
    """Draw sinusoids for `rows` time courses: (3, rows, 4) of frequency (Hz), weight, phase (radians)."""
    low, high = np.array(_BANDS_HZ).T
    shape = (rows, low.size)
    frequencies = low * (high / low) ** rng.random(shape)
    weights = np.array(_BAND_WEIGHTS) * rng.random(shape) + 1e-3
    return np.stack([frequencies, weights, rng.uniform(0, 2 * np.pi, shape)])


def time_courses(waves: FloatArray, times: FloatArray) -> _Float64:
    """Evaluate smooth courses that are 0 at time 0 and reach 1 in magnitude within `REFERENCE_S`.

    Args:
        waves: (3, rows, 4), as from `draw_waves`.
        times: (T,), seconds.

    Returns:
        (rows, T).
    """
    frequency, weight, phase = waves[..., None]

    def course(t: FloatArray) -> _Float64:
        wave = weight * (np.sin(2 * np.pi * frequency * t + phase) - np.sin(phase))
        return np.asarray(wave.sum(axis=1))

    peak = np.abs(course(np.linspace(0.0, REFERENCE_S, 64))).max(axis=1, keepdims=True)
    return np.asarray(course(times) / peak)


def load_cases(stiffness: FloatArray, poisson: float) -> tuple[_Float64, FloatArray]:
    """Solve the five `MODES` for a unit motion of one cell.

    Args:
        stiffness: (rows, columns), relative Young's moduli of the cells.
        poisson: Poisson's ratio.

    Returns:
        Displacement in the probe's frame at the nodes, (5, 2, rows + 1, columns + 1), and strain at the
        cells' centres, (5, 3, rows, columns).
    """
    rows, columns = stiffness.shape
    x = np.arange(columns + 1) - columns / 2
    y = np.arange(rows + 1.0)
    tilt = x / (columns / 2)
    hump = np.exp(-0.5 * ((x - 0.15 * columns) / (0.4 * columns)) ** 2)
    solver = ElasticSolver(stiffness, poisson=poisson, top="bonded", bottom="bonded")
    zero = np.zeros_like(tilt)
    nodal = solver.solve(
        cases=len(MODES),
        top_y=np.stack([zero + 1, tilt, zero, zero, zero]),
        top_x=np.stack([zero, zero, zero + 1, zero, zero]),
        bottom_y=np.stack([zero, zero, zero, zero, -hump]),
    )
    tensor = strain(nodal)
    # From the body's frame to the probe's: take off the probe's own rigid motion.
    nodal[0, 1] -= 1.0
    nodal[1, 1] -= tilt[None]
    nodal[1, 0] += (y / (columns / 2))[:, None]
    nodal[2, 0] -= 1.0
    nodal[3, 0] -= 1.0  # skidding: the probe glides, the tissue stays as it is
    return nodal, tensor


def invert_displacement(forward: FloatArray, iterations: int = 6) -> _Float64:
    """Return backward displacement b with b(x) = -u(x + b(x)), by fixed-point iteration.

    Args:
        forward: u, (T, 2, h, w), in cells of its own grid; |grad u| < 1.
        iterations: The error shrinks by the strain each time.
    """
    backward = -np.asarray(forward, dtype=np.float64)
    rows, columns = np.indices(forward.shape[2:], dtype=np.float64)
    for t in range(forward.shape[0]):
        for _ in range(iterations):
            where = np.stack([rows + backward[t, 1], columns + backward[t, 0]])
            for axis in (0, 1):
                backward[t, axis] = -ndimage.map_coordinates(forward[t, axis], where, order=1, mode="nearest")
    return backward


def upsampling_matrix(cells: int, pixels: int) -> _Float64:
    """Return the matrix (pixels, cells) of cubic interpolation from the cells' to the pixels' centres."""
    centres = np.arange(cells) + 0.5
    wanted = np.clip((np.arange(pixels) + 0.5) * cells / pixels, centres[0], centres[-1])
    return np.asarray(make_interp_spline(centres, np.eye(cells), k=3)(wanted))
