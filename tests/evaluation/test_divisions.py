from __future__ import annotations

import numpy as np
import pytest

from us_i2v.evaluation import divisions
from us_i2v.evaluation.divisions import Side, available, divide, frechet_lines, paired_difference
from us_i2v.metrics.frechet import frechet_distance

GROUPS = tuple(f"p{k // 3:02d}" for k in range(60))
FOREIGN = tuple(f"q{k:02d}" for k in range(30))


def features(seed: int, count: int = 60, spread: float = 1.0) -> np.ndarray:
    return spread * np.random.default_rng(seed).normal(size=(count, 4))


def side(fake: np.ndarray | None = None, *, paired: bool = True, repeat: bool = True) -> Side:
    real = features(0)
    of = np.arange(60) if paired else np.full(60, -1)
    groups = GROUPS if paired else FOREIGN
    made = fake if fake is not None else features(1, len(groups), 1.5)
    return Side(real, GROUPS, made, groups, features(2, spread=3.0) if repeat else None, of)


def test_divisions_keep_groups_whole_and_sides_even() -> None:
    sizes = [1, 1, 9, 4, 3, 3, 2, 2, 5]
    groups = tuple(f"g{k}" for k, size in enumerate(sizes) for _ in range(size))
    found = divide(groups, 20, seed=3)
    assert len({left.tobytes() for left in found}) > 5
    for left in found:
        names = [{group for group, is_left in zip(groups, left, strict=True) if is_left == value} for value in (1, 0)]
        assert not names[0] & names[1]
        assert abs(int(left.sum()) - int((~left).sum())) <= max(sizes)


def test_divisions_depend_on_groups_not_on_order() -> None:
    order = np.random.default_rng(0).permutation(60)
    shuffled = tuple(GROUPS[k] for k in order)
    for left, other in zip(divide(GROUPS, 5, 0), divide(shuffled, 5, 0), strict=True):
        np.testing.assert_array_equal(left[order], other)


def test_no_patient_on_both_sides_and_one_n(monkeypatch: pytest.MonkeyPatch) -> None:
    """Features that name their patient show which clips met."""
    number = np.array([float(group[1:]) for group in GROUPS])[:, None]
    met: list[tuple[np.ndarray, np.ndarray]] = []
    monkeypatch.setattr(divisions, "frechet_distance", lambda a, b: met.append((a, b)) or 1.0)
    frechet_lines(Side(number, GROUPS, number, GROUPS, number, np.arange(60)), 20, 4, 0, repeats=3)
    assert len(met) == 3 * (4 + 3 * divisions.DIVISIONS)
    for a, b in met:
        assert a.shape == b.shape == (20, 1)
        assert not set(a.ravel()) & set(b.ravel())
    for k in range(0, len(met), 3):  # All lines of a division: the same left and right patients.
        for line in (1, 2):
            np.testing.assert_array_equal(met[k][1], met[k + line][1])
            np.testing.assert_array_equal(met[k][0], met[k + line][0])


def test_perfect_fakes_reach_the_floor_and_repeats_do_not() -> None:
    data = side()
    perfect = Side(data.real, GROUPS, data.real, GROUPS, data.repeat, np.arange(60))
    found = frechet_lines(perfect, 25, 6, 0, repeats=20).values
    assert found["fake"] == found["floor"]
    assert found["closed"].mean == 1
    assert data.repeat is not None
    trivial = Side(data.real, GROUPS, data.repeat, GROUPS, data.repeat, np.arange(60))
    assert frechet_lines(trivial, 25, 6, 0, repeats=20).values["closed"].mean == 0


def test_value_is_the_mean_over_divisions() -> None:
    data = side(repeat=False)
    whole = frechet_lines(data, available(data, 5, 0), 5, 0, repeats=0).values["floor"].mean
    by_hand = []
    for left in divide(GROUPS, 5, 0):
        by_hand.append(frechet_distance(data.real[left], data.real[~left]))
    assert available(data, 5, 0) == 30  # 20 groups of three part evenly, so that order is all that draws choose.
    assert whole == pytest.approx(np.mean(by_hand), rel=1e-9)


def test_intervals_hold_the_value_and_know_their_n() -> None:
    found = frechet_lines(side(), 20, 5, 0, repeats=40)
    assert set(found.values) == {"fake", "floor", "repeat", "closed"}
    for key in ("fake", "floor", "repeat"):
        value = found.values[key]
        assert 0 <= value.low < value.mean < value.high
        assert (value.n, value.groups) == (20, 20)
    assert frechet_lines(side(), 20, 5, 0, repeats=40) == found
    assert frechet_lines(side(), 20, 5, 1, repeats=40) != found


def test_fakes_of_other_patients_meet_everybody() -> None:
    data = side(paired=False)
    assert available(data, 5, 0) == 30
    found = frechet_lines(data, 30, 3, 0, repeats=5).values
    assert found["fake"].mean > found["floor"].mean


def test_fakes_of_shared_patients_stay_on_their_side(monkeypatch: pytest.MonkeyPatch) -> None:
    number = np.array([float(group[1:]) for group in GROUPS])[:, None]
    some = np.arange(0, 60, 2)
    met: list[tuple[np.ndarray, np.ndarray]] = []
    monkeypatch.setattr(divisions, "frechet_distance", lambda a, b: met.append((a, b)) or 1.0)
    of = np.full(60, -1)
    of[some] = np.arange(30)  # Half of the real clips have no fake.
    data = Side(number, GROUPS, number[some], tuple(GROUPS[k] for k in some), None, of)
    assert available(data, 4, 0) < 30
    frechet_lines(data, 10, 4, 0, repeats=3)
    assert all(not set(a.ravel()) & set(b.ravel()) for a, b in met)


def test_several_frames_a_clip_stay_together() -> None:
    rng = np.random.default_rng(0)
    real = rng.normal(size=(60, 4, 3))
    data = Side(real, GROUPS, real + 1, GROUPS, None, np.arange(60))
    found = frechet_lines(data, 25, 3, 0, repeats=5).values
    assert found["fake"].mean == pytest.approx(3, abs=1.0)
    assert found["fake"].n == 25


def test_difference_of_two_methods_is_paired() -> None:
    """Fakes that are a shade worse than others: the interval of the difference is far narrower than their own."""
    data = side(features(1, spread=1.4))
    worse = side(1.02 * data.fake)
    ours, theirs = (frechet_lines(which, 25, 6, 0, repeats=60) for which in (data, worse))
    a, b = ours.values["fake"], theirs.values["fake"]
    found = paired_difference(a, b, ours.samples, theirs.samples)
    assert found.mean == pytest.approx(a.mean - b.mean)
    assert found.low < found.mean < found.high < 0
    assert found.high - found.low < 0.3 * (a.high - a.low)
    assert a.low < b.mean < a.high  # The separate intervals overlap.
    reverse = paired_difference(b, a, theirs.samples, ours.samples)
    assert (reverse.low, reverse.high) == pytest.approx((-found.high, -found.low))
    same = paired_difference(a, a, ours.samples, ours.samples)
    assert (same.mean, same.low, same.high) == (0, 0, 0)


def test_no_limits_of_a_difference_without_partners() -> None:
    """Fakes of other patients are drawn by themselves, so that two methods share no samples."""
    lines = frechet_lines(side(paired=False), 20, 4, 0, repeats=10)
    assert lines.samples == ()
    value = lines.values["fake"]
    found = paired_difference(value, value, lines.samples, lines.samples)
    assert found.mean == 0
    assert np.isnan([found.low, found.high]).all()
