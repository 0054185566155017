"""Claims on pieces of work that several processes share: a lock on a file, which the system drops if its holder dies.

A lock belongs to the open file, so nothing is left behind by a killed process that would have to be judged and
cleared. The file stays: removing it would let two processes lock two files of one name. Between machines this needs a
file system with locks (NFS has them, and Lustre if mounted with `flock`).
"""

from __future__ import annotations

import os
import socket
import sys
import time
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

from us_i2v.data.atomic import unwritable
from us_i2v.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

if sys.platform == "win32":
    import msvcrt

    def _lock(file: IO[str], *, shared: bool) -> None:
        # The byte lies behind the text, which others must be able to read.
        file.seek(1 << 20)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise BlockingIOError from error
else:
    import fcntl

    def _lock(file: IO[str], *, shared: bool) -> None:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)


CLAIM = "claim.txt"
"""Name of the file in a piece's folder; says who had it last."""


@contextmanager
def claim(folder: Path) -> Iterator[bool]:
    """Try to claim a folder, which is made; yield whether it is ours until the block ends. Raises `OutputError`."""
    path = folder / CLAIM
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise unwritable(path, error) from error
    with file:
        ours = _locked(file, path, shared=False)
        if ours:
            file.truncate(0)
            file.write(f"{socket.gethostname()} {os.getpid()}\n")
            file.flush()
        yield ours


@contextmanager
def alone(folder: Path, poll: float) -> Iterator[None]:
    """Wait until a folder is ours, looking every `poll` seconds, and keep it until the block ends."""
    while True:
        with claim(folder) as ours:
            if ours:
                yield
                return
        time.sleep(poll)


def is_claimed(folder: Path) -> bool:
    """Tell whether a living process holds a folder."""
    path = folder / CLAIM
    if not path.is_file():
        return False
    with path.open("r+", encoding="utf-8") as file:
        return not _locked(file, path, shared=True)


def _locked(file: IO[str], path: Path, *, shared: bool) -> bool:
    """Lock a file, unless another process holds it."""
    try:
        _lock(file, shared=shared)
    except BlockingIOError:
        return False
    except OSError as error:
        raise OutputError(
            f"'{path}' cannot be locked: {error.strerror}.", "Choose a folder on a file system with locks."
        ) from error
    return True
