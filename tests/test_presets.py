"""Presets: every one is valid for both stages, the two stages fit, and `paper` says what the paper says."""

from __future__ import annotations

import re
import tomllib
from importlib import resources
from pathlib import Path

import pytest

from us_i2v.config import flatten
from us_i2v.diffusion.schedule import Linear
from us_i2v.errors import ConfigError
from us_i2v.presets import PRESETS, preset
from us_i2v.training.autoencoder import AutoencoderTraining
from us_i2v.training.denoiser import DenoiserTraining


def test_the_table_lists_the_files() -> None:
    files = {file.name for file in resources.files("us_i2v.presets").iterdir() if file.name.endswith(".toml")}
    assert files == {f"{name}.toml" for name in PRESETS}


@pytest.mark.parametrize("name", PRESETS)
def test_every_value_of_a_preset_reaches_the_settings(name: str) -> None:
    """Nothing is ignored or changed by validation: what the file says is what the settings hold."""
    for stage, config in (("autoencoder", AutoencoderTraining), ("denoiser", DenoiserTraining)):
        values = preset(name, stage)
        given = flatten(values)
        resolved = flatten(config.parse(values, name).model_dump(mode="json"))
        assert given
        assert {key: resolved[key] for key in given} == given


@pytest.mark.parametrize("name", PRESETS)
def test_both_stages_see_the_same_windows(name: str) -> None:
    first = AutoencoderTraining.parse(preset(name, "autoencoder"))
    second = DenoiserTraining.parse(preset(name, "denoiser"))
    assert first.clips == second.clips


def test_paper_takes_the_stated_numbers_literally() -> None:
    first = AutoencoderTraining.parse(preset("paper", "autoencoder"))
    second = DenoiserTraining.parse(preset("paper", "denoiser"))
    assert first.model.decoder == "adain"
    assert first.model.encoder_widths == (64, 128, 256, 512)  # a 3D ResNet-18's
    assert first.model.n_frames * first.clips.stride == 48
    assert first.optimiser.learning_rate == 1e-5
    assert second.optimiser.learning_rate == 0.01
    assert second.optimiser.batch_size == 16
    assert second.process.prediction == "eps"
    assert second.process.schedule == Linear(timesteps=1000, beta_start=1e-4, beta_end=0.02)
    # "Iterations" are epochs, of the same windows in both stages: 100 of the first, 50 of the second.
    windows = first.optimiser.steps * first.optimiser.batch_size / 100
    assert windows == second.optimiser.steps * second.optimiser.batch_size / 50
    for optimiser in (first.optimiser, second.optimiser):  # plain Adam at a constant rate
        assert (optimiser.decay, optimiser.warmup, optimiser.weight_decay) == ("none", 0, 0)
        assert optimiser.betas == (0.9, 0.999)


@pytest.mark.parametrize("name", ["huge", "", "../presets/base"])
def test_an_unknown_preset_is_refused_and_the_known_ones_named(name: str) -> None:
    with pytest.raises(ConfigError, match="paper, base, tiny"):
        preset(name, "autoencoder")


def test_the_documented_table_is_true() -> None:
    """Remedy: correct docs/presets.md."""
    page = Path(__file__).parents[1] / "docs" / "presets.md"
    rows = re.findall(
        r"^\| `((?:autoencoder|denoiser)\.[a-z_.]+)` \|(.*)\|$", page.read_text(encoding="utf-8"), re.MULTILINE
    )
    assert len(rows) > 8
    for name, column in (("paper", 0), ("base", 1), ("tiny", 2)):
        resolved = flatten(
            {
                "autoencoder": AutoencoderTraining.parse(preset(name, "autoencoder")).model_dump(mode="json"),
                "denoiser": DenoiserTraining.parse(preset(name, "denoiser")).model_dump(mode="json"),
            }
        )
        for key, cells in rows:
            shown = cells.split("|")[column].strip().strip("`")
            value = resolved[key]
            if value is None:
                assert shown == "empty", (name, key)
            elif isinstance(value, str):
                assert shown == value, (name, key)
            else:
                assert tomllib.loads(f"v = {shown}")["v"] == value, (name, key)
