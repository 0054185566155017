"""`us-i2v augment` as a user meets it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import Result

from tests.cli.conftest import one_line_error
from tests.factories import small_weights
from tests.fakes import FakeGenerator, tree, write_busi
from us_i2v.augmentation.planning import collect_sources, plan_jobs
from us_i2v.data.datasets import find_samples
from us_i2v.pipeline import GenerateOptions, ImageToVideo
from us_i2v.provenance import read_sidecar, sidecar_path

Run = Callable[..., Result]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_busi(tmp_path / "busi", {"benign": 2, "normal": 1})


def test_makes_the_data_set(us_i2v: Run, generator: FakeGenerator, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "clips"
    result = us_i2v("augment", data, out)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"{out}: 3 clips made, 0 already there\n"
    assert sorted(tree(out)) == [
        "README.md",
        "benign/benign (1)_0.mp4",
        "benign/benign (1)_0.mp4.json",
        "benign/benign (1)_0_mask.mkv",
        "benign/benign (2)_0.mp4",
        "benign/benign (2)_0.mp4.json",
        "benign/benign (2)_0_mask.mkv",
        "manifest.csv",
        "normal/normal (1)_0.mp4",
        "normal/normal (1)_0.mp4.json",
        "settings.json",
    ]
    assert us_i2v("augment", data, out).stdout == f"{out}: 0 clips made, 3 already there\n"


def test_options_are_pinned(us_i2v: Run, generator: FakeGenerator, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "clips"
    line = "--clips-per-image 2 --balance --seed 5 --ext npz --frames 3 --motion 0.5 --fps 10 --size 32 --exact"
    assert us_i2v("augment", data, out, *line.split()).exit_code == 0
    settings = json.loads((out / "settings.json").read_text())
    expected = {"clips_per_image": 2, "balance": True, "seed": 5, "ending": "npz", "size": 32, "exact": True}
    assert {key: settings[key] for key in expected} == expected
    assert settings["options"]["motion"] == 0.5
    assert ",3,10.0," in (out / "manifest.csv").read_text().splitlines()[1]
    assert len(list(out.glob("normal/*.npz"))) == 4
    message = one_line_error(us_i2v("augment", data, out, *line.split(), "--speckle", 0))
    assert "options.speckle" in message


def test_shards(us_i2v: Run, generator: FakeGenerator, data: Path, tmp_path: Path) -> None:
    us_i2v("augment", data, tmp_path / "whole")
    for shard in ("2/2", "1/2"):
        assert us_i2v("augment", data, tmp_path / "parts", "--shard", shard).exit_code == 0
    parts = tree(tmp_path / "parts")
    extra = {name for name in parts if "-of-2" in name}
    assert extra == {"manifest-1-of-2.csv", "manifest-2-of-2.csv"}
    assert {name: data for name, data in parts.items() if name not in extra} == tree(tmp_path / "whole")


def test_unreadable_stills_are_listed_and_exit_with_1(
    us_i2v: Run, generator: FakeGenerator, data: Path, tmp_path: Path
) -> None:
    (data / "benign" / "benign (1).png").write_bytes(b"")
    out = tmp_path / "clips"
    result = us_i2v("augment", data, out)
    assert result.exit_code == 1
    assert "2 clips made" in result.stdout
    assert result.stderr.splitlines()[0] == "1 stills could not be read and were skipped:"
    assert result.stderr.splitlines()[1].startswith("  benign/benign (1).png: ")
    assert (out / "unreadable.txt").read_text().count("\n") == 1
    assert len((out / "manifest.csv").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("line", "word"), [(["--shard", "3/2"], "i/n"), (["--ext", "wmv"], "wmv"), (["--frames", "1"], "frames")]
)
def test_refused_before_anything_is_written(
    us_i2v: Run, generator: FakeGenerator, data: Path, tmp_path: Path, line: list[str], word: str
) -> None:
    assert word in one_line_error(us_i2v("augment", data, tmp_path / "clips", *line))
    assert not (tmp_path / "clips").exists()


def test_output_in_the_data_folder_is_refused(us_i2v: Run, generator: FakeGenerator, data: Path) -> None:
    assert "contain each other" in one_line_error(us_i2v("augment", data, data / "clips"))
    assert not (data / "clips").exists()


def test_prompts_and_conditions_are_pinned(us_i2v: Run, data: Path, tmp_path: Path) -> None:
    weights = small_weights(tmp_path / "w.safetensors", labels=("benign",), controls=True)
    line = ["--weights", weights, "--device", "cpu", "--steps", 1, "--size", 32, "--ext", "npz"]
    said = ["--prompt", "slight slide left", "--strength", 2, "--own-label"]
    result = us_i2v("augment", data, tmp_path / "out", *line, *said)
    assert result.exit_code == 0, result.stderr
    settings = json.loads((tmp_path / "out" / "settings.json").read_text())
    assert (settings["options"]["slide"], settings["options"]["strength"], settings["own_label"]) == (-0.5, 2.0, True)
    model = ImageToVideo.from_pretrained(weights, "cpu")
    sources = {source.name: source for source in collect_sources(find_samples(data), data)}
    for name, label in {"benign/benign (1)": "benign", "normal/normal (1)": None}.items():
        job = plan_jobs([sources[f"{name}.png"]], clips_per_image=1, balance=False, seed=0, ending="npz")[0]
        options = GenerateOptions(steps=1, slide=-0.5, strength=2.0, label=label)
        expected = model(job.source.path, seed=job.seed, options=options, size=32)[0].frames
        assert np.array_equal(np.load(tmp_path / "out" / f"{name}_0.npz")["frames"], expected)


def test_precision_is_used_pinned_and_recorded(us_i2v: Run, data: Path, tmp_path: Path) -> None:
    weights = small_weights(tmp_path / "w.safetensors")
    line = ["--weights", weights, "--device", "cpu", "--steps", 1, "--size", 32, "--ext", "npz"]
    for name, more in (("half", ["--precision", "bf16"]), ("full", [])):
        result = us_i2v("augment", data, tmp_path / name, *line, *more)
        assert result.exit_code == 0, result.stderr
    half, full = (json.loads((tmp_path / name / "settings.json").read_text()) for name in ("half", "full"))
    assert half.pop("precision") == "bf16"
    assert half == full
    clip = "benign/benign (1)_0.npz"
    halved, whole = (np.load(tmp_path / name / clip)["frames"].astype(int) for name in ("half", "full"))
    assert 0 < np.abs(halved - whole).mean() < 3
    records = [read_sidecar(sidecar_path(tmp_path / name / clip)).record for name in ("half", "full")]
    assert records[0].options == {**records[1].options, "precision": "bf16"}
    message = one_line_error(us_i2v("augment", data, tmp_path / "half", *line))
    assert "precision = 'bf16'" in message


@pytest.mark.parametrize(
    ("line", "word"),
    [(["--own-label"], "know no classes"), (["--prompt", "slide"], "'slide' needs"), (["--prompt", "xx"], "'xx'")],
)
def test_controls_that_the_weights_have_not(
    us_i2v: Run, data: Path, tmp_path: Path, line: list[object], word: str
) -> None:
    weights = small_weights(tmp_path / "w.safetensors")
    result = us_i2v("augment", data, tmp_path / "out", "--weights", weights, "--device", "cpu", *line)
    assert word in one_line_error(result)
    assert not (tmp_path / "out").exists()


def test_own_and_one_label_exclude_each_other(us_i2v: Run, data: Path, tmp_path: Path) -> None:
    weights = small_weights(tmp_path / "w.safetensors", labels=("benign",))
    line = ["--weights", weights, "--device", "cpu", "--own-label", "--label", "benign"]
    assert "each still's own" in one_line_error(us_i2v("augment", data, tmp_path / "out", *line))
