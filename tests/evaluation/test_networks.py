from __future__ import annotations

from pathlib import Path

import pytest
import torch

from us_i2v.cli import evaluate
from us_i2v.errors import ConfigError, WeightsError
from us_i2v.evaluation.networks import OTHERS, choose
from us_i2v.metrics.extractors import EXTRACTORS
from us_i2v.metrics.pretrained import PRETRAINED, VARIABLE

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_the_command_knows_the_same_names() -> None:
    assert tuple(EXTRACTORS) == evaluate.NETWORKS
    assert evaluate.OTHERS == OTHERS


def test_missing_weights_are_named_with_the_remedy() -> None:
    wanted, left_out = choose([], None, "alex", 16, CPU)
    assert (wanted.networks, wanted.lpips) == ({}, None)
    assert wanted.paired
    assert wanted.motion
    assert wanted.decorrelation
    assert len(left_out) == len(EXTRACTORS) + 1
    for key, kind in EXTRACTORS.items():
        (line,) = [line for line in left_out if line.startswith(f"{key}:")]
        assert all(PRETRAINED[name].file in line for name in kind.weights)
        assert "us-i2v convert" in line
    assert any("lpips_alex_v0.1.safetensors" in line for line in left_out)


def test_only_what_is_asked_for() -> None:
    wanted, left_out = choose(["motion"], None, "alex", 16, CPU)
    assert (wanted.motion, wanted.paired, wanted.decorrelation, left_out) == (True, False, False, [])


@pytest.mark.parametrize(("names", "backbone"), [(["fvd3"], "alex"), ([], "resnet")])
def test_unknown_names_are_refused(names: list[str], backbone: str) -> None:
    with pytest.raises(ConfigError, match="unknown"):
        choose(names, None, backbone, 16, CPU)


def test_metric_weights_must_be_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no folder"):
        choose([], tmp_path / "none", "alex", 16, CPU)


def test_wrong_files_are_errors_not_left_out(tmp_path: Path) -> None:
    (tmp_path / PRETRAINED["x3d-xs"].file).write_bytes(b"something else")
    with pytest.raises(WeightsError, match="sha256"):
        choose(["fvd-x3d"], tmp_path, "alex", 16, CPU)


def test_short_clips_leave_networks_out(shared_data: Path) -> None:
    wanted, left_out = choose(["fvd-x3d", "lpips"], shared_data / "weights", "squeeze", 16, CPU)
    assert set(wanted.networks) == {"fvd-x3d"}
    assert wanted.lpips is not None
    assert wanted.lpips.backbone == "squeeze"
    assert left_out == []
