"""A text file that is written once, by whoever is first of several processes on several machines.

A finished file is given its name by a hard link, which fails where the name is taken. File systems without links (FAT,
some network shares) can still rename a folder, which fails where the new name is a folder that holds something: the
first to put its folder there has won, and whoever finds it carries the file in it on to its place. In both ways the
file is there whole or not at all, and a process that is killed holds up no other.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from us_i2v.errors import OutputError


def write_once(path: Path, text: str, staging: Path) -> None:
    """Write a text file unless there is one; that of the first writer stays.

    Args:
        path: Where to.
        text: What this process would write.
        staging: Folder of this process alone, on the same file system.

    Raises:
        OutputError: The file cannot be written.
    """
    staged = staging / path.name
    try:
        staged.write_text(text, encoding="utf-8", newline="\n")
        try:
            os.link(staged, path)
        except FileExistsError:
            pass
        except OSError:
            _by_folder(staged, path)
        staged.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"Cannot write '{path}': {error.strerror or error}.", "Check the path and the free space."
        ) from error


def _by_folder(staged: Path, path: Path) -> None:
    own, first = staged.with_name(f"{path.name}.first"), path.with_name(f".{path.name}.first")
    own.mkdir(exist_ok=True)
    staged.replace(own / path.name)
    try:
        own.rename(first)
    except OSError:
        if not first.exists() and not path.exists():
            raise
        shutil.rmtree(own)
    # The winner's folder goes when its file is in place, so a later winner finds a file, and leaves it alone.
    with suppress(FileNotFoundError):
        if not path.exists():
            shutil.copyfile(first / path.name, staged)
            staged.replace(path)
    shutil.rmtree(first, ignore_errors=True)
    if not path.exists():
        raise FileNotFoundError(f"'{path.name}' went away")
