"""`benchmarks/variants.py` runs end to end on small clips, is resumed, and says what decided."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.training.conftest import write_clip
from us_i2v.evaluation.measure import Measured
from us_i2v.models.autoencoder import AutoencoderConfig
from us_i2v.training import latents

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
KEYS = "transformer,latent-64,default@ddim-1"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The script's names, its siblings importable."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return runpy.run_path(str(BENCHMARKS / "variants.py"))


def call(script: dict[str, Any], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["variants.py", *arguments])
    code: int = script["main"]()
    return code


def moving_textures(folder: Path) -> Path:
    """Six clips of six groups: two to train on, to validate on and to test on."""
    folder.mkdir()
    rows = ["file,label,group,split"]
    for k, split in enumerate(("train", "val", "test") * 2):
        write_clip(folder / f"clip{k}.npz", seed=k, frames=17)
        rows.append(f"clip{k}.npz,,g{k},{split}")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    return folder


def test_quick_run_writes_a_report_and_goes_on(
    script: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(latents, "calibrated_speckle", lambda _autoencoder, _videos, known, *_rest: known)
    out = tmp_path / "out"
    line = (str(out), str(moving_textures(tmp_path / "data")), "--quick", "--only", KEYS)
    assert call(script, monkeypatch, *line) == 0
    document = json.loads((out / "variants.json").read_text())
    rows = {row["key"]: row for row in document["rows"]}
    assert set(rows) == {"default", "repeat", "random-latent", *KEYS.split(",")}
    assert document["judged_on"] == "validation"
    assert rows["default"]["selection_score"] == 1.0
    for part, key in document["selected"].items():
        some = [row for row in document["rows"] if row["part"] == part] + [rows["default"]]
        least = min(row["selection_score"] for row in some)
        assert (key is None and len(some) == 1) or rows[key]["selection_score"] == least
    assert rows["latent-64"]["latent"] == [8, 2, 2, 2]
    assert rows["latent-64"]["training"]["second"]["steps"] >= 4
    assert rows["repeat"]["validation"]["mean"]["motion"]["mean"] > 0
    assert rows["transformer"]["latents"]["held_out"]["mean"] > 0
    assert rows["default@ddim-1"]["evaluations"] == 1
    text = (out / "variants.md").read_text()
    assert "Nothing was selected by the test patients' numbers." in text
    assert "left out: fvd-x3d" in text
    assert (out / "variants.png").stat().st_size > 10_000

    gone = out / "rows" / "latent-64" / "result.json"
    before = json.loads(gone.read_text())
    gone.unlink()
    capsys.readouterr()
    assert call(script, monkeypatch, *line) == 0
    said = capsys.readouterr().out
    assert "latent-64: training" in said
    assert "default: training" not in said
    after = json.loads(gone.read_text())
    assert all(after[name] == before[name] for name in ("weights_sha256", "test", "validation", "latents"))

    assert call(script, monkeypatch, *line[:-1], "adain,nothing") == 2
    assert "no row 'nothing'" in capsys.readouterr().err
    assert call(script, monkeypatch, *line, "--samples", "3") == 2
    assert "was begun with samples = 2" in capsys.readouterr().err


def test_latents_of_every_size_have_strides(script: dict[str, Any]) -> None:
    runs = sys.modules["variants_runs"]
    assert runs.fitting(64) == [4096, 1024, 256, 64]
    assert runs.fitting(32) == [1024, 256, 64]
    for size in (32, 64, 128):
        for numbers in runs.fitting(size):
            side = runs.side_of(numbers)
            config = AutoencoderConfig(size=size, spatial_strides=runs.strides(size, side))
            assert config.latent_shape == (8, 2, side, side)
            assert 8 * 2 * side * side == numbers


def test_selection_is_the_mean_of_ratios(script: dict[str, Any]) -> None:
    report = sys.modules["variants_report"]

    def row(key: str, lpips: float, motion: float) -> dict[str, Any]:
        means = {"lpips": {"mean": lpips}, "motion": {"mean": motion}}
        return {"key": key, "part": "decoder", "validation": {"mean": means}, "test": {"energy": None}}

    rows = [row("default", 0.2, 1.0), row("a", 0.1, 1.2), row("b", 0.3, 0.9)]
    rows[0]["part"] = "default"
    assert report.selection(rows[1], rows) == pytest.approx((0.5 + 1.2) / 2)
    assert report.selected(rows, "decoder") == "a"
    assert report.selected(rows, "latent") is None


def test_the_decorrelation_error_ignores_noise_but_not_a_shift(script: dict[str, Any]) -> None:
    def measured(curves: np.ndarray) -> Measured:
        names = tuple(f"c{k}" for k in range(len(curves)))
        groups = tuple(f"g{k // 4}" for k in range(len(curves)))
        return Measured(names, groups, names, {}, {}, {}, {"decorrelation": curves}, {}, names)

    rng = np.random.default_rng(0)
    real = rng.normal(0.5, 0.1, (400, 16))
    noisy = real + rng.normal(0, 0.1, real.shape)
    error = sys.modules["variants_scores"].decorrelation_error
    assert error(measured(real), measured(real)).mean == 0
    assert error(measured(noisy), measured(real)).mean < 0.01
    shifted = error(measured(noisy + 0.2), measured(real))
    assert shifted.low < 0.2 < shifted.high
    assert shifted.high - shifted.low < 0.05
    noisy[0, 3] = np.nan
    assert error(measured(noisy), measured(real)).n == 399


def test_data_or_quick(
    script: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(script, monkeypatch, str(tmp_path / "out")) == 2
    assert "DATA or --quick is needed" in capsys.readouterr().err
    assert call(script, monkeypatch, str(tmp_path / "out"), "--quick", "--parts", "decoders") == 2
    assert "decoder,process" in capsys.readouterr().err
