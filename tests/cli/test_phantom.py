"""`us-i2v phantom` writes a data set that the other commands can read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from typer.testing import Result

from tests.fakes import tree
from us_i2v.data.datasets import find_samples

Run = Callable[..., Result]


def test_phantom_is_a_data_set_and_repeats_by_seed(us_i2v: Run, tmp_path: Path) -> None:
    for name, seed in (("one", 3), ("two", 3), ("three", 4)):
        line = ["--videos", 1, "--stills", 1, "--size", 64, "--seed", seed]
        result = us_i2v("phantom", tmp_path / name, *line)
        assert result.exit_code == 0, result.stderr
        assert result.stdout.startswith(f"{tmp_path / name}: ")
    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    assert tree(tmp_path / "one") != tree(tmp_path / "three")
    kinds = [sample.kind for sample in find_samples(tmp_path / "one")]
    assert set(kinds) <= {"still", "clip"}
