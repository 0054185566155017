"""EchoNet's layout."""

from __future__ import annotations

from pathlib import Path

import pytest

from us_i2v.data.datasets import find_samples
from us_i2v.data.datasets.echonet import detect, load
from us_i2v.errors import DataError

HEADER = "FileName,EF,ESV,EDV,FrameHeight,FrameWidth,FPS,NumberOfFrames,Split"


def write_echonet(root: Path, header: str = HEADER, lines: tuple[str, ...] = ()) -> Path:
    """Four videos (empty files: listing opens none) with a file list."""
    (root / "Videos").mkdir(parents=True)
    for name in ("0X10", "0X2", "0X3", "0X4"):
        (root / "Videos" / f"{name}.avi").write_bytes(b"")
    rows = lines or (
        "0X10,57.1,40,95,112,112,50,120,TRAIN",
        "0X2.avi,30.0,90,120,112,112,30,60,VAL",
        "0X3,61.5,30,80,112,112,,60,test",
        "0X4,61.5,30,80,112,112,32.5,60,",
    )
    (root / "FileList.csv").write_text("\n".join([header, *rows]) + "\n")
    return root


def test_the_file_list_is_followed(tmp_path: Path) -> None:
    root = write_echonet(tmp_path)
    assert detect(root)
    samples = find_samples(root)
    assert [(s.path.name, s.kind, s.label, s.group, s.split, s.fps) for s in samples] == [
        ("0X10.avi", "clip", None, "0X10", "train", 50.0),
        ("0X2.avi", "clip", None, "0X2", "val", 30.0),
        ("0X3.avi", "clip", None, "0X3", "test", None),
        ("0X4.avi", "clip", None, "0X4", None, 32.5),
    ]


def test_patients_are_groups_and_folds_are_no_splits(tmp_path: Path) -> None:
    root = write_echonet(tmp_path, "FileName,PatientID,Split", ("0X10,p1,0", "0X2,p1,9", "0X3,,3"))
    assert [(s.group, s.split) for s in load(root)] == [("p1", None), ("p1", None), ("0X3", None)]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("0X9,p,TRAIN", "line 3, column 'FileName': '0X9' does not exist"),
        (",p,TRAIN", "line 3, column 'FileName': '' is empty"),
        ("../FileList.csv,p,TRAIN", "leads out of"),
        ("0X2,p,HELDOUT", "column 'Split': 'HELDOUT' is no split"),
        ("0X10,p,TRAIN", "listed already in line 2"),
        ("0X2,p,VAL,1", "more values than columns"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, line: str, said: str) -> None:
    root = write_echonet(tmp_path, "FileName,PatientID,Split", ("0X10,p1,TRAIN", line))
    with pytest.raises(DataError, match=said):
        load(root)


def test_a_patient_in_two_splits_is_named(tmp_path: Path) -> None:
    root = write_echonet(tmp_path, "FileName,PatientID,Split", ("0X10,p1,TRAIN", "0X2,p1,VAL"))
    with pytest.raises(DataError, match="Group 'p1' on both sides"):
        find_samples(root)


def test_a_file_list_without_names_is_refused(tmp_path: Path) -> None:
    root = write_echonet(tmp_path, "Name,Split", ("0X10,TRAIN",))
    with pytest.raises(DataError, match="column 'FileName' is missing"):
        load(root)
