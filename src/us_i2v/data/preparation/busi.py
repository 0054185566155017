"""BUSI's download in shape: near-duplicates grouped, copies and pictures of two classes left out."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from us_i2v.data.boxes import mask_box
from us_i2v.data.crops import crop_mask, crop_picture, crop_region
from us_i2v.data.datasets import busi
from us_i2v.data.duplicates import (
    SAME,
    Fingerprint,
    Pair,
    components,
    find_pairs,
    fingerprint,
    in_two_classes,
    members,
)
from us_i2v.data.manifest import Sample
from us_i2v.data.masks import read_masks, write_mask
from us_i2v.data.preparation.output import finish, new_folder, place_file
from us_i2v.data.preparation.report import UNREADABLE, Related, Report, count_labels
from us_i2v.data.stills import read_still
from us_i2v.data.writers import write_still
from us_i2v.errors import DataError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from us_i2v.data.preparation.options import BusiOptions, Link
    from us_i2v.types import Size


@dataclass(frozen=True)
class _Still:
    """A readable still."""

    sample: Sample
    name: str
    print: Fingerprint
    size: Size
    lesion: bool


def prepare_busi(
    source: Path,
    out: Path,
    options: BusiOptions,
    progress: Callable[[int, int, str], None] | None = None,
) -> Report:
    """Write a data set of BUSI's stills: OUT/{class}/*.png with masks, manifest.csv and report.json.

    Stills in one group are near-duplicates (`duplicates`), directly or by way of others; those that are left out
    count as links too. Masks that do not fit their still make it unreadable.

    Args:
        source: The download, with or without the folder `Dataset_BUSI_with_GT`.
        out: New or empty folder.
        options: What to do.
        progress: Called with (done, total, name) while stills are read and pairs compared.

    Raises:
        DataError: The source is not BUSI, or nothing is left.
        OutputError: See `output.new_folder`.
    """
    with new_folder(out, source) as folder:
        samples = busi.load(source) if busi.detect(source) else []
        if not samples:
            raise DataError(
                f"Folder '{source}' is not BUSI.", "It needs benign, malignant and normal with stills 'benign (1).png'."
            )
        report = Report("busi", "stills", asdict(options))
        report.before = count_labels([sample.label for sample in samples])
        stills = _read(samples, report, progress)
        pairs = find_pairs([still.print for still in stills], progress=progress)
        groups = _groups(stills, pairs)
        report.related = [_related(stills, pair, "similarity") for pair in pairs]
        kept = _select(stills, pairs, options, report)
        written = []
        for index in kept:
            still = stills[index]
            if options.crop and not still.lesion:
                report.leave_out(still.name, "no lesion", "its mask marks nothing to crop by")
            else:
                written.append(_write(still, groups[index], folder, options.link, crop=options.crop))
        finish(folder, written, report, options)
    return report


def _read(samples: list[Sample], report: Report, progress: Callable[[int, int, str], None] | None) -> list[_Still]:
    """Read every still and its masks once; those that cannot be read are noted."""
    stills = []
    for done, sample in enumerate(samples, 1):
        name = f"{sample.label}/{sample.path.name}"
        try:
            picture = read_still(sample.path)
            size = (picture.shape[0], picture.shape[1])
            lesion = bool(read_masks(sample.masks, size).any())
            stills.append(_Still(sample, name, fingerprint(picture), size, lesion))
        except InputError as error:
            report.leave_out(name, UNREADABLE, str(error))
        if progress is not None:
            progress(done, len(samples), name)
    return stills


def _groups(stills: list[_Still], pairs: list[Pair]) -> list[str]:
    """Return the group of every still, named after its first member."""
    first = components(len(stills), [pair[:2] for pair in pairs])
    return [stills[index].sample.group for index in first]


def _select(stills: list[_Still], pairs: list[Pair], options: BusiOptions, report: Report) -> list[int]:
    """Return the stills to write; the others are noted."""
    labels = [still.sample.label for still in stills]
    conflicts = in_two_classes(pairs, labels)
    report.conflicts = [_related(stills, pair, "similarity") for pair in conflicts]
    same = members(components(len(stills), [pair[:2] for pair in pairs if pair.similarity >= SAME]))
    gone: set[int] = set()
    for pictures in same:
        if options.conflicts == "drop" and len({labels[index] for index in pictures}) > 1:
            for index in pictures:
                other = next(other for other in pictures if labels[other] != labels[index])
                report.leave_out(stills[index].name, "two classes", f"the same picture as {stills[other].name}")
            gone.update(pictures)
            continue
        if not options.keep_duplicates:
            gone |= _copies(stills, pictures, report)
        left = [index for index in pictures if index not in gone]
        if options.drop_near and len(left) > 1:
            best = max(left, key=lambda index: (stills[index].size[0] * stills[index].size[1], -index))
            for index in left:
                if index != best:
                    report.leave_out(stills[index].name, "near duplicate", f"the same picture as {stills[best].name}")
                    gone.add(index)
    return [index for index in range(len(stills)) if index not in gone]


def _copies(stills: list[_Still], pictures: list[int], report: Report) -> set[int]:
    """Return the exact copies of earlier pictures of the same class."""
    seen: dict[tuple[str, str | None], int] = {}
    copies = set()
    for index in pictures:
        first = seen.setdefault((stills[index].print.digest, stills[index].sample.label), index)
        if first != index:
            report.leave_out(stills[index].name, "duplicate", f"an exact copy of {stills[first].name}")
            copies.add(index)
    return copies


def _related(stills: list[_Still], pair: Pair, what: str) -> Related:
    reason = "exact copy" if pair.exact else f"{what} {pair.similarity:.2f}"
    return Related(stills[pair.first].name, stills[pair.second].name, reason)


def _write(still: _Still, group: str, folder: Path, link: Link, *, crop: bool) -> Sample:
    """Write one still and its masks, whole or as a crop with the union of its masks."""
    place = folder / str(still.sample.label)
    path = place / still.sample.path.name
    if not crop:
        for file in (still.sample.path, *still.sample.masks):
            place_file(file, place / file.name, link)
        masks = tuple(place / mask.name for mask in still.sample.masks)
        return Sample(path, "still", still.sample.label, group, masks=masks)
    mask = read_masks(still.sample.masks, still.size)
    box = mask_box(mask)
    if box is None:
        raise InputError(f"The mask of '{still.sample.path}' changed meanwhile.", "Run it again.")
    region = crop_region(box, still.size)
    path = path.with_suffix(".png")
    write_still(path, crop_picture(read_still(still.sample.path), region))
    mask_path = write_mask(path.with_name(f"{path.stem}_mask.png"), crop_mask(mask, region))
    return Sample(path, "still", still.sample.label, group, masks=(mask_path,))
