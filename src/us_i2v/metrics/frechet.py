"""Frechet distance of two sets of feature vectors, and what its numbers are worth at a small n.

    d^2 = |m1 - m2|^2 + tr(C1) + tr(C2) - 2 tr((C1 C2)^{1/2})

(the squared 2-Wasserstein distance of two Gaussians, as FID and FVD report it). Everything is in
float64 and only symmetric problems are solved. The estimate is biased upwards, the more the smaller
n is: compare numbers of one n only, and print a real-against-real floor of that n beside them.
Source: Dowson & Landau 1982; Heusel 2017.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from us_i2v.errors import DataError
from us_i2v.metrics.intervals import group_labels, group_members
from us_i2v.seeding import numpy_generator

Array = npt.NDArray[np.float64]

LEAST_CLIPS = 100
"""Vectors a side below which a distance supports no claim."""


@dataclass(frozen=True)
class Moments:
    """Mean (D,) and covariance (D, D; divisor n - 1) of n feature vectors."""

    mean: Array
    covariance: Array
    count: int


@dataclass(frozen=True)
class Spread:
    """A value measured several times.

    Attributes:
        mean: Mean of the values.
        std: Their standard deviation (divisor k - 1; 0 for one value).
        low: 2.5th percentile.
        high: 97.5th percentile.
        values: All of them.
    """

    mean: float
    std: float
    low: float
    high: float
    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Summarise at least one value."""
        array = np.asarray(values, dtype=np.float64)
        low, high = np.percentile(array, [2.5, 97.5])
        std = float(array.std(ddof=1)) if array.size > 1 else 0.0
        return cls(float(array.mean()), std, float(low), float(high), tuple(float(v) for v in array))


def sample_warning(n: int, dimensions: int) -> str | None:
    """Return what to print beside a distance of `n` feature vectors a side, or None if n is large enough.

    Up to n = dimensions the covariance has rank n - 1 at most, so that most directions are not measured at
    all; the distance is then dominated by n and by the floor.
    """
    if n < LEAST_CLIPS:
        return f"n = {n}: no claim, fewer than {LEAST_CLIPS} clips a side."
    if n <= dimensions:
        return (
            f"n = {n} for {dimensions} dimensions: the covariances are rank-deficient; compare only with the "
            f"floor and with other distances of the same n (full rank needs more than {dimensions} clips)."
        )
    return None


def moments(features: npt.ArrayLike) -> Moments:
    """Return mean and covariance of features (N, D); raises `DataError` for fewer than two or NaN."""
    x = _checked(features)
    mean = x.mean(0)
    centred = x - mean
    return Moments(mean, centred.T @ centred / (len(x) - 1), len(x))


def frechet_from_moments(a: Moments, b: Moments) -> float:
    """Return the Frechet distance from means and covariances.

    tr((C1 C2)^{1/2}) is the sum of the roots of the eigenvalues of R C2 R with R = C1^{1/2}, which is
    symmetric and positive semi-definite; eigenvalues below 0 are rounding and count as 0.
    """
    values, vectors = np.linalg.eigh(a.covariance)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    cross = np.linalg.eigvalsh(root @ b.covariance @ root)
    overlap = float(np.sqrt(np.maximum(cross, 0.0)).sum())
    return _combine(a.mean - b.mean, float(np.trace(a.covariance)), float(np.trace(b.covariance)), overlap)


def frechet_distance(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Return the Frechet distance of features (N, D) and (M, D).

    With fewer vectors than dimensions the same number comes from the small side: if X and Y are the
    centred features over sqrt(n - 1), then C1 = X'X, C2 = Y'Y, and tr((C1 C2)^{1/2}) is the sum of the
    singular values of X Y', an N x M matrix, i.e. of the roots of eigenvalues of (X Y')(X Y')'.

    Raises:
        DataError: If a set has fewer than two vectors, a NaN, or another number of dimensions.
    """
    x, y = _checked(a), _checked(b)
    if x.shape[1] != y.shape[1]:
        raise DataError(f"Features have {x.shape[1]} and {y.shape[1]} dimensions.", "Use one feature network.")
    if max(len(x), len(y)) > x.shape[1]:
        return frechet_from_moments(moments(x), moments(y))
    mean_x, mean_y = x.mean(0), y.mean(0)
    x, y = (x - mean_x) / np.sqrt(len(x) - 1), (y - mean_y) / np.sqrt(len(y) - 1)
    overlap = float(np.linalg.svd(x @ y.T, compute_uv=False).sum())
    return _combine(mean_x - mean_y, float(np.square(x).sum()), float(np.square(y).sum()), overlap)


def distance_over_draws(
    a: npt.ArrayLike, b: npt.ArrayLike, n: int, draws: int, seed: int, *, disjoint: bool = False
) -> Spread:
    """Return the distance of `draws` pairs of random draws of `n` vectors, one from each set.

    Args:
        a: Features (N, D).
        b: Features (M, D).
        n: Vectors a draw takes from each set, without replacement.
        draws: Number of pairs.
        seed: Seed of the choice.
        disjoint: Draws share no vector (needs draws * n of them in each set), so that the spread is
            that of independent measurements; otherwise draws overlap and it understates it.

    Raises:
        DataError: If a set is too small.
    """
    x, y = _checked(a), _checked(b)
    needed = draws * n if disjoint else n
    if draws < 1 or n < 2 or needed > min(len(x), len(y)):
        raise DataError(
            f"{draws} draws of {n} need 1 draw of 2 at least and {needed} vectors a set; "
            f"there are {len(x)} and {len(y)}.",
            "Lower n or the number of draws.",
        )
    rng = numpy_generator(seed, "frechet-draws")
    pairs = zip(_draws(rng, len(x), n, draws, disjoint), _draws(rng, len(y), n, draws, disjoint), strict=True)
    return Spread.of([frechet_distance(x[i], y[j]) for i, j in pairs])


def real_floor(features: npt.ArrayLike, groups: Sequence[str], n: int, draws: int, seed: int) -> Spread:
    """Return the distance of real clips to other real clips: what a perfect generator would score.

    Each draw divides the groups (patients) at random into two sides and takes `n` vectors from each.

    Raises:
        DataError: If some division leaves a side with fewer than `n` vectors.
    """
    x = _checked(features)
    labels = group_labels(groups, len(x))
    names = np.unique(labels)
    rng = numpy_generator(seed, "frechet-floor")
    values = []
    for _ in range(draws):
        left = np.isin(labels, rng.permutation(names)[: len(names) // 2])
        sides = [np.flatnonzero(left), np.flatnonzero(~left)]
        smaller = min(len(side) for side in sides)
        if smaller < n:
            raise DataError(
                f"Half of the {len(names)} groups hold {smaller} clips, {n} are needed.",
                "Lower n or add clips.",
            )
        i, j = (rng.permutation(side)[:n] for side in sides)
        values.append(frechet_distance(x[i], x[j]))
    return Spread.of(values)


def bootstrap_by_groups(
    a: npt.ArrayLike,
    groups_a: Sequence[str],
    b: npt.ArrayLike,
    groups_b: Sequence[str],
    repeats: int,
    seed: int,
) -> Spread:
    """Return the distance over bootstrap samples that draw whole groups with replacement.

    Clips of one patient are no independent measurements, so patients are what is drawn. Repeated
    vectors make a set look narrower than it is: the mean lies above `frechet_distance(a, b)`; read
    the width of low..high, and take the value itself from the full sets.
    """
    x, y = _checked(a), _checked(b)
    members = [group_members(groups_a, len(x)), group_members(groups_b, len(y))]
    rng = numpy_generator(seed, "frechet-bootstrap")
    values = []
    for _ in range(repeats):
        i, j = (np.concatenate([side[k] for k in rng.integers(len(side), size=len(side))]) for side in members)
        values.append(frechet_distance(x[i], y[j]))
    return Spread.of(values)


def _combine(mean_difference: Array, trace_a: float, trace_b: float, overlap: float) -> float:
    # Rounding can leave -1e-13 for equal sets.
    return max(float(mean_difference @ mean_difference) + trace_a + trace_b - 2.0 * overlap, 0.0)


def _draws(rng: np.random.Generator, count: int, n: int, draws: int, disjoint: bool) -> Iterator[npt.NDArray[np.intp]]:
    if disjoint:
        order = rng.permutation(count)
        yield from (order[k * n : (k + 1) * n] for k in range(draws))
    else:
        for _ in range(draws):
            yield rng.permutation(count)[:n]


def _checked(features: npt.ArrayLike) -> Array:
    x = np.asarray(features, dtype=np.float64)
    if x.ndim != 2 or len(x) < 2:
        raise DataError(f"Features of shape {x.shape} give no covariance.", "Pass (N, D) with N >= 2.")
    if not np.isfinite(x).all():
        raise DataError("Features hold NaN or infinity.", "Check the clips that they come from.")
    return x
