"""Repeated frames are found, and slow or still video is left alone."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from us_i2v.data.clips import distinct_frames, distinct_indices, open_clip, repeated_frames
from us_i2v.data.repeats import find_repeats, frame_differences
from us_i2v.data.writers import write_clip


def scan(n: int, speed: float, seed: int = 0) -> np.ndarray:
    """A speckle field that drifts by `speed` pixels a frame and slowly changes."""
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=(96, 96 + int(speed * n) + 2)), 1.5) * 300 + 100
    columns = np.arange(96)
    frames = []
    for t in range(n):
        whole, part = divmod(t * speed, 1)
        at = columns + int(whole)
        frames.append((1 - part) * noise[:, at] + part * noise[:, at + 1])
    return np.clip(frames, 0, 255).astype(np.uint8)


def play_faster(frames: np.ndarray, scan_fps: float, file_fps: float, n: int) -> tuple[np.ndarray, list[int]]:
    shown = [int(t * scan_fps / file_fps) for t in range(n)]
    return frames[shown], [t for t in range(1, n) if shown[t] == shown[t - 1]]


@pytest.mark.parametrize("name", ["a.mp4", "a.avi", "a.mkv"])
@pytest.mark.parametrize(("scan_fps", "file_fps"), [(21.0, 61.0), (14.0, 39.0), (20.0, 25.0), (30.0, 60.0)])
def test_repeats_are_found_through_the_codecs_noise(tmp_path, name, scan_fps, file_fps):
    frames, expected = play_faster(scan(60, 1.7), scan_fps, file_fps, 60)
    reader = open_clip(write_clip(tmp_path / name, frames, file_fps))
    assert repeated_frames(reader) == expected
    kept = distinct_frames(reader)
    assert kept.fps == pytest.approx(scan_fps, rel=0.06)
    assert sorted([*kept.indices, *expected]) == list(range(60))
    assert distinct_indices(reader) == list(kept.indices)


@pytest.mark.parametrize("speed", [0.02, 0.1, 0.5, 2.0])
@pytest.mark.parametrize("name", ["a.mp4", "a.npz"])
def test_steady_motion_however_slow_has_no_repeats(tmp_path, name, speed):
    reader = open_clip(write_clip(tmp_path / name, scan(40, speed), 25))
    assert repeated_frames(reader) == []
    assert distinct_frames(reader).fps == 25


@pytest.mark.parametrize("name", ["a.mp4", "a.npz", "a.gif"])
def test_a_still_video_is_left_alone(tmp_path, name):
    reader = open_clip(write_clip(tmp_path / name, np.repeat(scan(1, 1.0), 30, 0), 25))
    assert repeated_frames(reader) == []


def test_a_pause_is_not_taken_for_repeats(tmp_path):
    """Motion, one second without any, motion again: every frame stays."""
    moving = scan(40, 1.5)
    frames = np.concatenate([moving[:20], np.repeat(moving[20:21], 25, 0), moving[21:]])
    reader = open_clip(write_clip(tmp_path / "a.npz", frames, 25))
    assert repeated_frames(reader) == []


def test_a_single_doubled_frame_is_found(tmp_path):
    frames = scan(40, 1.5)
    frames = np.concatenate([frames[:7], frames[6:]])
    reader = open_clip(write_clip(tmp_path / "a.mkv", frames, 25))
    assert repeated_frames(reader) == [7]


def test_speeding_up_gradually_has_no_repeats():
    """Differences spread over two decades without a gap are motion."""
    assert find_repeats(np.geomspace(0.1, 10, 80)) == []


def test_pulsating_motion_has_no_repeats():
    t = np.arange(120)
    assert find_repeats(2.2 + 2 * np.sin(t / 6)) == []


def test_very_short_clips_have_no_repeats(tmp_path):
    for n in (1, 2, 3):
        assert repeated_frames(open_clip(write_clip(tmp_path / f"{n}.npz", scan(n, 1.0), 25))) == []


def test_differences_are_mean_absolute_gray_levels(tmp_path):
    frames = np.zeros((3, 16, 16, 3), np.uint8)
    frames[1] = 10
    frames[2, :8] = 10
    frames[0, 0, 0] = (255, 0, 0)
    reader = open_clip(write_clip(tmp_path / "a.npz", frames, 25))
    assert frame_differences(reader)[1] == 5.0
    assert frame_differences(reader)[0] == pytest.approx((255 * 10 + 66) / 256)


@pytest.mark.parametrize(
    ("pattern", "low", "high"),
    [
        ("lung_pocus/covid/*volpecelli*v4.mov", 0.55, 0.70),
        ("lung_pocus/viral/*whitelung*.mp4", 0.28, 0.38),
        ("lung_pocus/viral/*prospective*.mp4", 0.55, 0.66),
        ("lung_pocus/regular/*alines*.mov", 0.0, 0.0),
        ("lung_pocus/regular/*132943.mpeg", 0.0, 0.0),
    ],
)
def test_real_clips(shared_data, pattern, low, high):
    """Measured shares in real files: a 39 fps file of a 14 fps scan, and others with none."""
    (path,) = (shared_data / "data" / "videos").glob(pattern)
    reader = open_clip(path)
    assert low <= len(repeated_frames(reader)) / reader.n_frames <= high
