"""`us-i2v quality`, and `augment` with a selection."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from tests.cli.conftest import one_line_error
from tests.evaluation.conftest import WriteClips, write_clips
from tests.evaluation.sets import drifting
from tests.factories import small_weights
from tests.fakes import FakeGenerator, write_busi
from us_i2v.quality import MEASURED, QualityHeader, Range, load_reference, save_reference

__all__ = ["write_clips"]

Run = Callable[..., Result]
CLIPS = 5


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_busi(tmp_path / "busi", {"benign": 2, "normal": 1})


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    ranges = {name: Range(low=-1e6, high=1e6) for name in MEASURED} | {"flow": Range(low=0, high=1)}
    about = {"frames": 4, "interval_s": 0.05, "quantiles": (0.025, 0.975), "windows": 30, "groups": 10}
    save_reference(
        tmp_path / "q.safetensors", QualityHeader(package_version="0", name="mine", ranges=ranges, **about), None
    )
    return tmp_path / "q.safetensors"


def test_augment_keeps_the_best(
    us_i2v: Run, generator: FakeGenerator, data: Path, reference: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    line = ("augment", data, out, "--frames", 4, "--ext", "npz", "--keep-best", 0.5, "--quality", reference)
    result = us_i2v(*line)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[1] == (
        "quality: 2 of 3 clips kept; judged by mine, 30 real windows of 10 groups, no critic"
    )
    assert json.loads((out / "settings.json").read_text())["quality"] == {
        "keep_best": 0.5,
        "reject_below": None,
        "reference": "mine",
        "reference_sha256": load_reference(reference).sha256,
    }
    assert us_i2v(*line).stdout.splitlines()[0] == f"{out}: 0 clips made, 3 already there"


def test_what_cannot_be_judged_is_one_line(
    us_i2v: Run, generator: FakeGenerator, data: Path, reference: Path, tmp_path: Path
) -> None:
    line = ("augment", data, tmp_path / "out", "--frames", 4)
    assert "Clips of 4 frames cannot be judged by a reference of 16" in one_line_error(
        us_i2v(*line, "--keep-best", 0.5)
    )
    assert "'keep_best' = 1.5" in one_line_error(us_i2v(*line, "--keep-best", 1.5))
    assert "--dt 200" in one_line_error(us_i2v(*line, "--quality", reference, "--fps", 5))
    assert "do not exist" in one_line_error(us_i2v(*line, "--quality", tmp_path / "none.safetensors"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("critic", [False, True])
def test_fit_and_score(
    us_i2v: Run, write_clips: WriteClips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, critic: bool
) -> None:
    monkeypatch.setattr("us_i2v.evaluation.quality.LEAST", CLIPS)
    names = [f"c{k}.npz" for k in range(CLIPS)]
    clips = {name: drifting(k) for k, name in enumerate(names)}
    real = write_clips("real", clips, {name: f"patient-{k}" for k, name in enumerate(names)})
    weights, out = small_weights(tmp_path / "w.safetensors"), tmp_path / "q.safetensors"
    flag = "--critic" if critic else "--no-critic"
    common = ("--weights", weights, "--device", "cpu", "--threads", 1)
    result = us_i2v("quality", "fit", real, "-o", out, "--name", "drifting", flag, *common)
    assert result.exit_code == 0, result.output
    assert f"{CLIPS} real windows of {CLIPS} groups, 16 frames, 50 ms apart" in result.stdout
    found = load_reference(out)
    assert (found.critic is not None) == critic
    if found.header.critic is not None:
        assert found.header.critic.generated == CLIPS
        assert found.header.critic.auc > 0.8, "untrained weights are easily told"
    scores = tmp_path / "s.json"
    result = us_i2v("quality", "score", real, "--quality", out, "-o", scores)
    assert result.exit_code == 0, result.output
    values = [row["score"] for row in json.loads(scores.read_text())["clips"]]
    assert len(values) == CLIPS
    # Every part has a clip a little outside of quantiles of so few.
    assert all(0.5 < value <= 1 for value in values) or critic
    assert max(values) > 0.5


def test_fit_needs_windows(us_i2v: Run, write_clips: WriteClips, tmp_path: Path) -> None:
    real = write_clips("real", {"c.npz": drifting(0)})
    weights = small_weights(tmp_path / "w.safetensors")
    line = ("quality", "fit", real, "-o", tmp_path / "q.safetensors", "--no-critic", "--weights", weights)
    assert "1 real windows could be measured (0 not); 20 are needed" in one_line_error(us_i2v(*line))
