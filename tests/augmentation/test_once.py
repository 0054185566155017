"""A file that several write at once is that of the first, whole, with and without hard links."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from us_i2v.augmentation import once
from us_i2v.augmentation.once import write_once
from us_i2v.errors import OutputError

WRITERS = 8


@pytest.fixture(params=["links", "no links"])
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file system with hard links, or one that refuses them."""
    if request.param == "no links":

        def refuse(*_given: object) -> None:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

        monkeypatch.setattr(once.os, "link", refuse)
    return str(request.param)


def staging(root: Path, name: str) -> Path:
    folder = root / f".partial-{name}"
    folder.mkdir()
    return folder


def test_what_is_there_stays(system: str, tmp_path: Path) -> None:
    own = staging(tmp_path, "a")
    write_once(tmp_path / "x.csv", "first\n", own)
    write_once(tmp_path / "x.csv", "second\n", own)
    assert (tmp_path / "x.csv").read_bytes() == b"first\n"
    assert list(own.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == [".partial-a", "x.csv"]


def test_one_of_many_wins_and_all_see_it_whole(system: str, tmp_path: Path) -> None:
    texts = {str(k): f"{k}\n" * 50_000 for k in range(WRITERS)}
    together, seen = threading.Barrier(WRITERS), {}

    def write(name: str) -> None:
        own = staging(tmp_path, name)
        together.wait(60)
        write_once(tmp_path / "x.csv", texts[name], own)
        seen[name] = (tmp_path / "x.csv").read_text()

    writers = [threading.Thread(target=write, args=(name,)) for name in texts]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert len(seen) == WRITERS
    assert len(set(seen.values())) == 1
    assert seen["0"] in texts.values()
    assert not (tmp_path / ".x.csv.first").exists()


@pytest.mark.parametrize("system", ["no links"], indirect=True)
def test_a_winner_that_was_killed_has_decided(system: str, tmp_path: Path) -> None:
    """It has put its folder there and died before the file was in place."""
    (tmp_path / ".x.csv.first").mkdir()
    (tmp_path / ".x.csv.first" / "x.csv").write_text("first\n")
    write_once(tmp_path / "x.csv", "second\n", staging(tmp_path, "a"))
    assert (tmp_path / "x.csv").read_text() == "first\n"
    assert not (tmp_path / ".x.csv.first").exists()


def test_no_folder_is_one_error(system: str, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"Cannot write '.*x\.csv'"):
        write_once(tmp_path / "none" / "x.csv", "text", staging(tmp_path, "a"))
