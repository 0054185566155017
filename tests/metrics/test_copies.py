from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from us_i2v.errors import DataError
from us_i2v.metrics.copies import (
    pearson,
    ranking_auc,
    share_as_high,
    share_interval,
    shifted_correlation,
    threshold,
)


def pictures(seed: int, n: int, side: int = 20) -> torch.Tensor:
    return torch.randn(n, side, side, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_pearson_is_numpys() -> None:
    a, b = pictures(0, 3).flatten(1), pictures(1, 4).flatten(1)
    expected = np.corrcoef(a.numpy(), b.numpy())[:3, 3:]
    np.testing.assert_allclose(pearson(a, b).numpy(), expected, atol=1e-12)
    assert pearson(torch.full((1, 5), 3.0), torch.arange(5.0)[None]).item() == 0


@pytest.mark.parametrize("shift", [(0, 0), (3, -2), (-3, 3)])
@pytest.mark.parametrize("mirrored", [False, True])
def test_shifted_copy_is_found_within_reach(shift: tuple[int, int], mirrored: bool) -> None:
    references = pictures(2, 5)
    query = torch.roll(references[3:4], shift, (1, 2))
    query = 2 * (query.flip(-1) if mirrored else query) + 7
    found = shifted_correlation(query, references, 3)[0]
    assert found.argmax() == 3
    assert found[3].item() == pytest.approx(1)
    assert found[[0, 1, 2, 4]].max() < 0.5


def test_shift_beyond_reach_is_not_found() -> None:
    references = pictures(2, 2)
    assert shifted_correlation(torch.roll(references[:1], 5, 1), references, 2).max() < 0.5


def test_shifted_correlation_is_chunked_without_effect(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, references = pictures(3, 2), pictures(4, 5)
    whole = shifted_correlation(queries, references, 2)
    monkeypatch.setattr("us_i2v.metrics.copies._AT_ONCE", 1)
    torch.testing.assert_close(shifted_correlation(queries, references, 2), whole)
    with pytest.raises(DataError, match="reach"):
        shifted_correlation(queries, references, 10)


def test_threshold_lets_its_share_pass() -> None:
    values = np.random.default_rng(0).normal(size=(4000, 40))
    above = [row[-1] > threshold(row[:-1], 0.95) for row in values]  # the last one is the stranger
    assert np.mean(above) == pytest.approx(0.05, abs=4 * np.sqrt(0.05 * 0.95 / 4000))
    assert threshold([0.3, 0.9, 0.1], 0.95) == 0.9
    with pytest.raises(DataError, match="held-out"):
        threshold([], 0.95)


def test_share_as_high_is_a_rank() -> None:
    assert share_as_high(2.0, [0.0, 1.0, 1.5]) == 0.25
    assert share_as_high(1.0, [0.0, 1.0, 1.5]) == 0.75


def test_share_interval_counts_groups_and_never_is_a_point() -> None:
    none = share_interval([False] * 30, [f"g{k // 3}" for k in range(30)])
    assert (none.mean, none.low, none.n, none.groups) == (0, 0, 30, 10)
    assert none.high == pytest.approx(0.2775, abs=1e-4)  # Wilson, 0 of 10
    half = share_interval([True, False] * 5, [str(k) for k in range(10)])
    assert (half.low, half.high) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    with pytest.raises(DataError):
        share_interval([], [])


def test_ranking_auc_counts_pairs() -> None:
    assert ranking_auc([3.0, 1.0], [2.0, 1.0]) == pytest.approx((2 + 0.5) / 4)
    assert math.isnan(ranking_auc([], [1.0]))
