"""Caps on what is decoded, and the options and variables that raise them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.cli.conftest import one_line_error
from tests.factories import textured_still
from tests.fakes import write_png
from us_i2v.cli.app import app
from us_i2v.data.clips import open_clip
from us_i2v.data.decoding import ffmpeg
from us_i2v.data.limits import Deadline, Limits, limits
from us_i2v.data.stills import read_still
from us_i2v.data.writers import write_clip
from us_i2v.errors import ConfigError, InputError

NAMES = ["a.mp4", "a.gif", "a.npz", "a.npy", "a"]


@pytest.fixture
def frames() -> np.ndarray:
    still = textured_still(40, 48)
    return np.stack([np.roll(still, t, axis=1) for t in range(6)])


def written(path: Path, frames: np.ndarray) -> Path:
    if path.suffix == ".npy":
        np.save(path, frames)
        return path
    return write_clip(path, frames, 20.0)


@pytest.mark.parametrize("name", NAMES)
def test_frames(tmp_path: Path, frames: np.ndarray, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / name, frames)
    monkeypatch.setenv("US_I2V_MAX_FRAMES", "5")
    with pytest.raises(InputError, match=r"has 6 frames or more; at most 5.*--max-frames"):
        open_clip(path)
    monkeypatch.setenv("US_I2V_MAX_FRAMES", "6")
    assert open_clip(path).n_frames == 6


@pytest.mark.parametrize("name", [*NAMES, "a.png"])
def test_pixels(tmp_path: Path, frames: np.ndarray, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    png = name == "a.png"
    path = write_png(tmp_path / name, frames[0]) if png else written(tmp_path / name, frames)
    monkeypatch.setenv("US_I2V_MAX_PIXELS", str(40 * 48 - 1))
    with pytest.raises(InputError):
        read_still(path) if png else open_clip(path)


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.npz", "a.npy"])
def test_bytes(tmp_path: Path, frames: np.ndarray, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / name, frames)
    monkeypatch.setenv("US_I2V_MAX_BYTES", "1024")
    with pytest.raises(InputError, match=r"at most 1,024 are allowed.*--max-bytes"):
        open_clip(path)


@pytest.mark.parametrize("name", ["a.gif", "a.npz", "a.npy"])
def test_seconds(tmp_path: Path, frames: np.ndarray, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / name, frames)
    monkeypatch.setenv("US_I2V_MAX_SECONDS", "1e-9")
    with pytest.raises(InputError, match=r"took more than 1e-09 s.*--max-seconds"):
        open_clip(path)


def test_a_video_decoder_that_hangs_is_stopped(
    tmp_path: Path, frames: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "a.mp4", frames)
    start = ffmpeg._start
    monkeypatch.setattr(ffmpeg, "_start", lambda _command, log: start(["sleep", "60"], log))
    monkeypatch.setenv("US_I2V_MAX_SECONDS", "0.1")
    with pytest.raises(InputError, match=r"took more than 0\.1 s"):
        open_clip(path)


def test_variables_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert limits() == Limits()
    for text in ("many", "-1", "0", "1e99"):
        monkeypatch.setenv("US_I2V_MAX_PIXELS", text)
        with pytest.raises(ConfigError, match="pixels"):
            limits()


def test_options_reach_the_readers(tmp_path: Path, frames: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("US_I2V_MAX_PIXELS", "")  # put back after the test
    still = write_png(tmp_path / "still.png", frames[0])
    line = ["--max-pixels", "1000", "generate", str(still), "-o", str(tmp_path / "c.mp4")]
    assert "48x40 pixels; at most 1000" in one_line_error(CliRunner().invoke(app, line))
    assert Deadline(still).seconds == 600
