"""manifest.csv: round trip, and errors that name line and column."""

from __future__ import annotations

from pathlib import Path

import pytest

from us_i2v.data.datasets import find_samples
from us_i2v.data.manifest import Sample, kind_of, read_manifest, write_manifest
from us_i2v.errors import DataError, OutputError

HEADER = "file,label,group,split,mask,fps,dt,note\n"


@pytest.fixture
def folder(tmp_path):
    """Files that exist; manifests never open them."""
    for name in ("a/x (1).png", "a/x (1)_mask.png", "a/x (1)_mask_1.png", "b/y,z.mp4", "b/ü.gif", "n.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def manifest(folder: Path, *lines: str, header: str = HEADER) -> Path:
    path = folder / "manifest.csv"
    path.write_text(header + "".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def test_rows_become_samples(folder):
    path = manifest(
        folder,
        "a/x (1).png,benign,p1,train,a/x (1)_mask.png;a/x (1)_mask_1.png,,,first",
        '"b/y,z.mp4",,,,,12.5,,',
        "",
        "b/ü.gif,c,p2,Validation,,,40,",
    )
    still, clip, gif = read_manifest(path)
    assert still == Sample(
        folder / "a/x (1).png",
        "still",
        "benign",
        "p1",
        "train",
        (folder / "a/x (1)_mask.png", folder / "a/x (1)_mask_1.png"),
    )
    assert (clip.kind, clip.label, clip.group, clip.split, clip.fps) == (
        "clip",
        None,
        "b/y,z.mp4",
        None,
        12.5,
    )
    assert (gif.kind, gif.split, gif.fps) == ("clip", "val", 25.0)


def test_round_trip_and_bytes(folder):
    samples = [
        Sample(folder / "a/x (1).png", "still", "benign", "p1", "train", (folder / "a/x (1)_mask.png",)),
        Sample(folder / "b/y,z.mp4", "clip", None, "p, 2", None, (), 12.345678901),
        Sample(folder / "b/ü.gif", "clip", "ü", "p3", "test"),
    ]
    write_manifest(folder / "manifest.csv", samples)
    first = (folder / "manifest.csv").read_bytes()
    assert read_manifest(folder / "manifest.csv") == samples
    write_manifest(folder / "manifest.csv", samples)
    assert (folder / "manifest.csv").read_bytes() == first
    assert b"\r" not in first


def test_a_byte_order_mark_is_no_problem(folder):
    path = folder / "manifest.csv"
    path.write_bytes(b"\xef\xbb\xbf" + b"file,label,group,split\nb/y.mp4,a,p,\n")
    (folder / "b/y.mp4").write_bytes(b"x")
    assert len(read_manifest(path)) == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a/none.png,b,p,,,,,", r"line 3, column 'file': 'a/none.png' does not exist"),
        (",b,p,,,,,", r"line 3, column 'file': '' is empty"),
        ("../x.png,b,p,,,,,", r"line 3, column 'file': '../x.png' leads out"),
        ("a/../../x.png,b,p,,,,,", r"column 'file': .* leads out"),
        ("/etc/passwd,b,p,,,,,", r"line 3, column 'file': '/etc/passwd' leads out"),
        ("C:\\x.png,b,p,,,,,", r"line 3, column 'file': .* leads out"),
        ("n.txt,b,p,,,,,", r"line 3, column 'file': 'n.txt' is neither a still nor a clip"),
        ("b/ü.gif,b,p,half,,,,", r"line 3, column 'split': 'half' is no split"),
        ("b/ü.gif,b,p,,a/none.png,,,", r"line 3, column 'mask': 'a/none.png' does not exist"),
        ("b/ü.gif,b,p,,n.txt;../m.png,,,", r"line 3, column 'mask': .* leads out"),
        ("b/ü.gif,b,p,,,fast,,", r"line 3, column 'fps': 'fast' is not a positive number"),
        ("b/ü.gif,b,p,,,-3,,", r"line 3, column 'fps': '-3' is not a positive number"),
        ("b/ü.gif,b,p,,,,nan,", r"line 3, column 'dt': 'nan' is not a positive number"),
        ("b/ü.gif,b,p,,,25,100,", r"line 3, column 'dt': '100' ms contradicts fps 25"),
        ('"b/y,z.mp4",b,p,,,,,', r"line 3, column 'file': 'b/y,z.mp4' was listed already in line 2"),
        ("b/y,z.mp4,b,p,,,,,,", r"line 3: more values than columns"),
    ],
)
def test_errors_name_line_and_column(folder, line, message):
    path = manifest(folder, '"b/y,z.mp4",a,p,,,,,', line)
    with pytest.raises(DataError, match=message) as caught:
        read_manifest(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("column", ["file", "label", "group", "split"])
def test_a_missing_column_is_named(folder, column):
    header = ",".join(name for name in ("file", "label", "group", "split") if name != column) + "\n"
    with pytest.raises(DataError, match=f"line 1: column '{column}' is missing"):
        read_manifest(manifest(folder, header=header))


def test_a_group_in_two_splits_is_named(folder):
    path = manifest(folder, "a/x (1).png,a,p1,train,,,,", "b/ü.gif,a,p1,test,,,,")
    with pytest.raises(DataError, match="Group 'p1' on both sides of a split"):
        find_samples(path)
    assert len(find_samples(path, check_groups=False)) == 2


def test_unreadable_manifests(folder):
    with pytest.raises(DataError, match="cannot be read"):
        read_manifest(folder / "none.csv")
    with pytest.raises(DataError, match="lists no files"):
        read_manifest(manifest(folder))
    (folder / "manifest.csv").write_bytes(b"")
    with pytest.raises(DataError, match="line 1: column 'file' is missing"):
        read_manifest(folder / "manifest.csv")
    (folder / "manifest.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="not UTF-8"):
        read_manifest(folder / "manifest.csv")
    (folder / "manifest.csv").write_bytes(HEADER.encode() + b"a" * 200_000 + b",b,c,,\n")
    with pytest.raises(DataError, match="field larger"):
        read_manifest(folder / "manifest.csv")


def test_files_outside_cannot_be_listed(folder, tmp_path_factory):
    outside = Sample(tmp_path_factory.mktemp("other") / "a.png", "still", None, "p")
    with pytest.raises(DataError, match="is not inside"):
        write_manifest(folder / "manifest.csv", [outside])
    assert not (folder / "manifest.csv").exists()


def test_an_unwritable_place(folder):
    with pytest.raises(OutputError, match="cannot be written"):
        write_manifest(folder / "n.txt" / "manifest.csv", [])


def test_kinds(folder):
    assert kind_of(folder / "A.PNG") == "still"
    assert kind_of(folder / "a.MP4") == "clip"
    assert kind_of(folder / "a.gif") == "clip"
    assert kind_of(folder / "a.txt") is None
    assert kind_of(folder / "b") is None
