"""Eight small phantom clips of two classes, and data sets made of them, for tests of classifiers."""

from __future__ import annotations

import csv
from functools import cache
from typing import TYPE_CHECKING

from us_i2v.data.phantom.config import PhantomConfig, Scanner
from us_i2v.data.phantom.simulate import simulate
from us_i2v.data.writers import write_clip
from us_i2v.provenance import Provenance

if TYPE_CHECKING:
    from pathlib import Path

    from us_i2v.types import Frames

SIZE = 64
RECORD = Provenance(command="generate", still_sha256="12" * 32, weights_sha256="ab" * 32, seed=7)
LABELS = ("benign", "malignant")


@cache
def phantom_clips(each: int = 4) -> tuple[tuple[str, Frames], ...]:
    """(label, frames) of `each` clips a class, 18 frames of 64 x 64; fewer scatterers than usual, for speed."""
    scanner = Scanner(looks=1, scatterers_per_mm3=4.0)
    return tuple(
        (label, simulate(_config(label, scanner), seed).frames) for label in LABELS for seed in range(1, each + 1)
    )


def _config(label: str, scanner: Scanner) -> PhantomConfig:
    values = {"label": label, "size": (SIZE, SIZE), "n_frames": 18, "depth_mm": 20.0, "scanner": scanner}
    return PhantomConfig.parse(values, "phantom")


def write_real(folder: Path, *, splits: bool = True, ending: str = "npz") -> Path:
    """A data folder: of each class two training clips, one for validation, one for testing; a group each."""
    folder.mkdir(parents=True)
    rows = []
    for number, (label, frames) in enumerate(phantom_clips()):
        name = f"{label}_{number}.{ending}"
        write_clip(folder / name, frames, 20.0)
        split = ("train", "train", "val", "test")[number % 4] if splits else ""
        rows.append({"file": name, "label": label, "group": f"p{number}", "split": split})
    _write(folder, rows)
    return folder


def write_synthetic(folder: Path, rows: list[dict[str, str]], weights_sha256: str = "ab" * 32) -> Path:
    """A folder as `us-i2v augment` leaves it: clips of fake stills, 16 frames each, and their manifest.

    Args:
        folder: New folder.
        rows: "label" and "group" of each clip; "split", "source" and "source_sha256" if wanted.
        weights_sha256: The generator's.
    """
    folder.mkdir(parents=True)
    clips = {label: [frames for own, frames in phantom_clips() if own == label] for label in LABELS}
    written = []
    for number, row in enumerate(rows):
        name = f"{row['label']}_{number}.mp4"
        frames = clips.get(row["label"], clips["benign"])[number % 4]
        write_clip(folder / name, frames[16 - 1 :: -1], 20.0)
        still = row.get("source", f"still{number}.png")
        known = {"split": "", "source": still, "source_sha256": f"{still}-sha256", "weights_sha256": weights_sha256}
        written.append({"file": name} | known | row)
    _write(folder, written)
    return folder


def _write(folder: Path, rows: list[dict[str, str]]) -> None:
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
