"""Real clips for the tests that have them."""

from __future__ import annotations

from pathlib import Path

from us_i2v.data.clips import open_clip
from us_i2v.types import Frames

BLANK = 3.0
"""Standard deviation in gray levels below which a frame shows nothing (some files start black)."""


def lung_clips(shared_data: Path, count: int) -> list[Frames]:
    """Frames 0, 3 .. 45 of one recording each of the first patients (file names are patient_site)."""
    clips: list[Frames] = []
    seen: set[str] = set()
    for path in sorted((shared_data / "data" / "videos" / "lung_blues").glob("*.mp4")):
        patient = path.stem.rpartition("_")[0]
        if patient in seen or len(clips) == count:
            continue
        seen.add(patient)
        reader = open_clip(path)
        if reader.n_frames > 45:
            frames = reader.read(range(0, 48, 3))
            if frames[0].std() > BLANK:
                clips.append(frames)
    assert len(clips) == count
    return clips
