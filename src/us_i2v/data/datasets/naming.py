"""Names of masks, as BUSI has them: `x_mask.png`, `x_mask_1.png` ... belong to `x.png`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from us_i2v.data.decoding.folders import natural_key
from us_i2v.data.manifest import kind_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_MASK = re.compile(r"^(?P<base>.*?)[ _]mask(?:_?\d+)?$", re.IGNORECASE)


def media(folder: Path) -> list[Path]:
    """Return a folder's visible stills and clips, frame folders among them, in natural order."""
    found = [entry for entry in folder.iterdir() if not entry.name.startswith(".") and kind_of(entry) is not None]
    return sorted(found, key=lambda entry: natural_key(entry.name))


def pair_masks(files: Iterable[Path]) -> list[tuple[Path, tuple[Path, ...]]]:
    """Pair the pictures of one folder with their masks; a mask whose picture is not there is left out."""
    pictures: list[Path] = []
    masks: dict[str, list[Path]] = {}
    for file in files:
        match = _MASK.match(file.stem)
        if match:
            masks.setdefault(match["base"], []).append(file)
        else:
            pictures.append(file)
    return [(picture, tuple(masks.get(picture.stem, ()))) for picture in pictures]
