"""Data folders whose samples say their split: as given, or linked into new folders and divided by group."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from us_i2v.data.datasets import find_samples
from us_i2v.data.manifest import MANIFEST, write_manifest
from us_i2v.data.splits import split_by_group
from us_i2v.errors import DataError, OutputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from us_i2v.data.manifest import Sample


def divided(data: Sequence[Path], out: Path, training_share: float, seed: int) -> list[Path]:
    """Return folders with the same clips, every sample in "train", "val" or "test".

    A folder that states splits is returned as it is. Another gets a folder of links in `out`, its groups divided
    into training and test by `training_share`, stratified by label.

    Args:
        data: Data folders.
        out: Where new folders go; one that is there already is used again.
        training_share: Share of training groups, in 0..1.
        seed: Chooses the groups.

    Raises:
        DataError: A folder holds no clips, has fewer than two groups, or states a split for some samples only.
        OutputError: No links can be made.
    """
    found = []
    for place, folder in enumerate(data):
        samples = find_samples(folder)
        stated = [sample.split for sample in samples if sample.split]
        if stated and len(stated) < len(samples):
            raise DataError(
                f"'{folder}' states a split for {len(stated)} of {len(samples)} samples.", "State all or none."
            )
        if stated:
            found.append(folder)
            continue
        target = out / f"{place}-{folder.resolve().name}"
        clips = [sample for sample in samples if sample.kind == "clip"]
        if not clips:
            raise DataError(f"'{folder}' holds no clips.", "Give a folder of ultrasound clips.")
        if not (target / MANIFEST).is_file():
            fractions = {"train": training_share, "test": 1 - training_share}
            parts = split_by_group([(clip.label, clip.group) for clip in clips], fractions, seed)
            linked(clips, parts, target)
        found.append(target)
    return found


def linked(samples: Sequence[Sample], parts: Sequence[str | None], target: Path) -> None:
    """Link samples into a folder, whose manifest gives each its part as split; masks are left out.

    A sample's link has the same name wherever the same samples are given. Raises `OutputError`.
    """
    rows = []
    for number, (sample, part) in enumerate(zip(samples, parts, strict=True)):
        link = _link(sample.path, target / f"{sample.kind}s" / f"{number:05d}_{sample.path.name}")
        rows.append(replace(sample, path=link, split=part, masks=()))
    write_manifest(target / MANIFEST, rows)


def _link(source: Path, link: Path) -> Path:
    try:
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(source.resolve(), target_is_directory=source.is_dir())
    except OSError as error:
        raise OutputError(
            f"Cannot link '{source}' into '{link.parent}': {error.strerror}.",
            "Give data that state their splits in a manifest.csv, or a folder on a disk with links.",
        ) from error
    return link
