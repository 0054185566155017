"""`us-i2v prepare` on the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from tests.cli.conftest import one_line_error
from tests.data.busv_folder import write_busv
from tests.data.textures import scan
from tests.fakes import tree, write_png
from us_i2v.data.datasets import find_samples

Run = Callable[..., Result]


@pytest.fixture
def stills(tmp_path: Path) -> Path:
    """Two benign stills that are copies, and two others."""
    for name, seed in (("benign (1)", 1), ("benign (2)", 1), ("malignant (1)", 2), ("normal (1)", 3)):
        write_png(tmp_path / "busi" / name.split()[0] / f"{name}.png", scan(seed, 64, 80))
    return tmp_path / "busi"


def test_busi(us_i2v: Run, stills: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = us_i2v("prepare", "busi", stills, out, "--ratio", "7:3")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["class", "before", "after"]
    assert "  benign/benign (2).png: an exact copy of benign/benign (1).png" in lines
    assert lines[-1] == f"{out}: 3 of 4 stills"
    assert {s.split for s in find_samples(out)} == {"train", "test"}
    again = one_line_error(us_i2v("prepare", "busi", stills, out))
    assert "not an empty folder" in again
    kept = us_i2v("prepare", "busi", stills, tmp_path / "kept", "--keep-duplicates")
    assert kept.stdout.splitlines()[-1] == f"{tmp_path / 'kept'}: 4 of 4 stills"


def test_busv_says_what_the_erratum_did(us_i2v: Run, tmp_path: Path) -> None:
    source = write_busv(tmp_path / "busv")
    (tmp_path / "more.csv").write_text("video,action,value\nbenign/xa,drop,mine\nbenign/xzz,drop,mine\n")
    line = ["prepare", "busv", source]
    first = us_i2v(*line, tmp_path / "a", "--erratum", tmp_path / "more.csv", "--stable", "--crop", "--fps", 20)
    assert first.exit_code == 0, first.stderr
    said = first.stdout.splitlines()
    assert "erratum: benign/x63c9ba1377f35bf6: label malignant: applied" in said
    assert "erratum: benign/xzz: drop mine: NOT APPLIED, no such video" in said
    assert "  benign/xa: mine" in said
    assert {s.fps for s in find_samples(tmp_path / "a")} == {20.0}
    second = us_i2v(*line, tmp_path / "b", "--no-erratum")
    assert "erratum: none applied" in second.stdout.splitlines()
    assert second.stdout.splitlines()[-1] == f"{tmp_path / 'b'}: 10 of 10 videos"


def test_unreadable_files_give_exit_code_1(us_i2v: Run, stills: Path, tmp_path: Path) -> None:
    (stills / "normal" / "normal (2).png").write_bytes(b"no picture")
    result = us_i2v("prepare", "busi", stills, tmp_path / "out")
    assert result.exit_code == 1
    assert "1 could not be read" in result.stderr
    assert len(find_samples(tmp_path / "out")) == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["busi", "--ratio", "7"], "'7' is not of the form train:test"),
        (["busi", "--stable"], "'--stable' means nothing for busi"),
        (["busi", "--no-erratum"], "'--no-erratum' means nothing for busi"),
        (["busi", "--fps", "20"], "'--fps' means nothing for busi"),
        (["busv", "--drop-near"], "'--drop-near' means nothing for busv"),
        (["busv", "--fps", "-1"], "not a positive number"),
        (["busv", "--erratum", "none.csv"], "none.csv"),
        (["busv"], "is not BUSV"),
    ],
)
def test_wrong_use_is_told_in_one_line(
    us_i2v: Run, stills: Path, tmp_path: Path, arguments: list[str], said: str
) -> None:
    before = tree(tmp_path)
    name, *rest = arguments
    assert said in one_line_error(us_i2v("prepare", name, stills, tmp_path / "out", *rest))
    assert tree(tmp_path) == before
    assert not (tmp_path / "out").exists()
