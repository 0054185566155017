"""How much a file may ask for before it is decoded; options and environment variables raise the caps.

| cap | variable | option |
|---|---|---|
| pixels a frame | `US_I2V_MAX_PIXELS` | `us-i2v --max-pixels N COMMAND` |
| frames a clip | `US_I2V_MAX_FRAMES` | `--max-frames` |
| bytes a file | `US_I2V_MAX_BYTES` | `--max-bytes` |
| seconds that the first pass over a clip takes | `US_I2V_MAX_SECONDS` | `--max-seconds` |

Variables, since worker processes inherit them.
"""

from __future__ import annotations

import os
import time
from functools import lru_cache
from typing import TYPE_CHECKING

from pydantic import Field

from us_i2v.config import Config
from us_i2v.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

PREFIX = "US_I2V_MAX_"


class Limits(Config):
    """Caps on what is decoded. Pillow itself stops at 178 million pixels."""

    pixels: int = Field(50_000_000, ge=256, le=178_000_000, description="Height x width of a frame.")
    frames: int = Field(100_000, ge=1, le=10_000_000, description="Frames of a clip.")
    bytes: int = Field(8 << 30, ge=1024, description="Size of a file.")
    seconds: float = Field(600.0, gt=0, le=86_400, description="Time of the first pass over a clip.")


def limits() -> Limits:
    """Return the caps that hold; raises `ConfigError` for a variable that is no number in range."""
    return _parsed(tuple(os.environ.get(PREFIX + name.upper(), "") for name in Limits.model_fields))


@lru_cache(maxsize=16)
def _parsed(texts: tuple[str, ...]) -> Limits:
    given = {name: text for name, text in zip(Limits.model_fields, texts, strict=True) if text}
    return Limits.parse(given, f"environment ({PREFIX}...)")


def check_frames(path: Path, count: int) -> None:
    """Raise `InputError` if a clip has more frames than are allowed."""
    cap = limits().frames
    if count > cap:
        raise InputError(
            f"'{path}' has {count} frames or more; at most {cap} are allowed.", "Divide it, or raise --max-frames."
        )


def check_bytes(path: Path, size: int) -> None:
    """Raise `InputError` if a file is larger than is allowed."""
    cap = limits().bytes
    if size > cap:
        raise InputError(f"'{path}' has {size:,} bytes; at most {cap:,} are allowed.", "Raise --max-bytes.")


class Deadline:
    """When the first pass over a clip must have ended."""

    def __init__(self, path: Path) -> None:
        self.path, self.seconds = path, limits().seconds
        self._end = time.monotonic() + self.seconds

    def check(self) -> None:
        """Raise `InputError` if the time is over."""
        if time.monotonic() > self._end:
            raise self.error()

    def error(self) -> InputError:
        """Return the error for a clip that takes too long."""
        return InputError(f"Reading '{self.path}' took more than {self.seconds:g} s.", "Raise --max-seconds.")
