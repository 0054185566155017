"""Affine registration of two small pictures, so that crops and zooms of one picture can be compared.

Forward-additive Lucas-Kanade (Lucas & Kanade 1981; Baker & Matthews 2004) with the template's gradients, from
coarse to fine: the second picture b is sampled at p + A (1, y, x) until it explains the first, a, up to a gain
and an offset of the gray levels. Coordinates y, x run from -1 to 1 over the square, displacements are in pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy import ndimage

if TYPE_CHECKING:
    from us_i2v.types import Mask

Plane = npt.NDArray[np.float64]
"""(S, S) gray levels."""

LEVELS = ((4, 1.0, 12), (2, 0.75, 10), (1, 0.7, 6))
"""Side of the cells that are averaged, width of the smoothing in cells, and the largest number of steps."""

_CONVERGED = 0.05  # cells
_LONGEST_STEP = 2.0  # cells; further off, the gradients say nothing
_RIDGE = 1e-6  # of the mean diagonal; keeps flat pictures solvable


def align(a: Plane, b: Plane) -> Plane:
    """Return the affine displacement that lays `b` on `a`.

    Args:
        a: (S, S), S a multiple of 4.
        b: (S, S).

    Returns:
        (2, 3): pixels in y and in x, as coefficients of (1, y, x); zeros if the pictures agree already. Where
        they have nothing in common the result means nothing; compare the pictures to find out.
    """
    shift = np.zeros((2, 3))
    for cell, width, steps in LEVELS:
        template, moving = (ndimage.gaussian_filter(_averaged(picture, cell), width) for picture in (a, b))
        shift = _refine(template, moving, shift / cell, steps) * cell
    return shift


def _refine(template: Plane, moving: Plane, shift: Plane, steps: int) -> Plane:
    """Improve a displacement at one level."""
    basis = _basis(template.shape[0])
    slope_y, slope_x = np.gradient(template)
    jacobian = np.concatenate([slope_y.reshape(-1, 1) * basis, slope_x.reshape(-1, 1) * basis], axis=1)
    for _ in range(steps):
        warped, inside = warp(moving, shift)
        weight = inside.ravel().astype(np.float64)
        columns = np.column_stack([jacobian, warped.ravel(), np.ones(template.size)]) * weight[:, None]
        normal = columns.T @ columns
        normal[np.diag_indices(8)] += _RIDGE * np.trace(normal) / 8 + np.finfo(np.float64).tiny
        # template - warped = jacobian . step + gain . warped + offset, in the least squares over the overlap
        change = np.linalg.solve(normal, columns.T @ ((template - warped).ravel() * weight))
        step = np.clip(change[:6].reshape(2, 3), -_LONGEST_STEP, _LONGEST_STEP)
        shift = shift + step
        if np.abs(step).max() < _CONVERGED:
            break
    return shift


def warp(picture: Plane, shift: Plane) -> tuple[Plane, Mask]:
    """Sample (S, S) at the displaced places, bilinearly; also return where these lie inside the picture."""
    side = picture.shape[0]
    offsets = (_basis(side) @ shift.T).reshape(side, side, 2)
    rows = np.arange(side)[:, None] + offsets[..., 0]
    columns = np.arange(side)[None, :] + offsets[..., 1]
    inside = (rows >= 0) & (rows <= side - 1) & (columns >= 0) & (columns <= side - 1)
    return ndimage.map_coordinates(picture, [rows, columns], order=1, mode="nearest"), inside


def _averaged(picture: Plane, cell: int) -> Plane:
    """Return the means over cells of `cell` x `cell` pixels."""
    side = picture.shape[0] // cell
    return np.asarray(picture.reshape(side, cell, side, cell).mean(axis=(1, 3)), np.float64)


def _basis(side: int) -> Plane:
    """Return (S * S, 3): 1, y and x of every pixel."""
    axis = (np.arange(side) - (side - 1) / 2) / (side / 2)
    y, x = np.meshgrid(axis, axis, indexing="ij")
    return np.column_stack([np.ones(side * side), y.ravel(), x.ravel()])
