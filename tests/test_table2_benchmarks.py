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

from tests.fakes import still_pixels
from us_i2v.data.datasets import find_samples
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
