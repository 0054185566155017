"""The new folder: written beside its place under another name, renamed when complete; files linked or copied."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from us_i2v.data.atomic import publish, temporary_beside, unwritable
from us_i2v.data.manifest import MANIFEST, write_manifest
from us_i2v.data.preparation.report import REPORT
from us_i2v.data.splits import split_by_group
from us_i2v.errors import DataError, OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from us_i2v.data.manifest import Sample
    from us_i2v.data.preparation.options import Link, Options
    from us_i2v.data.preparation.report import Report


@contextmanager
def new_folder(out: Path, source: Path) -> Iterator[Path]:
    """Give an empty folder that becomes `out` when the body ends well; a failure leaves nothing behind.

    Raises:
        OutputError: `out` is a file, holds something, lies inside `source` or around it, or cannot be written.
        DataError: `source` does not exist.
    """
    if not source.is_dir():
        raise DataError(f"Data folder '{source}' does not exist.", "Check the path.")
    target, origin = out.resolve(), source.resolve()
    if target == origin or origin in target.parents or target in origin.parents:
        raise OutputError(f"'{out}' and '{source}' lie in one another.", "Choose a folder outside of the data.")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise OutputError(f"'{out}' is there already and not an empty folder.", "Choose a new one, or remove it.")
    with temporary_beside(target) as part:
        try:
            part.mkdir()
        except OSError as error:
            raise unwritable(out, error) from error
        yield part
        publish(part, target)  # over an empty folder too


def place_file(source: Path, target: Path, link: Link) -> None:
    """Put a file into the new folder; a hard link that the system refuses becomes a copy. Raises `OutputError`."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if link == "symbolic":
            target.symlink_to(source.resolve())
        elif link == "copy" or not _hard_link(source, target):
            shutil.copyfile(source, target)
    except OSError as error:
        raise unwritable(target, error) from error


def _hard_link(source: Path, target: Path) -> bool:
    """Tell whether the system made a hard link; it does not on another file system, or for others' files."""
    try:
        os.link(source.resolve(), target)
    except OSError:
        return False
    return True


def finish(folder: Path, samples: Sequence[Sample], report: Report, options: Options) -> None:
    """Draw the split, if one was asked for, and write manifest and report.

    Raises:
        DataError: Nothing is left, or there are too few groups for the split.
        OutputError: A file cannot be written.
    """
    if not samples:
        causes = "; ".join(f"{entry.file}: {entry.reason}" for entry in report.left_out[:3])
        raise DataError(f"Nothing is left to write ({causes}).", "Check the source folder and the options.")
    if options.fractions:
        parts = split_by_group([(s.label, s.group) for s in samples], options.fractions, options.seed)
        samples = [replace(sample, split=part) for sample, part in zip(samples, parts, strict=True)]
    report.count(samples)
    write_manifest(folder / MANIFEST, samples)
    report.write(folder / REPORT)
