"""The card of an augmented data set."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from us_i2v.augmentation.card import card, measured
from us_i2v.augmentation.settings import AugmentSettings

ROWS = [
    {"label": "benign", "split": "train", "source": "a.png", "group": "p1", "mask": "m"},
    {"label": "benign", "split": "train", "source": "a.png", "group": "p1", "mask": "m"},
    {"label": "malignant", "split": "", "source": "b.png", "group": "p2", "mask": ""},
]


def test_counts_classes_and_statements() -> None:
    text = card(ROWS, AugmentSettings(license="cc-by-4.0", source="ward | 7\nroom"), skipped=2)
    for line in (
        'license: "cc-by-4.0"',
        "| clips | 3 |",
        "| stills | 2 |",
        "| groups (patients) | 2 |",
        "| clips with masks | 2 |",
        "| stills that could not be read | 2 |",
        "| split: train | 2 |",
        "| split: none stated | 1 |",
        r"| source of the stills | ward \| 7 room |",
        "| benign | 2 | 1 |",
        "| malignant | 1 | 1 |",
        "| `options.motion` | 1.0 |",
    ):
        assert line in text.splitlines()
    assert "Measured" not in text
    assert "| licence | not stated;" in card(ROWS, AugmentSettings(), skipped=0)


def test_distances_of_evaluate_are_shown_with_n(tmp_path: Path) -> None:
    values = {"mean": 12.345678, "low": 10.0, "high": 15.0, "n": 120, "groups": 30}
    distances = {"name": "FVD-X3D", "frechet": {"fake": values, "repeat": {**values, "low": None}}}
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"parts": {"all": {"distances": {"x3d": distances}}}}))
    lines = measured(path).splitlines()
    assert "| all | FVD-X3D | fake | 12.35 [10, 15] | 120 |" in lines
    assert "| all | FVD-X3D | repeat | 12.35 | 120 |" in lines


@pytest.mark.parametrize("text", ["", "[]", '{"parts": 3}', '{"parts": {}}', "[" * 100_000])
def test_other_files_of_that_name_are_passed_over(tmp_path: Path, text: str) -> None:
    (tmp_path / "results.json").write_text(text)
    assert measured(tmp_path / "results.json") == measured(tmp_path / "none.json") == ""


def test_cards_of_earlier_settings_do_not_change_them() -> None:
    assert not {"license", "source"} & set(json.loads(AugmentSettings().dump()))
