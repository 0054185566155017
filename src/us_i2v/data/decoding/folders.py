"""Folders of numbered frames: frame_0000.png, frame_0001.png ... in natural order.

All frames must have one size. The rate comes from `clip.json` beside the frames ({"fps": 25.0}), which our
writer adds; other folders say nothing about time. Frame colour is judged on up to nine frames spread evenly.
"""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING

from us_i2v.data.decoding.base import ClipInfo, as_declared
from us_i2v.data.limits import check_frames
from us_i2v.data.stills import STILL_SUFFIXES, read_still, still_size
from us_i2v.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from us_i2v.types import Image

SIDECAR = "clip.json"
_NUMBERED = re.compile(r"^(.*?)(\d+)\)?$")
_COLOUR_PROBES = 9


class FolderSource:
    """A folder of frames."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def scan(self) -> ClipInfo:
        """Check the sizes of all frames by their headers."""
        files = frame_files(self.path)
        if not files:
            raise InputError(
                f"Folder '{self.path}' holds no numbered frames.",
                "Name them frame_0000.png, frame_0001.png and so on.",
            )
        check_frames(self.path, len(files))
        size = still_size(files[0])
        for file in files[1:]:
            other = still_size(file)
            if other != size:
                raise InputError(
                    f"Frame '{file}' is {other[1]}x{other[0]} pixels, the first one {size[1]}x{size[0]}.",
                    "All frames of a clip must have one size.",
                )
        probes = sorted({round(i * (len(files) - 1) / (_COLOUR_PROBES - 1)) for i in range(_COLOUR_PROBES)})
        colour = any(read_still(files[index]).ndim == 3 for index in probes)
        return ClipInfo(len(files), size, _sidecar_fps(self.path), colour, size)

    def stream(self, info: ClipInfo, first: int, last: int, step: int) -> Iterator[Image]:
        """Yield frames first, first + step, ... <= last; other files are not opened."""
        files = frame_files(self.path)
        for index in range(first, min(last, len(files) - 1) + 1, step):
            yield as_declared(read_still(files[index]), info.colour)


def natural_key(text: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key that orders numbers inside names by value: frame 2 before frame 10."""
    parts = re.split(r"(\d+)", text)
    return tuple((1, int(part), part) if part.isdigit() else (0, 0, part) for part in parts)


def frame_files(folder: Path) -> list[Path]:
    """Return the folder's frames in natural order, or [] if its pictures are not one numbered series."""
    pictures = [file for file in folder.iterdir() if is_picture(file)]
    matches = [_NUMBERED.match(file.stem) for file in pictures]
    prefixes = {match.group(1) if match else None for match in matches}
    if len(prefixes) != 1 or None in prefixes:
        return []
    return sorted(pictures, key=lambda file: natural_key(file.name))


def is_picture(file: Path) -> bool:
    """Tell whether an entry of a folder is a visible still by its ending."""
    return file.suffix.lower() in STILL_SUFFIXES and not file.name.startswith(".") and file.is_file()


def is_frame_folder(folder: Path) -> bool:
    """Tell whether a folder is surely one clip: it holds `clip.json`, or a series named "frame...".

    Numbered pictures alone do not make a clip: data sets number their stills too.
    """
    if not folder.is_dir():
        return False
    files = frame_files(folder)
    return bool(files) and ((folder / SIDECAR).is_file() or files[0].stem.lower().startswith("frame"))


def _sidecar_fps(folder: Path) -> float | None:
    path = folder / SIDECAR
    if not path.exists():
        return None
    try:
        fps = float(json.loads(path.read_text(encoding="utf-8"))["fps"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise InputError(f"'{path}' does not state a frame rate.", 'Write {"fps": 25.0} or delete it.') from error
    if not math.isfinite(fps) or fps <= 0:
        raise InputError(f"'{path}' states fps = {fps:g}; a positive number is needed.", "Correct or delete it.")
    return fps
