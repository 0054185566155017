"""Confidence intervals that resample patients (groups), and the bookkeeping of groups.

Clips of one patient are no independent measurements. So what a bootstrap sample draws, with replacement, is
groups; a drawn group brings all its clips, and the statistic is the mean over clips:

    mean* = sum_g w_g S_g / sum_g w_g n_g,    w ~ multinomial(G; 1/G, ..., 1/G)

with S_g the sum and n_g the number of group g's clips. Limits are the 2.5th and 97.5th percentile of mean*.
From one group nothing can be said about other patients: its limits are NaN. From fewer than ten the percentile
bootstrap is too narrow; say how many there were. Source: Efron & Tibshirani 1993, chapters 8 and 13 (clusters).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from us_i2v.errors import ConfigError, DataError
from us_i2v.seeding import numpy_generator

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

LIMITS = (2.5, 97.5)
"""Percentiles of the bootstrap distribution that bound a 95 % interval."""

REPEATS = 2000
"""Bootstrap samples of an interval."""


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval.

    Attributes:
        mean: The estimate on all clips.
        low: Lower limit; NaN from one group.
        high: Upper limit; NaN from one group.
        n: Clips.
        groups: Patients or other groups among which was resampled.
    """

    mean: float
    low: float
    high: float
    n: int
    groups: int


def mean_interval(values: npt.ArrayLike, groups: Sequence[str], *, repeats: int = REPEATS, seed: int = 0) -> Interval:
    """Return the mean of one value a clip with its interval over groups.

    Args:
        values: (N,), one a clip, finite.
        groups: (N,), the patient of each.
        repeats: Bootstrap samples.
        seed: Seed of the resampling.

    Raises:
        DataError: If there is no value, a NaN, or another number of groups.
        ConfigError: If `repeats` is not positive.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise DataError(f"Values of shape {array.shape} are not one a clip.", "Pass (N,).")
    mean, low, high = curve_interval(array[:, None], groups, repeats=repeats, seed=seed)
    return Interval(float(mean[0]), float(low[0]), float(high[0]), len(array), len(set(groups)))


def paired_interval(
    a: npt.ArrayLike, b: npt.ArrayLike, groups: Sequence[str], *, repeats: int = REPEATS, seed: int = 0
) -> Interval:
    """Return the mean of a - b over the same clips, with its interval over groups.

    Two methods measured on the same clips share what is hard about a clip; their difference does not
    contain it, so its interval is the one that tells methods apart. Arguments and errors: `mean_interval`.
    """
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if x.shape != y.shape:
        raise DataError(f"Values of {x.shape} and {y.shape} are not of the same clips.", "Pass one pair a clip.")
    return mean_interval(x - y, groups, repeats=repeats, seed=seed)


def curve_interval(
    curves: npt.ArrayLike, groups: Sequence[str], *, repeats: int = REPEATS, seed: int = 0
) -> tuple[Array, Array, Array]:
    """Return mean, lower and upper limit of curves (N, K), each (K,); limits hold point by point.

    Arguments and errors: `mean_interval`. All points of a curve come from the same bootstrap samples.
    """
    array = np.asarray(curves, dtype=np.float64)
    if array.ndim != 2 or 0 in array.shape:
        raise DataError(f"Curves of shape {array.shape} have no mean.", "Pass (N, K) with N and K of 1 or more.")
    if not np.isfinite(array).all():
        raise DataError("Values hold NaN or infinity.", "Leave out the clips that have none, and say so.")
    members = group_members(groups, len(array))
    mean = array.mean(0)
    weights = resampled_counts(len(members), repeats, seed)
    if len(members) < 2:
        unknown = np.full_like(mean, np.nan)
        return mean, unknown, unknown.copy()
    # Sums of deviations from the mean: subtracting it first keeps equal values exactly equal.
    sums = np.stack([(array[rows] - mean).sum(0) for rows in members])
    counts = np.array([len(rows) for rows in members], dtype=np.float64)
    samples = mean + (weights @ sums) / (weights @ counts)[:, None]
    low, high = np.percentile(samples, LIMITS, axis=0)
    return mean, low, high


def resampled_counts(groups: int, repeats: int, seed: int) -> Array:
    """Return how often each of `groups` groups is drawn in each bootstrap sample, (repeats, groups)."""
    if repeats < 1:
        raise ConfigError(f"{repeats} bootstrap samples give no interval.", "Use 1 or more, usually 2000.")
    rng = numpy_generator(seed, "group-bootstrap")
    return rng.multinomial(groups, np.full(groups, 1.0 / groups), size=repeats).astype(np.float64)


def group_labels(groups: Sequence[str], count: int) -> npt.NDArray[np.str_]:
    """Return groups as an array (count,); raises `DataError` if their number is another."""
    if len(groups) != count:
        raise DataError(f"{len(groups)} groups were given for {count} clips.", "Give one group a clip.")
    return np.asarray(groups, dtype=np.str_)


def group_members(groups: Sequence[str], count: int) -> list[Indices]:
    """Return the indices of each group's clips, groups in the order of their names."""
    labels = group_labels(groups, count)
    return [np.flatnonzero(labels == name) for name in np.unique(labels)]
