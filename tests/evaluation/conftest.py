"""Small data sets on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.evaluation.sets import drifting
from us_i2v.data.writers import write_clip
from us_i2v.types import Frames

WriteClips = Callable[..., Path]


@pytest.fixture
def write_clips(tmp_path: Path) -> WriteClips:
    """Write clips `{name: frames}` and, with `groups`, a manifest; return the folder."""

    def write(
        folder: str,
        clips: dict[str, Frames],
        groups: dict[str, str] | None = None,
        column: tuple[str, dict[str, str]] | None = None,
        splits: dict[str, str] | None = None,
    ) -> Path:
        root = tmp_path / folder
        for name, frames in clips.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            write_clip(root / name, frames, 20.0)
        if groups is not None:
            header = "file,label,group,split" + (f",{column[0]}" if column else "")
            rows = []
            for name in clips:
                row = [name, "", groups.get(name, ""), (splits or {}).get(name, "")]
                rows.append(",".join(row + ([column[1].get(name, "")] if column else [])))
            (root / "manifest.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
        return root

    return write


@pytest.fixture(scope="session")
def moving() -> list[Frames]:
    """Eight clips of 16 x 64 x 64."""
    return [drifting(k) for k in range(8)]


def counted(frames: int, first: int = 20, side: int = 32) -> Frames:
    """A clip whose frame t has the gray level first + t everywhere but for a little texture."""
    texture = np.random.default_rng(0).integers(0, 2, (side, side))
    return np.stack([np.full((side, side), first + t) + texture for t in range(frames)]).astype(np.uint8)
