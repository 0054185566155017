"""Windows by stride and by time."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from us_i2v.data.windows import (
    windows_by_frame_times,
    windows_by_stride,
    windows_by_time,
)
from us_i2v.errors import DataError


def test_the_papers_window_is_48_frames_at_stride_3():
    (window,) = windows_by_stride(48, fps=25)
    assert window.indices == tuple(range(0, 48, 3))
    assert (window.start, window.length, window.stride) == (0, 16, 3.0)
    assert window.dt_s == pytest.approx(0.12)


def test_46_frames_are_enough_and_45_are_not():
    assert len(windows_by_stride(46)) == 1
    assert windows_by_stride(45) == []


def test_longer_clips_give_several_windows():
    assert [w.start for w in windows_by_stride(150)] == [0, 48, 96]
    assert [w.start for w in windows_by_stride(60, step=5)] == [0, 5, 10]
    windows = windows_by_stride(100, length=4, stride=2)
    used = [i for w in windows for i in w.indices]
    assert len(used) == len(set(used))
    assert max(used) <= 99


def test_padding_repeats_the_last_frame():
    (window,) = windows_by_stride(5, length=4, stride=3, pad="repeat")
    assert window.indices == (0, 3, 4, 4)
    assert windows_by_stride(1, length=3, stride=1, pad="repeat")[0].indices == (0, 0, 0)
    (window,) = windows_by_time(4, 10.0, 0.2, length=4, pad="repeat")
    assert window.indices == (0, 2, 3, 3)
    assert windows_by_time(4, 10.0, 0.2, length=4) == []


@pytest.mark.parametrize("fps", [18.0, 25.0, 39.0, 61.0, 12.69])
@pytest.mark.parametrize("dt", [0.04, 0.06, 0.1, 0.3])
def test_windows_by_time_take_the_nearest_frame(fps, dt):
    n = 400
    windows = windows_by_time(n, fps, dt, length=16)
    assert windows
    effective = max(dt, 1 / fps)
    for window in windows:
        assert window.dt_s == pytest.approx(effective)
        times = (np.array(window.indices) - window.start) / fps
        assert np.abs(times - effective * np.arange(16)).max() <= 0.5 / fps + 1e-9
        assert len(set(window.indices)) == 16
        assert window.indices[-1] < n
    starts = [window.start for window in windows]
    assert starts[0] == 0
    assert all(a.indices[-1] < b.start for a, b in pairwise(windows))


def test_uneven_times_take_the_nearest_frame():
    times = np.array([0, 0.04, 0.12, 0.16, 0.20, 0.31, 0.40, 0.44, 0.50, 0.60])
    windows = windows_by_frame_times(times, 0.1, length=3)
    assert [w.indices for w in windows] == [(0, 2, 4), (5, 6, 8)]
    assert windows[0].dt_s == pytest.approx(0.1)
    (short,) = windows_by_frame_times([0.0, 0.1], 0.1, length=4, pad="repeat")
    assert short.indices == (0, 1, 1, 1)
    (single,) = windows_by_frame_times([0.0], 0.1, length=2, pad="repeat")
    assert single.indices == (0, 0)


def test_even_times_agree_with_windows_by_time():
    by_rate = windows_by_time(100, 20.0, 0.1, length=8)
    by_times = windows_by_frame_times(np.arange(100) / 20.0, 0.1, length=8, step=16)
    assert [w.indices for w in by_times] == [w.indices for w in by_rate]


@pytest.mark.parametrize(
    "act",
    [
        lambda: windows_by_stride(0),
        lambda: windows_by_stride(10, length=0),
        lambda: windows_by_stride(10, stride=0),
        lambda: windows_by_stride(10, step=0),
        lambda: windows_by_stride(60, fps=0),
        lambda: windows_by_time(10, 0, 0.1),
        lambda: windows_by_time(10, 25, 0),
        lambda: windows_by_time(10, 25, float("nan")),
        lambda: windows_by_frame_times([0, 0.1, 0.1], 0.1),
        lambda: windows_by_frame_times([], 0.1),
    ],
)
def test_impossible_requests_are_errors(act):
    with pytest.raises(DataError):
        act()
