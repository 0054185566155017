"""The place of this process among several that torchrun (or a scheduler) has started: RANK and WORLD_SIZE."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from us_i2v.errors import ConfigError

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """Process `rank` of `world`, counted from 0."""

    rank: int = 0
    world: int = 1

    @classmethod
    def of_environment(cls) -> Ranks:
        """Read RANK and WORLD_SIZE, 0 and 1 where they are unset; raises `ConfigError`."""
        texts = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
        if not all(text.isascii() and text.isdecimal() for text in texts) or not int(texts[0]) < int(texts[1]):
            raise ConfigError(
                f"RANK is '{texts[0]}' and WORLD_SIZE '{texts[1]}'; numbers with RANK below WORLD_SIZE are needed.",
                "Start with torchrun, or unset them.",
            )
        return cls(int(texts[0]), int(texts[1]))

    @property
    def first(self) -> bool:
        """Whether this is the process that speaks and writes for all."""
        return self.rank == 0

    def share(self, items: Sequence[T], rank: int | None = None) -> list[T]:
        """Return what this process, or that of another rank, does: every `world`-th item."""
        return list(items[self.rank if rank is None else rank :: self.world])
