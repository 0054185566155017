"""`us-i2v train-ae` and `train-ldm`: preset, then file, then --set, then flags."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from typer.testing import Result

from tests.cli.conftest import one_line_error
from us_i2v.cli.training import read_section
from us_i2v.errors import ConfigError
from us_i2v.presets import preset as load_preset
from us_i2v.training import autoencoder, denoiser
from us_i2v.training.autoencoder import AutoencoderTraining
from us_i2v.training.denoiser import DenoiserTraining

Run = Callable[..., Result]


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[SimpleNamespace]:
    """Calls of the training functions, which do nothing in this test."""
    calls: list[SimpleNamespace] = []

    def train_autoencoder(data, out, config, **given: object) -> None:
        calls.append(SimpleNamespace(data=data, out=out, config=config, **given))

    def train_denoiser(data, autoencoder, out, config, **given: object) -> None:
        calls.append(SimpleNamespace(data=data, autoencoder=autoencoder, out=out, config=config, **given))

    monkeypatch.setattr(autoencoder, "train_autoencoder", train_autoencoder)
    monkeypatch.setattr(denoiser, "train_denoiser", train_denoiser)
    return calls


@pytest.mark.parametrize("preset", ["paper", "base", "tiny"])
def test_presets_are_taken_as_they_are(us_i2v: Run, trained: list[SimpleNamespace], preset: str) -> None:
    assert us_i2v("train-ae", "d", "e", "-o", "run", "--preset", preset).exit_code == 0
    assert us_i2v("train-ldm", "d", "--ae", "run", "-o", "run2", "--preset", preset).exit_code == 0
    first, second = trained
    assert first.config == AutoencoderTraining.parse(load_preset(preset, "autoencoder"))
    assert (first.data, first.out, first.resume, first.device) == (
        [Path("d"), Path("e")],
        Path("run"),
        False,
        "auto",
    )
    assert second.config == DenoiserTraining.parse(load_preset(preset, "denoiser"))
    assert (second.autoencoder, second.out) == (Path("run"), Path("run2"))


def test_flags_win_over_settings_over_file_over_preset(
    us_i2v: Run, trained: list[SimpleNamespace], tmp_path: Path
) -> None:
    file = tmp_path / "my.toml"
    file.write_text(
        "[autoencoder.optimiser]\nsteps = 11\nbatch_size = 12\nseed = 13\nwarmup = 14\n"
        "[denoiser.optimiser]\nsteps = 99\n"
    )
    line = [
        "--preset",
        "tiny",
        "--config",
        file,
        "--set",
        "optimiser.seed=23",
        "--set",
        "optimiser.batch_size=22",
    ]
    assert us_i2v("train-ae", "d", "-o", "r", *line, "--batch-size", 32, "--resume").exit_code == 0
    (call,) = trained
    optimiser = call.config.optimiser
    assert (optimiser.steps, optimiser.batch_size, optimiser.seed, optimiser.warmup) == (11, 32, 23, 14)
    assert optimiser.learning_rate == load_preset("tiny", "autoencoder")["optimiser"]["learning_rate"]
    assert call.resume is True


@pytest.mark.parametrize(
    ("line", "dt_ms", "stride"),
    [
        (["--dt", "50"], (50.0, 50.0), None),
        (["--dt", "40-130"], (40.0, 130.0), None),
        (["--stride", "2"], None, 2),
    ],
)
def test_windows_by_time_or_stride(
    us_i2v: Run,
    trained: list[SimpleNamespace],
    line: list[str],
    dt_ms: tuple[float, float] | None,
    stride: int | None,
) -> None:
    """The `paper` preset takes every third frame, `base` goes by time; flags turn both round."""
    assert us_i2v("train-ldm", "d", "--ae", "a", "-o", "r", "--preset", "paper", *line).exit_code == 0
    clips = trained[0].config.clips
    assert clips.stride == stride
    assert dt_ms is None or clips.dt_ms == dt_ms


@pytest.mark.parametrize(
    ("line", "fit", "drop_repeats"),
    [
        ([], "letterbox", True),
        (["--fit", "center-crop"], "center-crop", True),
        (["--fit", "stretch", "--keep-repeats"], "stretch", False),
        (["--set", "clips.drop_repeats=false", "--drop-repeats"], "letterbox", True),
    ],
)
def test_fit_and_repeats(
    us_i2v: Run, trained: list[SimpleNamespace], line: list[str], fit: str, drop_repeats: bool
) -> None:
    preset = ["--preset", "paper"]
    assert us_i2v("train-ae", "d", "-o", "r", *preset, *line).exit_code == 0
    assert us_i2v("train-ldm", "d", "--ae", "a", "-o", "r", *preset, *line).exit_code == 0
    for call in trained:
        clips = call.config.clips
        assert (clips.fit, clips.drop_repeats, clips.stride) == (fit, drop_repeats, 3)


@pytest.mark.parametrize("command", [["train-ae", "d"], ["train-ldm", "d", "--ae", "a"]])
def test_threads_are_set_only_if_asked_for(
    us_i2v: Run, trained: list[SimpleNamespace], monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    assert us_i2v(*command, "-o", "r").exit_code == 0
    assert asked == []
    assert us_i2v(*command, "-o", "r", "--threads", 3).exit_code == 0
    assert asked == [3]
    assert us_i2v(*command, "-o", "r", "--threads", 0).exit_code == 2


@pytest.mark.parametrize(
    ("line", "word"),
    [
        (["--preset", "huge"], "huge"),
        (["--set", "optimiser.stepz=1"], "stepz"),
        (["--set", "optimiser.steps=0"], "steps"),
        (["--set", "steps"], "key=value"),
        (["--dt", "fast"], "fast"),
        (["--dt", "130-40"], "130-40"),
        (["--dt", "50", "--stride", "2"], "--stride"),
        (["--fit", "squeeze"], "squeeze"),
        (["--config", "missing.toml"], "missing.toml"),
    ],
)
def test_bad_settings(us_i2v: Run, trained: list[SimpleNamespace], line: list[str], word: str) -> None:
    assert word in one_line_error(us_i2v("train-ae", "d", "-o", "r", *line))
    assert word in one_line_error(us_i2v("train-ldm", "d", "--ae", "a", "-o", "r", *line))
    assert trained == []


def test_file_may_hold_one_section_without_its_name(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text("notes = 'x'\n")
    assert read_section(file, "denoiser") == {"notes": "x"}


@pytest.mark.parametrize("text", ["[autoencoder]\n", "denoiser = 3\n"])
def test_file_without_the_section(tmp_path: Path, text: str) -> None:
    file = tmp_path / "c.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"denoiser"):
        read_section(file, "denoiser")


@pytest.mark.parametrize("preset", ["paper", "base", "tiny"])
def test_train_cinn_takes_presets_and_flags(
    us_i2v: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, preset: str
) -> None:
    from us_i2v.training import cinn

    calls: list[SimpleNamespace] = []

    def train_cinn(data, autoencoder, out, config, **given: object) -> None:
        calls.append(SimpleNamespace(data=data, autoencoder=autoencoder, out=out, config=config, **given))

    monkeypatch.setattr(cinn, "train_cinn", train_cinn)
    line = ["train-cinn", "d", "e", "--ae", "a", "-o", "r", "--preset", preset]
    assert us_i2v(*line).exit_code == 0
    assert us_i2v(*line, "--steps", 7, "--stride", 2, "--set", "model.hidden=32", "--resume").exit_code == 0
    plain, changed = calls
    assert plain.config == cinn.CINNTraining.parse(load_preset(preset, "cinn"))
    assert (plain.data, plain.autoencoder, plain.out) == ([Path("d"), Path("e")], Path("a"), Path("r"))
    assert (changed.config.optimiser.steps, changed.config.clips.stride, changed.config.model.hidden) == (7, 2, 32)
    assert changed.resume is True
    file = tmp_path / "c.toml"
    file.write_text("[denoiser]\nlabels = true\n")
    assert "[cinn]" in one_line_error(us_i2v(*line, "--config", file))
    assert "hiden" in one_line_error(us_i2v(*line, "--set", "model.hiden=3"))
