"""Energy score: a proper score for random clips, and a distance of two clips' motion to use in it.

For K clips X_1 .. X_K drawn from one still and the real clip y that began with it:

    ES = 1/K sum_i d(X_i, y) - 1/2 * 1/(K (K - 1)) sum_{i != j} d(X_i, X_j)            smaller is better

The second term pays for spread, so a method that always answers with one good clip does not win over one that
draws from the truth: if d is of negative type, the expectation is least for the true distribution (strictly so if
d is of strong negative type). A Euclidean distance of feature vectors is. LPIPS is a weighted squared Euclidean
distance of unit-length activations, so its square root is one; `motion_distance` is one by construction. Pairs i = j
are left out ("fair": the expectation does not depend on K). Source: Gneiting & Raftery 2007, section 4.2; fair
scores: Ferro 2014.

Motion vector, for T frames with per-block backward flow d (block matching against frame 0, 8 px blocks, search 8)
and m, its median over 5 x 5 blocks (`motion.steady_flow`):

    cell flow   u_c = mean over the textured blocks b of cell c of  m_b [ |d_b - m_b| <= 1.5 px ],   0 if it has none
    change      e_t = log(0.5 + mean |frame_t - frame_{t-1}|)
    v = [ u / sqrt((T - 1) cells),  e / sqrt(T - 1) ]

Cells are 4 x 4 parts of the grid of blocks. Blocks that do not agree with their surroundings count as standing
still: speckle that changes without moving is matched at random and has almost no flow, while e still sees that it
changes. |v_a - v_b|^2 is then the mean squared difference of the flow in px^2 plus that of the log motion energy:
1 px of flow weighs as much as a factor of e in energy.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from us_i2v.errors import DataError, InputError
from us_i2v.metrics.block_matching import BlockMotion
from us_i2v.metrics.gray import Clip, gray_levels
from us_i2v.metrics.motion import TEXTURED, default_motion, steady_flow

CELLS = 4
"""Parts of the frame along each axis."""

EPSILON = 0.5
"""Gray levels: the rounding of 8 bit; keeps the log of a frozen clip finite."""

AGREE = 1.5
"""Pixels: how far a block's flow may lie from its surroundings' and still be motion."""

Array = npt.NDArray[np.float64]


def energy_score(to_real: npt.ArrayLike, between: npt.ArrayLike) -> float:
    """Return the energy score of one still; it can be below 0.

    Args:
        to_real: (K,), distances of the K >= 2 generated clips to the real one.
        between: (K, K), their distances among each other, symmetric; the diagonal does not count.

    Raises:
        DataError: If the shapes do not fit, or a distance is negative, not finite or not symmetric.
    """
    real, pairs = np.asarray(to_real, dtype=np.float64), np.asarray(between, dtype=np.float64)
    if real.ndim != 1 or len(real) < 2 or pairs.shape != (len(real), len(real)):
        raise DataError(
            f"Distances of shapes {real.shape} and {pairs.shape} give no energy score.",
            "Pass (K,) and (K, K) with K of 2 or more.",
        )
    off = ~np.eye(len(real), dtype=bool)
    among = pairs[off]
    if not (np.isfinite(real).all() and np.isfinite(among).all()) or min(real.min(), among.min()) < 0:
        raise DataError("Distances hold NaN, infinity or negative values.", "Check the clips that they come from.")
    if not np.allclose(pairs[off], pairs.T[off], rtol=1e-6, atol=1e-9):
        raise DataError("Distances among the generated clips are not symmetric.", "Use a symmetric distance.")
    return float(real.mean() - 0.5 * among.mean())


def motion_distance(a: Clip, b: Clip) -> float:
    """Return the Euclidean distance of two clips' motion vectors: 0 for equal clips, symmetric.

    Args:
        a: (T, H, W) or (T, H, W, 3), gray levels 0..255, T >= 2.
        b: As many frames of the same size.

    Raises:
        InputError: If the clips differ in shape or are too small for block matching.
    """
    if a.shape[:3] != b.shape[:3]:
        raise InputError(
            f"Motion of {a.shape[:3]} and {b.shape[:3]} cannot be compared.", "Use one size and number of frames."
        )
    return float(np.linalg.norm(motion_vector(a) - motion_vector(b)))


def motion_vector(frames: Clip, motion: BlockMotion | None = None) -> Array:
    """Return a clip's motion vector v, (33 (T - 1),): flow x, y of 16 cells for each frame, then log change.

    Args:
        frames: (T, H, W) or (T, H, W, 3), gray levels 0..255, T >= 2.
        motion: `block_motion(frames)` with its default settings, if the caller has it already.

    Raises:
        InputError: If the clip is too short, too small for block matching, or not finite.
    """
    clip = gray_levels(frames, at_least=2)
    blocks = default_motion(clip, motion)
    steps = len(clip) - 1
    energy = np.abs(np.diff(clip, axis=0)).mean(axis=(1, 2), dtype=np.float64)
    flow = _cell_flow(blocks) / np.sqrt(steps * CELLS**2)
    return np.concatenate([flow.ravel(), np.log(EPSILON + energy) / np.sqrt(steps)])


def _cell_flow(motion: BlockMotion) -> Array:
    """Return the flow of each cell, (T - 1, 2, CELLS, CELLS)."""
    steady = steady_flow(motion)
    apart = np.hypot(*np.moveaxis(motion.flow - steady, 1, 0))
    textured = (motion.texture >= TEXTURED).astype(np.float64)
    counted = _cell_sums(textured)[:, None]
    total = _cell_sums(steady * (textured * (apart <= AGREE))[:, None])
    return np.divide(total, counted, out=np.zeros_like(total), where=np.broadcast_to(counted > 0, total.shape))


def _cell_sums(values: Array) -> Array:
    """Sum (..., h, w) over cells, (..., CELLS, CELLS); small grids share blocks between neighbouring cells."""
    for axis in (-2, -1):
        size = values.shape[axis]
        starts = [size * k // CELLS for k in range(CELLS)]
        ends = [-(-size * (k + 1) // CELLS) for k in range(CELLS)]
        parts = [
            np.take(values, range(start, end), axis=axis).sum(axis=axis, keepdims=True)
            for start, end in zip(starts, ends, strict=True)
        ]
        values = np.concatenate(parts, axis=axis)
    return values
