"""One codec for all clips: what goes in comes out, alike for clips that were stored differently."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from tests.classifier_clips import phantom_clips
from us_i2v.data import common_codec
from us_i2v.data.common_codec import store_alike, through_codec
from us_i2v.data.manifest import Sample
from us_i2v.data.training_clips import ClipsConfig
from us_i2v.data.writers import write_clip
from us_i2v.errors import OutputError


def test_frames_keep_their_number_order_and_range() -> None:
    ramp = np.stack([np.full((64, 66), level, np.uint8) for level in range(0, 256, 17)])
    out = through_codec(ramp, 10)
    assert out.shape == ramp.shape
    assert np.abs(out.astype(int) - ramp).max() <= 3


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_short_clips_survive(frames: int) -> None:
    clip = phantom_clips()[0][1][:frames]
    out = through_codec(clip, 23)
    assert out.shape == clip.shape
    assert np.abs(out.astype(int) - clip).mean() < 10


def test_coding_is_repeatable_and_costs_more_at_a_higher_factor() -> None:
    clip = phantom_clips()[1][1]
    errors = [np.abs(through_codec(clip, crf).astype(int) - clip).mean() for crf in (12, 23, 35)]
    assert errors == sorted(errors)
    assert errors[0] > 0
    np.testing.assert_array_equal(through_codec(clip, 23), through_codec(clip, 23))


def test_the_first_frame_is_coded_like_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without frames in front of it the first one is coded alone, at a third less error."""

    def first_against_others() -> float:
        clips = [clip for _, clip in phantom_clips()]
        error = np.mean([np.abs(through_codec(c, 23).astype(float) - c).mean((1, 2)) for c in clips], axis=0)
        return float(error[0] / error[1:].mean())

    assert first_against_others() == pytest.approx(1, abs=0.15)
    monkeypatch.setattr(common_codec, "LEAD", 0)
    assert first_against_others() < 0.8


def test_the_cache_holds_both_and_keeps_what_identifies_a_clip(tmp_path: Path) -> None:
    label, frames = phantom_clips()[0]
    path = write_clip(tmp_path / "clip.npz", frames, 20.0)
    samples = [("real", Sample(path, "clip", label, "g"))]
    config = ClipsConfig(drop_repeats=False)
    (bare,) = store_alike(samples, tmp_path / "cache", 64, config, 0)
    (coded,) = store_alike(samples, tmp_path / "cache", 64, config, 23)
    np.testing.assert_array_equal(np.load(bare.frames), frames)
    np.testing.assert_array_equal(np.load(coded.frames), through_codec(frames, 23))
    assert coded.frames != bare.frames
    assert (coded.sha256, coded.group, coded.interval) == (bare.sha256, bare.group, bare.interval)
    before = coded.frames.stat().st_mtime_ns
    store_alike(samples, tmp_path / "cache", 64, config, 23)
    assert coded.frames.stat().st_mtime_ns == before


def test_a_coders_refusal_is_a_users_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common_codec, "ffmpeg_exe", lambda: sys.executable)  # prints its help instead
    with pytest.raises(OutputError, match=r"ffmpeg gave \d+ bytes back for 20480"):
        through_codec(np.zeros((3, 64, 64), np.uint8), 23)
