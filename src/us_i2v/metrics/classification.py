"""How good class predictions are: F1, accuracy, AUC, calibration, with intervals that resample patients.

With confusion counts n[t, p] of N videos (true class t, predicted p), TP_c = n[c, c], support s_c, predicted count q_c:

    F1_c = 2 TP_c / (s_c + q_c)             (does not exist if s_c = q_c = 0)
    macro F1     mean of F1_c over classes that are true or predicted somewhere
    weighted F1  sum_c s_c F1_c / N
    binary F1    F1 of the positive class, the last one; two classes only
    accuracy     sum_c TP_c / N
    balanced     mean of TP_c / s_c over classes with s_c > 0
    AUC          share of pairs of a video of class c and one of another class that p_c orders rightly, ties 1/2;
                 for more than two classes the mean over classes (one against the rest)
    Brier        mean of sum_c (p_c - [c is true])^2
    ECE          sum over bins of the largest probability of |sum of it - number of right answers| / N

A value that does not exist (AUC of one class alone, F1 of a class that is nowhere) is NaN. Every bootstrap sample draws
groups with replacement, as in `intervals`; samples in which a value does not exist are left out of its interval. ECE is
not linear, and copies raise it: its samples are shifted to the estimate. Everything in float64.

Sources: F1 as in van Rijsbergen 1979, averages as in scikit-learn; AUC, Hanley & McNeil 1982; balanced accuracy,
Brodersen et al. 2010; ECE with equal bins, Guo et al. 2017; Brier 1950.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from us_i2v.errors import DataError
from us_i2v.metrics.intervals import LIMITS, REPEATS, Array, Indices, Interval, group_members, resampled_counts

BINS = 10
"""Equal bins of the largest probability, for calibration."""

SCORES = ("macro_f1", "binary_f1", "weighted_f1", "accuracy", "balanced_accuracy", "auc", "brier", "ece")
"""Names of the values, in the order of tables."""


@dataclass(frozen=True)
class Predictions:
    """What a classifier says of some videos.

    Attributes:
        probabilities: (N, K), rows sum to 1.
        truth: (N,), true classes, 0 .. K - 1.
        groups: (N,), the patient of each.
    """

    probabilities: Array
    truth: Indices
    groups: tuple[str, ...]

    @classmethod
    def of(cls, probabilities: npt.ArrayLike, truth: npt.ArrayLike, groups: Sequence[str]) -> Predictions:
        """Check and convert; raises `DataError` if shapes or values do not fit."""
        p, t = np.asarray(probabilities, np.float64), np.asarray(truth, np.intp)
        if p.ndim != 2 or p.shape[1] < 2 or not len(p) or t.shape != (len(p),) or len(groups) != len(p):
            raise DataError(
                f"Probabilities {p.shape}, classes {t.shape} and {len(groups)} groups do not fit.",
                "Pass (N, K) with K >= 2, (N,) and N groups.",
            )
        if not np.isfinite(p).all() or (p < 0).any() or (np.abs(p.sum(1) - 1) > 1e-4).any():
            raise DataError("Probabilities are not 0..1 with the sum 1.", "Pass the softmax of logits.")
        if t.min() < 0 or t.max() >= p.shape[1]:
            raise DataError(f"A true class is not in 0..{p.shape[1] - 1}.", "Give one column a class.")
        return cls(p, t, tuple(groups))

    @property
    def predicted(self) -> Indices:
        """(N,), the class of the largest probability; the first of equal ones."""
        found: Indices = self.probabilities.argmax(1)
        return found


@dataclass(frozen=True)
class Scores:
    """Values with the bootstrap samples behind their intervals.

    Attributes:
        values: By name, see `SCORES`; "binary_f1" for two classes only.
        samples: By name, (R,); the k-th sample of all values is of the same groups. Not shifted.
        n: Videos.
        groups: Patients.
    """

    values: dict[str, float]
    samples: dict[str, Array]
    n: int
    groups: int

    def interval(self, name: str) -> Interval:
        """Return a value with its 95 % interval."""
        shift = name == "ece"
        return _limits(self.values[name], self.samples[name], self.n, self.groups, shift=shift)


@dataclass(frozen=True)
class Bin:
    """Videos whose largest probability lies in a range: how many, its mean, and the share of right answers."""

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


def confusion_matrix(truth: npt.ArrayLike, predicted: npt.ArrayLike, classes: int) -> npt.NDArray[np.int64]:
    """Return counts (K, K), rows true, columns predicted."""
    t, p = np.asarray(truth, np.intp), np.asarray(predicted, np.intp)
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (t, p), 1)
    return counts


def scores(predictions: Predictions, *, repeats: int = REPEATS, seed: int = 0) -> Scores:
    """Return all values with their bootstrap samples.

    Args:
        predictions: Of N videos.
        repeats: Bootstrap samples R.
        seed: Seed of the resampling: predictions of the same videos in the same groups are resampled alike.
    """
    members = group_members(predictions.groups, len(predictions.truth))
    once = np.ones((1, len(members)))
    values = {name: float(found[0]) for name, found in _weighted(predictions, members, once).items()}
    samples = _weighted(predictions, members, resampled_counts(len(members), repeats, seed))
    return Scores(values, samples, len(predictions.truth), len(members))


def difference(ours: Scores, theirs: Scores, name: str) -> Interval:
    """Return our value minus theirs, paired by bootstrap sample; both must be of the same videos and seed."""
    a, b = ours.samples[name], theirs.samples[name]
    if a.shape != b.shape or (ours.n, ours.groups) != (theirs.n, theirs.groups):
        raise DataError(
            f"Scores of {ours.n} and {theirs.n} videos cannot be compared in pairs.", "Give the same videos to both."
        )
    return _limits(ours.values[name] - theirs.values[name], a - b, ours.n, ours.groups, shift=name == "ece")


def reliability(predictions: Predictions, bins: int = BINS) -> list[Bin]:
    """Return the occupied bins of the largest probability, for a reliability diagram."""
    confidence = predictions.probabilities.max(1)
    right = predictions.predicted == predictions.truth
    place = _bin(confidence, bins)
    return [
        Bin(
            k / bins,
            (k + 1) / bins,
            int((place == k).sum()),
            float(confidence[place == k].mean()),
            float(right[place == k].mean()),
        )
        for k in np.unique(place)
    ]


def class_f1(confusion: npt.ArrayLike) -> Array:
    """Counts (..., K, K) -> F1 of each class (..., K); NaN for a class that is neither true nor predicted."""
    n = np.asarray(confusion, np.float64)
    whole = n.sum(-1) + n.sum(-2)
    hits = np.diagonal(n, axis1=-2, axis2=-1)
    f1: Array = np.divide(2 * hits, whole, out=np.full_like(whole, np.nan), where=whole > 0)
    return f1


def _weighted(predictions: Predictions, members: list[Indices], weights: Array) -> dict[str, Array]:
    """Return every value (R,) for groups counted `weights` (R, G) times."""
    classes = predictions.probabilities.shape[1]
    tables = np.stack(
        [confusion_matrix(predictions.truth[m], predictions.predicted[m], classes) for m in members]
    ).astype(np.float64)
    found = _from_confusion(np.tensordot(weights, tables, 1))
    found["auc"] = _auc(predictions, members, weights)
    one_hot = np.eye(classes)[predictions.truth]
    error = ((predictions.probabilities - one_hot) ** 2).sum(1)
    total = weights @ np.array([len(m) for m in members], np.float64)
    found["brier"] = weights @ np.array([error[m].sum() for m in members]) / total
    found["ece"] = np.abs(np.tensordot(weights, _excess(predictions, members), 1)).sum(1) / total
    return {name: found[name] for name in SCORES if name in found}


def _from_confusion(n: Array) -> dict[str, Array]:
    """Counts (R, K, K) -> values (R,)."""
    support, hits = n.sum(2), np.diagonal(n, axis1=1, axis2=2)
    total = support.sum(1)
    f1 = class_f1(n)
    recall = np.divide(hits, support, out=np.full_like(support, np.nan), where=support > 0)
    found = {
        "macro_f1": np.nanmean(f1, axis=1),
        "weighted_f1": (support * np.nan_to_num(f1)).sum(1) / total,
        "accuracy": hits.sum(1) / total,
        "balanced_accuracy": np.nanmean(recall, axis=1),
    }
    if n.shape[1] == 2:
        found["binary_f1"] = f1[:, -1]
    return found


def _auc(predictions: Predictions, members: list[Indices], weights: Array) -> Array:
    """Return the AUC (R,), NaN where a class or its rest is missing."""
    count = predictions.probabilities.shape[1]
    group = np.empty(len(predictions.truth), np.intp)
    for k, rows in enumerate(members):
        group[rows] = k
    membership = np.eye(len(members))[group]
    areas = []
    for c in range(1, 2) if count == 2 else range(count):
        own = predictions.truth == c
        score = predictions.probabilities[:, c]
        wins = 0.5 + 0.5 * np.sign(score[own][:, None] - score[~own][None, :])
        of_own, of_rest = membership[own], membership[~own]
        won = of_own.T @ wins @ of_rest
        pairs = np.outer(of_own.sum(0), of_rest.sum(0))
        total, possible = (np.einsum("rg,gh,rh->r", weights, part, weights, optimize=True) for part in (won, pairs))
        areas.append(np.divide(total, possible, out=np.full_like(total, np.nan), where=possible > 0))
    area: Array = np.mean(areas, axis=0)
    return area


def _excess(predictions: Predictions, members: list[Indices]) -> Array:
    """Return sum of confidence minus right answers by group and bin, (G, BINS)."""
    confidence = predictions.probabilities.max(1)
    right = predictions.predicted == predictions.truth
    place = _bin(confidence, BINS)
    out = np.zeros((len(members), BINS))
    for k, rows in enumerate(members):
        np.add.at(out[k], place[rows], confidence[rows] - right[rows])
    return out


def _bin(confidence: Array, bins: int) -> Indices:
    return np.minimum((confidence * bins).astype(np.intp), bins - 1)


def _limits(value: float, samples: Array, n: int, groups: int, *, shift: bool) -> Interval:
    finite = samples[np.isfinite(samples)]
    if groups < 2 or len(finite) < 2 or not np.isfinite(value):
        return Interval(value, float("nan"), float("nan"), n, groups)
    low, high = np.percentile(finite, LIMITS) + (value - finite.mean() if shift else 0.0)
    return Interval(value, float(low), float(high), n, groups)
