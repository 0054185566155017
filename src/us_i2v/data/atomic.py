"""Writing without halves: under a temporary name beside the target, renamed when complete."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from us_i2v.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def temporary_beside(path: Path) -> Iterator[Path]:
    """Give a free name in the folder of `path`, with its ending, and make that folder if need be.

    Whatever is still there under that name afterwards is removed; if the body fails, so are the folders
    that were made. Raises `OutputError` where nothing can be written.
    """
    made = [folder for folder in path.parents if not folder.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = _free_name(path.parent, path)
    except OSError as error:
        _remove_empty(made)
        raise unwritable(path, error) from error
    try:
        yield part
    except BaseException:
        _remove(part)
        _remove_empty(made)
        raise
    _remove(part)


def publish(part: Path, path: Path) -> None:
    """Rename a finished temporary file to its target; raises `OutputError`."""
    try:
        part.replace(path)
    except OSError as error:
        raise unwritable(path, error) from error


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file atomically; raises `OutputError` where that is not possible."""
    with temporary_beside(path) as part:
        try:
            part.write_bytes(content)
        except OSError as error:
            raise unwritable(path, error) from error
        publish(part, path)


def check_writable(path: Path) -> None:
    """Raise `OutputError` unless something can be written at `path`; makes no folders."""
    folder = next((parent for parent in path.parents if parent.exists()), Path())
    try:
        _free_name(folder, path)
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: Path, error: OSError) -> OutputError:
    """Return the error for a target that the system refuses."""
    reason = error.strerror or type(error).__name__
    return OutputError(f"'{path}' cannot be written: {reason}.", "Choose another place, or check space and rights.")


def _free_name(folder: Path, path: Path) -> Path:
    handle, name = tempfile.mkstemp(prefix=f".{path.stem[:80]}.", suffix=f".part{path.suffix.lower()}", dir=folder)
    os.close(handle)
    # The writers make the file anew, with the rights that the user's umask gives.
    Path(name).unlink()
    return Path(name)


def _remove(part: Path) -> None:
    if part.is_dir():
        shutil.rmtree(part, ignore_errors=True)
    else:
        part.unlink(missing_ok=True)


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()
