from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from tests.evaluation.conftest import WriteClips, counted
from tests.evaluation.sets import drifting
from us_i2v.errors import ConfigError, DataError, InputError
from us_i2v.evaluation.clips import Generated, RealWindows, Repeated, WindowRule
from us_i2v.evaluation.listed import Listed
from us_i2v.pipeline import GeneratedClip, GenerateOptions
from us_i2v.types import Frames, Image

RULE = WindowRule(size=64)


def levels(frames: Frames) -> list[int]:
    """Which frames of `counted` these are."""
    return [int(frame.min()) - 20 for frame in frames]


def test_a_clip_of_the_length_is_a_window_and_longer_ones_are_cut(write_clips: WriteClips) -> None:
    root = write_clips("real", {"whole.npz": counted(16), "long.npz": counted(100)})
    real = RealWindows.of([root], RULE)
    assert real.names == ["long", "whole"]
    # The middle one of the 55 places at which 46 frames fit.
    assert real.entries[0].indices == tuple(range(27, 73, 3))
    assert levels(real.native(0)) == list(range(27, 73, 3))
    assert levels(real.native(1)) == list(range(16))
    assert [entry.interval_s for entry in real.entries] == pytest.approx([3 / 20, 1 / 20])
    assert real.frames(0).shape == (16, 64, 64)
    assert real.crop(0) is None


def test_several_windows_do_not_overlap_and_are_named_by_their_start(write_clips: WriteClips) -> None:
    root = write_clips("real", {"long.npz": counted(100)})
    real = RealWindows.of([root], WindowRule(size=64, per_clip=5))
    assert real.names == ["long@0", "long@54"]
    assert real.entries[0].indices[-1] < real.entries[1].indices[0]
    assert set(real.groups) == {"long"}


def test_windows_by_time(write_clips: WriteClips) -> None:
    root = write_clips("real", {"long.npz": counted(40)})
    (entry,) = RealWindows.of([root], WindowRule(size=64, dt_s=0.1)).entries
    assert np.diff(entry.indices).tolist() == [2] * 15
    assert entry.interval_s == pytest.approx(0.1)


def test_short_and_black_clips_give_no_window_and_are_named(write_clips: WriteClips) -> None:
    dark = counted(16)
    dark[0] = 0
    root = write_clips("real", {"short.npz": counted(45), "dark.npz": dark, "good.npz": counted(46)})
    real = RealWindows.of([root], RULE)
    assert real.names == ["good"]
    assert real.skipped == {"short": "'short' has 45 distinct frames", "dark": "'dark' begins with a black frame"}


def test_no_window_is_an_error(write_clips: WriteClips) -> None:
    with pytest.raises(DataError, match=r"None of 1 clips .* 45 distinct frames"):
        RealWindows.of([write_clips("real", {"short.npz": counted(45)})], RULE)


def test_groups_sources_and_splits(write_clips: WriteClips) -> None:
    names = ["lung/a.npz", "lung/b.npz", "calf/c.npz"]
    groups, splits = dict(zip(names, "xxy", strict=True)), dict(zip(names, ["test", "test", "train"], strict=True))
    root = write_clips("data", {name: counted(16) for name in names}, groups, splits=splits)
    real = RealWindows.of([root], RULE)
    assert (real.names, real.groups, real.sources) == (
        ["lung/a", "lung/b", "calf/c"],
        ["x", "x", "y"],
        ["lung", "lung", "calf"],
    )
    test = RealWindows.of([root], RULE, split="test")
    assert (test.names, test.sources) == (["lung/a", "lung/b"], ["data", "data"])
    with pytest.raises(DataError, match="'val'"):
        RealWindows.of([root], RULE, split="val")
    other = write_clips("other", {"a.npz": counted(16)})
    both = RealWindows.of([root, other], RULE)
    assert both.sources == ["data", "data", "data", "other"]
    assert len(set(both.names)) == 4


def test_folders_without_clips_are_refused(write_clips: WriteClips, tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty"):
        RealWindows.of([tmp_path / "empty"], RULE)


def test_damaged_clips_are_errors(write_clips: WriteClips) -> None:
    root = write_clips("real", {"a.npz": counted(16)})
    (root / "b.mp4").write_bytes(b"no video")
    with pytest.raises(InputError, match=r"b\.mp4"):
        RealWindows.of([root], RULE)


def test_crop_is_the_native_middle(write_clips: WriteClips) -> None:
    clip = drifting(0, side=120)
    real = RealWindows.of([write_clips("real", {"a.npz": clip})], RULE)
    crop = real.crop(0)
    assert crop is not None
    np.testing.assert_array_equal(crop, clip[:, 4:116, 4:116])


def test_repeated(write_clips: WriteClips) -> None:
    real = RealWindows.of([write_clips("real", {"a.npz": drifting(0, side=120)})], RULE)
    repeated = Repeated(real)
    np.testing.assert_array_equal(repeated.frames(0), np.stack([real.frames(0)[0]] * 16))
    crop, own = repeated.crop(0), real.crop(0)
    assert crop is not None
    assert own is not None
    np.testing.assert_array_equal(crop, np.stack([own[0]] * 16))
    assert (repeated.names, len(repeated)) == (real.names, 1)


class Recorder:
    """A generator that adds its seed's last digits to the still, and remembers what it was asked."""

    def __init__(self) -> None:
        self.info = SimpleNamespace(interval_range_s=(0.04, 0.12))
        self.asked: list[tuple[int, GenerateOptions]] = []

    def __call__(
        self, image: Image, *, seed: int = 0, num_clips: int = 1, options: GenerateOptions | None = None
    ) -> list[GeneratedClip]:
        assert options is not None
        self.asked.append((seed, options))
        frames = np.stack([image] + [image + np.uint8(seed % 50)] * (options.frames - 1))
        return [GeneratedClip(frames, None, 20.0, seed, np.zeros((16, 2, 4, 4), np.float32))]


def test_generated_clips_depend_on_the_window_and_the_sample_alone(write_clips: WriteClips) -> None:
    names = [f"{name}.npz" for name in "abc"]
    real = RealWindows.of([write_clips("real", {name: counted(16) for name in names})], RULE)
    forward, backward = Recorder(), Recorder()
    one, two = Generated(real, forward, seed=3), Generated(real, backward, seed=3)
    for index in range(3):
        np.testing.assert_array_equal(one.frames(index)[0], real.frames(index)[0])
    for index in (2, 1, 0):
        two.frames(index)
    assert [seed for seed, _ in forward.asked] == [seed for seed, _ in backward.asked][::-1]
    assert len({seed for seed, _ in forward.asked}) == 3
    one.sample(0, 1)
    assert forward.asked[-1][0] not in {seed for seed, _ in forward.asked[:-1]}
    assert one.crop(0) is None
    assert {options.fps for _, options in forward.asked} == {20.0}
    assert one.retimed == 0


def test_generated_clip_is_made_once_for_frames_and_crop(write_clips: WriteClips) -> None:
    real = RealWindows.of([write_clips("real", {"a.npz": drifting(0, side=120)})], RULE)
    recorder = Recorder()
    made = Generated(real, recorder)
    assert made.crop(0) is not None
    assert made.frames(0).shape == (16, 64, 64)
    assert len(recorder.asked) == 1


def test_frame_rates_that_weights_do_not_know_are_counted(write_clips: WriteClips) -> None:
    real = RealWindows.of([write_clips("real", {"a.npz": counted(100)})], WindowRule(size=64, stride=6))
    recorder = Recorder()
    made = Generated(real, recorder)
    made.frames(0)
    assert made.retimed == 1
    assert recorder.asked[0][1].fps == pytest.approx(0.5 / 0.12)
    stated = Generated(real, Recorder(), GenerateOptions(fps=9.0))
    assert stated.retimed == 0


def test_fakes_pair_by_name_stem_or_source(write_clips: WriteClips) -> None:
    clips = {name: counted(16) for name in ("a.npz", "b.npz", "c.npz")}
    real = RealWindows.of([write_clips("real", clips, {"a.npz": "p1", "b.npz": "p2", "c.npz": "p2"})], RULE)
    fakes = {name: counted(16) for name in ("a.npz", "x_1.npz", "c_0.npz")}
    stills = ("source", {"x_1.npz": "stills/b.png"})
    listed = Listed.of([write_clips("fake", fakes, {}, stills)], RULE)
    assert listed.pair_with(real) == [0, 1, None]
    assert listed.groups == ["p1", "p2", "c_0.npz"]
    assert listed.sources == ["real", "real", "fake"]


def test_stems_that_two_real_clips_share_pair_by_full_name_only(write_clips: WriteClips) -> None:
    real = RealWindows.of([write_clips("real", {name: counted(16) for name in ("u/a.npz", "v/a.npz")})], RULE)
    same = Listed.of([write_clips("same", {"v/a.npz": counted(16), "w/a.npz": counted(16)})], RULE)
    assert same.names == ["v/a", "w/a"]
    assert same.pair_with(real) == [1, None]


def test_black_fakes_are_kept(write_clips: WriteClips) -> None:
    listed = Listed.of([write_clips("fake", {"a.npz": np.zeros((16, 32, 32), np.uint8)})], RULE)
    assert len(listed) == 1


@pytest.mark.parametrize("wrong", [{"length": 2}, {"stride": 0}, {"dt_s": 0.0}, {"per_clip": 0}, {"size": 47}])
def test_rules_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        WindowRule.parse(dict(wrong))
