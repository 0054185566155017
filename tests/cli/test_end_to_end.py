"""All commands in a row with a real, very small model: train, generate, augment. Nothing is faked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from typer.testing import CliRunner, Result

from tests.cli.conftest import one_line_error
from tests.fakes import still_pixels, tree, write_busi, write_png
from us_i2v.cli.app import app
from us_i2v.types import Image

Run = Callable[..., Result]

SETTINGS = """
[autoencoder.model]
size = 32
latent_channels = 2
encoder_widths = [8, 8, 8, 8]
decoder_widths = [8, 8, 8]
still_widths = [4, 4, 4]
correlation_radius = 1
correlation_channels = 4
[autoencoder.optimiser]
batch_size = 2
validate_every = 2
learning_rate = 0.05
warmup = 0
ema = 0.0
[denoiser]
windows = 16
sample_steps = 2
[denoiser.model]
width = 8
heads = 1
still_widths = [4, 4]
[denoiser.optimiser]
batch_size = 2
validate_every = 2
"""


def speckle(seed: int, height: int = 40, width: int = 48) -> Image:
    """Smooth noise: white noise would count as painted strokes, which do not move."""
    smooth = gaussian_filter(still_pixels(seed, height, width).astype(np.float32), 1.5, mode="wrap")
    low, high = smooth.min(), smooth.max()
    return ((smooth - low) / (high - low) * 255).astype(np.uint8)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs `ae` and `ldm`, trained for two steps each on drifting noise."""
    root = tmp_path_factory.mktemp("runs")
    for number in range(4):
        path = root / "data" / "benign" / f"patient{number}" / "clip.npy"
        path.parent.mkdir(parents=True)
        np.save(path, np.stack([np.roll(speckle(number), t, axis=1) for t in range(20)]))
    (root / "small.toml").write_text(SETTINGS)
    common = ["--preset", "tiny", "--config", root / "small.toml", "--steps", 2, "--device", "cpu"]
    for line in (
        ["train-ae", root / "data", "-o", root / "ae", *common],
        ["train-ldm", root / "data", "--ae", root / "ae", "-o", root / "ldm", *common],
    ):
        result = CliRunner().invoke(app, [str(word) for word in line], catch_exceptions=False)
        assert result.exit_code == 0, result.stderr
        assert "step 2/2" in result.stderr
        assert result.stdout == ""
    return root


def test_generate_is_repeatable_and_begins_with_the_still(us_i2v: Run, runs: Path, tmp_path: Path) -> None:
    still = write_png(tmp_path / "still.png", speckle(9, 45, 61))
    mask = np.zeros((45, 61), bool)
    mask[10:30, 20:40] = True
    line = ["generate", still, "--weights", runs / "ldm", "--mask", write_png(tmp_path / "mask.png", mask)]
    for name in ("one", "two"):
        for output in ("c.mp4", "c.npz"):
            result = us_i2v(*line, "-o", tmp_path / name / output, "--seed", 3)
            assert result.exit_code == 0, result.stderr
    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    frames = np.load(tmp_path / "one" / "c.npz")["frames"]
    assert frames.shape == (16, 45, 61)
    np.testing.assert_array_equal(frames[0], speckle(9, 45, 61))
    assert (frames[1:] != frames[0]).any()
    np.testing.assert_array_equal(np.load(tmp_path / "one" / "c_mask.npz")["frames"][0] > 0, mask)


def test_a_seed_gives_its_clip_alone_and_among_others(us_i2v: Run, runs: Path, tmp_path: Path) -> None:
    still = write_png(tmp_path / "still.png", speckle(9))
    line = ["generate", still, "--weights", runs / "ldm", "--frames", 4]
    us_i2v(*line, "-o", tmp_path / "many", "--num-clips", 2, "--seed", 6, "--ext", "npz")
    us_i2v(*line, "-o", tmp_path / "alone.npz", "--seed", 7)
    assert (tmp_path / "alone.npz").read_bytes() == (tmp_path / "many" / "still_seed7.npz").read_bytes()
    assert (tmp_path / "many" / "still_seed6.npz").read_bytes() != (tmp_path / "alone.npz").read_bytes()


def test_augment_is_repeatable(us_i2v: Run, runs: Path, tmp_path: Path) -> None:
    data = write_busi(tmp_path / "busi", {"benign": 1, "normal": 1})
    for name in ("one", "two"):
        result = us_i2v("augment", data, tmp_path / name, "--weights", runs / "ldm", "--frames", 3)
        assert result.exit_code == 0, result.stderr
    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    assert len(tree(tmp_path / "one")) == 8


def test_weights_of_the_first_stage_alone_do_not_generate(us_i2v: Run, runs: Path, tmp_path: Path) -> None:
    still = write_png(tmp_path / "still.png", speckle(9))
    line = ["generate", still, "-o", tmp_path / "c.mp4", "--weights", runs / "ae"]
    assert "train-ldm" in one_line_error(us_i2v(*line))
    assert set(tree(tmp_path)) == {"still.png"}


def test_a_finished_run_is_not_overwritten(us_i2v: Run, runs: Path) -> None:
    before = tree(runs / "ae")
    line = ["train-ae", runs / "data", "-o", runs / "ae", "--preset", "tiny", "--config", runs / "small.toml"]
    assert "--resume" in one_line_error(us_i2v(*line, "--steps", 2, "--device", "cpu"))
    assert "optimiser" in one_line_error(us_i2v(*line, "--steps", 4, "--device", "cpu", "--resume"))
    assert tree(runs / "ae") == before
