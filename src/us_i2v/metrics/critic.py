"""Critic: can a linear classifier tell generated clips from real ones? Its AUC, cross-validated by patient.

A ridge logistic regression on standardised features x:

    minimise over w, b:  sum_i c_i log(1 + exp(-y_i (w . x_i + b))) + (penalty / 2) |w|^2,     y = +1 real, -1 fake

with c_i making real and fake weigh 1/2 each. Patients are divided into folds; whoever is in the judged fold, real
or generated, is in no training fold, so features that betray the patient cannot help. Mean and scale of the
features come from the training folds alone. The AUC compares scores of one fold's own classifier only:

    AUC = (number of real/fake pairs of one fold with s_real > s_fake, ties 1/2) / (number of such pairs)

0.5: cannot be told apart; 1: always. Below 0.5 by more than its interval points at a mistake in the groups.
The penalty is fixed, never tuned on the scores that are reported. Source: classifier two-sample tests, Lopez-Paz &
Oquab 2017; AUC as a rank statistic, Hanley & McNeil 1982.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import optimize, special

from us_i2v.errors import ConfigError, DataError
from us_i2v.metrics.intervals import LIMITS, REPEATS, Array, Interval, group_labels, resampled_counts
from us_i2v.seeding import numpy_generator

PENALTY = 0.1
"""Ridge on standardised features, against a loss whose weights sum to 1."""

Folds = npt.NDArray[np.intp]


@dataclass(frozen=True)
class LinearCritic:
    """A fitted classifier.

    Attributes:
        mean: (D,), of the features.
        scale: (D,), their deviations, 1 for constant ones.
        weight: (D,), w.
        bias: b.
    """

    mean: Array
    scale: Array
    weight: Array
    bias: float

    def scores(self, features: Array) -> Array:
        """Return w . x + b of features (N, D): (N,), the log-odds of "real" where real and fake are equally many."""
        scores: Array = ((features - self.mean) / self.scale) @ self.weight + self.bias
        return scores


def critic_auc(
    real: npt.ArrayLike,
    fake: npt.ArrayLike,
    groups_real: Sequence[str],
    groups_fake: Sequence[str],
    *,
    folds: int = 5,
    seed: int = 0,
    penalty: float = PENALTY,
) -> tuple[float, Array]:
    """Return the AUC and the held-out scores, real first, (N + M,); higher means more real.

    Scores of different folds come from different classifiers; `critic_folds` tells which.

    Args:
        real: Features (N, D).
        fake: Features (M, D).
        groups_real: (N,), the patient of each.
        groups_fake: (M,), the patient whose still each was made from.
        folds: Number of folds; fewer if there are fewer patients.
        seed: Seed of the division into folds.
        penalty: Ridge.

    Raises:
        DataError: If shapes do not fit, a value is not finite, or the patients cannot be divided so that
            every training side has real and fake clips.
        ConfigError: If `folds` or `penalty` is out of range.
    """
    fold_of, scores = _held_out(real, fake, groups_real, groups_fake, folds, seed, penalty)
    wins, pairs = _concordance(scores, fold_of, len(groups_real))
    if pairs.sum() == 0:
        raise DataError("No fold holds real and generated clips.", "Use fewer folds or more patients.")
    return float(wins.sum() / pairs.sum()), scores


def critic_interval(
    real: npt.ArrayLike,
    fake: npt.ArrayLike,
    groups_real: Sequence[str],
    groups_fake: Sequence[str],
    *,
    folds: int = 5,
    seed: int = 0,
    penalty: float = PENALTY,
    repeats: int = REPEATS,
) -> Interval:
    """Return `critic_auc` with an interval over groups; `n` is the number of the smaller set's clips.

    Patients are resampled among the held-out scores; the classifiers are not trained anew, so the
    interval is that of judging, not of training.
    """
    fold_of, scores = _held_out(real, fake, groups_real, groups_fake, folds, seed, penalty)
    wins, pairs = _concordance(scores, fold_of, len(groups_real))
    if pairs.sum() == 0:
        raise DataError("No fold holds real and generated clips.", "Use fewer folds or more patients.")
    union = np.union1d(np.asarray(groups_real, dtype=np.str_), np.asarray(groups_fake, dtype=np.str_))
    of_real, of_fake = (
        (np.asarray(groups, dtype=np.str_)[:, None] == union).astype(np.float64)
        for groups in (groups_real, groups_fake)
    )
    wins, pairs = of_real.T @ wins @ of_fake, of_real.T @ pairs @ of_fake
    weights = resampled_counts(len(union), repeats, seed)
    total, count = (np.einsum("rg,gh,rh->r", weights, part, weights, optimize=True) for part in (wins, pairs))
    samples = total[count > 0] / count[count > 0]
    known = len(union) > 1 and len(samples) > 0
    low, high = np.percentile(samples, LIMITS) if known else (np.nan, np.nan)
    n = min(len(groups_real), len(groups_fake))
    return Interval(float(wins.sum() / pairs.sum()), float(low), float(high), n, len(union))


def critic_folds(groups: Sequence[str], folds: int, seed: int) -> Folds:
    """Return the fold of each clip, (N,): whole groups, the largest first, each into the emptiest fold."""
    if folds < 2:
        raise ConfigError(f"{folds} folds leave nothing to train on.", "Use 2 or more.")
    names, index, sizes = np.unique(np.asarray(groups, dtype=np.str_), return_inverse=True, return_counts=True)
    if len(names) < 2:
        raise DataError(f"{len(names)} group cannot be divided into folds.", "Add clips of other patients.")
    order = numpy_generator(seed, "critic-folds").permutation(len(names))
    order = order[np.argsort(-sizes[order], kind="stable")]
    filled = np.zeros(min(folds, len(names)))
    fold_of_group = np.zeros(len(names), dtype=np.intp)
    for group in order:
        fold_of_group[group] = np.argmin(filled)
        filled[fold_of_group[group]] += sizes[group]
    chosen: Folds = fold_of_group[index]
    return chosen


def _held_out(
    real: npt.ArrayLike,
    fake: npt.ArrayLike,
    groups_real: Sequence[str],
    groups_fake: Sequence[str],
    folds: int,
    seed: int,
    penalty: float,
) -> tuple[Folds, Array]:
    """Return the fold and the held-out score of each clip, real first."""
    a, b = (np.asarray(part, dtype=np.float64) for part in (real, fake))
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or 0 in (*a.shape, *b.shape):
        raise DataError(f"Features of {a.shape} and {b.shape} do not fit.", "Pass (N, D) and (M, D).")
    x = np.concatenate([a, b])
    if not np.isfinite(x).all():
        raise DataError("Features hold NaN or infinity.", "Check the clips that they come from.")
    if penalty <= 0:
        raise ConfigError(f"A penalty of {penalty:g} leaves the classifier undetermined.", "Use a positive one.")
    labels = np.concatenate([group_labels(groups_real, len(a)), group_labels(groups_fake, len(b))])
    is_real = np.arange(len(x)) < len(a)
    fold_of = critic_folds(labels.tolist(), folds, seed)
    scores = np.zeros(len(x))
    for fold in np.unique(fold_of):
        judged = fold_of == fold
        if len(np.unique(is_real[~judged])) < 2:
            raise DataError(
                "Without one fold's patients there are no real or no generated clips left to train on.",
                "Add clips of other patients.",
            )
        scores[judged] = _score(x[~judged], is_real[~judged], x[judged], penalty)
    return fold_of, scores


def fit_critic(train: Array, is_real: npt.NDArray[np.bool_], penalty: float = PENALTY) -> LinearCritic:
    """Fit the classifier on features (N, D), finite, of real and generated clips; there must be both."""
    mean, scale = train.mean(0), train.std(0)
    scale = np.where(scale > 1e-12 * (1.0 + np.abs(mean)), scale, 1.0)  # A constant feature says nothing.
    x = (train - mean) / scale
    sign = np.where(is_real, 1.0, -1.0)
    weight = np.where(is_real, 0.5 / is_real.sum(), 0.5 / (~is_real).sum())

    def loss(parameters: Array) -> tuple[float, Array]:
        w, b = parameters[:-1], parameters[-1]
        margin = sign * (x @ w + b)
        slope = -weight * sign * special.expit(-margin)
        value = float(weight @ np.logaddexp(0.0, -margin)) + 0.5 * penalty * float(w @ w)
        return value, np.append(x.T @ slope + penalty * w, slope.sum())

    found = optimize.minimize(
        loss, np.zeros(x.shape[1] + 1), jac=True, method="L-BFGS-B", options={"maxiter": 500, "gtol": 1e-7}
    )
    return LinearCritic(mean, scale, found.x[:-1], float(found.x[-1]))


def _score(train: Array, is_real: npt.NDArray[np.bool_], judged: Array, penalty: float) -> Array:
    """Fit on the training features; return the scores of the judged ones."""
    return fit_critic(train, is_real, penalty).scores(judged)


def _concordance(scores: Array, fold_of: Folds, reals: int) -> tuple[Array, Array]:
    """Return, for each real/fake pair (N, M), its win (1, 1/2 or 0) and whether one classifier judged both."""
    difference = scores[:reals, None] - scores[None, reals:]
    pairs = (fold_of[:reals, None] == fold_of[None, reals:]).astype(np.float64)
    return pairs * (0.5 + 0.5 * np.sign(difference)), pairs
