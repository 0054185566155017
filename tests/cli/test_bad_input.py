"""Bad input of every kind: one line, exit code 2, nothing half-written.

Nothing is faked up to the point of failure: stills, masks, weights and data sets are read by the real code.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from typer.testing import Result

from tests.cli.conftest import one_line_error
from tests.fakes import FakeGenerator, still_pixels, tree, write_png
from us_i2v.weights import FORMAT_VERSION, METADATA_KEY

Run = Callable[..., Result]


def png_header(width: int, height: int) -> bytes:
    """A gray PNG that claims a size and holds a few bytes of data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def refused(us_i2v: Run, folder: Path, *line: object) -> str:
    """Run a command line that must fail and leave `folder` as it was; return the error line."""
    before = tree(folder)
    folders = sorted(folder.rglob("*"))
    message = one_line_error(us_i2v(*line))
    assert tree(folder) == before
    assert sorted(folder.rglob("*")) == folders
    return message


@pytest.fixture
def still(tmp_path: Path) -> Path:
    return write_png(tmp_path / "still.png", still_pixels(1))


def bad_still(kind: str, path: Path) -> None:
    """Make a file that is no usable still."""
    whole = write_png(path, still_pixels(1, 200, 200)).read_bytes()
    contents = {
        "empty": b"",
        "truncated": whole[: len(whole) // 2],
        "text": b"this is a text file with a picture's name\n" * 20,
        "20000x20000": png_header(20000, 20000),
    }
    if kind == "missing":
        path.unlink()
    elif kind == "1x1":
        write_png(path, np.zeros((1, 1), np.uint8))
    else:
        path.write_bytes(contents[kind])


@pytest.mark.parametrize("kind", ["missing", "empty", "truncated", "text", "1x1", "20000x20000"])
def test_bad_still(us_i2v: Run, generator: FakeGenerator, tmp_path: Path, kind: str) -> None:
    bad_still(kind, tmp_path / "bad.png")
    message = refused(us_i2v, tmp_path, "generate", tmp_path / "bad.png", "-o", tmp_path / "clip.mp4")
    assert "bad.png" in message
    assert generator.calls == []


@pytest.mark.parametrize("kind", ["missing", "empty", "truncated", "text", "1x1", "20000x20000"])
def test_bad_still_among_good_ones_stops_before_the_first(
    us_i2v: Run, generator: FakeGenerator, still: Path, tmp_path: Path, kind: str
) -> None:
    bad_still(kind, tmp_path / "bad.png")
    message = refused(us_i2v, tmp_path, "generate", still, tmp_path / "bad.png", "-o", tmp_path / "clips")
    assert "bad.png" in message
    assert generator.calls == []


def test_wrong_mask_size(us_i2v: Run, generator: FakeGenerator, still: Path, tmp_path: Path) -> None:
    mask = write_png(tmp_path / "mask.png", np.ones((30, 30), bool))
    message = refused(us_i2v, tmp_path, "generate", still, "-o", tmp_path / "clip.mp4", "--mask", mask)
    assert "30x30" in message
    assert "48x40" in message
    assert generator.calls == []


@pytest.mark.parametrize("kind", ["missing", "empty", "text"])
def test_bad_mask(us_i2v: Run, generator: FakeGenerator, still: Path, tmp_path: Path, kind: str) -> None:
    bad_still(kind, tmp_path / "mask.png")
    line = ["generate", still, "-o", tmp_path / "clip.mp4", "--mask", tmp_path / "mask.png"]
    assert "mask.png" in refused(us_i2v, tmp_path, *line)


@pytest.mark.parametrize("kind", ["missing", "empty", "random", "truncated", "headless", "pickle"])
def test_corrupt_weights(us_i2v: Run, still: Path, tmp_path: Path, kind: str) -> None:
    weights = tmp_path / ("w.pt" if kind == "pickle" else "w.safetensors")
    save_file({"a": np.zeros(1000, np.float32)}, weights)
    whole = weights.read_bytes()
    contents = {"empty": b"", "random": bytes(range(256)) * 8, "truncated": whole[:-400]}
    if kind == "missing":
        weights.unlink()
    elif kind in contents:
        weights.write_bytes(contents[kind])
    line = ["generate", still, "-o", tmp_path / "clip.mp4", "--weights", weights]
    assert weights.name in refused(us_i2v, tmp_path, *line)


def test_weights_of_another_format_version(us_i2v: Run, still: Path, tmp_path: Path) -> None:
    weights = tmp_path / "w.safetensors"
    header = {"format_version": FORMAT_VERSION + 1, "kind": "lddm"}
    save_file({"a": np.zeros(4, np.float32)}, weights, {METADATA_KEY: json.dumps(header)})
    message = refused(us_i2v, tmp_path, "generate", still, "-o", tmp_path / "clip.mp4", "--weights", weights)
    assert f"format {FORMAT_VERSION + 1};" in message


@pytest.mark.parametrize("output", ["file/clip.mp4", "file/deeper/clip.mp4", "file/frames", "folder.mp4", "full"])
def test_unwritable_output(us_i2v: Run, generator: FakeGenerator, still: Path, tmp_path: Path, output: str) -> None:
    (tmp_path / "file").write_text("not a folder")
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    refused(us_i2v, tmp_path, "generate", still, "-o", tmp_path / output)
    assert generator.calls == []


def test_unwritable_preview(us_i2v: Run, generator: FakeGenerator, still: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    line = ["generate", still, "-o", tmp_path / "clip.mp4", "--preview", tmp_path / "file" / "strip.png"]
    refused(us_i2v, tmp_path, *line)
    assert generator.calls == []


def test_augment_unwritable_output(us_i2v: Run, generator: FakeGenerator, tmp_path: Path) -> None:
    write_png(tmp_path / "data" / "benign" / "a.png", still_pixels(1))
    (tmp_path / "file").write_text("not a folder")
    refused(us_i2v, tmp_path, "augment", tmp_path / "data", tmp_path / "file" / "clips")
    assert generator.calls == []


@pytest.mark.parametrize("kind", ["missing", "empty", "other files"])
def test_folder_without_stills(us_i2v: Run, generator: FakeGenerator, tmp_path: Path, kind: str) -> None:
    data = tmp_path / "data"
    if kind != "missing":
        data.mkdir()
    if kind == "other files":
        (data / "notes.txt").write_text("no picture")
    assert "data" in refused(us_i2v, tmp_path, "augment", data, tmp_path / "clips")


def write_npy_clips(root: Path, n_frames: int, value: float = 0.5) -> None:
    """Two classes with two float clips each."""
    for label in ("benign", "malignant"):
        for number in range(2):
            path = root / label / f"{label}{number}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            frames = np.random.Generator(np.random.PCG64(number)).random((n_frames, 64, 64), np.float32)
            frames[-1, 3, 4] = value
            np.save(path, frames)


@pytest.mark.parametrize(("n_frames", "value", "word"), [(3, 0.5, "frames"), (20, float("nan"), "NaN")])
def test_bad_training_clips(us_i2v: Run, tmp_path: Path, n_frames: int, value: float, word: str) -> None:
    write_npy_clips(tmp_path / "data", n_frames, value)
    before = tree(tmp_path / "data")
    run = tmp_path / "run"
    result = us_i2v("train-ae", tmp_path / "data", "-o", run, "--preset", "tiny", "--steps", 1, "--device", "cpu")
    assert result.exit_code == 2, result.output
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert result.stderr.splitlines()[-1] == errors[0]
    assert word in errors[0]
    assert {path.suffix for path in run.rglob("*") if path.is_file()} <= {".json", ".npy"}
    for frames in (run / "cache").glob("*.npy"):  # what is there is whole
        assert np.load(frames).shape == (n_frames, 64, 64)
    assert tree(tmp_path / "data") == before


def test_training_folder_without_clips(us_i2v: Run, tmp_path: Path) -> None:
    write_png(tmp_path / "data" / "benign" / "a.png", still_pixels(1))
    result = us_i2v("train-ae", tmp_path / "data", "-o", tmp_path / "run", "--preset", "tiny", "--device", "cpu")
    assert result.exit_code == 2
    assert "clips" in result.stderr.splitlines()[-1]


@pytest.mark.parametrize("kind", ["missing", "empty", "another version"])
def test_bad_weights_of_the_other_commands(us_i2v: Run, tmp_path: Path, kind: str) -> None:
    """`augment --weights` and `train-ldm --ae` read weights before they make a folder."""
    write_png(tmp_path / "data" / "benign" / "a.png", still_pixels(1))
    weights = tmp_path / "w.safetensors"
    if kind == "empty":
        weights.write_bytes(b"")
    elif kind == "another version":
        header = {"format_version": FORMAT_VERSION + 1, "kind": "lddm"}
        save_file({"a": np.zeros(4, np.float32)}, weights, {METADATA_KEY: json.dumps(header)})
    out = tmp_path / "out"
    for line in (
        ["augment", tmp_path / "data", out, "--weights", weights],
        ["train-ldm", tmp_path / "data", "--ae", weights, "-o", out, "--preset", "tiny", "--device", "cpu"],
    ):
        assert weights.name in refused(us_i2v, tmp_path, *line)


@pytest.mark.parametrize("run", ["file", "file/run"])
def test_unwritable_run_folder(us_i2v: Run, tmp_path: Path, run: str) -> None:
    (tmp_path / "file").write_text("not a folder")
    write_npy_clips(tmp_path / "data", 16)
    line = ["train-ae", tmp_path / "data", "-o", tmp_path / run, "--preset", "tiny", "--device", "cpu"]
    assert "file" in refused(us_i2v, tmp_path, *line)


@pytest.mark.parametrize("out", ["file", "file/demo"])
def test_phantom_unwritable_output(us_i2v: Run, tmp_path: Path, out: str) -> None:
    (tmp_path / "file").write_text("not a folder")
    assert "file" in refused(us_i2v, tmp_path, "phantom", tmp_path / out, "--videos", 1, "--stills", 0)
