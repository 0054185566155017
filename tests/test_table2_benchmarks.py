"""What Table 2's benchmark scripts make without training anything."""

from __future__ import annotations

import argparse
import csv
import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.fakes import still_pixels
from us_i2v.data.datasets import find_samples
from us_i2v.data.phantom.config import PhantomConfig
from us_i2v.data.writers import write_clip

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def benefit() -> dict[str, Any]:
    return runpy.run_path(str(BENCHMARKS / "phantom_benefit.py"))


@pytest.fixture
def table2(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return runpy.run_path(str(BENCHMARKS / "table2.py"))


def write_source(folder: Path, classes: list[str]) -> Path:
    rows = []
    for number, label in enumerate(classes):
        file = f"videos/lung_blues/patient_{number // 2}_{number}.npz"
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        write_clip(folder / file, np.stack([still_pixels(number, 16, 16)] * 2), 25.0)
        rows.append({"file": file, "class_label": label, "patient_or_group": f"blues-{number // 2}"})
    rows.append({"file": "videos/other/clip.npz", "class_label": "x", "patient_or_group": "y"})
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


def test_severity_makes_two_classes_by_video_and_groups_by_patient(table2: dict[str, Any], tmp_path: Path) -> None:
    data = write_source(tmp_path / "data", ["severity_0", "severity_1", "severity_2", "severity_3"])
    for _ in range(2):
        table2["prepare"](data, tmp_path / "work")
    found = find_samples(tmp_path / "work" / "lung_severity")
    assert [(s.label, s.group, s.split) for s in found] == [
        ("mild", "blues-0", None),
        ("mild", "blues-0", None),
        ("severe", "blues-1", None),
        ("severe", "blues-1", None),
    ]


def test_an_unknown_class_ends_with_one_line(table2: dict[str, Any], tmp_path: Path) -> None:
    data = write_source(tmp_path / "data", ["severity_9"])
    with pytest.raises(SystemExit, match=r"^error: .* has class 'severity_9'"):
        table2["prepare"](data, tmp_path / "work")


def test_paired_differences_have_students_interval(benefit: dict[str, Any]) -> None:
    found = benefit["student"]([1.0, 2.0, 3.0])
    assert (found["mean"], found["n"]) == (2.0, 3)
    assert (found["low"], found["high"]) == pytest.approx((2 - 2.4841, 2 + 2.4841), abs=1e-3)
    assert benefit["student"]([0.5])["low"] is None


def test_difficulty_is_the_calibrated_one_or_the_given_one(benefit: dict[str, Any], tmp_path: Path) -> None:
    asked = argparse.Namespace(work=tmp_path, noise_db=None)
    with pytest.raises(SystemExit, match="run `calibrate` first"):
        benefit["level"](asked)
    (tmp_path / "difficulty.json").write_text(json.dumps({"chosen": -6.0}))
    assert benefit["level"](asked) == -6.0
    assert benefit["level"](argparse.Namespace(work=tmp_path, noise_db=2.0)) == 2.0
    (tmp_path / "difficulty.json").write_text(json.dumps({"chosen": None}))
    with pytest.raises(SystemExit, match="found no level"):
        benefit["level"](asked)


def test_calibration_and_test_seeds_never_meet(benefit: dict[str, Any]) -> None:
    assert not set(benefit["CALIBRATION_SEEDS"]) & set(benefit["TEST_SEEDS"])
    assert len(benefit["TEST_SEEDS"]) == 10


def asked_of(benefit: dict[str, Any], work: Path, **values: Any) -> argparse.Namespace:
    known = {
        "work": work,
        "levels": (2.0, 14.0, 20.0),
        "calibration_seeds": (1000, 1001),
        "workers": 1,
        "motion_only": False,
    }
    return argparse.Namespace(**{**known, "videos": 1, "tested": 1, "stills": 1, **values})


def test_the_level_nearest_to_the_wanted_accuracy_is_chosen_of_those_that_are_finished(
    benefit: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accuracies = {2.0: (0.98, 0.96), 14.0: (0.8, 0.76), 20.0: (0.75, None)}

    def scores_of(folder: Path) -> dict[str, dict[str, float]] | None:
        level, seed = folder.parent.name.removeprefix("noise"), int(folder.name.removeprefix("seed_"))
        accuracy = accuracies[float(level)][seed - 1000]
        return None if accuracy is None else {"real": {"accuracy": accuracy}}

    monkeypatch.setitem(benefit["choose"].__globals__, "scores_of", scores_of)
    benefit["choose"](asked_of(benefit, tmp_path))
    found = json.loads((tmp_path / "difficulty.json").read_text())
    assert (found["chosen"], found["seeds"]) == (14.0, [1000, 1001])
    assert [(row["noise_db"], row["mean"]) for row in found["levels"]] == [(2.0, 0.97), (14.0, pytest.approx(0.78))]
    with pytest.raises(SystemExit, match=r"no level is between 65% and 85%; the nearest gives 97\.0%"):
        benefit["choose"](asked_of(benefit, tmp_path, levels=(2.0,)))
    assert json.loads((tmp_path / "difficulty.json").read_text())["chosen"] is None
    with pytest.raises(SystemExit, match="no level is finished"):
        benefit["choose"](asked_of(benefit, tmp_path, levels=(20.0,)))


def test_a_breast_is_the_same_at_every_level_but_for_its_noise(benefit: dict[str, Any], tmp_path: Path) -> None:
    folders = [(-28.0, tmp_path / "quiet"), (14.0, tmp_path / "loud")]
    breasts = benefit["population"](folders, 1000, asked_of(benefit, tmp_path))
    assert [(b.kind, b.name) for b in breasts[:3]] == [
        ("videos", "benign_000"),
        ("videos", "benign_001"),
        ("stills", "benign_000"),
    ]
    still = [breast for breast in breasts if breast.kind == "stills"][:1]
    for _ in benefit["spread"](benefit["show"], still, 1):
        pass
    quiet, loud = (np.asarray(Image.open(still[0].path(folder)), float) for _, folder in folders)
    assert loud[-16:].mean() > quiet[-16:].mean() + 20
    assert np.corrcoef(quiet[:16].ravel(), loud[:16].ravel())[0, 1] > 0.9
    benefit["write_manifests"](still)
    (sample,) = find_samples(tmp_path / "loud" / "stills")
    assert (sample.kind, sample.label, sample.group) == ("still", "benign", "stills-benign_000")


@pytest.mark.parametrize("motion_only", [False, True])
def test_classes_differ_in_motion_alone_if_asked(
    benefit: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, motion_only: bool
) -> None:
    simulated, real = [], benefit["simulate_at_noise"]

    def simulate(config: PhantomConfig, *more: Any) -> Any:
        simulated.append(config)
        return real(config, *more)

    monkeypatch.setitem(benefit["show"].__globals__, "simulate_at_noise", simulate)
    breasts = benefit["population"]([(-28.0, tmp_path)], 1000, asked_of(benefit, tmp_path, motion_only=motion_only))
    benefit["show"](next(breast for breast in breasts if breast.kind == "stills"))
    assert [config.motion_only for config in simulated] == [motion_only]


def test_what_can_be_learnt_is_judged_on_other_patients(
    table2: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(table2["_held_out_auc"].__globals__, "DRAWS", 4)
    rng = np.random.default_rng(0)
    patients = np.repeat([f"p{k}" for k in range(20)], 4)
    truth = rng.random(80) < 0.4
    told = [rng.normal(size=(2, 5)) + 3 * positive for positive in truth]
    assert min(table2["_held_out_auc"](told, truth, patients, 8)) > 0.95
    # Features that tell the patient alone do not help with others; a video without features is left out.
    marks = {name: rng.normal(size=5) for name in set(patients)}
    betrayed = [np.tile(marks[name], (2, 1)) for name in patients]
    betrayed[0] = np.zeros((0, 5))
    assert 0.3 < np.mean(table2["_held_out_auc"](betrayed, truth, patients, 8)) < 0.7
