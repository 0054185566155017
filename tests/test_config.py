"""Configuration: what is refused, what is merged, and that a dumped config is the same one again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field, ValidationError

from us_i2v.config import Config, flatten, merge, parse_override, read_mapping
from us_i2v.errors import ConfigError


class Inner(Config):
    rate: float = Field(0.5, gt=0)
    pair: tuple[int, int] = (1, 2)


class Outer(Config):
    steps: int = Field(10, ge=1)
    inner: Inner = Inner()
    name: str | None = None


def test_configs_are_frozen() -> None:
    with pytest.raises(ValidationError):
        Outer().steps = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"stepz": 1}, ["stepz"]),
        ({"inner": {"speed": 1}}, ["inner.speed"]),
        ({"steps": 0}, ["steps", "0", "greater than or equal to 1"]),
        ({"inner": {"rate": float("nan")}}, ["inner.rate", "finite"]),
        ({"inner": {"pair": [1, 2, 3]}}, ["inner.pair"]),
        ({"steps": "many"}, ["steps", "'many'"]),
    ],
)
def test_the_bad_key_its_value_and_the_source_are_named(values: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        Outer.parse(values, "my.toml")
    for word in ["my.toml", "docs/configuration.md", *words]:
        assert word in str(caught.value)


def test_a_dumped_config_is_read_back_equal(tmp_path: Path) -> None:
    config = Outer.parse({"steps": 7, "inner": {"rate": 1e-4, "pair": [3, 4]}})
    path = tmp_path / "config.json"
    path.write_text(config.dump(), encoding="utf-8")
    assert Outer.load(path) == config
    assert config != Outer()
    keys = list(json.loads(config.dump()))
    assert keys == sorted(keys)


def test_toml_and_json_hold_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("steps = 3\n[inner]\nrate = 2\n")
    (tmp_path / "a.json").write_text('{"steps": 3, "inner": {"rate": 2}}')
    assert Outer.load(tmp_path / "a.toml") == Outer.load(tmp_path / "a.json") == Outer(steps=3, inner=Inner(rate=2))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.toml", b"steps = "),
        ("a.json", b"{"),
        ("a.json", b"[1, 2]"),
        ("a.json", b"\xff\xfe"),
        ("missing.toml", None),
    ],
)
def test_unreadable_files_are_named(tmp_path: Path, name: str, content: bytes | None) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=name):
        read_mapping(path)


def test_merge_goes_key_by_key_and_changes_neither_side() -> None:
    base: dict[str, Any] = {"a": {"x": 1, "y": 2}, "b": [1, 2], "c": {"z": 1}}
    over: dict[str, Any] = {"a": {"y": 3}, "b": [9], "c": 4}
    assert merge(base, over) == {"a": {"x": 1, "y": 3}, "b": [9], "c": 4}
    assert base == {"a": {"x": 1, "y": 2}, "b": [1, 2], "c": {"z": 1}}
    assert over == {"a": {"y": 3}, "b": [9], "c": 4}


def test_flatten_names_every_leaf() -> None:
    assert flatten({"a": {"b": {"c": 1}, "d": [2]}, "e": None}) == {"a.b.c": 1, "a.d": [2], "e": None}


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("steps=5", {"steps": 5}),
        ("a.b.c=1e-4", {"a": {"b": {"c": 1e-4}}}),
        ("flag=true", {"flag": True}),
        ("pair=[1, 2]", {"pair": [1, 2]}),
        ("t={x=0.5}", {"t": {"x": 0.5}}),
        ("decoder=adain", {"decoder": "adain"}),
        ("notes=a=b c", {"notes": "a=b c"}),
        ("notes=", {"notes": ""}),
        (" key = 'quoted' ", {"key": "quoted"}),
    ],
)
def test_overrides_are_read_as_toml_or_else_as_text(text: str, values: dict[str, Any]) -> None:
    assert parse_override(text) == values


@pytest.mark.parametrize("text", ["steps", "=5", "  =5"])
def test_an_override_without_a_key_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="key=value"):
        parse_override(text)
