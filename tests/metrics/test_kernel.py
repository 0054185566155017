from __future__ import annotations

import math

import numpy as np
import pytest

from us_i2v.errors import DataError
from us_i2v.metrics.kernel import kernel_distance, kernel_interval


def by_loops(a: np.ndarray, b: np.ndarray, groups_a: list[str], groups_b: list[str]) -> float:
    def mean(x: np.ndarray, y: np.ndarray, p: list[str], q: list[str]) -> float:
        values = []
        for i in range(len(x)):
            for j in range(len(y)):
                if p[i] != q[j]:
                    product = sum(float(u) * float(v) for u, v in zip(x[i], y[j], strict=True))
                    values.append((product / x.shape[1] + 1) ** 3)
        return math.fsum(values) / len(values)

    return mean(a, a, groups_a, groups_a) + mean(b, b, groups_b, groups_b) - 2 * mean(a, b, groups_a, groups_b)


def test_by_hand() -> None:
    # One dimension, k = (x y + 1)^3: a = {0, 1}: k = 1; b = {2, 3}: k = 343; between: 1, 1, 27, 64.
    assert kernel_distance([[0.0], [1.0]], [[2.0], [3.0]]) == pytest.approx(1 + 343 - 2 * (1 + 1 + 27 + 64) / 4)


def test_tiny_sets_by_loops() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(5, 3)), rng.normal(size=(4, 3)) + 0.5
    single_a, single_b = [f"a{i}" for i in range(5)], [f"b{i}" for i in range(4)]
    assert kernel_distance(a, b) == pytest.approx(by_loops(a, b, single_a, single_b), rel=1e-12)
    # Pairs of one patient are left out within the sets and between them.
    groups_a, groups_b = ["p", "p", "q", "r", "r"], ["q", "s", "s", "p"]
    grouped = kernel_distance(a, b, groups_a, groups_b)
    assert grouped == pytest.approx(by_loops(a, b, groups_a, groups_b), rel=1e-12)
    assert grouped != pytest.approx(kernel_distance(a, b), rel=1e-3)


def test_unbiased_at_any_n() -> None:
    rng = np.random.default_rng(1)
    values = [kernel_distance(rng.normal(size=(6, 4)), rng.normal(size=(9, 4))) for _ in range(3000)]
    assert abs(np.mean(values)) < 4 * np.std(values) / math.sqrt(3000)
    assert min(values) < 0 < max(values)


def test_unbiased_over_patients() -> None:
    """Many clips of few patients: leaving out pairs of one patient keeps the estimate at 0, else it is not."""
    rng = np.random.default_rng(2)
    names = [f"p{i // 4}" for i in range(32)]
    grouped, single = [], []
    for _ in range(800):
        centre = rng.normal(size=(8, 1, 3))
        a = (centre + 0.3 * rng.normal(size=(8, 4, 3))).reshape(32, 3)
        b = (rng.normal(size=(8, 1, 3)) + 0.3 * rng.normal(size=(8, 4, 3))).reshape(32, 3)
        grouped.append(kernel_distance(a, b, names, [f"q{i // 4}" for i in range(32)]))
        single.append(kernel_distance(a, b))
    error = np.std(grouped) / math.sqrt(800)
    assert abs(np.mean(grouped)) < 4 * error
    assert np.mean(single) > 8 * error


def test_properties() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(60, 8)), rng.normal(size=(50, 8))
    d = kernel_distance(a, b + 1)
    assert kernel_distance(b + 1, a) == pytest.approx(d, rel=1e-12)
    assert kernel_distance(a[::-1], (b + 1)[rng.permutation(50)]) == pytest.approx(d, rel=1e-12)
    assert abs(kernel_distance(a, b)) < 0.2 * kernel_distance(a, b + 0.5) < 0.2 * d
    # Equal mean and variance, another third moment: the kernel's degree sees it.
    skewed = rng.exponential(size=(1000, 1)) - 1
    assert kernel_distance(skewed, rng.normal(size=(1000, 1))) > 0.5


def test_interval() -> None:
    rng = np.random.default_rng(4)
    names = [f"p{i // 3}" for i in range(60)]
    centre = np.repeat(rng.normal(size=(20, 5)), 3, axis=0)
    a, b = (centre + 0.5 * rng.normal(size=(60, 5)) for _ in range(2))
    same = kernel_interval(a, b, names, names, repeats=300)
    assert same.low < 0 < same.high
    assert same.mean == pytest.approx(kernel_distance(a, b, names, names), rel=1e-9)
    assert (same.n, same.groups) == (60, 20)
    apart = kernel_interval(a, b[:30] + 3, names, [f"q{name}" for name in names[:30]], repeats=300)
    assert 0 < apart.low < apart.mean < apart.high
    assert (apart.n, apart.groups) == (30, 10)
    assert kernel_interval(a, b, names, names, repeats=300) == same
    # Drawing patients is wider than drawing clips.
    single = [str(i) for i in range(60)]
    by_clip = kernel_interval(a, b + 1, single, single, repeats=300)
    by_group = kernel_interval(a, b + 1, names, names, repeats=300)
    assert by_group.high - by_group.low > by_clip.high - by_clip.low


def test_errors() -> None:
    good = np.zeros((4, 2))
    with pytest.raises(DataError, match="2 and 3 dimensions"):
        kernel_distance(good, np.zeros((4, 3)))
    with pytest.raises(DataError, match="no distance"):
        kernel_distance(good, np.zeros((1, 2)))
    with pytest.raises(DataError, match="NaN"):
        kernel_distance(good, np.full((2, 2), np.nan))
    with pytest.raises(DataError, match="two groups a set"):
        kernel_distance(good, good, ["p"] * 4, ["q", "q", "r", "r"])
    with pytest.raises(DataError, match="one set only"):
        kernel_distance(good, good, list("pqrs"))
    with pytest.raises(DataError, match="3 groups were given for 4"):
        kernel_distance(good, good, list("pqr"), list("pqrs"))
