"""Stored fake clips, and which real clip each was made from."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from us_i2v.data.manifest import MANIFEST
from us_i2v.evaluation.clips import RealWindows, WindowRule, list_samples

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from us_i2v.types import Image


class Listed(RealWindows):
    """Stored fake clips; see `RealWindows`. Black ones are kept: a fake may not be left out for being bad.

    Attributes:
        stills: File name of the still of each clip, from the manifest's column `source`; "" where unknown.
    """

    @classmethod
    def of(
        cls,
        paths: Sequence[Path],
        rule: WindowRule | None = None,
        *,
        split: str | None = None,
        progress: Callable[[int, int, str], None] | None = None,
    ) -> Listed:
        """See `RealWindows.of`."""
        samples, root = list_samples(paths, split)
        found = cls(samples, rule, root=root, progress=progress)
        column = {name: still for path in paths for name, still in _source_column(path).items()}
        found.stills = [column.get(entry.path.resolve(), "") for entry in found.entries]
        return found

    stills: list[str]

    def shows_nothing(self, first: Image) -> bool:
        """See `RealWindows.shows_nothing`: never."""
        return False

    def pair_with(self, real: RealWindows) -> list[int | None]:
        """Return for each fake clip the real window that it was made from, None where that is not known.

        By name below the root, else by the stem of the clip, or of its still, where only one real window has it.
        Paired clips take over group and source of their real window.
        """
        by_name = {name: index for index, name in enumerate(real.names)}
        stems = Counter(_stem(name) for name in real.names)
        by_stem = {_stem(name): index for index, name in enumerate(real.names) if stems[_stem(name)] == 1}
        found: list[int | None] = []
        for entry, still in zip(self.entries, self.stills, strict=True):
            stem = PurePosixPath(still).stem if still else _stem(entry.name)
            found.append(by_name[entry.name] if entry.name in by_name and not still else by_stem.get(stem))
        self.entries = tuple(
            entry if index is None else replace(entry, group=real.groups[index], source=real.sources[index])
            for entry, index in zip(self.entries, found, strict=True)
        )
        return found


def _stem(name: str) -> str:
    return PurePosixPath(name).name


def _source_column(path: Path) -> dict[Path, str]:
    """Return {clip: its still} from a manifest's optional column `source`."""
    manifest = path / MANIFEST if path.is_dir() else path
    if manifest.suffix != ".csv" or not manifest.is_file():
        return {}
    with manifest.open(encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.DictReader(stream))
    return {
        (manifest.parent / PurePosixPath(row["file"].strip())).resolve(): (row.get("source") or "").strip()
        for row in rows
        if (row.get("file") or "").strip()
    }
