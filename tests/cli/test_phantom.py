"""`us-i2v phantom` writes a data set that the other commands can read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from tests.cli.conftest import one_line_error
from tests.fakes import tree
from us_i2v.data.datasets import find_samples
from us_i2v.data.phantom import dataset

Run = Callable[..., Result]


def test_phantom_is_a_data_set_and_is_not_mixed_with_another(us_i2v: Run, tmp_path: Path) -> None:
    line = ["phantom", tmp_path, "--videos", 1, "--stills", 1, "--size", 32, "--frames", 2]
    result = us_i2v(*line)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"{tmp_path}: phantom with 1 videos and 1 stills a class\n"
    kinds = [sample.kind for sample in find_samples(tmp_path)]
    assert (kinds.count("clip"), kinds.count("still")) == (2, 3)
    before = tree(tmp_path)
    assert "seed" in one_line_error(us_i2v(*line, "--seed", 1))
    assert tree(tmp_path) == before


def test_options_reach_the_writer(us_i2v: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, object]] = []
    monkeypatch.setattr(dataset, "write_phantom", lambda out, **given: asked.append({"out": out, **given}))
    line = "--videos 2 --stills 3 --size 64 --frames 5 --fps 12.5 --seed 7 --motion-only"
    assert us_i2v("phantom", tmp_path, *line.split()).exit_code == 0
    assert asked[0].pop("progress") is not None
    assert asked == [
        {
            "out": tmp_path,
            "videos_per_class": 2,
            "stills_per_class": 3,
            "size": 64,
            "seed": 7,
            "motion_only": True,
            "n_frames": 5,
            "fps": 12.5,
        }
    ]
