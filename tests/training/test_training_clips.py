"""Training windows: cached lazily, replayed by seed, flow kept in step with the pictures."""

from __future__ import annotations

import numpy as np
import pytest

from tests.training.conftest import CLIPS, write_clip
from us_i2v.data.datasets import find_samples
from us_i2v.data.training_clips import ClipSampler, ClipsConfig, split_clips, store_clips
from us_i2v.errors import DataError


def stored(folder, cache, config=CLIPS, size=32):
    samples = [("clips", sample) for sample in find_samples(folder)]
    return store_clips(samples, cache, size, config), [sample.split for _, sample in samples]


def test_cache_is_reused_and_memory_mapped(clips_folder, tmp_path):
    clips, _ = stored(clips_folder, tmp_path / "cache")
    files = {p: p.stat().st_mtime_ns for p in (tmp_path / "cache").iterdir()}
    again, _ = stored(clips_folder, tmp_path / "cache")
    assert clips == again
    assert files == {p: p.stat().st_mtime_ns for p in (tmp_path / "cache").iterdir()}
    assert isinstance(np.load(clips[0].frames, mmap_mode="r"), np.memmap)
    assert clips[0].interval == pytest.approx(0.1)


def test_frames_survive_the_cache(clips_folder, tmp_path):
    clips, _ = stored(clips_folder, tmp_path / "cache")
    sampler = ClipSampler(clips, CLIPS, length=16, seed=0, augment=False)
    window = sampler.load(clips[0], 2, 1)
    with np.load(clips_folder / "clip0.npz") as arrays:
        assert np.array_equal((window.frames * 255).round().astype(np.uint8), arrays["frames"][2:18])
    assert window.label == "malignant"
    assert window.interval == pytest.approx(0.1)


def test_stated_split_is_kept_and_a_divided_group_is_an_error(clips_folder, tmp_path):
    clips, splits = stored(clips_folder, tmp_path / "cache")
    train, held = split_clips(clips, splits, CLIPS, seed=0)
    assert {c.group for c in train} == {"g0", "g2"}
    assert {c.group for c in held} == {"g1"}
    with pytest.raises(DataError, match="g0"):
        split_clips(clips, ["val", *splits[1:]], CLIPS, seed=0)


def test_groups_are_split_where_no_split_is_stated(clips_folder, tmp_path):
    clips, _ = stored(clips_folder, tmp_path / "cache")
    train, held = split_clips(clips, [None] * 6, ClipsConfig(validation=0.34), seed=0)
    assert len(train) + len(held) == 6
    assert held
    assert not {c.group for c in train} & {c.group for c in held}


def test_a_window_is_a_function_of_seed_step_and_place(clips_folder, tmp_path):
    clips, _ = stored(clips_folder, tmp_path / "cache")

    def draw(seed, step, place):
        return ClipSampler(clips, CLIPS, length=16, seed=seed).draw(step, place).frames

    assert np.array_equal(draw(1, 5, 0), draw(1, 5, 0))
    assert not np.array_equal(draw(1, 5, 0), draw(1, 6, 0))
    assert not np.array_equal(draw(1, 5, 0), draw(2, 5, 0))


def test_known_flow_moves_with_the_mirrored_picture(clips_folder, tmp_path):
    clips, _ = stored(clips_folder, tmp_path / "cache")
    config = CLIPS.model_copy(update={"brightness": 0.0})
    sampler = ClipSampler([c for c in clips if c.flow], config, length=20, seed=0)
    seen = set()
    for step in range(12):
        window = sampler.draw(step, 0)
        assert window.flow is not None
        assert window.flow.shape == (20, 2, 8, 8)
        # Rows move by one pixel a frame whichever way the picture is mirrored.
        assert np.allclose(window.flow[:, 1, 0, 0], np.arange(20), atol=0.02)
        assert np.allclose(window.frames[1][:-1], window.frames[0][1:], atol=1e-6)
        seen.add(float(np.sign(window.flow[0, 0, 0, 0])))
    assert seen == {-1.0, 1.0}


def test_spacing_by_time_chooses_the_stride(tmp_path):
    folder = tmp_path / "videos" / "benign"
    folder.mkdir(parents=True)
    write_clip(folder / "a.npz", 0, frames=50)
    clips, _ = stored(tmp_path / "videos", tmp_path / "cache")
    sampler = ClipSampler(clips, ClipsConfig(dt_ms=(190.0, 310.0)), length=16, seed=0)
    assert sampler.strides(clips[0]) == [2, 3]
    assert sampler.interval_range() == pytest.approx((0.2, 0.3))
    slow = ClipSampler(clips, ClipsConfig(dt_ms=(10.0, 20.0)), length=16, seed=0)
    assert slow.strides(clips[0]) == [1]


def test_too_short_clips_are_an_error(clips_folder, tmp_path):
    clips, _ = stored(clips_folder, tmp_path / "cache")
    with pytest.raises(DataError, match="20"):
        ClipSampler(clips, ClipsConfig(stride=3), length=16, seed=0)


def test_measuring_grid_covers_the_clip(clips_folder, tmp_path):
    clips, _ = stored(clips_folder, tmp_path / "cache")
    sampler = ClipSampler(clips, CLIPS, length=8, seed=0)
    rows = [(start, stride) for clip, start, stride in sampler.grid(per_clip=3) if clip is clips[0]]
    assert rows == [(0, 1), (12, 1)]


def test_flow_of_another_shape_is_refused(tmp_path):
    folder = tmp_path / "videos" / "benign"
    folder.mkdir(parents=True)
    frames = np.zeros((20, 32, 32), np.uint8)
    np.savez(folder / "a.npz", frames=frames, flow=np.zeros((20, 2, 9, 9), np.float16))
    with pytest.raises(DataError, match=r"a\.npz"):
        stored(tmp_path / "videos", tmp_path / "cache")
