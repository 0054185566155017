"""BUSV's layout, its annotation files and its erratum."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.data.busv_folder import write_annotations, write_busv, write_video
from us_i2v.data.boxes import BoundingBox
from us_i2v.data.clips import open_clip
from us_i2v.data.datasets import find_samples
from us_i2v.data.datasets.busv import detect, frame_number, list_videos, load, read_annotations
from us_i2v.data.datasets.busv_erratum import ERRATUM, Correction, Video, correct, read_corrections, video_key
from us_i2v.errors import DataError, InputError

PATIENT = "busv-patient-of-x63c9ba1377f35bf6"


def test_the_layout_applies_the_erratum(tmp_path: Path) -> None:
    samples = load(write_busv(tmp_path))
    found = {s.path.relative_to(tmp_path / "rawframes").as_posix(): (s.label, s.group, s.split) for s in samples}
    assert found == {
        "benign/x5a1c46ec6377e946": ("malignant", PATIENT, "train"),
        "benign/x63c9ba1377f35bf6": ("malignant", PATIENT, "train"),
        "benign/xa": ("benign", "busv-xa", "train"),
        "benign/xb": ("benign", "busv-xb", "train"),
        "malignant/x3b88488853e8b7d1": ("malignant", "busv-x3b88488853e8b7d1", "train"),
        # The annotation files have this one in the validation split, the rest of the patient in training.
        "malignant/2390fbea047347b": ("malignant", PATIENT, "train"),
        "malignant/7a39ab5d4970bf89": ("malignant", PATIENT, "train"),
        "malignant/xc": ("malignant", "busv-xc", "train"),
        "malignant/xd": ("malignant", "busv-xd", "val"),
    }
    assert {s.kind for s in samples} == {"clip"}
    assert open_clip(tmp_path / "rawframes" / "benign" / "xa").n_frames == 20
    assert load(tmp_path / "rawframes") == samples


def test_without_annotation_files_there_are_no_splits(tmp_path: Path) -> None:
    for path in write_busv(tmp_path).glob("*.json"):
        path.unlink()
    samples = find_samples(tmp_path)
    assert len(samples) == 9
    assert {sample.split for sample in samples} == {None}
    assert read_annotations(tmp_path).files == ()


@pytest.mark.parametrize("name", ["annotations/instances_imagenet_vid_train_15frames.json", "train.json"])
def test_other_places_of_the_annotation_files(tmp_path: Path, name: str) -> None:
    write_annotations(tmp_path / name, {"benign/x1": {0: [[1, 2, 3, 4]]}})
    annotations = read_annotations(tmp_path)
    assert annotations.boxes == {"benign/x1": {"000000.png": (BoundingBox(1, 2, 3, 4),)}}
    assert annotations.splits == {"benign/x1": "train"}


def test_boxes_are_cleaned_and_ids_count_within_a_file(tmp_path: Path) -> None:
    box = [10, 10, 20, 20]
    write_annotations(
        tmp_path / "imagenet_vid_train_15frames.json",
        {"benign/x1": {0: [box, box, [30, 20, -10, 5], [70, 50, 90, 90], [5, 5, 0, 9]], 1: []}},
    )
    write_annotations(tmp_path / "imagenet_vid_val.json", {"malignant/x2": {0: [[1, 1, 2, 2]]}})
    annotations = read_annotations(tmp_path)
    assert annotations.boxes["benign/x1"] == {
        "000000.png": (BoundingBox(10, 10, 20, 20), BoundingBox(20, 20, 10, 5), BoundingBox(70, 50, 10, 14)),
        "000001.png": (),
    }
    assert annotations.boxes["malignant/x2"] == {"000000.png": (BoundingBox(1, 1, 2, 2),)}
    assert annotations.splits == {"benign/x1": "train", "malignant/x2": "val"}


@pytest.mark.parametrize(
    "content",
    ["{", "[]", "{}", '{"images": [{"id": 1, "file_name": "a.png"}], "annotations": []}',
     '{"images": [], "annotations": [{"image_id": 1, "bbox": [1, 2, 3, 4]}]}',
     '{"images": [{"id": 1, "file_name": "benign/x/0.png"}], "annotations": [{"image_id": 1, "bbox": [1, 2]}]}'],
)  # fmt: skip
def test_damaged_annotation_files_are_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "imagenet_vid_val.json").write_text(content)
    with pytest.raises(DataError, match=r"imagenet_vid_val\.json"):
        read_annotations(tmp_path)


def test_detection_needs_frames(tmp_path: Path) -> None:
    assert not detect(tmp_path)
    (tmp_path / "rawframes" / "benign" / "x1").mkdir(parents=True)
    assert not detect(tmp_path)
    write_video(tmp_path, "malignant/x2", [0, 1], 1)
    assert detect(tmp_path)
    assert [video.name for video in list_videos(tmp_path, read_annotations(tmp_path))] == ["malignant/x2"]


def test_frame_numbers() -> None:
    assert [frame_number(Path(name)) for name in ("000012.png", "img_7.jpg", "a (3).png")] == [12, 7, 3]
    with pytest.raises(InputError, match="no number"):
        frame_number(Path("last.png"))


def video(name: str, label: str = "benign") -> Video:
    return Video(name, Path(name), label, f"own-{name}")


def test_the_erratum_finds_its_videos_in_every_spelling() -> None:
    assert video_key("benign/x63C9BA1377F35BF6") == video_key("63c9ba1377f35bf6") == video_key("a\\x63c9ba1377f35bf6")
    result = correct([video("malignant/x2390fbea047347b", "malignant"), video("benign/63c9ba1377f35bf6")], ERRATUM)
    assert [(v.label, v.group) for v in result.videos] == [("malignant", PATIENT)] * 2
    assert {video_key(c.video) for c in result.missing} == {
        "66ef02e7f1b9a0ef", "5a1c46ec6377e946", "7a39ab5d4970bf89",
    }  # fmt: skip
    assert result.dropped == []


def test_one_id_in_two_classes_is_told_apart() -> None:
    videos = [video("benign/x1"), video("malignant/x1", "malignant")]
    result = correct(videos, [Correction("benign/x1", "drop", "why")])
    assert (result.videos, result.dropped) == ([videos[1]], [("benign/x1", "why")])
    assert correct(videos, [Correction("x1", "drop", "")]).videos == []


def test_later_corrections_win() -> None:
    steps = [
        Correction("x1", "label", "malignant"),
        Correction("x1", "label", "normal"),
        Correction("x1", "group", "g"),
    ]
    (one,) = correct([video("benign/x1")], steps).videos
    assert (one.label, one.group, one.name) == ("normal", "g", "benign/x1")


def test_corrections_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "more.csv"
    path.write_text("video,action,value,note\nbenign/xa,Label,malignant,seen\nxb,drop,,\n\n")
    assert read_corrections(path) == [Correction("benign/xa", "label", "malignant"), Correction("xb", "drop", "")]
    for line, said in [
        (",drop,", "line 2, column 'video'"),
        ("xa,remove,", "'remove' is unknown"),
        ("xa,label,", "column 'value'"),
    ]:
        path.write_text(f"video,action,value\n{line}\n")
        with pytest.raises(DataError, match=said):
            read_corrections(path)


def test_a_video_in_both_annotation_files_is_trainings(tmp_path: Path) -> None:
    root = write_busv(tmp_path)
    shutil.copy(root / "imagenet_vid_val.json", root / "val.json")
    content = json.loads((root / "imagenet_vid_train_15frames.json").read_text())
    extra = json.loads((root / "imagenet_vid_val.json").read_text())
    image = next(image for image in extra["images"] if "xd" in image["file_name"])
    content["images"].append({**image, "id": 10_000})
    (root / "imagenet_vid_train_15frames.json").write_text(json.dumps(content))
    splits = {sample.path.name: sample.split for sample in load(root)}
    assert splits["xd"] == "train"
