"""Plane-strain, nearly incompressible linear elasticity on a regular grid.

Owns the displacement of layered soft tissue with inclusions under a moving probe. It solves

    div(2 mu eps(u) + lambda tr(eps(u)) I) = 0,
    mu = E / (2 (1 + nu)),  lambda = E nu / ((1 + nu) (1 - 2 nu)),

with square four-node elements, one a grid cell. The shear part is integrated at 2 x 2 points, the volumetric
part at the cell's centre only (selective reduced integration), which keeps the element from locking as nu ->
1/2 (Hughes, "The Finite Element Method", 1987, section 4.4). Every element matrix is the same template times
the cell's modulus, the nodes are numbered along the shorter side, and the banded matrix is factorised once
(Cholesky).

Conventions: x runs along the columns, y down the rows, in cells; nodes lie at whole numbers 0..w and 0..h,
centres of cells at half ones. Displacements are forward (a material point X moves to X + u(X)) and in cells.
Only ratios of moduli matter, since all loads are prescribed displacements.

Left to others: what the tissue is (`still_motion`, `phantom`), time courses, and turning u into backward
flow.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_solve_banded, cholesky_banded

from us_i2v.errors import ConfigError
from us_i2v.types import FloatArray

Edge = Literal["bonded", "slip"]
"""How a horizontal edge is held: "bonded" prescribes both components, "slip" only the axial one."""

Profile = float | npt.ArrayLike
"""Displacement of an edge's nodes: broadcast to (cases, w + 1)."""

_Float = npt.NDArray[np.float64]


class ElasticSolver:
    """The factorised problem for one stiffness map; `solve` then costs little for each load case.

    Args:
        stiffness: (h, w), Young's moduli of the cells, > 0, in any unit.
        poisson: Poisson's ratio, 0 <= nu < 0.5; tissue is nearly incompressible, 0.499 by default.
        top: How the upper edge (the probe's face) is held.
        bottom: How the lower edge (the chest wall) is held.

    The two vertical sides are free of traction. If both edges slip, the bottom's middle node is held
    laterally, since nothing else fixes the position (this holds without force).

    Raises:
        ConfigError: The map is not 2-D, smaller than 2 x 2, or not positive and finite, or nu is out of
            range.
    """

    def __init__(
        self,
        stiffness: npt.ArrayLike,
        *,
        poisson: float = 0.499,
        top: Edge = "slip",
        bottom: Edge = "bonded",
    ) -> None:
        moduli = np.asarray(stiffness, dtype=np.float64)
        if moduli.ndim != 2 or min(moduli.shape) < 2:
            raise ConfigError(
                f"Stiffness map has shape {moduli.shape}; at least (2, 2) is needed.", "Use a finer grid."
            )
        if not np.isfinite(moduli).all() or moduli.min() <= 0:
            raise ConfigError("Stiffness map holds values that are not > 0 and finite.", "Clip it from below.")
        if not 0.0 <= poisson < 0.5:
            raise ConfigError(f"Poisson's ratio is {poisson}; 0 <= nu < 0.5 is needed.", "Use 0.499.")
        self.size: tuple[int, int] = moduli.shape
        self.poisson = poisson
        self._moduli = moduli / np.exp(np.log(moduli).mean())
        self._template = _element_matrix(poisson)
        self._dofs = _element_dofs(self.size)
        self._held = self._held_dofs(top, bottom)
        self._top, self._bottom = top, bottom
        self._factor = cholesky_banded(self._banded(), overwrite_ab=True, lower=True, check_finite=False)

    def solve(
        self,
        *,
        top_y: Profile = 0.0,
        top_x: Profile = 0.0,
        bottom_y: Profile = 0.0,
        bottom_x: Profile = 0.0,
        cases: int = 1,
    ) -> _Float:
        """Return the displacement at the nodes for prescribed motions of the two edges.

        Args:
            top_y: Axial displacement of the upper edge (positive presses into the tissue).
            top_x: Lateral displacement of the upper edge; must be 0 if that edge slips.
            bottom_y: Axial displacement of the lower edge.
            bottom_x: Lateral displacement of the lower edge; must be 0 if that edge slips.
            cases: Number of load cases n; profiles are broadcast to (n, w + 1), in cells.

        Returns:
            float64 (n, 2, h + 1, w + 1), channel 0 = x, channel 1 = y, in cells.

        Raises:
            ConfigError: A lateral displacement is prescribed on an edge that slips.
        """
        h, w = self.size
        given = {"top": (top_x, self._top), "bottom": (bottom_x, self._bottom)}
        for name, (profile, edge) in given.items():
            if edge == "slip" and np.any(np.asarray(profile) != 0):
                raise ConfigError(
                    f"A lateral displacement is prescribed at the {name}, which slips.",
                    f"Use {name}='bonded'.",
                )
        ids = _node_ids(self.size)
        rhs = np.zeros((2 * (h + 1) * (w + 1), cases))
        for row, axis, profile in ((0, 1, top_y), (0, 0, top_x), (h, 1, bottom_y), (h, 0, bottom_x)):
            rhs[2 * ids[row] + axis] = np.broadcast_to(np.asarray(profile, np.float64), (cases, w + 1)).T
        load = -self._apply(rhs)
        load[self._held] = rhs[self._held]
        nodal = cho_solve_banded((self._factor, True), load, overwrite_b=True, check_finite=False)
        out = np.empty((cases, 2, h + 1, w + 1))
        out[:, 0] = nodal[2 * ids].transpose(2, 0, 1)
        out[:, 1] = nodal[2 * ids + 1].transpose(2, 0, 1)
        return out

    def _held_dofs(self, top: Edge, bottom: Edge) -> npt.NDArray[np.bool_]:
        h, w = self.size
        ids = _node_ids(self.size)
        held = np.zeros(2 * (h + 1) * (w + 1), dtype=bool)
        for row, edge in ((0, top), (h, bottom)):
            held[2 * ids[row] + 1] = True
            if edge == "bonded":
                held[2 * ids[row]] = True
        if top == "slip" and bottom == "slip":
            held[2 * ids[h, w // 2]] = True
        return held

    def _banded(self) -> _Float:
        """Return the lower band, band[d, j] = K[j + d, j], with held rows replaced by the identity."""
        n = self._held.size
        order = np.argsort(self._dofs[:, 0])
        spread = int(self._dofs[:, 0].max() - self._dofs[:, 0].min())
        band = np.zeros((spread + 1, n))
        flat = self._moduli.ravel()
        for i, a in enumerate(order):
            for b in order[: i + 1]:
                # For one pair of corners every cell writes another entry, so plain += is safe.
                shift = int(self._dofs[a, 0] - self._dofs[b, 0])
                band[shift, self._dofs[b]] += self._template[a, b] * flat
        for shift in range(1, spread + 1):
            band[shift, : n - shift][self._held[shift:] | self._held[: n - shift]] = 0.0
        band[0, self._held] = 1.0
        return band

    def _apply(self, nodal: _Float) -> _Float:
        """Return K @ nodal without the constraints; nodal is (dofs, cases)."""
        out = np.zeros_like(nodal)
        local = nodal[self._dofs]
        force = np.einsum("ab,bec->aec", self._template, local) * self._moduli.ravel()[:, None]
        for a in range(8):
            out[self._dofs[a]] += force[a]
        return out


def at_centres(nodal: FloatArray) -> FloatArray:
    """Average nodal values (..., h + 1, w + 1) to the centres of the cells (..., h, w)."""
    rows = nodal[..., 1:, :] + nodal[..., :-1, :]
    centres: FloatArray = 0.25 * (rows[..., 1:] + rows[..., :-1])
    return centres


def strain(nodal: FloatArray) -> FloatArray:
    """Return the strain at the cells' centres.

    Args:
        nodal: (..., 2, h + 1, w + 1), displacement at the nodes, in cells.

    Returns:
        (..., 3, h, w): lateral eps_xx, axial eps_yy, and shear eps_xy (the tensor's, half the engineering
        one).
    """
    along_x = nodal[..., 1:] - nodal[..., :-1]
    along_y = nodal[..., 1:, :] - nodal[..., :-1, :]
    along_x = 0.5 * (along_x[..., 1:, :] + along_x[..., :-1, :])
    along_y = 0.5 * (along_y[..., 1:] + along_y[..., :-1])
    shear = 0.5 * (along_y[..., 0, :, :] + along_x[..., 1, :, :])
    return np.stack([along_x[..., 0, :, :], along_y[..., 1, :, :], shear], axis=-3)


def compress(stiffness: npt.ArrayLike, displacement: float, *, poisson: float = 0.499) -> FloatArray:
    """Return the displacement (2, h, w) at the cells' centres under a flat, slipping probe.

    The upper edge moves down by `displacement` cells and slips, the lower edge slips on the chest wall: in
    homogeneous tissue this gives a uniform strain.
    """
    solver = ElasticSolver(stiffness, poisson=poisson, top="slip", bottom="slip")
    return at_centres(solver.solve(top_y=displacement)[0])


def _node_ids(size: tuple[int, int]) -> npt.NDArray[np.intp]:
    """Number the nodes along the shorter side, for the narrowest band; (h + 1, w + 1)."""
    h, w = size
    if h <= w:
        return np.arange((h + 1) * (w + 1)).reshape(w + 1, h + 1).T
    return np.arange((h + 1) * (w + 1)).reshape(h + 1, w + 1)


def _element_dofs(size: tuple[int, int]) -> npt.NDArray[np.intp]:
    """Return (8, h * w), x and y unknowns of the corners (row, column) = (0,0), (0,1), (1,1), (1,0)."""
    ids = _node_ids(size)
    corners = (ids[:-1, :-1], ids[:-1, 1:], ids[1:, 1:], ids[1:, :-1])
    return np.stack([2 * corner.ravel() + axis for corner in corners for axis in (0, 1)])


def _element_matrix(poisson: float) -> _Float:
    """Return the 8 x 8 matrix of a unit square with E = 1; unknowns ordered as in `_element_dofs`."""
    mu = 1.0 / (2.0 * (1.0 + poisson))
    lam = poisson / ((1.0 + poisson) * (1.0 - 2.0 * poisson))
    matrix = np.zeros((8, 8))
    offset = 0.5 / np.sqrt(3.0)
    for x in (0.5 - offset, 0.5 + offset):
        for y in (0.5 - offset, 0.5 + offset):
            b = _strain_operator(x, y)
            matrix += 0.25 * mu * b.T @ np.diag([2.0, 2.0, 1.0]) @ b
    b = _strain_operator(0.5, 0.5)
    dilatation = b[0] + b[1]
    return np.asarray(matrix + lam * np.outer(dilatation, dilatation))


def _strain_operator(x: float, y: float) -> _Float:
    """Return (3, 8): eps_xx, eps_yy, 2 eps_xy at (x, y) in the unit square."""
    dx = np.array([-(1 - y), 1 - y, y, -y])
    dy = np.array([-(1 - x), -x, x, 1 - x])
    b = np.zeros((3, 8))
    b[0, 0::2] = dx
    b[1, 1::2] = dy
    b[2, 0::2] = dy
    b[2, 1::2] = dx
    return b
