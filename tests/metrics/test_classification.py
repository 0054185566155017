"""Class scores against values worked out by hand, and their intervals against the definition."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from us_i2v.errors import DataError
from us_i2v.metrics.classification import (
    SCORES,
    Predictions,
    class_f1,
    confusion_matrix,
    difference,
    reliability,
    scores,
)
from us_i2v.metrics.intervals import resampled_counts


def predictions(positive: list[float], truth: list[int], groups: list[str] | None = None) -> Predictions:
    p = np.array(positive)
    return Predictions.of(np.stack([1 - p, p], 1), truth, groups or [f"g{k}" for k in range(len(truth))])


# True 0 0 0 0 1 1 1, predicted 0 0 0 1 1 1 0: n = [[3, 1], [1, 2]].
TWO = predictions([0.1, 0.2, 0.4, 0.7, 0.9, 0.6, 0.3], [0, 0, 0, 0, 1, 1, 1])


def test_confusion_matrix_has_true_classes_in_rows() -> None:
    assert confusion_matrix(TWO.truth, TWO.predicted, 2).tolist() == [[3, 1], [1, 2]]
    assert confusion_matrix([2, 0, 2], [0, 0, 2], 3).tolist() == [[1, 0, 0], [0, 0, 0], [1, 0, 1]]


def test_two_classes_by_hand() -> None:
    got = scores(TWO, repeats=10).values
    first, second = Fraction(2 * 3, 2 * 3 + 2), Fraction(2 * 2, 2 * 2 + 2)
    assert got["binary_f1"] == pytest.approx(float(second))
    assert got["macro_f1"] == pytest.approx(float((first + second) / 2))
    assert got["weighted_f1"] == pytest.approx(float((4 * first + 3 * second) / 7))
    assert got["accuracy"] == pytest.approx(5 / 7)
    assert got["balanced_accuracy"] == pytest.approx((3 / 4 + 2 / 3) / 2)
    # Pairs: 0.9 beats all four, 0.6 beats three, 0.3 beats two.
    assert got["auc"] == pytest.approx(9 / 12)
    errors = [0.1, 0.2, 0.4, 0.7, 0.1, 0.4, 0.7]
    assert got["brier"] == pytest.approx(2 * sum(e * e for e in errors) / 7)
    # Bins of confidence: .9 .9 (right, right); .8 (right); .7 .7 (wrong, wrong); .6 .6 (right, right).
    assert got["ece"] == pytest.approx((abs(1.8 - 2) + abs(0.8 - 1) + abs(1.4 - 0) + abs(1.2 - 2)) / 7)
    assert tuple(got) == SCORES


def test_three_classes_by_hand() -> None:
    p = np.array([[0.8, 0.1, 0.1], [0.3, 0.6, 0.1], [0.2, 0.7, 0.1], [0.1, 0.2, 0.7], [0.5, 0.3, 0.2]])
    got = scores(Predictions.of(p, [0, 0, 1, 2, 2], list("abcde")), repeats=5).values
    f1 = [Fraction(2, 4), Fraction(2, 3), Fraction(2, 3)]
    assert got["macro_f1"] == pytest.approx(float(sum(f1) / 3))
    assert got["weighted_f1"] == pytest.approx(float((2 * f1[0] + f1[1] + 2 * f1[2]) / 5))
    assert got["accuracy"] == pytest.approx(3 / 5)
    assert got["balanced_accuracy"] == pytest.approx((1 / 2 + 1 + 1 / 2) / 3)
    # One against the rest: class 0 orders .8 .3 against .2 .1 .5, class 1 .7 against all, class 2 .7 .2 against .1s.
    assert got["auc"] == pytest.approx((Fraction(5, 6) + 1 + 1) / 3)
    assert "binary_f1" not in got


def test_a_class_that_is_nowhere_does_not_count() -> None:
    p = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0]])
    got = scores(Predictions.of(p, [0, 1], ["a", "b"]), repeats=5).values
    assert got["macro_f1"] == got["balanced_accuracy"] == 1.0
    assert math.isnan(got["auc"])
    assert np.isnan(class_f1([[1, 0, 0], [0, 1, 0], [0, 0, 0]])).tolist() == [False, False, True]


def test_ties_are_half_a_win_and_one_class_has_no_auc() -> None:
    assert scores(predictions([0.5, 0.5, 0.5], [0, 1, 1]), repeats=5).values["auc"] == 0.5
    assert math.isnan(scores(predictions([0.2, 0.1], [0, 0]), repeats=5).values["binary_f1"])
    found = scores(predictions([0.2, 0.9], [1, 1]), repeats=5)
    assert math.isnan(found.values["auc"])
    assert math.isnan(found.interval("auc").low)


def test_perfect_and_opposite() -> None:
    truth = [0, 1, 0, 1]
    best = scores(predictions([0.0, 1.0, 0.0, 1.0], truth), repeats=5).values
    worst = scores(predictions([1.0, 0.0, 1.0, 0.0], truth), repeats=5).values
    for name in SCORES[:6]:
        assert (best[name], worst[name]) == (1.0, 0.0)
    assert (best["brier"], best["ece"], worst["brier"], worst["ece"]) == (0.0, 0.0, 2.0, 1.0)


def test_intervals_are_percentiles_over_resampled_groups() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 30)
    groups = [f"p{k // 3}" for k in range(30)]
    given = predictions(list(np.clip(0.5 * truth + rng.random(30) * 0.6, 0, 1)), truth.tolist(), groups)
    found = scores(given, repeats=50, seed=3)
    weights = resampled_counts(10, 50, 3)
    names = sorted(set(groups))
    for row in range(50):
        rows = [k for k in range(30) for _ in range(int(weights[row, names.index(groups[k])]))]
        again = Predictions.of(given.probabilities[rows], truth[rows], [groups[k] for k in rows])
        values = scores(again, repeats=2).values
        for name in SCORES:
            assert found.samples[name][row] == pytest.approx(values[name], nan_ok=True, abs=1e-12)
    interval = found.interval("macro_f1")
    assert (interval.low, interval.high) == pytest.approx(tuple(np.percentile(found.samples["macro_f1"], (2.5, 97.5))))
    assert (interval.n, interval.groups) == (30, 10)
    ece = found.interval("ece")
    assert ece.low < ece.mean < ece.high


def test_one_patient_says_nothing_about_others() -> None:
    interval = scores(predictions([0.1, 0.9], [0, 1], ["a", "a"]), repeats=20).interval("accuracy")
    assert (interval.mean, interval.groups) == (1.0, 1)
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)


def test_paired_difference_is_narrower_than_its_parts_and_zero_for_equals() -> None:
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 2, 60)
    base = np.clip(0.35 * truth + rng.random(60) * 0.65, 0, 1)
    groups = [f"p{k // 2}" for k in range(60)]
    ours = scores(predictions(list(np.clip(base + 0.1 * (truth - 0.5), 0, 1)), truth.tolist(), groups), repeats=300)
    theirs = scores(predictions(list(base), truth.tolist(), groups), repeats=300)
    found = difference(ours, theirs, "macro_f1")
    assert found.mean == pytest.approx(ours.values["macro_f1"] - theirs.values["macro_f1"])
    own = ours.interval("macro_f1")
    assert found.high - found.low < own.high - own.low
    same = difference(ours, ours, "auc")
    assert (same.mean, same.low, same.high) == (0.0, 0.0, 0.0)
    with pytest.raises(DataError, match="60 and 7 videos"):
        difference(ours, scores(TWO, repeats=300), "auc")


def test_reliability_bins() -> None:
    rows = reliability(TWO)
    assert [(row.n, row.accuracy) for row in rows] == [(2, 1.0), (2, 0.0), (1, 1.0), (2, 1.0)]
    assert [row.confidence for row in rows] == pytest.approx([0.6, 0.7, 0.8, 0.9])
    assert reliability(predictions([1.0, 1.0], [1, 0]))[-1].high == 1.0


@pytest.mark.parametrize(
    ("p", "truth", "groups", "message"),
    [
        ([[0.5, 0.5]], [0, 1], ["a"], "do not fit"),
        ([[0.5, 0.5]], [0], ["a", "b"], "do not fit"),
        (np.zeros((0, 2)), [], [], "do not fit"),
        ([[0.7, 0.7]], [0], ["a"], "sum 1"),
        ([[math.nan, 1.0]], [0], ["a"], "sum 1"),
        ([[0.5, 0.5]], [2], ["a"], r"not in 0\.\.1"),
    ],
)
def test_unusable_predictions_are_refused(p, truth, groups, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Predictions.of(p, truth, groups)
