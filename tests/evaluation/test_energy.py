from __future__ import annotations

import numpy as np
import pytest

from tests.evaluation.sets import Arrays, drifting, frozen, real_set
from us_i2v.errors import ConfigError
from us_i2v.evaluation.energy import EnergyScores, energy_scores
from us_i2v.metrics.energy_score import motion_distance


@pytest.fixture(scope="module")
def real() -> Arrays:
    return real_set(3, per_group=1)


def test_one_answer_scores_its_distance(real: Arrays) -> None:
    found = energy_scores(real, lambda index, number: frozen(real.clips[index], index), samples=2)
    by_hand = [motion_distance(frozen(clip, 0), clip) for clip in real.clips]
    np.testing.assert_allclose(found.scores["motion"], by_hand)
    assert set(found.scores) == {"motion"}
    assert found.intervals()["motion"].mean == pytest.approx(np.mean(by_hand))


def test_scores_by_hand(real: Arrays) -> None:
    samples = {(i, k): drifting(100 + 10 * i + k) for i in range(3) for k in range(3)}
    found = energy_scores(real, lambda index, number: samples[index, number], samples=3)
    drawn = [samples[2, k] for k in range(3)]
    to_real = np.mean([motion_distance(clip, real.clips[2]) for clip in drawn])
    between = np.mean([motion_distance(drawn[i], drawn[j]) for i in range(3) for j in range(i)])
    assert found.scores["motion"][2] == pytest.approx(to_real - between / 2)


def test_the_truth_scores_zero_and_beats_a_frozen_clip(real: Arrays) -> None:
    truth = energy_scores(real, lambda index, number: real.clips[index], samples=2)
    still = energy_scores(real, lambda index, number: frozen(real.clips[index], index), samples=2)
    np.testing.assert_allclose(truth.scores["motion"], 0, atol=1e-12)
    difference = truth.less(still)["motion"]
    assert difference.high < 0
    assert (difference.n, difference.groups) == (3, 3)


def test_sources_are_averaged_apart() -> None:
    names = ("a", "b", "c")
    scores = EnergyScores(names, names, ("x", "y", "y"), 8, {"motion": np.array([1.0, 2.0, 4.0])})
    assert scores.intervals("y")["motion"].mean == 3
    assert scores.intervals("x")["motion"].n == 1
    assert scores.intervals()["motion"].mean == pytest.approx(7 / 3)


def test_wrong_use_is_refused(real: Arrays) -> None:
    with pytest.raises(ConfigError, match="spread"):
        energy_scores(real, lambda index, number: real.clips[index], samples=1)
    one = EnergyScores(("a",), ("a",), ("a",), 2, {"motion": np.ones(1)})
    other = EnergyScores(("b",), ("b",), ("b",), 2, {"motion": np.ones(1)})
    with pytest.raises(ConfigError, match="paired"):
        one.less(other)
