"""`us-i2v quality`, and `augment` with a selection."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import Result

from tests.cli.conftest import one_line_error
from tests.evaluation.conftest import WriteClips, write_clips
from tests.evaluation.sets import drifting
from tests.factories import small_weights
from tests.fakes import FakeGenerator, write_busi
from us_i2v.data.writers import write_clip
from us_i2v.metrics.critic import LinearCritic
from us_i2v.pipeline import ImageToVideo
from us_i2v.quality import MEASURED, CriticHeader, QualityHeader, Range, load_reference, save_reference, score

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
    result = us_i2v("quality", "fit", real, "-o", out, "--dt", 50, "--name", "drifting", flag, *common)
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
    rows = json.loads(scores.read_text())["clips"]
    assert len(rows) == CLIPS
    # Every part has a clip a little outside of quantiles of so few.
    shares = [row["score"] / row["parts"].get("critic", 1) for row in rows]
    assert all(0.5 < share < 1.001 for share in shares)
    assert {"critic" in row["parts"] for row in rows} == {critic}
    if critic:
        made = [ImageToVideo.from_pretrained(weights, "cpu", 1)(clips[name][0], seed=1)[0].frames for name in names]
        liked = [row["parts"]["critic"] for row in rows]
        assert min(liked) > max(score(frames, frames[0], found).parts["critic"] for frames in made)
        assert min(liked) > 0.5, "it knows them as real"


def test_fit_says_what_it_leaves_out(
    us_i2v: Run, write_clips: WriteClips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("us_i2v.evaluation.quality.LEAST", 2)
    real = write_clips("real", {f"c{k}.npz": drifting(k) for k in range(2)} | {"short.npz": drifting(5)[:9]})
    write_clip(real / "slow.npz", drifting(3), 2.0)
    weights = small_weights(tmp_path / "w.safetensors")
    line = ("quality", "fit", real, "-o", tmp_path / "q.safetensors", "--no-critic", "--weights", weights)
    result = us_i2v(*line, "--dt", 50)
    assert result.exit_code == 0, result.output
    assert "2 real windows of" in result.stdout
    assert "1 clips give no window, for example 'short' has 9 distinct frames" in result.stdout
    assert "1 windows left out: their frames are 500 ms apart instead of 50 ms" in result.stdout


def test_augment_refuses_a_critic_of_other_weights(
    us_i2v: Run, generator: FakeGenerator, data: Path, reference: Path, tmp_path: Path
) -> None:
    header = load_reference(reference).header
    critic = LinearCritic(np.zeros(7), np.ones(7), np.zeros(7), 1.0)
    path = tmp_path / "c.safetensors"
    for weights, code in (("ef" * 32, 2), (generator.weights_sha256, 0)):
        about = CriticHeader(auc=0.8, generated=30, weights_sha256=weights)
        save_reference(path, header.model_copy(update={"critic": about}), critic)
        out = tmp_path / f"out{code}"
        result = us_i2v("augment", data, out, "--frames", 4, "--ext", "npz", "--quality", path)
        assert out.exists() == (code == 0)
        if code:
            assert "The critic knows clips of weights efefefefefef; these are of abababababab" in one_line_error(result)
        else:
            assert result.exit_code == 0, result.output
            first = (out / "quality.csv").read_text().splitlines()
            assert first[0].endswith(",critic")
            assert all(line.endswith(",0.731059") for line in first[1:])


def test_fit_needs_windows(us_i2v: Run, write_clips: WriteClips, tmp_path: Path) -> None:
    real = write_clips("real", {"c.npz": drifting(0)})
    weights = small_weights(tmp_path / "w.safetensors")
    line = ("quality", "fit", real, "-o", tmp_path / "q.safetensors", "--no-critic", "--weights", weights)
    error = one_line_error(us_i2v(*line, "--dt", 50))
    assert "1 real windows could be measured (0 not); 20 are needed" in error
    error = one_line_error(us_i2v(*line))  # The weights' own interval; a clip of a window's length is taken whole.
    assert "0 real windows could be measured (0 not, 1 have frames 50 ms apart instead of 100 ms); 20" in error
    assert "--dt" in error
