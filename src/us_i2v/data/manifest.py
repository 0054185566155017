"""Samples, and `manifest.csv`: one row a still or clip.

| column | meaning |
|---|---|
| file | path relative to the manifest, inside its folder; "/" on every system |
| label | class; may be empty |
| group | patient, recording set ...: never divided between splits; empty means a group of its own |
| split | train, val, test or empty |
| mask (or masks) | optional: mask files, joined by ";" |
| fps | optional: frames per second, where the clip's own figure is missing or wrong |
| dt | optional: milliseconds between frames, instead of fps |

Other columns are allowed and ignored. UTF-8, header in the first line.
"""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from us_i2v.data.atomic import write_bytes
from us_i2v.data.clips import is_clip
from us_i2v.data.stills import is_still
from us_i2v.data.tables import read_rows
from us_i2v.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from us_i2v.data.tables import Row

MANIFEST = "manifest.csv"
REQUIRED = ("file", "label", "group", "split")
SPLITS = ("train", "val", "test")
_ALIASES = {"validation": "val", "valid": "val", "training": "train"}


@dataclass(frozen=True)
class Sample:
    """One still or clip of a data set. Nothing is opened until it is read.

    Attributes:
        path: The file, or a folder of frames.
        kind: What it is.
        label: Class, if known.
        group: Never divided between splits.
        split: "train", "val" or "test", if the data set says so.
        masks: Mask files; their union is the mask.
        fps: Overrides the clip's own rate.
    """

    path: Path
    kind: Literal["still", "clip"]
    label: str | None
    group: str
    split: str | None = None
    masks: tuple[Path, ...] = ()
    fps: float | None = None


def kind_of(path: Path) -> Literal["still", "clip"] | None:
    """Return what a path is by its ending (GIFs and folders of frames are clips); None if it is neither."""
    if is_clip(path):
        return "clip"
    return "still" if is_still(path) else None


def read_manifest(path: Path) -> list[Sample]:
    """Read a manifest; files must exist, but are not opened, and groups may be in two splits (see `find_samples`).

    Raises:
        DataError: Names the line and the column that is wrong.
    """
    samples: list[Sample] = []
    lines: dict[Path, int] = {}
    for row in read_rows(path, "Manifest", REQUIRED):
        sample = _parse(row)
        if sample.path in lines:
            raise row.error("file", f"was listed already in line {lines[sample.path]}", "List every file once")
        lines[sample.path] = row.line
        samples.append(sample)
    if not samples:
        raise DataError(f"Manifest '{path}' lists no files.", "Add a line for every file.")
    return samples


def write_manifest(path: Path, samples: Sequence[Sample]) -> None:
    """Write a manifest, atomically and with the same bytes for the same samples.

    Raises:
        DataError: A sample's file or mask lies outside the manifest's folder.
        OutputError: The file cannot be written.
    """
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*REQUIRED, "mask", "fps"])
    for sample in samples:
        writer.writerow(
            [
                _relative(sample.path, path),
                sample.label or "",
                sample.group,
                sample.split or "",
                ";".join(_relative(mask, path) for mask in sample.masks),
                "" if sample.fps is None else repr(float(sample.fps)),
            ]
        )
    write_bytes(path, out.getvalue().encode("utf-8"))


def _parse(row: Row) -> Sample:
    name = row.text("file")
    if not name:
        raise row.error("file", "is empty", "Name a file, or remove the line")
    path = row.existing("file", name, row.table.parent)
    kind = "clip" if path.is_dir() else kind_of(path)
    if kind is None:
        raise row.error("file", "is neither a still nor a clip by its ending", "Remove the line")
    split = row.text("split").lower()
    split = _ALIASES.get(split, split)
    if split and split not in SPLITS:
        raise row.error("split", "is no split", f"Use {', '.join(SPLITS)} or leave it empty")
    column = "masks" if row.text("masks") else "mask"
    masks = tuple(
        row.existing(column, part.strip(), row.table.parent) for part in row.text(column).split(";") if part.strip()
    )
    fps, dt = row.number("fps"), row.number("dt")
    if fps is not None and dt is not None and not math.isclose(fps * dt, 1000.0, rel_tol=0.01):
        raise row.error("dt", f"ms contradicts fps {fps:g}", "Give one of the two")
    if fps is None and dt is not None:
        fps = 1000.0 / dt
    return Sample(path, kind, row.text("label") or None, row.text("group") or name, split or None, masks, fps)


def _relative(path: Path, manifest: Path) -> str:
    try:
        return path.absolute().relative_to(manifest.parent.absolute()).as_posix()
    except ValueError as error:
        raise DataError(
            f"'{path}' is not inside '{manifest.parent}', where the manifest goes.",
            "Move the file or the manifest.",
        ) from error
