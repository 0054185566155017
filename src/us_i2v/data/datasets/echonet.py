"""EchoNet's layout (Ouyang et al. 2020): `FileList.csv` with one line a video, and the videos in `Videos`.

| column | use |
|---|---|
| FileName | the video, with or without its ending .avi |
| Split | TRAIN, VAL or TEST in any case; numbers (the folds of EchoNet-Pediatric) and nothing mean no split |
| FPS | optional: frames per second |
| PatientID | optional: the group; without it every video is a group of its own, as in EchoNet-Dynamic |

Measurements (EF, ESV, EDV) are no classes: `label` stays empty. Other columns are ignored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from us_i2v.data.manifest import SPLITS, Sample
from us_i2v.data.tables import read_rows

if TYPE_CHECKING:
    from pathlib import Path

    from us_i2v.data.tables import Row

FILE_LIST = "FileList.csv"
VIDEOS = "Videos"
ENDING = ".avi"


def detect(root: Path) -> bool:
    """Tell whether the folder has a file list and videos."""
    return (root / FILE_LIST).is_file() and (root / VIDEOS).is_dir()


def load(root: Path) -> list[Sample]:
    """List the videos in the order of the file list.

    Raises:
        DataError: Names the line and the column that is wrong.
    """
    samples = []
    lines: dict[Path, int] = {}
    for row in read_rows(root / FILE_LIST, "File list", ("FileName",)):
        sample = _sample(row, root / VIDEOS)
        if sample.path in lines:
            raise row.error("FileName", f"was listed already in line {lines[sample.path]}", "List every video once")
        lines[sample.path] = row.line
        samples.append(sample)
    return samples


def _sample(row: Row, videos: Path) -> Sample:
    name = row.text("FileName")
    if not name:
        raise row.error("FileName", "is empty", "Name a video, or remove the line")
    path = row.existing("FileName", name if name.lower().endswith(ENDING) else name + ENDING, videos)
    split = row.text("Split").lower()
    if split.isdecimal():
        split = ""
    if split and split not in SPLITS:
        raise row.error("Split", "is no split", f"Use {', '.join(SPLITS).upper()}")
    return Sample(path, "clip", None, row.text("PatientID") or path.stem, split or None, fps=row.number("FPS"))
