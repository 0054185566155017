"""What the training commands share: settings are the preset, then a file, then `--set`, then flags."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, get_args

from us_i2v.config import merge, parse_override, read_mapping
from us_i2v.errors import ConfigError
from us_i2v.presets import Stage, preset


def resolve(
    stage: Stage, name: str, file: Path | None, settings: list[str] | None, flags: dict[str, Any]
) -> dict[str, Any]:
    """Return the settings of a stage as a nested mapping, not yet validated.

    Args:
        stage: Which table of the preset and of the file is taken.
        name: Preset.
        file: TOML or JSON, see `read_section`.
        settings: "key=value" texts; later ones win.
        flags: What the command's own options say, see `flag_settings`.

    Raises:
        ConfigError: the preset is unknown, the file cannot be read, or a text is not key=value.
    """
    values = preset(name, stage)
    if file is not None:
        values = merge(values, read_section(file, stage))
    for text in settings or []:
        values = merge(values, parse_override(text))
    return merge(values, flags)


def flag_settings(
    *,
    steps: int | None = None,
    batch_size: int | None = None,
    seed: int | None = None,
    dt: str | None = None,
    stride: int | None = None,
    fit: str | None = None,
    drop_repeats: bool | None = None,
) -> dict[str, Any]:
    """Turn the commands' options into settings; None means not given.

    `dt` and `stride` are two ways to choose windows: each puts the other one out of force.

    Raises:
        ConfigError: Both are given, or `dt` is no range.
    """
    if dt is not None and stride is not None:
        raise ConfigError("Both --dt and --stride were given; one of them can choose the frames.", "Drop one.")
    clips: dict[str, Any] = _given(stride=stride, fit=fit, drop_repeats=drop_repeats)
    if dt is not None:
        clips |= {"dt_ms": parse_interval(dt), "stride": None}
    return {"optimiser": _given(steps=steps, batch_size=batch_size, seed=seed), "clips": clips}


def _given(**values: object) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def use_threads(count: int | None) -> None:
    """Let torch use `count` CPU threads in this process; None leaves it alone."""
    import torch

    if count is not None:
        torch.set_num_threads(count)


def parse_interval(text: str) -> tuple[float, float]:
    """Read "50" or "40-130" milliseconds as a range; raises `ConfigError`."""
    low, _, high = text.partition("-")
    try:
        interval = float(low), float(high or low)
    except ValueError:
        interval = math.nan, math.nan
    if not 0 < interval[0] <= interval[1] < math.inf:
        raise ConfigError(f"Time between frames '{text}' is no number or range.", "Write --dt 50 or --dt 40-130.")
    return interval


def read_section(file: Path, stage: Stage) -> dict[str, Any]:
    """Return a file's table for a stage, or the whole file if it has no tables named after stages.

    One file can thus serve both training commands, as the presets do.
    """
    values = read_mapping(file)
    if not any(name in values for name in get_args(Stage)):
        return values
    section = values.get(stage)
    if not isinstance(section, dict):
        raise ConfigError(f"Config '{file}' has no table [{stage}].", "Add one, or leave --config out.")
    return section
