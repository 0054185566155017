"""`us-i2v transfer`: the driver's frames, the stills' anatomy, and what is refused before any work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import Result

from tests.cli.test_bad_input import refused
from tests.factories import small_cinn_weights, small_weights, textured_still
from tests.fakes import tree, write_png
from us_i2v.cli.transfer import choose_frames
from us_i2v.data.clips import open_clip
from us_i2v.pipeline import GenerateOptions, ImageToVideo

Run = Callable[..., Result]


def rolling_clip(path: Path, frames: int = 60, fps: float = 20.0) -> Path:
    """A texture that moves down by one pixel a frame."""
    big = textured_still(40 + frames, 48)
    video = np.stack([big[t : t + 40] for t in range(frames)])
    np.savez(path, frames=video, fps=np.float32(fps))
    return path


@pytest.fixture
def driver(tmp_path: Path) -> Path:
    return rolling_clip(tmp_path / "driver.npz")


@pytest.fixture
def still(tmp_path: Path) -> Path:
    return write_png(tmp_path / "still.png", textured_still(50, 44, seed=3))


@pytest.fixture(params=[small_weights, small_cinn_weights], ids=["lddm", "cinn"])
def weights(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return request.param(tmp_path / "w.safetensors")


def test_clip_is_the_drivers_latent_on_the_still(
    us_i2v: Run, driver: Path, still: Path, weights: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out" / "c.npz"
    line = ["--weights", weights, "--device", "cpu", "--start", 4, "--seed", 2, "--threads", 1]
    result = us_i2v("transfer", driver, still, "-o", out, *line)
    assert result.exit_code == 0, result.stderr
    # The weights' typical interval is 0.1 s, the driver's 0.05 s: every second frame.
    model = ImageToVideo.from_pretrained(weights, "cpu", 1)
    latent = model.encode(open_clip(driver).read(range(4, 35, 2)))
    expected = model.animate(still, latent, seed=2, options=GenerateOptions(fps=10.0))
    made = np.load(out)
    np.testing.assert_array_equal(made["frames"], expected.frames)
    assert float(made["fps"]) == pytest.approx(10)
    assert "driven by frames 4 to 34" in result.stdout
    assert f"weights {model.info.kind}" in result.stdout


def test_several_stills_masks_and_sizes(us_i2v: Run, driver: Path, still: Path, tmp_path: Path) -> None:
    weights = small_cinn_weights(tmp_path / "w.safetensors")
    other = write_png(tmp_path / "other.png", textured_still(64, 64, seed=5))
    pixels = np.zeros((50, 44), bool)
    pixels[10:30, 10:30] = True
    masks = [write_png(tmp_path / "m1.png", pixels), write_png(tmp_path / "m2.png", np.zeros((64, 64), bool))]
    out = tmp_path / "out"
    line = ["--mask", masks[0], "--mask", masks[1], "--size", 32, "--ext", "npz", "--stride", 3, "--speckle", 0]
    result = us_i2v("transfer", driver, still, other, "-o", out, "--weights", weights, "--device", "cpu", *line)
    assert result.exit_code == 0, result.stderr
    made = [f"{name}{rest}" for name in ("other", "still") for rest in (".npz", ".npz.json", "_mask.npz")]
    assert sorted(tree(out)) == made
    assert np.load(out / "still.npz")["frames"].shape == (16, 32, 28)
    assert np.load(out / "still_mask.npz")["frames"][0].any()


def test_longer_clips_take_more_of_the_driver(us_i2v: Run, driver: Path, still: Path, tmp_path: Path) -> None:
    weights = small_cinn_weights(tmp_path / "w.safetensors")
    line = ["--weights", weights, "--device", "cpu", "--stride", 1, "--frames", 40]
    result = us_i2v("transfer", driver, still, "-o", tmp_path / "c.npz", *line)
    assert result.exit_code == 0, result.stderr
    assert "driven by frames 0 to 45" in result.stdout
    assert np.load(tmp_path / "c.npz")["frames"].shape[0] == 40


def test_repeated_frames_of_the_driver_are_passed_over(tmp_path: Path) -> None:
    twice = np.repeat(np.load(rolling_clip(tmp_path / "once.npz", 40))["frames"], 2, axis=0)
    np.savez(tmp_path / "twice.npz", frames=twice, fps=np.float32(40))
    model = ImageToVideo.from_pretrained(small_weights(tmp_path / "w.safetensors"), "cpu", 1)
    chosen = choose_frames(open_clip(tmp_path / "twice.npz"), model, 0, None, None, 16)
    assert chosen.indices == tuple(range(0, 64, 4))
    assert chosen.fps == pytest.approx(10)
    by_time = choose_frames(open_clip(tmp_path / "once.npz"), model, 0, None, 50.0, 16)
    assert by_time.indices == tuple(range(16))
    assert by_time.fps == pytest.approx(20)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["--start", 50], ["10 different frames", "31"]),
        (["--start", 99], ["0 different frames"]),
        (["--stride", 5], ["60 different", "76"]),
        (["--frames", 200], ["60 different"]),
        (["--stride", 2, "--dt", 50], ["--dt", "--stride"]),
        (["--dt", -3], ["-3"]),
        (["--dt", 2], ["500", "these weights know 4.0 to 50"]),
        (["--motion", 9], ["motion"]),
    ],
)
def test_bad_windows_and_options(
    us_i2v: Run, driver: Path, still: Path, tmp_path: Path, line: list[object], words: list[str]
) -> None:
    weights = small_cinn_weights(tmp_path / "w.safetensors")
    if line == ["--dt", 2]:  # far faster than the weights were trained for
        driver = rolling_clip(tmp_path / "fast.npz", fps=500.0)
    out = ["-o", tmp_path / "c.npz", "--weights", weights, "--device", "cpu"]
    message = refused(us_i2v, tmp_path, "transfer", driver, still, *out, *line)
    for word in words:
        assert word in message


def test_bad_files(us_i2v: Run, driver: Path, still: Path, tmp_path: Path) -> None:
    weights = small_cinn_weights(tmp_path / "w.safetensors")
    text = tmp_path / "driver.mp4"
    text.write_text("no video")
    empty = tmp_path / "empty.png"
    empty.write_bytes(b"")

    def message(*line: object) -> str:
        return refused(us_i2v, tmp_path, "transfer", *line, "--weights", weights, "--device", "cpu")

    assert "driver.mp4" in message(text, still, "-o", tmp_path / "c.npz")
    assert "nothing.mp4" in message(tmp_path / "nothing.mp4", still, "-o", tmp_path / "c.npz")
    assert "still.png" in message(still, still, "-o", tmp_path / "c.npz")
    assert "empty.png" in message(driver, empty, "-o", tmp_path / "c.npz")
    assert "overwrite" in message(driver, still, "-o", driver)
    assert "is a file" in message(driver, still, empty, "-o", tmp_path / "c.npz")
