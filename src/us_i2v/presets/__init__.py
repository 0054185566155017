"""Presets: settings of all stages as TOML files, one a preset."""

from __future__ import annotations

import tomllib
from importlib import resources
from typing import Any, Literal

from us_i2v.errors import ConfigError

PRESETS = ("paper", "base", "tiny")

Stage = Literal["autoencoder", "denoiser", "cinn", "classifier"]


def preset(name: str, stage: Stage) -> dict[str, Any]:
    """Return the settings of one stage in a preset; raises `ConfigError` for an unknown name."""
    if name not in PRESETS:
        raise ConfigError(f"Preset '{name}' is not known.", f"Choose one of: {', '.join(PRESETS)}.")
    text = resources.files("us_i2v.presets").joinpath(f"{name}.toml").read_text(encoding="utf-8")
    values: dict[str, Any] = tomllib.loads(text)[stage]
    return values
