"""Reading clips: only what is asked for, in bounded memory, from every kind of file, with clear errors."""

from __future__ import annotations

import csv
import pickle
import subprocess
import tracemalloc
import zipfile

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image as PillowImage

from us_i2v.data.clips import DEFAULT_FPS, ClipReader, is_clip, open_clip
from us_i2v.data.decoding.folders import natural_key
from us_i2v.data.writers import write_clip
from us_i2v.errors import InputError

VIDEOS = ["mp4", "mov", "avi", "mkv", "webm", "mpg", "mpeg", "gif", "npy", "npz"]
CONTAINERS = ["a.mp4", "a.mkv", "a.avi", "a.gif", "a.npz", "a.npy", "a"]


def numbered(n: int = 30, size: tuple[int, int] = (32, 40)) -> np.ndarray:
    """Frame t is gray 8 t all over: a frame read from the wrong place shows."""
    return np.repeat(np.arange(n, dtype=np.uint8) * 8, size[0] * size[1]).reshape(n, *size)


def save(path, frames, fps=25.0):
    if path.suffix == ".npy":
        np.save(path, frames)
        return path
    return write_clip(path, frames, fps, exact=True)


def encode(path, frames, *options):
    """Encode gray or RGB frames by ffmpeg with other settings than our writer's."""
    kind = "gray" if frames.ndim == 3 else "rgb24"
    size = f"{frames.shape[2]}x{frames.shape[1]}"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-f", "rawvideo", "-pix_fmt", kind, "-s", size]
    command += ["-r", "25", "-i", "-", *options, str(path)]
    subprocess.run(command, input=frames.tobytes(), check=True)
    return path


@pytest.mark.parametrize("name", CONTAINERS)
@pytest.mark.parametrize("indices", [[0], [29], [3, 6, 9], [7, 2, 2, 28], [5, 11, 12], []])
def test_the_frames_asked_for_come_in_the_order_asked(tmp_path, name, indices):
    reader = open_clip(save(tmp_path / name, numbered()))
    frames = reader.read(indices)
    assert frames.shape == (len(indices), 32, 40)
    assert frames.dtype == np.uint8
    assert frames[:, 5, 7].tolist() == [8 * i for i in indices]


@pytest.mark.parametrize("name", CONTAINERS)
def test_all_frames_can_be_streamed(tmp_path, name):
    reader = open_clip(save(tmp_path / name, numbered(12)))
    assert [int(frame[0, 0]) for frame in reader.frames()] == [8 * i for i in range(12)]


@pytest.mark.parametrize("name", CONTAINERS)
@pytest.mark.parametrize("index", [-1, 30])
def test_an_index_outside_is_an_error(tmp_path, name, index):
    with pytest.raises(InputError, match="has 30 frames"):
        open_clip(save(tmp_path / name, numbered())).read([0, index])


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.npz", "a.npy", "a.gif"])
def test_memory_does_not_grow_with_the_clip(tmp_path, name):
    """300 frames of 128 x 128 are 4.9 MB; opening and reading 4 of them must not hold them."""
    frames = np.random.default_rng(0).integers(0, 256, (300, 128, 128), np.uint8)
    path = save(tmp_path / name, frames)
    open_clip(save(tmp_path / f"warm{path.suffix}", frames[:2])).read([0])
    del frames
    tracemalloc.start()
    try:
        got = open_clip(path).read([10, 100, 200, 299])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert got.shape == (4, 128, 128)
    assert peak < 1_200_000


def test_a_folder_opens_only_the_frames_asked_for(tmp_path, monkeypatch):
    reader = open_clip(write_clip(tmp_path / "a", numbered(12), 25))
    opened = []
    from us_i2v.data.decoding import folders

    original = folders.read_still
    monkeypatch.setattr(folders, "read_still", lambda path: (opened.append(path.name), original(path))[1])
    reader.read([3, 9])
    assert opened == ["frame_0003.png", "frame_0009.png"]


def test_a_scan_is_done_once_until_the_file_changes(tmp_path, monkeypatch):
    from us_i2v.data.decoding.ffmpeg import FfmpegSource

    path = save(tmp_path / "a.mp4", numbered(5))
    scans = []
    original = FfmpegSource.scan
    monkeypatch.setattr(FfmpegSource, "scan", lambda self: (scans.append(1), original(self))[1])
    assert [open_clip(path).n_frames for _ in range(3)] == [5, 5, 5]
    assert len(scans) == 1
    save(path, numbered(7))
    assert open_clip(path).n_frames == 7
    assert len(scans) == 2


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.webm", ["-c:v", "libvpx", "-b:v", "2M", "-deadline", "realtime"]),
        ("a.mpg", ["-c:v", "mpeg2video", "-q:v", "1"]),
        ("a.mpeg", ["-c:v", "mpeg1video", "-q:v", "1"]),
        ("a.mov", ["-c:v", "libx264", "-crf", "10", "-pix_fmt", "yuv420p"]),
        ("a.m4v", ["-c:v", "libx264", "-crf", "10", "-pix_fmt", "yuv420p"]),
        ("full.mp4", ["-c:v", "libx264", "-crf", "10", "-pix_fmt", "yuvj420p"]),
        ("rgb.mov", ["-c:v", "png", "-pix_fmt", "rgb24"]),
        ("deep.mp4", ["-c:v", "libx264", "-crf", "10", "-pix_fmt", "yuv420p10le"]),
    ],
)
def test_other_peoples_encodings_are_read(tmp_path, name, options):
    ramp = np.tile(np.arange(0, 256, 2, dtype=np.uint8), (10, 64, 1))
    reader = open_clip(encode(tmp_path / name, ramp, *options))
    assert (reader.n_frames, reader.size, reader.fps, reader.colour) == (10, (64, 128), 25.0, False)
    assert np.abs(reader.read([0, 9]).astype(int) - ramp[:2]).mean() < 2


def test_a_rate_that_varies_repeats_or_drops_nothing(tmp_path):
    """Each coded frame counts once, whatever its time stamp says."""
    selected = [
        "-vf",
        "select='not(between(n,3,20))'",
        "-fps_mode",
        "passthrough",
        "-c:v",
        "libx264",
        "-qp",
        "0",
    ]
    path = encode(tmp_path / "a.mp4", numbered(), *selected, "-pix_fmt", "yuv420p")
    reader = open_clip(path)
    assert reader.n_frames == 12
    expected = [8 * i for i in (0, 1, 2, *range(21, 30))]
    assert np.abs(reader.read(range(12))[:, 0, 0].astype(int) - expected).max() <= 1
    assert reader.fps == pytest.approx(11 / (29 / 25), rel=1e-3)


def test_rgb_video_with_equal_channels_is_gray(tmp_path):
    rgb = np.repeat(numbered()[..., None], 3, -1)
    for name in ("a.mkv", "a.npz", "a.gif", "a"):
        reader = open_clip(save(tmp_path / name, rgb))
        assert not reader.colour
        assert reader.read([3])[0, 0, 0] == 24


def test_one_coloured_mark_makes_a_video_coloured(tmp_path):
    rgb = np.repeat(numbered()[..., None], 3, -1)
    rgb[20, 4:12, 4:12] = (250, 30, 30)
    reader = open_clip(save(tmp_path / "a.mp4", rgb))
    assert reader.colour
    assert reader.read([20])[0, 6, 6].tolist() == [250, 30, 30]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([0, 65535, 32896], np.uint16), [0, 255, 128]),
        (np.array([0.0, 1.0, 0.5]), [0, 255, 128]),
        (np.array([0.0, 255.0, 127.6], np.float32), [0, 255, 128]),
        (np.array([0, 255, 128], np.int64), [0, 255, 128]),
        (np.array([False, True, True]), [0, 255, 255]),
    ],
)
@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_array_types_are_scaled_as_documented(tmp_path, values, expected, name):
    frames = np.broadcast_to(values[:, None, None], (3, 16, 16))
    (np.save if name.endswith("npy") else np.savez)(tmp_path / name, frames)
    assert open_clip(tmp_path / name).read([0, 1, 2])[:, 3, 3].tolist() == expected


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_array_layouts(tmp_path, order, channels):
    frames = np.random.default_rng(0).integers(0, 256, (5, 16, 20, channels), np.uint8)
    np.savez(tmp_path / "a.npz", np.asarray(frames, order=order))
    np.save(tmp_path / "a.npy", np.asarray(frames, order=order))
    expected = frames[..., 0] if channels == 1 else frames[..., :3]
    for name in ("a.npz", "a.npy"):
        np.testing.assert_array_equal(open_clip(tmp_path / name).read([1, 4]), expected[[1, 4]])


def test_an_unknown_rate_is_the_default_and_said_so(tmp_path):
    np.save(tmp_path / "a.npy", numbered(3))
    reader = open_clip(tmp_path / "a.npy")
    assert (reader.fps, reader.fps_known) == (DEFAULT_FPS, False)
    told = open_clip(tmp_path / "a.npy", fps=12.0)
    assert (told.fps, told.fps_known) == (12.0, True)


def test_frames_are_ordered_by_number(tmp_path):
    for index in (1, 2, 10, 9, 100):
        PillowImage.fromarray(np.full((16, 16), index, np.uint8)).save(tmp_path / f"img{index}.png")
    assert open_clip(tmp_path).read(range(5))[:, 0, 0].tolist() == [1, 2, 9, 10, 100]
    assert natural_key("a2b10") < natural_key("a10b2")


def test_frame_folders_and_still_folders_are_told_apart(tmp_path):
    stills, frames = tmp_path / "benign", tmp_path / "clip"
    stills.mkdir()
    for index in range(3):
        PillowImage.new("L", (16, 16)).save(stills / f"case{index}.png")
    write_clip(frames, numbered(3), 25)
    assert not is_clip(stills)
    assert is_clip(frames)


def test_frames_of_different_sizes_are_an_error(tmp_path):
    for index in range(3):
        PillowImage.new("L", (16 + index // 2, 16)).save(tmp_path / f"frame{index}.png")
    with pytest.raises(InputError, match=r"frame2.png' is 17x16 pixels, the first one 16x16"):
        open_clip(tmp_path)


def test_the_source_hash_follows_the_content(tmp_path):
    one = open_clip(save(tmp_path / "a.mp4", numbered(3))).source_hash()
    assert one == open_clip(save(tmp_path / "b.mp4", numbered(3))).source_hash()
    assert one != open_clip(save(tmp_path / "c.mp4", numbered(4))).source_hash()
    folder = open_clip(save(tmp_path / "d", numbered(3))).source_hash()
    assert folder == open_clip(save(tmp_path / "e", numbered(3))).source_hash()
    assert len(folder) == 64


def test_a_reader_can_be_sent_to_another_process(tmp_path):
    reader = open_clip(save(tmp_path / "a.mp4", numbered(3)))
    copy = pickle.loads(pickle.dumps(reader))
    assert isinstance(copy, ClipReader)
    np.testing.assert_array_equal(copy.read([2]), reader.read([2]))
    assert "3 x 32 x 40 gray, 25 fps" in repr(copy)


@pytest.mark.parametrize("name", [f"a.{end}" for end in VIDEOS])
@pytest.mark.parametrize("content", [b"", b"this is text\n" * 40])
def test_empty_and_misnamed_files(tmp_path, name, content, capfd):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        open_clip(tmp_path / name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)
    assert ("is empty (0 bytes)" in str(caught.value)) == (not content)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "a.gif", "a.npz", "a.npy", "a.mpg", "fast.mov"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_cut_files(tmp_path, name, share, capfd):
    frames = np.random.default_rng(0).integers(0, 256, (12, 48, 64), np.uint8)
    whole = tmp_path / f"whole-{name}"
    if name.endswith(("mpg", "mov")):
        encode(whole, frames, *(["-c:v", "libx264", "-movflags", "+faststart"] if name.endswith("mov") else []))
    else:
        save(whole, frames)
    content = whole.read_bytes()
    (tmp_path / name).write_bytes(content[: int(len(content) * share)])
    assert open_clip(whole).n_frames == 12
    with pytest.raises(InputError) as caught:
        open_clip(tmp_path / name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "text", ["#EXTM3U\n#EXTINF:1,\nreal.mp4\n#EXT-X-ENDLIST\n", "ffconcat version 1.0\nfile real.mp4\n"]
)
def test_a_playlist_in_disguise_opens_nothing_else(tmp_path, text):
    save(tmp_path / "real.mp4", numbered(3))
    (tmp_path / "list.mp4").write_text(text)
    with pytest.raises(InputError, match="cannot be decoded as video"):
        open_clip(tmp_path / "list.mp4")


def test_a_file_that_vanishes_after_opening(tmp_path):
    reader = open_clip(save(tmp_path / "a.mp4", numbered(3)))
    (tmp_path / "a.mp4").unlink()
    with pytest.raises(InputError, match=r"a\.mp4"):
        reader.read([1])


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
@pytest.mark.parametrize(
    ("array", "message"),
    [
        (
            np.where(np.arange(3)[:, None, None] == 1, np.nan, np.zeros((3, 16, 16))),
            r"NaN or infinite values \(frame 1\)",
        ),
        (np.full((3, 16, 16), np.inf), "NaN or infinite"),
        (np.full((3, 16, 16), 300), "0..255 is needed"),
        (np.full((3, 16, 16), -1.0), "0..255 is needed"),
        (np.full((3, 16, 16), 200, np.uint16), "16-bit values up to 200 only"),
        (np.zeros((16, 16), np.uint8), r"shape is \(16, 16\)"),
        (np.zeros((3, 3, 16, 16), np.uint8), r"shape is \(3, 3, 16, 16\)"),
        (np.zeros((0, 16, 16), np.uint8), "shape is"),
        (np.full((3, 16, 16), "x"), "type <U1"),
        (np.full((3, 16, 16), None), "no array of numbers|objects"),
        (np.zeros((3, 8, 16), np.uint8), "at least 16x16"),
    ],
)
def test_unusable_arrays(tmp_path, name, array, message):
    (np.save if name.endswith("npy") else np.savez)(tmp_path / name, array)
    with pytest.raises(InputError, match=message):
        open_clip(tmp_path / name)


def test_an_archive_of_other_arrays_is_named(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros(3), y=np.zeros(3))
    with pytest.raises(InputError, match=r"arrays \['x', 'y'\], none called 'frames'"):
        open_clip(tmp_path / "a.npz")
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        archive.writestr("frames.npy", b"\x93NUMPY\x09\x00")
    with pytest.raises(InputError, match="format version"):
        open_clip(tmp_path / "b.npz")


def test_a_wrong_rate_in_the_file_is_an_error(tmp_path):
    np.savez(tmp_path / "a.npz", frames=numbered(3), fps=0.0)
    with pytest.raises(InputError, match="fps = 0"):
        open_clip(tmp_path / "a.npz")
    folder = write_clip(tmp_path / "a", numbered(3), 25)
    for text in ("{}", "not json", '{"fps": -1}'):
        (folder / "clip.json").write_text(text)
        with pytest.raises(InputError, match=r"clip\.json"):
            open_clip(folder)
    with pytest.raises(InputError, match="not a positive number"):
        open_clip(tmp_path / "a.npz", fps=-3)


def test_missing_files_folders_and_other_endings(tmp_path):
    (tmp_path / "note.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    for name, message in (
        ("none.mp4", "cannot be read"),
        ("note.txt", "not a clip by its ending"),
        ("empty", "no numbered frames"),
    ):
        with pytest.raises(InputError, match=message):
            open_clip(tmp_path / name)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mpeg"])
def test_real_videos_of_every_container(shared_data, suffix):
    """The smallest real file of each kind; expected frames, rate and size from its own manifest."""
    with (shared_data / "data" / "manifest.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["file"].endswith(suffix)]
    paths = {shared_data / "data" / row["file"]: row for row in rows}
    path = min(paths, key=lambda path: path.stat().st_size)
    row = paths[path]
    reader = open_clip(path)
    assert reader.n_frames == int(row["frames"])
    assert reader.size == (int(row["height"]), int(row["width"]))
    assert reader.fps == pytest.approx(float(row["fps"]), abs=0.006)
    first_last = reader.read([0, reader.n_frames - 1])
    everything = list(reader.frames())
    np.testing.assert_array_equal(first_last[0], everything[0])
    np.testing.assert_array_equal(first_last[1], everything[-1])
