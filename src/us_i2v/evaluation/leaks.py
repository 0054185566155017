"""Were weights trained on the clips that they are to be judged on?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from us_i2v.data.clips import open_clip
from us_i2v.errors import DataError

if TYPE_CHECKING:
    from us_i2v.evaluation.clips import RealWindows
    from us_i2v.weights import Header

SHOWN = 5


def find_leaks(header: Header, real: RealWindows) -> list[str]:
    """Return the groups and files that the weights were trained on and that are among the real windows."""
    groups = sorted(set(header.training_groups) & set(real.groups))
    trained = set(header.clip_sha256)
    paths = sorted({entry.path for entry in real.entries}) if trained else []
    files = [path.name for path in paths if open_clip(path).source_hash() in trained]
    return [f"group '{group}'" for group in groups] + [f"file '{name}'" for name in files]


def check_leaks(header: Header, real: RealWindows, weights: str) -> None:
    """Raise `DataError` that names groups and files on which the weights were trained."""
    found = find_leaks(header, real)
    if found:
        named = ", ".join(found[:SHOWN]) + (f" and {len(found) - SHOWN} more" if len(found) > SHOWN else "")
        raise DataError(
            f"Weights '{weights}' were trained on {named} of the real clips; a score on them means little.",
            "Give clips that were held out (--split test), or --allow-leak to go on all the same.",
        )
