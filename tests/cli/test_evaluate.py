from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import Result

from tests.cli.conftest import one_line_error
from tests.evaluation.conftest import WriteClips, counted, write_clips
from tests.evaluation.sets import drifting
from tests.factories import small_weights
from tests.fakes import tree
from us_i2v.metrics.pretrained import VARIABLE

__all__ = ["write_clips"]

Run = Callable[..., Result]
FAST = ("--size", "64", "--metrics", "paired,motion,decorrelation", "--threads", "1")


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No metric weights, whatever this machine has."""
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def real(write_clips: WriteClips) -> Path:
    clips = {f"c{k}.npz": drifting(k) for k in range(4)}
    return write_clips("real", clips, {f"c{k}.npz": f"patient-{k // 2}" for k in range(4)})


def test_real_against_itself(us_i2v: Run, real: Path, tmp_path: Path) -> None:
    out, plot = tmp_path / "out" / "r.json", tmp_path / "out" / "p.png"
    result = us_i2v("evaluate", real, real, *FAST, "-o", out, "--plot", plot)
    assert result.exit_code == 0, result.output
    assert "real: 4 real clips of 2 groups, 4 fakes, 4 of them paired" in result.stdout
    assert plot.read_bytes().startswith(b"\x89PNG")
    found = json.loads(out.read_text())
    part = found["parts"]["real"]
    assert part["distances"] == {}
    assert part["paired"]["l1"]["fake"]["mean"] == 0 < part["paired"]["l1"]["repeat"]["mean"]
    assert part["distributions"]["flow"]["difference"]["mean"] == 0
    assert part["energy"] is None
    assert found["settings"]["size"] == 64
    assert sorted(path.name for path in out.parent.iterdir()) == ["p.png", "r.json"]


def test_missing_metric_weights_leave_rows_out(us_i2v: Run, real: Path) -> None:
    result = us_i2v("evaluate", real, real, "--size", "64", "--threads", "1")
    assert result.exit_code == 0, result.output
    lines = [line for line in result.stdout.splitlines() if line.startswith("left out: ")]
    assert [line.split(": ")[1] for line in lines] == ["fvd-x3d", "fvd", "dtfvd", "fid", "lpips"]
    assert all("us-i2v convert" in line for line in lines)
    assert "LPIPS" not in result.stdout.replace(lines[-1], "")
    assert "SSIM" in result.stdout


def test_fakes_without_partners_have_no_paired_rows(us_i2v: Run, real: Path, write_clips: WriteClips) -> None:
    fake = write_clips("fake", {f"x{k}.npz": drifting(50 + k) for k in range(3)})
    result = us_i2v("evaluate", real, fake, *FAST)
    assert result.exit_code == 0, result.output
    assert "left out: paired differences: 3 of 3 fakes have no real partner" in result.stdout
    assert "SSIM" not in result.stdout
    assert "3 fakes, none paired" in result.stdout


def test_weights_make_the_fakes(us_i2v: Run, real: Path, tmp_path: Path) -> None:
    weights, out = small_weights(tmp_path / "w.safetensors"), tmp_path / "r.json"
    line = ("evaluate", real, weights, *FAST, "--samples", 2, "--seed", 5, "-o", out)
    result = us_i2v(*line)
    assert result.exit_code == 0, result.output
    first = json.loads(out.read_text())
    part = first["parts"]["real"]
    assert part["n_paired"] == 4
    assert part["paired"]["frame0"]["fake"]["mean"] == 0
    assert part["energy"]["samples"] == 2
    assert set(part["energy"]["fake"]) == {"motion"}
    assert part["energy"]["difference"]["motion"]["n"] == 4
    assert us_i2v(*line).exit_code == 0
    assert json.loads(out.read_text()) == first
    no_energy = us_i2v("evaluate", real, weights, *FAST, "--samples", 0, "--speckle", 0, "-o", out)
    assert no_energy.exit_code == 0
    second = json.loads(out.read_text())
    assert second["parts"]["real"]["energy"] is None
    assert second["settings"]["speckle"] == 0


def test_weights_trained_on_the_real_clips_are_refused(us_i2v: Run, write_clips: WriteClips, tmp_path: Path) -> None:
    weights = small_weights(tmp_path / "w.safetensors")
    real = write_clips("real", {"a.npz": drifting(0), "b.npz": drifting(1)}, {"a.npz": "group-1", "b.npz": "other"})
    out = tmp_path / "r.json"
    message = one_line_error(us_i2v("evaluate", real, weights, *FAST, "-o", out))
    assert "group 'group-1'" in message
    assert "other" not in message
    assert "--allow-leak" in message
    assert not out.exists()
    assert us_i2v("evaluate", real, weights, *FAST, "--samples", 0, "--allow-leak").exit_code == 0


def bad_input(kind: str, real: Path, folder: Path) -> tuple[list[object], str]:
    """Return a command line that must be refused, and a word of its message."""
    fake: Path | str = real
    options: list[object] = []
    wanted = ""
    if kind == "no such folder":
        fake, wanted = folder / "nothing", "nothing"
    elif kind == "empty folder":
        fake = folder / "empty"
        fake.mkdir()
        wanted = "empty"
    elif kind == "damaged clip":
        (real / "c1.npz").write_bytes(b"no clip")
        wanted = "c1.npz"
    elif kind == "damaged weights":
        fake = folder / "w.safetensors"
        fake.write_bytes(b"no weights")
        wanted = "w.safetensors"
    elif kind == "unknown metric":
        options, wanted = ["--metrics", "fvd4"], "fvd4"
    elif kind == "unknown split":
        options, wanted = ["--split", "test"], "test"
    elif kind == "speckle of clips":
        options, wanted = ["--speckle", "0"], "--speckle"
    elif kind == "too long":
        options, wanted = ["--length", "40"], "40"
    elif kind == "small size":
        options, wanted = ["--size", "8"], "size"
    elif kind == "output ending":
        options, wanted = ["-o", folder / "r.txt"], "r.txt"
    elif kind == "plot ending":
        options, wanted = ["--plot", folder / "p.jpg"], "p.jpg"
    elif kind == "one draw of one":
        options, wanted = ["--n", "1"], "--n 1"
    elif kind == "one sample":
        options, wanted = ["--samples", "1"], "--samples 1"
    return ["evaluate", real, fake, *FAST, *options], wanted


@pytest.mark.parametrize(
    "kind",
    [
        "no such folder",
        "empty folder",
        "damaged clip",
        "damaged weights",
        "unknown metric",
        "unknown split",
        "speckle of clips",
        "too long",
        "small size",
        "output ending",
        "plot ending",
        "one draw of one",
        "one sample",
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(us_i2v: Run, real: Path, tmp_path: Path, kind: str) -> None:
    line, wanted = bad_input(kind, real, tmp_path)
    before = tree(tmp_path)
    out = [] if "-o" in line else ["-o", tmp_path / "new" / "r.json"]
    assert wanted in one_line_error(us_i2v(*line, *out))
    assert tree(tmp_path) == before
    assert not (tmp_path / "new").exists()


def test_several_sources_and_windows(us_i2v: Run, write_clips: WriteClips, tmp_path: Path) -> None:
    clips = {f"{source}/{k}.npz": np.tile(counted(60), (1, 2, 2)) for source in ("lung", "calf") for k in range(2)}
    real, out = write_clips("data", clips), tmp_path / "r.json"
    options = ("--length", 8, "--stride", 2, "--windows-per-clip", 2, "--size", 64, "--metrics", "paired")
    result = us_i2v("evaluate", real, real, *options, "-o", out)
    assert result.exit_code == 0, result.output
    found = json.loads(out.read_text())
    assert {name: part["n_real"] for name, part in found["parts"].items()} == {"calf": 4, "lung": 4, "all": 8}
    assert found["parts"]["all"]["n_paired"] == 8
