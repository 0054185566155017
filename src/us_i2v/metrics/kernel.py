"""Kernel distance: the squared maximum mean discrepancy of two feature sets, without bias at any n.

    MMD^2 = E k(x, x') + E k(y, y') - 2 E k(x, y),      k(u, v) = (u . v / D + 1)^3
    estimate: means over pairs of different groups (patients); pairs within one group never count

The Frechet distance is biased upwards at small n, since it estimates D (D + 3) / 2 numbers, and sees only two
moments. This estimate is unbiased at any n (so it can be below 0 for equal distributions), settles with far fewer
clips, and sees the third moment too. JEDi (Luo 2024), the sample-efficient successor of FVD, is the same step: a
polynomial-kernel MMD in place of the Frechet distance, there on V-JEPA features and with means over all pairs;
here on the features that the caller has (X3D-XS), with KID's kernel and unbiased estimator.
Source: Gretton 2012, Eq. 3 (unbiased estimator); Binkowski 2018, section 4 (kernel).

Groups: clips of one patient resemble each other. Pairs of one patient, within a set or between the two, would
pull the three terms up by unequal amounts; without them each term compares patients who were drawn apart.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from us_i2v.errors import DataError
from us_i2v.metrics.intervals import LIMITS, REPEATS, Array, Interval, group_labels, resampled_counts

Flags = npt.NDArray[np.bool_]

DEGREE = 3
"""Of the polynomial kernel: the least at which skewness counts."""


def polynomial_kernel(x: Array, y: Array) -> Array:
    """Return (x . y / D + 1)^3 of all pairs of (N, D) and (M, D), (N, M)."""
    kernel: Array = (x @ y.T / x.shape[1] + 1.0) ** DEGREE
    return kernel


def kernel_distance(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    groups_a: Sequence[str] | None = None,
    groups_b: Sequence[str] | None = None,
) -> float:
    """Return the unbiased estimate of MMD^2; about 0, of either sign, for equal distributions.

    Args:
        a: Features (N, D).
        b: Features (M, D).
        groups_a: (N,), the patient of each; None counts each vector as a patient of its own.
        groups_b: (M,), the same names for the same patients as in `groups_a`.

    Raises:
        DataError: If a set has fewer than two groups, shapes do not fit, or a value is not finite.
    """
    x, y = _checked_pair(a, b)
    if groups_a is None and groups_b is None:
        within = [_off_diagonal_mean(polynomial_kernel(side, side)) for side in (x, y)]
        return within[0] + within[1] - 2.0 * float(polynomial_kernel(x, y).mean())
    if groups_a is None or groups_b is None:
        raise DataError("Groups were given for one set only.", "Give them for both sets or for none.")
    sums, pairs, _ = _between_groups(x, y, groups_a, groups_b)
    return float(_distances(sums, pairs, np.ones((1, sums.shape[1])))[0])


def kernel_interval(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    groups_a: Sequence[str],
    groups_b: Sequence[str],
    *,
    repeats: int = REPEATS,
    seed: int = 0,
) -> Interval:
    """Return `kernel_distance` with its interval over groups; `n` is the number of the smaller set's vectors.

    A bootstrap sample draws patients with replacement: those in both sets together, those of one set among
    themselves. A patient drawn twice is never paired with himself, so the samples carry no bias either.
    Samples in which a set is left with one patient cannot be evaluated and are left out.

    Raises:
        DataError: As `kernel_distance`.
        ConfigError: If `repeats` is not positive.
    """
    x, y = _checked_pair(a, b)
    sums, pairs, (in_a, in_b) = _between_groups(x, y, groups_a, groups_b)
    weights = np.ones((1 + max(repeats, 0), len(in_a)))
    for part, stratum in enumerate((in_a & in_b, in_a & ~in_b, in_b & ~in_a)):
        if stratum.any():
            weights[1:, stratum] = resampled_counts(int(stratum.sum()), repeats, seed + part)
    values = _distances(sums, pairs, weights)
    samples = values[1:][np.isfinite(values[1:])]
    low, high = np.percentile(samples, LIMITS) if len(samples) else (np.nan, np.nan)
    groups = int(min(in_a.sum(), in_b.sum()))
    return Interval(float(values[0]), float(low), float(high), min(len(x), len(y)), groups)


def _between_groups(
    x: Array, y: Array, groups_a: Sequence[str], groups_b: Sequence[str]
) -> tuple[Array, Array, tuple[Flags, Flags]]:
    """Return kernel sums and numbers of pairs between any two groups, and which group is in which set.

    The first two are (3, G, G), for aa, bb and ab, with 0 within a group; the flags are (G,).
    """
    labels = group_labels(groups_a, len(x)), group_labels(groups_b, len(y))
    union = np.union1d(*labels)
    inside = np.isin(union, labels[0]), np.isin(union, labels[1])
    if min(part.sum() for part in inside) < 2:
        raise DataError("The kernel distance needs two groups a set, there is one.", "Add another patient.")
    member_x, member_y = ((part[:, None] == union).astype(np.float64) for part in labels)
    sides = ((x, member_x, x, member_x), (y, member_y, y, member_y), (x, member_x, y, member_y))
    sums = np.stack([m.T @ polynomial_kernel(u, v) @ n for u, m, v, n in sides])
    pairs = np.stack([np.outer(m.sum(0), n.sum(0)) for _, m, _, n in sides])
    same = np.eye(len(union), dtype=bool)
    sums[:, same] = 0.0
    pairs[:, same] = 0.0
    return sums, pairs, inside


def _distances(sums: Array, pairs: Array, weights: Array) -> Array:
    """Return MMD^2 for each row of group weights (R, G); NaN where a term has no pair."""
    totals = np.einsum("rg,kgh,rh->kr", weights, sums, weights, optimize=True)
    counts = np.einsum("rg,kgh,rh->kr", weights, pairs, weights, optimize=True)
    means = np.divide(totals, counts, out=np.full_like(totals, np.nan), where=counts > 0)
    distances: Array = means[0] + means[1] - 2.0 * means[2]
    return distances


def _off_diagonal_mean(kernel: Array) -> float:
    count = len(kernel)
    return float(kernel.sum() - np.trace(kernel)) / (count * (count - 1))


def _checked_pair(a: npt.ArrayLike, b: npt.ArrayLike) -> tuple[Array, Array]:
    x, y = _checked(a), _checked(b)
    if x.shape[1] != y.shape[1]:
        raise DataError(f"Features have {x.shape[1]} and {y.shape[1]} dimensions.", "Use one feature network.")
    return x, y


def _checked(features: npt.ArrayLike) -> Array:
    x = np.asarray(features, dtype=np.float64)
    if x.ndim != 2 or len(x) < 2 or x.shape[1] < 1:
        raise DataError(f"Features of shape {x.shape} give no distance.", "Pass (N, D) with N >= 2.")
    if not np.isfinite(x).all():
        raise DataError("Features hold NaN or infinity.", "Check the clips that they come from.")
    return x
