from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image as PillowImage
from typer.testing import Result

from tests.cli.conftest import one_line_error
from tests.data.audit.planted import DataSet, clean, moving, picture
from tests.fakes import tree
from us_i2v.data.manifest import write_manifest

Run = Callable[..., Result]


@pytest.fixture
def data(tmp_path: Path) -> DataSet:
    return clean(tmp_path / "data")


def test_clean_folder(us_i2v: Run, data: DataSet) -> None:
    before = tree(data.root)
    result = us_i2v("inspect", data.root, "--strict")
    assert result.exit_code == 0
    assert "3 stills, 2 clips, 3 masks; 5 samples read, 0 of them unreadable" in result.stdout
    assert "nothing was found" in result.stdout
    assert tree(data.root) == before


def test_problems_are_listed(us_i2v: Run, data: DataSet) -> None:
    data.still("malignant/copy.png", picture(1))
    broken = data.root / "benign" / "[bold]x.png"
    broken.write_bytes(b"no picture")
    result = us_i2v("inspect", data.root)
    assert result.exit_code == 0
    assert "benign/s1.png = malignant/copy.png: benign and malignant" in result.stdout
    assert "[bold]x.png' is not a readable image" in result.stdout
    assert "problems: 3, notes: 0" in result.stdout


def test_strict_fails_on_problems_not_on_notes(us_i2v: Run, data: DataSet) -> None:
    data.clip("benign/x.npy", moving(7))
    assert us_i2v("inspect", data.root, "--strict").exit_code == 0
    data.still("malignant/copy.png", picture(1))
    assert us_i2v("inspect", data.root).exit_code == 0
    assert us_i2v("inspect", data.root, "--strict").exit_code == 1


def test_manifest_and_report(us_i2v: Run, data: DataSet, tmp_path: Path) -> None:
    manifest = data.root / "manifest.csv"
    write_manifest(manifest, data.samples)
    out = tmp_path / "new" / "report.json"
    for given in (data.root, manifest):
        assert us_i2v("inspect", given, "-o", out).exit_code == 0
        report = json.loads(out.read_text())
        assert report["splits"]["test"]["clips"] == 1
        assert report["other_files"] == {".csv": 1}
    assert [path.name for path in out.parent.iterdir()] == ["report.json"]


def test_single_still(us_i2v: Run, data: DataSet) -> None:
    result = us_i2v("inspect", data.samples[0].path)
    assert result.exit_code == 0
    assert "1 stills, 0 clips" in result.stdout
    assert "nothing was found" in result.stdout


def test_sample(us_i2v: Run, data: DataSet) -> None:
    assert "2 samples read" in us_i2v("inspect", data.root, "--sample", 2).stdout


def test_plot(us_i2v: Run, data: DataSet, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert us_i2v("inspect", data.root, "--plot", tmp_path / "report.png").exit_code == 0
    with PillowImage.open(tmp_path / "report.png") as figure:
        assert figure.size == (1200, 700)


def test_plot_without_matplotlib(us_i2v: Run, data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    result = us_i2v("inspect", data.root, "-o", tmp_path / "report.json", "--plot", tmp_path / "report.png")
    assert "pip install 'us-i2v[plot]'" in one_line_error(result)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_unusable_arguments(us_i2v: Run, data: DataSet, tmp_path: Path) -> None:
    assert "does not exist" in one_line_error(us_i2v("inspect", tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    assert "holds no stills or clips" in one_line_error(us_i2v("inspect", tmp_path / "empty"))
    (tmp_path / "file").write_text("x")
    assert "cannot be written" in one_line_error(us_i2v("inspect", data.root, "-o", tmp_path / "file" / "r.json"))


def test_a_group_in_two_splits_is_listed_not_refused(us_i2v: Run, tmp_path: Path) -> None:
    for k, name in enumerate("ab"):
        PillowImage.fromarray(picture(k)).save(tmp_path / f"{name}.png")
    (tmp_path / "manifest.csv").write_text("file,label,group,split\na.png,,p1,train\nb.png,,p1,test\n")
    result = us_i2v("inspect", tmp_path)
    assert result.exit_code == 0
    assert "p1" in result.stdout
    assert "problems: 1" in result.stdout
