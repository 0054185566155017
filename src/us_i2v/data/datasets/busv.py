"""BUSV (Lin et al. 2022, CVA-Net): 188 breast videos as folders of frames, with a lesion box in every frame.

    rawframes/{benign,malignant}/<video>/000000.png ...
    imagenet_vid_train_15frames.json, imagenet_vid_val.json   beside it or in annotations/, also with
                                                              `instances_` before the name, or as train.json, val.json

The annotation files are COCO's with videos: `images` have `id`, `file_name` ("benign/<video>/000000.png"), `height`
and `width`, `annotations` have `image_id` and `bbox` (x, y, width, height). Ids count within one file only. They
are optional: without them there are no boxes and no splits. The release states no frame rate and no patients:
every video is a group of its own, but for the erratum (`busv_erratum`), which is applied.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from us_i2v.data.boxes import BoundingBox, clean_box
from us_i2v.data.datasets.busv_erratum import ERRATUM, Video, correct
from us_i2v.data.decoding.folders import frame_files, natural_key
from us_i2v.data.manifest import Sample
from us_i2v.errors import DataError, InputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

FRAMES = "rawframes"
CLASSES = ("benign", "malignant")
ANNOTATIONS = "annotations"
SPLIT_FILES = {
    "train": ("*imagenet_vid_train_*frames.json", "train.json"),
    "val": ("*imagenet_vid_val.json", "val.json"),
}
"""Names of the annotation files, the first that is there counts."""

Boxes = dict[str, dict[str, tuple[BoundingBox, ...]]]
"""Boxes by video name ("class/id") and by the file name of the frame; frames without a box may be missing."""


@dataclass(frozen=True)
class Annotations:
    """What the annotation files say.

    Attributes:
        boxes: Lesions in pixels of the frame, cut at its edge; slips of less than a pixel are left out.
        splits: "train" or "val" by video name; a video that is in both is training's.
        files: The files that were read.
    """

    boxes: Boxes = field(default_factory=dict)
    splits: dict[str, str] = field(default_factory=dict)
    files: tuple[Path, ...] = ()


def detect(root: Path) -> bool:
    """Tell whether there is a `rawframes` folder with a class folder that holds folders of frames."""
    frames = _frames_folder(root)
    return frames is not None and any(
        frame_files(video) for folder in _class_folders(frames) for video in _folders(folder)[:3]
    )


def load(root: Path) -> list[Sample]:
    """List the videos as clips, the erratum applied, with the splits of the annotation files.

    A group whose videos are in both splits goes to "train". Raises `DataError` if an annotation file is damaged.
    """
    videos = correct(list_videos(root, read_annotations(root)), ERRATUM).videos
    return [Sample(video.folder, "clip", video.label, video.group, video.split) for video in settle_splits(videos)]


def list_videos(root: Path, annotations: Annotations) -> list[Video]:
    """List the videos as they lie on disk, benign ones first, in natural order."""
    frames = _frames_folder(root)
    if frames is None:
        return []
    videos = []
    for folder in _class_folders(frames):
        for video in _folders(folder):
            name = f"{folder.name.lower()}/{video.name}"
            if any(video.iterdir()):
                videos.append(
                    Video(name, video, folder.name.lower(), f"busv-{video.name}", annotations.splits.get(name))
                )
    return videos


def own_group(name: str) -> str:
    """Return the group of a video ("class/id") that nothing is known to belong to."""
    return f"busv-{name.rpartition('/')[2]}"


def frame_number(file: Path) -> int:
    """Return the number at the end of a frame's name, 12 for "000012.png"."""
    digits = re.search(r"(\d+)\)?$", file.stem)
    if digits is None:
        raise InputError(f"Frame '{file}' has no number.", "Name frames 000000.png, 000001.png and so on.")
    return int(digits[1])


def settle_splits(videos: Sequence[Video]) -> list[Video]:
    """Return the videos with every group in one split: "train" where a group was in both."""
    splits: dict[str, set[str]] = defaultdict(set)
    for video in videos:
        if video.split is not None:
            splits[video.group].add(video.split)
    return [
        replace(video, split="train" if "train" in splits[video.group] else video.split)
        if len(splits[video.group]) > 1
        else replace(video, split=next(iter(splits[video.group]), None))
        for video in videos
    ]


def read_annotations(root: Path) -> Annotations:
    """Read the annotation files that are there; raises `DataError` if one is damaged."""
    home = root.parent if root.name.lower() == FRAMES else root
    boxes: dict[str, dict[str, tuple[BoundingBox, ...]]] = defaultdict(dict)
    splits: dict[str, str] = {}
    files = []
    for split, patterns in SPLIT_FILES.items():
        path = _first_file(home, patterns)
        if path is not None:
            files.append(path)
            for (video, frame), found in _read_boxes(path).items():
                boxes[video][frame] = (*boxes[video].get(frame, ()), *found)
                splits.setdefault(video, split)
    return Annotations(dict(boxes), splits, tuple(files))


def _read_boxes(path: Path) -> dict[tuple[str, str], tuple[BoundingBox, ...]]:
    """Return the boxes of one annotation file by (video, frame file); frames without boxes have none."""
    content = _read_json(path)
    try:
        images = {image["id"]: image for image in content["images"]}
        places = {key: _place(str(image["file_name"])) for key, image in images.items()}
        found: dict[tuple[str, str], list[BoundingBox]] = {place: [] for place in places.values()}
        for annotation in content["annotations"]:
            key = annotation["image_id"]
            left, top, width, height = (float(value) for value in annotation["bbox"])
            size = (int(images[key]["height"]), int(images[key]["width"])) if "height" in images[key] else None
            box = clean_box(BoundingBox(left, top, width, height), size)
            if box is not None and box not in found[places[key]]:
                found[places[key]].append(box)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"Annotations '{path}' are not as COCO has them ({type(error).__name__}: {error}).",
            "Take the file of the release, or move it away to go without boxes.",
        ) from error
    return {place: tuple(boxes) for place, boxes in found.items()}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"Annotations '{path}' cannot be read: {error}.", "Copy the file again.") from error
    if not isinstance(content, dict):
        raise DataError(f"Annotations '{path}' hold no table.", "Take the file of the release.")
    return content


def _place(file_name: str) -> tuple[str, str]:
    """Turn "benign/x1/000000.png" into ("benign/x1", "000000.png"); folders before the class are left out."""
    parts = file_name.replace("\\", "/").split("/")
    if len(parts) < 3:
        raise ValueError(f"file_name '{file_name}' is not class/video/frame")
    return f"{parts[-3].lower()}/{parts[-2]}", parts[-1]


def _first_file(home: Path, patterns: Sequence[str]) -> Path | None:
    for pattern in patterns:
        for folder in (home, home / ANNOTATIONS):
            for path in sorted(folder.glob(pattern)):
                return path
    return None


def _frames_folder(root: Path) -> Path | None:
    if root.name.lower() == FRAMES and root.is_dir():
        return root
    return root / FRAMES if (root / FRAMES).is_dir() else None


def _class_folders(frames: Path) -> list[Path]:
    return [folder for folder in _folders(frames) if folder.name.lower() in CLASSES]


def _folders(folder: Path) -> list[Path]:
    found = [entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    return sorted(found, key=lambda entry: natural_key(entry.name))
