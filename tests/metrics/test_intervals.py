from __future__ import annotations

import math

import numpy as np
import pytest

from us_i2v.errors import ConfigError, DataError
from us_i2v.metrics.intervals import (
    Interval,
    curve_interval,
    group_members,
    mean_interval,
    paired_interval,
    resampled_counts,
)


def test_two_groups_by_hand() -> None:
    # Bootstrap samples are {a, a}, {a, b} or {b, b}: means 1, (1 + 1 + 5) / 3, 5.
    found = mean_interval([1, 1, 5], ["a", "a", "b"])
    assert found.mean == pytest.approx(7 / 3)
    assert (found.low, found.high) == pytest.approx((1, 5))
    assert (found.n, found.groups) == (3, 2)


def test_a_sample_draws_as_many_groups_as_there_are() -> None:
    counts = resampled_counts(7, 500, seed=1)
    assert counts.shape == (500, 7)
    assert set(counts.sum(1)) == {7.0}
    assert counts.mean() == 1
    assert counts.max() > 2


def test_groups_are_drawn_not_clips() -> None:
    rng = np.random.default_rng(0)
    centre = rng.normal(size=20)
    values = np.repeat(centre, 25) + 0.01 * rng.normal(size=500)
    by_group = mean_interval(values, [f"p{i // 25}" for i in range(500)])
    by_clip = mean_interval(values, [str(i) for i in range(500)])
    # The mean of 20 patients has a standard error of sd / sqrt(20), however many clips each has.
    expected = 2 * 1.96 * centre.std(ddof=1) / math.sqrt(20)
    assert by_group.high - by_group.low == pytest.approx(expected, rel=0.15)
    assert by_clip.high - by_clip.low < 0.3 * expected


def test_coverage() -> None:
    rng = np.random.default_rng(1)
    hits = 0
    for trial in range(150):
        values = np.repeat(rng.normal(size=30), 3) + rng.normal(size=90)
        found = mean_interval(values, [str(i // 3) for i in range(90)], repeats=300, seed=trial)
        hits += found.low <= 0 <= found.high
    assert 0.87 <= hits / 150 <= 0.99


def test_pairing_removes_what_clips_share() -> None:
    rng = np.random.default_rng(2)
    clip = 10 * rng.normal(size=60)
    a, b = clip + 0.1 * rng.normal(size=60), clip + 0.3
    groups = [str(i // 2) for i in range(60)]
    paired = paired_interval(a, b, groups)
    assert paired.high < 0
    assert paired.mean == pytest.approx(np.mean(a - b))
    assert mean_interval(a, groups).high - mean_interval(a, groups).low > 10 * (paired.high - paired.low)
    assert paired_interval(a, a, groups) == Interval(0, 0, 0, 60, 30)


def test_curves_are_points_with_the_same_samples() -> None:
    rng = np.random.default_rng(3)
    curves = rng.normal(size=(12, 4))
    groups = list("aabbccddeeff")
    mean, low, high = curve_interval(curves, groups, repeats=200, seed=5)
    for k in range(4):
        point = mean_interval(curves[:, k], groups, repeats=200, seed=5)
        assert (point.mean, point.low, point.high) == pytest.approx((mean[k], low[k], high[k]))
    assert (low < mean).all()
    assert (mean < high).all()


def test_repeatable_and_independent_of_the_order_of_clips() -> None:
    rng = np.random.default_rng(4)
    values, groups = rng.normal(size=40), np.array([f"p{i % 8}" for i in range(40)])
    order = rng.permutation(40)
    found = mean_interval(values, groups.tolist(), seed=3)
    assert mean_interval(values, groups.tolist(), seed=3) == found
    other = mean_interval(values[order], groups[order].tolist(), seed=3)
    assert (other.low, other.high) == pytest.approx((found.low, found.high))
    assert mean_interval(values, groups.tolist(), seed=4).low != found.low


def test_equal_values_have_no_width() -> None:
    found = mean_interval([0.5] * 7, list("aabbccc"))
    assert found.low == found.high == found.mean == 0.5


def test_one_group_has_no_interval() -> None:
    found = mean_interval([1, 2, 3], ["a"] * 3)
    assert found.mean == 2
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert found.groups == 1


def test_members() -> None:
    assert [rows.tolist() for rows in group_members(["b", "a", "b"], 3)] == [[1], [0, 2]]


def test_errors() -> None:
    with pytest.raises(DataError, match="2 groups were given for 3"):
        mean_interval([1, 2, 3], ["a", "b"])
    with pytest.raises(DataError, match="NaN"):
        mean_interval([1, math.nan], ["a", "b"])
    with pytest.raises(DataError, match="have no mean"):
        mean_interval([], [])
    with pytest.raises(DataError, match="not one a clip"):
        mean_interval([[1, 2]], ["a"])
    with pytest.raises(DataError, match="same clips"):
        paired_interval([1, 2], [1, 2, 3], ["a", "b"])
    with pytest.raises(ConfigError, match="0 bootstrap samples"):
        mean_interval([1, 2], ["a", "b"], repeats=0)
