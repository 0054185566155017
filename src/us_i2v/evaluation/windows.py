"""Which frames of which files are compared: data sets are listed and clips cut into windows.

A clip of exactly `length` frames is a window already. A longer one is cut: repeated frames dropped, every
`stride`-th frame (or one every `dt_s` seconds), windows spread evenly and without overlap.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from us_i2v.config import Config
from us_i2v.data.datasets import find_samples
from us_i2v.data.windows import Window, windows_by_stride, windows_by_time
from us_i2v.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from us_i2v.data.manifest import Sample


class WindowRule(Config):
    """How clips are cut into windows."""

    length: int = Field(16, ge=3, le=512, description="Frames a window.")
    stride: int = Field(3, ge=1, description="Every N-th frame; the paper's 48 frames at 3.")
    dt_s: float | None = Field(None, gt=0, description="Seconds between frames, instead of the stride.")
    per_clip: int = Field(1, ge=1, description="Windows a clip at most; one lies in the middle.")
    size: int = Field(128, ge=48, le=1024, description="Side S of the compared frames in pixels.")
    drop_repeats: bool = Field(True, description="Drop repeated frames before cutting.")


@dataclass(frozen=True)
class Entry:
    """One window, not yet read.

    Attributes:
        name: Unique in its set: path below the root without its ending, and "@start" if a clip has several.
        group: See `ClipSet`.
        source: See `ClipSet`.
        path: The clip.
        indices: Its frames.
        interval_s: Time between them in seconds.
        native: (height, width) of the clip.
    """

    name: str
    group: str
    source: str
    path: Path
    indices: tuple[int, ...]
    interval_s: float
    native: tuple[int, int]


def windows(n: int, fps: float, rule: WindowRule, *, whole: bool = False) -> list[Window]:
    """Return every window of n frames, at each possible start; all of them as one if `whole`."""
    if whole:
        return windows_by_stride(n, rule.length, 1, fps=fps)
    if rule.dt_s is not None:
        return windows_by_time(n, fps, rule.dt_s, rule.length, 1)
    return windows_by_stride(n, rule.length, rule.stride, 1, fps=fps)


def spread(found: Sequence[Window], count: int) -> list[Window]:
    """Choose up to `count` windows without overlap, evenly spread; a single one is the middle one."""
    if not found:
        return []
    last = len(found) - 1
    span = found[0].indices[-1] - found[0].indices[0] + 1
    count = min(count, 1 + last // span)
    if count == 1:
        return [found[last // 2]]
    return [found[int(start)] for start in np.linspace(0, last, count).round()]


def list_samples(paths: Sequence[Path], split: str | None = None) -> tuple[list[tuple[str, Sample]], Path | None]:
    """Return (source, sample) of all clips, and the folder that names are relative to (None for several paths).

    Raises:
        DataError: A path holds no clips, or none of the split.
    """
    found: list[tuple[str, Sample]] = []
    for path in paths:
        root = path.parent if path.is_file() else path
        clips = [sample for sample in find_samples(path) if sample.kind == "clip"]
        if not clips:
            raise DataError(f"'{path}' holds no clips.", "Give a folder of clips or a manifest that lists them.")
        chosen = [sample for sample in clips if split is None or sample.split == split]
        if not chosen:
            known = ", ".join(sorted({sample.split for sample in clips if sample.split})) or "none"
            raise DataError(f"'{path}' holds no clips of split '{split}' (it has: {known}).", "Leave --split out.")
        inner = [_first_folder(sample.path, root) for sample in chosen]
        several = len(paths) == 1 and len(set(inner)) > 1
        own = root.resolve().name
        found += [((folder or own) if several else own, sample) for folder, sample in zip(inner, chosen, strict=True)]
    only = paths[0] if len(paths) == 1 else None
    return found, only.parent if only is not None and only.is_file() else only


def clip_name(path: Path, root: Path | None) -> str:
    """Return a clip's path below `root` without its ending; with its folder's name if there is no root."""
    if root is None:
        return f"{path.parent.parent.name}/{path.parent.name}/{path.stem}"
    if path == root:
        return path.name
    relative = path.relative_to(root)
    return (relative if path.is_dir() else relative.with_suffix("")).as_posix()


def _first_folder(path: Path, root: Path) -> str:
    parts = path.relative_to(root).parts if path != root else ()
    return parts[0] if len(parts) > 1 else ""
