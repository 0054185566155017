"""Data-set layouts: one file each, one row each in `LAYOUTS`."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from us_i2v.data.datasets import busi, busv, class_folders, echonet, manifest_csv
from us_i2v.data.dicom.detect import patient_of
from us_i2v.data.manifest import Sample, kind_of
from us_i2v.data.splits import check_split_groups
from us_i2v.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Layout(NamedTuple):
    """How a data set lies on disk.

    Attributes:
        detect: Tells from names alone whether a folder is laid out so.
        load: Lists its samples, without opening them.
    """

    detect: Callable[[Path], bool]
    load: Callable[[Path], list[Sample]]


LAYOUTS: dict[str, Layout] = {
    "manifest": Layout(manifest_csv.detect, manifest_csv.load),
    "busv": Layout(busv.detect, busv.load),
    "echonet": Layout(echonet.detect, echonet.load),
    "busi": Layout(busi.detect, busi.load),
    "class-folders": Layout(class_folders.detect, class_folders.load),
}
"""In the order in which they are tried."""


def find_samples(root: Path, layout: str | None = None, *, check_groups: bool = True) -> list[Sample]:
    """List the stills and clips of a data set, in a fixed order.

    Args:
        root: A folder, a manifest (.csv), or a single still or clip.
        layout: A key of `LAYOUTS`; the first that fits if None.
        check_groups: Refuse a group that is in two of the stated splits.

    Raises:
        DataError: The path does not exist, nothing is found, or a group is in two splits.
    """
    if layout is not None and layout not in LAYOUTS:
        raise DataError(f"Layout '{layout}' is unknown.", f"Use one of {', '.join(LAYOUTS)}.")
    if not root.exists():
        raise DataError(f"Data folder '{root}' does not exist.", "Check the path.")
    samples = _single(root) if root.is_file() else _in_folder(root, layout)
    if check_groups:
        check_split_groups(samples)
    return samples


def _in_folder(root: Path, layout: str | None) -> list[Sample]:
    chosen = [LAYOUTS[layout]] if layout is not None else [row for row in LAYOUTS.values() if row.detect(root)]
    samples = chosen[0].load(root) if chosen else []
    if not samples:
        raise DataError(
            f"Folder '{root}' holds no stills or clips" + (f" in layout '{layout}'." if layout else "."),
            "Give a folder of stills or clips, of class folders, or with a manifest.csv.",
        )
    return samples


def _single(path: Path) -> list[Sample]:
    if path.suffix.lower() == ".csv":
        return manifest_csv.load(path)
    kind = kind_of(path)
    if kind is None:
        raise DataError(f"'{path}' is neither a still nor a clip by its ending.", "Give a folder or another file.")
    return [Sample(path, kind, None, patient_of(path) or path.stem)]
