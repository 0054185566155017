"""A folder with a `manifest.csv` that lists its files; see `us_i2v.data.manifest` for the columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from us_i2v.data.manifest import MANIFEST, Sample, read_manifest

if TYPE_CHECKING:
    from pathlib import Path


def detect(root: Path) -> bool:
    """Tell whether the folder has a manifest."""
    return (root / MANIFEST).is_file()


def load(root: Path) -> list[Sample]:
    """Read the folder's manifest, or the manifest itself; raises `DataError` naming line and column."""
    return read_manifest(root if root.is_file() else root / MANIFEST)
