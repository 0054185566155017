"""Plain class folders: ROOT/label/file, or ROOT/label/group/file; files right inside ROOT have no label.

A file's group is the folder between label and file, else a DICOM file's patient, else the file itself: where several
files come from one patient, use such a folder or a manifest.csv. Masks are named as in BUSI and pair with their
picture. Folders of frames (`decoding.folders.is_frame_folder`) are clips. Hidden files and other endings are left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from us_i2v.data.datasets.naming import media, pair_masks
from us_i2v.data.decoding.folders import is_frame_folder, natural_key
from us_i2v.data.dicom.detect import patient_of
from us_i2v.data.manifest import Sample, kind_of

if TYPE_CHECKING:
    from pathlib import Path


def detect(root: Path) -> bool:
    """Tell whether there is a still or clip in the folder or in its subfolders."""
    return bool(load(root))


def load(root: Path) -> list[Sample]:
    """List stills and clips: those without a label first, then label by label in natural order."""
    if is_frame_folder(root):
        return [Sample(root, "clip", None, root.name)]
    samples = _samples(root, root, None, None)
    for folder in _subfolders(root):
        samples += _samples(root, folder, folder.name, None)
        for inner in _subfolders(folder):
            samples += _walk(root, inner, folder.name, inner.name)
    return samples


def _walk(root: Path, folder: Path, label: str, group: str) -> list[Sample]:
    samples = _samples(root, folder, label, group)
    for inner in _subfolders(folder):
        samples += _walk(root, inner, label, group)
    return samples


def _samples(root: Path, folder: Path, label: str | None, group: str | None) -> list[Sample]:
    samples = []
    for path, masks in pair_masks(media(folder)):
        kind = kind_of(path)
        if kind is not None:
            own = path.relative_to(root).with_suffix("").as_posix()
            samples.append(Sample(path, kind, label, group or patient_of(path) or own, masks=masks))
    return samples


def _subfolders(folder: Path) -> list[Path]:
    found = [
        entry
        for entry in folder.iterdir()
        if entry.is_dir() and not entry.name.startswith(".") and not is_frame_folder(entry)
    ]
    return sorted(found, key=lambda entry: natural_key(entry.name))
