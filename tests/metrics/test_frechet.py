from __future__ import annotations

import numpy as np
import pytest

from us_i2v.errors import DataError
from us_i2v.metrics.frechet import (
    Moments,
    bootstrap_by_groups,
    distance_over_draws,
    frechet_distance,
    frechet_from_moments,
    moments,
    real_floor,
    sample_warning,
)


def whitened(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    """Vectors whose sample mean is 0 and sample covariance the identity, exactly."""
    x = rng.normal(size=(n, d))
    x -= x.mean(0)
    return x @ np.linalg.inv(np.linalg.cholesky(x.T @ x / (n - 1))).T


def rotation(rng: np.random.Generator, d: int) -> np.ndarray:
    return np.linalg.qr(rng.normal(size=(d, d)))[0]


def test_one_dimension_closed_form() -> None:
    # (m1 - m2)^2 + (s1 - s2)^2
    a = Moments(np.array([1.0]), np.array([[9.0]]), 100)
    b = Moments(np.array([3.0]), np.array([[4.0]]), 100)
    assert frechet_from_moments(a, b) == pytest.approx(4 + 1, rel=1e-12)


def test_commuting_covariances_closed_form() -> None:
    rng = np.random.default_rng(0)
    q = rotation(rng, 6)
    s, t = rng.uniform(0.1, 3, (2, 6))
    m, n = rng.normal(size=(2, 6))
    a, b = Moments(m, q * s**2 @ q.T, 9), Moments(n, q * t**2 @ q.T, 9)
    assert frechet_from_moments(a, b) == pytest.approx(((m - n) ** 2).sum() + ((s - t) ** 2).sum(), rel=1e-12)


def test_general_covariances_against_the_optimal_map() -> None:
    # Gaussians x and y = A x with A symmetric positive: the optimal map is A, d^2 = tr((A - I) C (A - I)).
    rng = np.random.default_rng(1)
    c = np.cov(rng.normal(size=(5, 40)))
    a_map = rotation(rng, 5)
    a_map = a_map * rng.uniform(0.3, 2.5, 5) @ a_map.T
    zero = np.zeros(5)
    distance = frechet_from_moments(Moments(zero, c, 9), Moments(zero, a_map @ c @ a_map, 9))
    step = a_map - np.eye(5)
    assert distance == pytest.approx(np.trace(step @ c @ step), rel=1e-10)


def test_features_closed_form() -> None:
    rng = np.random.default_rng(2)
    x = whitened(rng, 50, 4)
    y = whitened(rng, 70, 4) * np.array([1, 2, 3, 4]) + np.array([0, 0, 5, 0])
    assert frechet_distance(x, y) == pytest.approx(25 + 0 + 1 + 4 + 9, rel=1e-10)


@pytest.mark.parametrize(("n", "m"), [(8, 12), (30, 30), (12, 29)])
def test_small_side_equals_moments(n: int, m: int) -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(n, 30)), 1.5 * rng.normal(size=(m, 30)) + 0.2
    slow = frechet_from_moments(moments(x), moments(y))
    assert frechet_distance(x, y) == pytest.approx(slow, rel=1e-7)


def test_moments_by_numpy() -> None:
    x = np.random.default_rng(4).normal(size=(20, 3))
    found = moments(x.astype(np.float32))
    np.testing.assert_allclose(found.mean, x.mean(0), rtol=1e-5)
    np.testing.assert_allclose(found.covariance, np.cov(x, rowvar=False), rtol=1e-5)
    assert found.count == 20
    assert found.covariance.dtype == np.float64


@pytest.mark.parametrize("n", [10, 200])
def test_invariances(n: int) -> None:
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(n, 16)), rng.normal(size=(n, 16)) * 2 + 1
    d = frechet_distance(x, y)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-10)
    assert frechet_distance(y, x) == pytest.approx(d, rel=1e-10)
    assert frechet_distance(x[::-1], y[rng.permutation(n)]) == pytest.approx(d, rel=1e-10)
    q = rotation(rng, 16)
    assert frechet_distance(x @ q + 7, y @ q + 7) == pytest.approx(d, rel=1e-9)
    assert frechet_distance(3 * x, 3 * y) == pytest.approx(9 * d, rel=1e-10)


def test_small_n_is_biased_upwards() -> None:
    x = np.random.default_rng(6).normal(size=(400, 20))
    few, many = (distance_over_draws(x, x[::-1], n, 10, seed=1).mean for n in (25, 100))
    assert few > 2 * many > 0


def test_draws() -> None:
    rng = np.random.default_rng(7)
    x, y = rng.normal(size=(60, 5)), rng.normal(size=(45, 5)) + 1
    spread = distance_over_draws(x, y, 15, 3, seed=2, disjoint=True)
    assert len(spread.values) == 3
    assert spread == distance_over_draws(x, y, 15, 3, seed=2, disjoint=True)
    assert spread.values != distance_over_draws(x, y, 15, 3, seed=3, disjoint=True).values
    assert spread.mean == pytest.approx(np.mean(spread.values))
    assert spread.std == pytest.approx(np.std(spread.values, ddof=1))
    assert min(spread.values) <= spread.low <= spread.mean <= spread.high <= max(spread.values)
    whole = distance_over_draws(x[:45], y, 45, 1, seed=0)
    assert whole.mean == pytest.approx(frechet_distance(x[:45], y), rel=1e-12)
    assert whole.std == 0
    with pytest.raises(DataError, match=r"4 draws of 15 need .* 60 vectors a set; there are 60 and 45"):
        distance_over_draws(x, y, 15, 4, seed=2, disjoint=True)
    with pytest.raises(DataError):
        distance_over_draws(x, y, 46, 1, seed=2)


def test_disjoint_draws_share_nothing() -> None:
    # One far vector: it can fall into one disjoint draw at most.
    x = np.random.default_rng(8).normal(size=(40, 2))
    far = x.copy()
    far[17] += 1000
    values = distance_over_draws(far, x, 10, 4, seed=0, disjoint=True).values
    assert sum(value > 100 for value in values) == 1


def grouped(seed: int, groups: int, each: int) -> tuple[np.ndarray, list[str]]:
    """Vectors that differ far more between groups than within one."""
    rng = np.random.default_rng(seed)
    centre = rng.normal(size=(groups, 1, 3)) * 5
    x = (centre + 0.1 * rng.normal(size=(groups, each, 3))).reshape(-1, 3)
    return x, [f"p{i // each}" for i in range(groups * each)]


def test_floor_keeps_groups_apart() -> None:
    x, groups = grouped(9, 12, 10)
    apart = real_floor(x, groups, 20, 12, seed=0)
    mixed = real_floor(x, [str(i) for i in range(len(x))], 20, 12, seed=0)
    assert apart == real_floor(x, groups, 20, 12, seed=0)
    assert apart.mean > 2 * mixed.mean
    with pytest.raises(DataError, match="Half of the 12 groups hold 60 clips, 61 are needed"):
        real_floor(x, groups, 61, 2, seed=0)


def test_bootstrap_draws_whole_groups() -> None:
    x, groups = grouped(10, 12, 10)
    y, others = grouped(11, 12, 10)
    by_group = bootstrap_by_groups(x, groups, y, others, 40, seed=0)
    single = [str(i) for i in range(len(x))]
    by_clip = bootstrap_by_groups(x, single, y, single, 40, seed=0)
    assert len(by_group.values) == 40
    assert by_group.std > 2 * by_clip.std
    assert by_group.low < by_group.mean < by_group.high
    assert by_group == bootstrap_by_groups(x, groups, y, others, 40, seed=0)


def test_sample_warning() -> None:
    few = sample_warning(99, 4)
    assert few is not None
    assert "n = 99: no claim" in few
    deficient = sample_warning(400, 400)
    assert deficient is not None
    assert "n = 400 for 400 dimensions" in deficient
    assert sample_warning(401, 400) is None
    # What it warns of: up to n = D some directions are not measured, and the distance misses them.
    rng = np.random.default_rng(12)
    assert np.linalg.matrix_rank(moments(rng.normal(size=(20, 20))).covariance) == 19
    assert np.linalg.matrix_rank(moments(rng.normal(size=(21, 20))).covariance) == 20


def test_errors() -> None:
    good = np.zeros((4, 2))
    with pytest.raises(DataError, match="no covariance"):
        frechet_distance(np.zeros((1, 2)), good)
    with pytest.raises(DataError, match="2 and 3 dimensions"):
        frechet_distance(good, np.zeros((4, 3)))
    with pytest.raises(DataError, match="NaN"):
        moments(np.array([[0.0], [np.nan]]))
    with pytest.raises(DataError, match="3 groups were given for 4"):
        real_floor(good, ["a", "b", "c"], 1, 1, seed=0)
