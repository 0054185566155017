"""Configuration: frozen pydantic models, read from TOML or JSON, written as JSON.

A config object is the thing that it configures or builds it; there is no registry and no factory.
Unknown keys are errors, so that a typo never turns into a silent default.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, ValidationError, model_serializer

from us_i2v.errors import ConfigError


class Config(BaseModel):
    """Base of all configs: frozen, no unknown keys.

    Fields named in `later` came after files with this config had been written. They are left out of what is written
    while they hold their default, so that old files, and hashes of them, stay what they were.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    later: ClassVar[tuple[str, ...]] = ()

    @model_serializer(mode="wrap")
    def _leave_out_untouched(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = handler(self)
        for name in self.later:
            if getattr(self, name) == type(self).model_fields[name].get_default(call_default_factory=True):
                values.pop(name, None)
        return values

    @classmethod
    def parse(cls, values: dict[str, Any], source: str = "configuration") -> Self:
        """Validate a mapping; raises `ConfigError` naming the first bad key."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "(top level)"
            raise ConfigError(
                f"{source}: '{where}' = {first.get('input')!r}: {first['msg']}.",
                "See docs/configuration.md for the allowed values.",
            ) from error

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a TOML or JSON file; raises `ConfigError` if it is unreadable or invalid."""
        return cls.parse(read_mapping(path), str(path))

    def dump(self) -> str:
        """Return the resolved config as indented JSON with sorted keys."""
        return json.dumps(self.model_dump(mode="json"), indent=2, sort_keys=True) + "\n"


def read_mapping(path: Path) -> dict[str, Any]:
    """Read a TOML (.toml) or JSON (any other ending) mapping; raises `ConfigError`."""
    try:
        text = path.read_text(encoding="utf-8")
        values = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except OSError as error:
        raise ConfigError(f"Cannot read config '{path}': {error.strerror}.", "Check the path.") from error
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"Config '{path}' is not valid TOML or JSON: {reason}.", "Fix the file.") from error
    if not isinstance(values, dict):
        raise ConfigError(f"Config '{path}' holds a {type(values).__name__}, a table is needed.", "Fix the file.")
    return values


def merge(base: dict[str, Any], override: dict[str, Any]) -> dict[str, Any]:
    """Return `base` updated by `override`, tables merged key by key, neither changed."""
    merged = dict(base)
    for key, value in override.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Turn {"a": {"b": 1}} into {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def parse_override(text: str) -> dict[str, Any]:
    """Turn "optimiser.lr=1e-4" into a nested mapping; values are read as TOML, else as text."""
    key, sep, value = text.partition("=")
    if not sep or not key.strip():
        raise ConfigError(f"Setting '{text}' is not of the form key=value.", "Write for example --set steps=1000.")
    parsed: Any
    try:
        parsed = tomllib.loads(f"v = {value}")["v"]
    except ValueError:
        parsed = value
    for part in reversed(key.strip().split(".")):
        parsed = {part: parsed}
    return dict(parsed)
