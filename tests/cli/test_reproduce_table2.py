from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from tests.classifier_clips import write_real
from tests.cli.conftest import one_line_error
from us_i2v.cli.reproduce_table2 import mixes, parse_seeds, quick_settings, tiny_settings
from us_i2v.errors import ConfigError
from us_i2v.reproduction.table2_settings import Table2Settings, check_settings

Run = Callable[..., Result]
BRIEF = ("--tiny", "--threads", 1, "--no-plot", "--diets", "real", "--stills-from-videos", "--splits", "5:5")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_real(tmp_path_factory.mktemp("data") / "videos")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "needs either --videos DIR or --quick"),
        (("--quick", "--videos", "somewhere"), "needs either --videos DIR or --quick"),
        (("--videos", "nowhere", "--images", "nowhere"), "'nowhere' does not exist"),
        (("--videos", "nowhere"), "No image folder"),
        (("--quick", "--splits", "7/3"), "'7/3' is no ratio"),
        (("--quick", "--seeds", "a-b"), "Seeds 'a-b'"),
        (("--quick", "--ratio", "0"), "'x0' is none of"),
        (("--quick", "--controls", "gan"), "gan"),
        (("--quick", "--width", "2"), "'width' = 2"),
        (("--quick", "--frames", "8"), "'frames' = 8"),
        (("--quick", "--cells", "tsm;vgg"), "--cells knows no 'vgg'"),
        (("--quick", "--set", "changes.classifier.optimiser.stepz=1"), "stepz"),
        (("--quick", "--preset", "huge"), "preset"),
        (("--report",), "holds no plan.json"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(us_i2v: Run, tmp_path: Path, arguments: tuple, said: str) -> None:
    out = tmp_path / "out"
    result = us_i2v("reproduce", "table2", "-o", out, *arguments)
    assert said in one_line_error(result)
    assert not out.exists()


def test_too_little_data_is_refused_before_anything_is_written(us_i2v: Run, tmp_path: Path, videos: Path) -> None:
    out = tmp_path / "out"
    result = us_i2v("reproduce", "table2", "--videos", videos, "--images", videos, "-o", out)
    assert "holds no stills" in one_line_error(result)
    assert not out.exists()


def test_cells_are_listed_made_by_selection_and_reported(us_i2v: Run, tmp_path: Path, videos: Path) -> None:
    out = tmp_path / "run"
    line = ("reproduce", "table2", "--videos", videos, "-o", out, *BRIEF, "--models", "tsm,c3d")
    listed = us_i2v(*line, "--list-cells")
    assert listed.stdout.split() == ["open", "classify/5-5/tsm/real/s0", "open", "classify/5-5/c3d/real/s0"]
    assert not out.exists()
    made = us_i2v(*line, "--cells", "tsm")
    assert made.exit_code == 0, made.output
    assert "Missing: 1 of 2 cells: `classify/5-5/c3d/real/s0`" in made.stdout
    listed = us_i2v("reproduce", "table2", "-o", out, "--list-cells")
    assert listed.stdout.split() == ["done", "classify/5-5/tsm/real/s0", "open", "classify/5-5/c3d/real/s0"]
    (out / "table2.md").unlink()
    reported = us_i2v("reproduce", "table2", "-o", out, "--report", "--no-plot")
    assert reported.stdout == made.stdout
    assert (out / "table2.md").read_text() + "\n" == made.stdout
    other = us_i2v(*line, "--steps", 5)
    assert "was started with steps = 2, now it is 5" in one_line_error(other)


def test_seeds_and_mixes_are_read() -> None:
    assert parse_seeds("0-2, 7") == [0, 1, 2, 7]
    for bad in ("", "2-0", "1-", "x"):
        with pytest.raises(ConfigError, match="Seeds"):
            parse_seeds(bad)
    assert mixes(None, balance=False, keep_best=None) is None
    assert mixes(None, balance=True, keep_best=None) == ["all", "balance"]
    assert mixes(None, balance=False, keep_best=[0.5, 0.25]) == ["all", "best0.5", "best0.25"]
    assert mixes(["1", "all", "2.5"], balance=True, keep_best=[1]) == ["x1", "all", "x2.5", "balance", "best1"]


@pytest.mark.parametrize("values", [quick_settings(), tiny_settings()])
def test_small_settings_are_valid(values: dict) -> None:
    check_settings(Table2Settings.parse(values))


def test_help_does_not_import_torch() -> None:
    code = "import sys; from us_i2v.cli.app import app; app(standalone_mode=False); sys.exit('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, "reproduce", "table2", "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "--list-cells" in done.stdout
