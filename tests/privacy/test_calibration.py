"""Clips of several windows: as many strangers are flagged as the quantile says, whatever their number of windows."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from us_i2v.errors import DataError
from us_i2v.privacy import Held

QUANTILE, CLIPS, TRIALS = 0.95, 30, 400
ALLOWED = 0.05 + 4 * np.sqrt(0.05 * 0.95 / TRIALS)


def held_out(windows: list[list[float]]) -> Held:
    """Windows by clip; two clips a group."""
    clips = np.repeat(np.arange(len(windows)), [len(own) for own in windows])
    return Held(np.concatenate([np.array(own) for own in windows]), clips, clips // 2)


def drawn(rng: np.random.Generator, count: int, within: float) -> npt.NDArray[np.float64]:
    """Similarities of a clip's windows, of which a share `within` of the variance is the clip's own."""
    return np.sqrt(within) * rng.normal() + np.sqrt(1 - within) * rng.normal(size=count)


@pytest.mark.parametrize("within", [0.0, 0.6])
@pytest.mark.parametrize("lengths", [[4], [1, 2, 3, 4]], ids=["long", "mixed"])
def test_strangers_of_four_windows_pass_as_often_as_stated(within: float, lengths: list[int]) -> None:
    rng = np.random.default_rng(0)
    by_clip, by_window = [], []
    for _ in range(TRIALS):
        held = held_out([list(drawn(rng, lengths[k % len(lengths)], within)) for k in range(CLIPS)])
        stranger = drawn(rng, 4, within).max()
        by_clip.append(stranger > held.threshold(4, QUANTILE))
        by_window.append(stranger > np.quantile(held.similarities, QUANTILE, method="weibull"))
    stated = held.strangers(4, QUANTILE)
    assert np.mean(by_clip) <= max(ALLOWED, stated + 4 * np.sqrt(stated * (1 - stated) / TRIALS))
    if lengths == [4]:
        assert stated == pytest.approx(0.05)
        assert np.mean(by_window) > ALLOWED  # what a threshold for single windows would do


def test_maxima_are_of_own_windows_first() -> None:
    held = held_out([[0.1, 0.3], [0.2, 0.9], [0.4, 0.5]])
    np.testing.assert_array_equal(held.maxima(2), [0.3, 0.9, 0.5])
    assert all(value in own for value, own in zip(held.maxima(1), ([0.1, 0.3], [0.2, 0.9], [0.4, 0.5]), strict=True))
    np.testing.assert_array_equal(held.maxima(6), [0.9] * 3)
    np.testing.assert_array_equal(held.maxima(60), [0.9] * 3)
    assert (held.n_clips, held.n_groups) == (3, 2)
    with pytest.raises(DataError, match="0 windows"):
        held.maxima(0)


def test_thresholds_rise_with_the_number_of_windows() -> None:
    rng = np.random.default_rng(1)
    held = held_out([list(drawn(rng, 1 + k % 4, 0.5)) for k in range(40)])
    limits = [held.threshold(count, QUANTILE) for count in range(1, 9)]
    assert limits == sorted(limits)
    assert limits[-1] > limits[0]
    assert limits == [held.threshold(count, QUANTILE) for count in range(1, 9)]  # nothing is drawn anew


def test_stated_share_is_honest_where_held_out_clips_are_few() -> None:
    few = held_out([[0.1, 0.2]] * 9)
    assert few.strangers(1, QUANTILE) == few.strangers(2, QUANTILE) == pytest.approx(1 / 10)
    assert few.strangers(6, QUANTILE) == pytest.approx(1 / 4)  # 18 windows: 3 sets of 6
    assert few.strangers(19, QUANTILE) == 1
    assert held_out([[0.1]] * 40).strangers(1, QUANTILE) == pytest.approx(0.05)
