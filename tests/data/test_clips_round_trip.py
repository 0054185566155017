"""Every container that is written is read back: frames, rate, size, colour."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from us_i2v.data import writers
from us_i2v.data.clips import open_clip
from us_i2v.data.decoding.folders import frame_files
from us_i2v.data.writers import check_target, write_clip, write_still
from us_i2v.errors import OutputError

if TYPE_CHECKING:
    from pathlib import Path

    from us_i2v.types import Frames

SIZES = [(101, 77), (64, 48), (33, 64)]
EXACT = [("a.mp4", True), ("a.avi", True), ("a.mkv", False), ("a.npz", False), ("a", False)]
LOSSY = [("a.mp4", 20, 3.0), ("a.avi", 20, 3.0)]


def speckle(size: tuple[int, int], n: int = 9, seed: int = 0) -> Frames:
    """Speckle-like gray frames that use the whole range."""
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=(n, *size)), (1, 1.2, 1.2))
    return np.clip(noise * 260 + 110, 0, 255).astype(np.uint8)


def coloured(size: tuple[int, int], n: int = 9) -> Frames:
    gray = speckle(size, n)
    channels = [gaussian_filter(x.astype(float), (0, 2, 2)) for x in (gray, np.roll(gray, 9, 2), 255 - gray)]
    return np.stack(channels, -1).astype(np.uint8)


def content_hash(path: Path) -> str:
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return hashlib.sha256(b"".join(f.name.encode() + f.read_bytes() for f in files)).hexdigest()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("name", "exact"), EXACT)
@pytest.mark.parametrize("make", [speckle, coloured])
def test_exact_containers_return_the_very_frames(tmp_path, size, name, exact, make):
    frames = make(size)
    reader = open_clip(write_clip(tmp_path / name, frames, 25, exact=exact))
    assert (reader.n_frames, reader.size, reader.colour) == (9, size, frames.ndim == 4)
    np.testing.assert_array_equal(reader.read(range(9)), frames)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("name", "largest", "mean"), LOSSY)
@pytest.mark.parametrize("make", [speckle, coloured])
def test_lossy_containers_stay_within_the_codecs_error_at_the_true_size(tmp_path, size, name, largest, mean, make):
    frames = make(size)
    reader = open_clip(write_clip(tmp_path / name, frames, 25))
    assert (reader.n_frames, reader.size, reader.colour) == (9, size, frames.ndim == 4)
    error = np.abs(reader.read(range(9)).astype(int) - frames)
    assert error.max() <= largest
    assert error.mean() <= mean


@pytest.mark.parametrize("name", ["a.mp4", "a.avi", "a.mkv"])
@pytest.mark.parametrize("exact", [True, False])
def test_gray_levels_keep_their_range(tmp_path, name, exact):
    """A ramp over 0..255 must come back as one: neither squeezed to nor stretched from 16..235."""
    ramp = np.tile(np.arange(256, dtype=np.uint8), (4, 32, 1))
    back = open_clip(write_clip(tmp_path / name, ramp, 25, exact=exact)).read([0, 3])
    error = back.astype(int) - ramp[:2]
    assert np.abs(error).max() <= (0 if exact or name.endswith("mkv") else 2)
    assert abs(error.mean()) < 0.6


def test_gray_gif_is_exact_and_keeps_equal_neighbours(tmp_path):
    frames = speckle((33, 41))
    frames[3:6] = frames[3]
    reader = open_clip(write_clip(tmp_path / "a.gif", frames, 25, comment="made by a test"))
    assert (reader.n_frames, reader.fps, reader.colour) == (9, 25.0, False)
    np.testing.assert_array_equal(reader.read(range(9)), frames)


def test_colour_gif_keeps_the_picture_within_256_colours(tmp_path):
    frames = coloured((33, 41))
    back = open_clip(write_clip(tmp_path / "a.gif", frames, 10)).read(range(9))
    assert back.shape == frames.shape
    assert np.abs(back.astype(int) - frames).mean() < 3


@pytest.mark.parametrize("fps", [25.0, 30.0, 7.5, 12.345, 61.0])
@pytest.mark.parametrize("name", ["a.mp4", "a.avi", "a.mkv", "a.npz", "a"])
def test_rate_is_kept(tmp_path, name, fps):
    reader = open_clip(write_clip(tmp_path / name, speckle((32, 32), 16), fps))
    assert reader.fps == pytest.approx(fps, rel=3e-4)
    assert reader.fps_known


def test_gif_keeps_the_mean_rate_to_a_hundredth_of_a_second(tmp_path):
    reader = open_clip(write_clip(tmp_path / "a.gif", speckle((32, 32), 30), 30))
    assert reader.fps == pytest.approx(30, abs=1e-6)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "a.gif", "a.npz", "a"])
@pytest.mark.parametrize("exact", [True, False])
def test_same_input_gives_the_same_bytes(tmp_path, name, exact):
    frames = coloured((51, 37))
    hashes = []
    for folder in ("one", "two"):
        path = write_clip(tmp_path / folder / name, frames, 25, exact=exact, comment="seed 3")
        hashes.append(content_hash(path))
    assert hashes[0] == hashes[1]


def test_npz_holds_frames_first_then_the_rate(tmp_path):
    frames = speckle((32, 20))
    with np.load(write_clip(tmp_path / "a.npz", frames, 12.5)) as archive:
        assert archive.files == ["frames", "fps"]
        np.testing.assert_array_equal(archive["frames"], frames)
        assert archive["frames"].dtype == np.uint8
        assert float(archive["fps"]) == 12.5


def test_folder_of_frames_states_its_rate(tmp_path):
    path = write_clip(f"{tmp_path}/clip.v2/", speckle((32, 32)), 12.5, comment="seed 3")
    assert [file.name for file in frame_files(path)][:2] == ["frame_0000.png", "frame_0001.png"]
    assert json.loads((path / "clip.json").read_text()) == {"comment": "seed 3", "fps": 12.5, "frames": 9}
    assert open_clip(path).n_frames == 9


def test_a_folder_of_frames_is_replaced_as_a_whole(tmp_path):
    write_clip(tmp_path / "a", speckle((32, 32), 9), 25)
    write_clip(tmp_path / "a", speckle((32, 32), 4), 25)
    assert open_clip(tmp_path / "a").n_frames == 4
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


def test_a_folder_with_other_files_is_not_touched(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "notes.txt").write_text("keep me")
    with pytest.raises(OutputError, match="holds other files"):
        write_clip(tmp_path / "a", speckle((32, 32)), 25)
    assert (tmp_path / "a" / "notes.txt").read_text() == "keep me"


@pytest.mark.parametrize("name", ["new/a.mp4", "new/a.mkv"])
def test_a_failing_encoder_leaves_nothing(tmp_path, name, monkeypatch):
    codec = writers._codec
    monkeypatch.setattr(writers, "_codec", lambda *args: [*codec(*args), "-c:v", "no-such-encoder"])
    with pytest.raises(OutputError, match="ffmpeg could not write"):
        write_clip(tmp_path / name, speckle((32, 32)), 25)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.npz", "a"])
def test_a_break_while_writing_leaves_the_old_file(tmp_path, name, monkeypatch):
    path = write_clip(tmp_path / name, speckle((32, 32)), 25)
    before = content_hash(path)

    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pathlib.Path.replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_clip(path, speckle((32, 32), seed=1), 25)
    assert content_hash(path) == before
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.npz", "folder"])
def test_an_unwritable_place_is_named(tmp_path, name):
    (tmp_path / "file").write_text("in the way")
    for act in (lambda p: write_clip(p, speckle((32, 32)), 25), check_target):
        with pytest.raises(OutputError, match="cannot be written"):
            act(tmp_path / "file" / name)
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_checking_a_target_makes_nothing(tmp_path):
    check_target(tmp_path / "deep" / "er" / "a.mp4")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("path", "message"),
    [("a.xyz", "no kind of clip"), ("a.webm", "no kind of clip"), ("d.mp4", "is a folder")],
)
def test_unusable_targets_are_refused(tmp_path, path, message):
    (tmp_path / "d.mp4").mkdir()
    with pytest.raises(OutputError, match=message):
        write_clip(tmp_path / path, speckle((32, 32)), 25)


@pytest.mark.parametrize("frames", [np.zeros((2, 32, 32)), np.zeros((32, 32), np.uint8), np.zeros((0, 9, 9), np.uint8)])
def test_unusable_frames_are_refused(tmp_path, frames):
    with pytest.raises(OutputError, match="cannot be written"):
        write_clip(tmp_path / "a.mp4", frames, 25)


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf")])
def test_unusable_rates_are_refused(tmp_path, fps):
    with pytest.raises(OutputError, match="Frame rate"):
        write_clip(tmp_path / "a.mp4", speckle((32, 32)), fps)


def test_stills_are_written_exactly(tmp_path):
    from us_i2v.data.stills import read_still

    picture = speckle((32, 33))[0]
    np.testing.assert_array_equal(read_still(write_still(tmp_path / "a.png", picture)), picture)
