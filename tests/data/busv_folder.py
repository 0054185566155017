"""A small data set in BUSV's layout."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image as PillowImage

from tests.data.textures import scan

SIZE = (64, 80)


def write_video(root: Path, name: str, numbers: Sequence[int], seed: int) -> None:
    """Write frames of one scan, each with a little noise of its own, as rawframes/NAME/000012.png."""
    folder = root / "rawframes" / name
    folder.mkdir(parents=True, exist_ok=True)
    still = scan(seed, *SIZE).astype(np.int16)
    for number in numbers:
        rng = np.random.Generator(np.random.PCG64(seed * 1000 + number))
        frame = np.clip(still + rng.integers(-3, 4, SIZE), 0, 255).astype(np.uint8)
        PillowImage.fromarray(frame).save(folder / f"{number:06d}.png")


def write_annotations(path: Path, boxes: Mapping[str, Mapping[int, Sequence[Sequence[float]]]]) -> None:
    """Write a COCO-like file: boxes (x, y, width, height) by video name and frame number."""
    images: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    videos = [{"id": index, "name": name} for index, name in enumerate(boxes, 1)]
    for video, (name, frames) in enumerate(boxes.items(), 1):
        for frame, found in frames.items():
            images.append(
                {
                    "id": len(images) + 1,
                    "file_name": f"{name}/{frame:06d}.png",
                    "height": SIZE[0],
                    "width": SIZE[1],
                    "frame_id": frame,
                    "video_id": video,
                    "is_vid_train_frame": True,
                }
            )
            for box in found:
                annotations.append(
                    {"id": len(annotations) + 1, "image_id": len(images), "category_id": 1, "bbox": list(box)}
                )
    categories = [{"id": 1, "name": "benign"}, {"id": 2, "name": "malignant"}]
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"categories": categories, "videos": videos, "images": images, "annotations": annotations}
    path.write_text(json.dumps(content))


STILL_BOX = [30.0, 20.0, 20.0, 16.0]


def write_busv(root: Path) -> Path:
    """Write ten videos: the erratum's five, the original of its copy, and four others.

    a: 20 frames, box at rest; b: frames 0-9 and 12-31 (a gap); c: like a, in the other class;
    d: two lesions in every frame, no stable stretch.
    """
    plan = {
        "benign/x66ef02e7f1b9a0ef": (range(4), 1),
        "malignant/x3b88488853e8b7d1": (range(4), 1),
        "benign/x63c9ba1377f35bf6": (range(3), 2),
        "benign/x5a1c46ec6377e946": (range(3), 3),
        "malignant/2390fbea047347b": (range(3), 4),
        "malignant/7a39ab5d4970bf89": (range(3), 5),
        "benign/xa": (range(20), 6),
        "benign/xb": ([*range(10), *range(12, 32)], 7),
        "malignant/xc": (range(20), 8),
        "malignant/xd": (range(16), 9),
    }
    for name, (numbers, seed) in plan.items():
        write_video(root, name, list(numbers), seed)
    boxes = {name: {number: [STILL_BOX] for number in numbers} for name, (numbers, _) in plan.items()}
    boxes["malignant/xd"] = {number: [STILL_BOX, [2.0, 2.0, 9.0, 9.0]] for number in range(16)}
    held_out = {"malignant/2390fbea047347b", "malignant/xd"}
    training = {name: frames for name, frames in boxes.items() if name not in held_out}
    write_annotations(root / "imagenet_vid_train_15frames.json", training)
    write_annotations(root / "imagenet_vid_val.json", {name: boxes[name] for name in held_out})
    return root
