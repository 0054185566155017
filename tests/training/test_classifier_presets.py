"""Presets of classifiers: valid, wholly taken over, and as documented."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from us_i2v.config import flatten
from us_i2v.presets import PRESETS, preset
from us_i2v.training.classifier import ClassifierTraining


@pytest.mark.parametrize("name", PRESETS)
def test_every_value_reaches_the_settings(name: str) -> None:
    values = preset(name, "classifier")
    given = flatten(values)
    resolved = flatten(ClassifierTraining.parse(values, name).model_dump(mode="json"))
    assert given
    assert {key: resolved[key] for key in given} == given


def test_paper_is_the_published_networks() -> None:
    config = ClassifierTraining.parse(preset("paper", "classifier"))
    assert (config.model.width, config.model.size, config.clips.stride) == (1.0, None, 3)
    epochs = config.optimiser.steps * config.optimiser.batch_size / (131 + 655)
    assert round(epochs) == 50


def test_the_documented_rows_are_true() -> None:
    """Remedy: correct docs/presets.md."""
    page = (Path(__file__).parents[2] / "docs" / "presets.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(classifier\.[a-z_.]+)` \|(.*)\|$", page, re.MULTILINE)
    assert len(rows) == 6
    for column, name in enumerate(PRESETS):
        config = ClassifierTraining.parse(preset(name, "classifier"))
        resolved = flatten({"classifier": config.model_dump(mode="json")})
        for key, cells in rows:
            shown = cells.split("|")[column].strip().strip("`")
            expected = None if shown == "empty" else tomllib.loads(f"v = {shown}")["v"]
            assert resolved[key] == expected, (name, key)


def test_what_a_table_leaves_out_keeps_a_classifiers_default() -> None:
    config = ClassifierTraining.parse({"optimiser": {"steps": 7}})
    assert config.optimiser == ClassifierTraining().optimiser.model_copy(update={"steps": 7})
    assert config.optimiser.ema == 0.99
