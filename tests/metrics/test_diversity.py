from __future__ import annotations

import itertools

import numpy as np
import pytest

from us_i2v.errors import DataError
from us_i2v.metrics.diversity import diversity, diversity_per_still


def test_equals_the_loop_over_pairs() -> None:
    rng = np.random.default_rng(0)
    stills = [rng.normal(size=(5, 3, 4)), rng.normal(size=(5, 3, 4)) * 2, rng.normal(size=(3, 7))]
    expected = [
        np.mean([((f[i] - f[j]) ** 2).mean() for i, j in itertools.permutations(range(len(f)), 2)]) for f in stills
    ]
    np.testing.assert_allclose(diversity_per_still(stills), expected, rtol=1e-12)
    assert diversity(stills) == pytest.approx(np.mean(expected), rel=1e-12)


def test_by_hand() -> None:
    assert diversity([[[0.0, 0.0], [2.0, 4.0]]]) == (4 + 16) / 2
    assert diversity([[[0.0], [0.0], [3.0]]]) == pytest.approx((0 + 9 + 9) / 3)


def test_equal_realisations_have_none_and_order_does_not_matter() -> None:
    rng = np.random.default_rng(1)
    f = rng.normal(size=(5, 8))
    assert diversity([np.repeat(f[:1], 5, axis=0)]) == 0
    assert diversity([f[::-1]]) == pytest.approx(diversity([f]), rel=1e-12)
    assert diversity([f + 100]) == pytest.approx(diversity([f]), rel=1e-9)
    assert diversity([3 * f]) == pytest.approx(9 * diversity([f]), rel=1e-12)


def test_expectation_does_not_depend_on_the_number_of_realisations() -> None:
    rng = np.random.default_rng(2)
    for count in (2, 5, 8):
        assert diversity(list(rng.normal(size=(4000, count, 3)))) == pytest.approx(2, rel=0.05)


def test_errors() -> None:
    with pytest.raises(DataError, match="no still"):
        diversity([])
    with pytest.raises(DataError, match="no two realisations"):
        diversity([np.zeros((1, 4))])
    with pytest.raises(DataError, match="NaN"):
        diversity([[[0.0], [np.inf]]])
