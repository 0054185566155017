"""What a preparation is asked to do."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from us_i2v.data.datasets.busv_erratum import ERRATUM, Correction
from us_i2v.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

Link = Literal["hard", "copy", "symbolic"]
Conflicts = Literal["drop", "keep"]

_RATIO = re.compile(r"(\d{1,3}):(\d{1,3})")


@dataclass(frozen=True)
class Options:
    """Options of every preparation.

    Attributes:
        ratio: Training and test part, for example (7, 3); no new split if None.
        seed: Chooses the split.
        link: How files get into the new folder: "hard" links where the file system can, else copies.
        keep_duplicates: Keep exact copies.
        conflicts: What becomes of pictures that occur in two classes.
        crop: Write lesion crops instead of whole pictures.
    """

    ratio: tuple[int, int] | None = None
    seed: int = 0
    link: Link = "hard"
    keep_duplicates: bool = False
    conflicts: Conflicts = "drop"
    crop: bool = False

    @property
    def fractions(self) -> Mapping[str, float]:
        """Shares of the parts; empty without a ratio."""
        if self.ratio is None:
            return {}
        return {"train": self.ratio[0] / sum(self.ratio), "test": self.ratio[1] / sum(self.ratio)}


@dataclass(frozen=True)
class BusiOptions(Options):
    """Options for BUSI.

    Attributes:
        drop_near: Keep one picture, the largest, of each set of near duplicates too.
    """

    drop_near: bool = False


@dataclass(frozen=True)
class BusvOptions(Options):
    """Options for BUSV.

    Attributes:
        conflicts: Frames that occur in two classes; "keep" is the default, as the data set's other users do.
        corrections: What to correct, in this order.
        stable: Write stable stretches (`tracks`) instead of whole videos.
        fps: Frame rate to note; the release states none.
    """

    conflicts: Conflicts = "keep"
    corrections: tuple[Correction, ...] = field(default=ERRATUM)
    stable: bool = False
    fps: float | None = None

    def __post_init__(self) -> None:
        """Check the frame rate."""
        if self.fps is not None and not (math.isfinite(self.fps) and self.fps > 0):
            raise ConfigError(f"Frame rate {self.fps:g} is not a positive number.", "Give for example 25.")


def parse_ratio(text: str) -> tuple[int, int]:
    """Turn "7:3" into (7, 3); raises `ConfigError`."""
    match = _RATIO.fullmatch(text.strip())
    if match is None or "0" in (match[1].lstrip("0") or "0", match[2].lstrip("0") or "0"):
        raise ConfigError(f"Ratio '{text}' is not of the form train:test.", "Write for example 7:3, 5:5 or 3:7.")
    return int(match[1]), int(match[2])
