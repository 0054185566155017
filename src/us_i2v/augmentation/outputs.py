"""Where a generated clip and its mask lie, and how both are put in place at once or not at all.

| clip | its mask |
|---|---|
| `name.mp4`, `.mkv`, `.avi`, `.gif`, `.dcm` | `name_mask.mkv`, lossless (FFV1), 0 and 255 |
| `name.npz` | `name_mask.npz`, first array `frames`, uint8 (T, H, W), 0 and 255 |
| `name` (a folder of PNG frames) | `name_mask`, a folder of PNG frames |

Beside a clip that is a file lies its record, `name.mp4.json` (see `provenance`); a folder has it in its clip.json.

The mask goes first, then the record, then the clip: where a clip lies, the others lie too.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from us_i2v.data.embedding import file_sha256, read_record
from us_i2v.data.writers import check_target, write_clip
from us_i2v.errors import ConfigError, InputError, OutputError
from us_i2v.provenance import Sidecar, read_sidecar, sidecar_path

if TYPE_CHECKING:
    from us_i2v.data.dicom.output import DicomOutput
    from us_i2v.pipeline import GeneratedClip
    from us_i2v.provenance import Provenance

FOLDER = "png"
"""The ending that stands for a folder of PNG frames."""

ENDINGS = ("mp4", "mkv", "avi", "gif", "npz", FOLDER)


def clip_name(stem: str, ending: str) -> str:
    """Return the file name of a clip; a folder's name holds no dot, since a dot would begin an ending.

    Raises:
        ConfigError: the ending is none of `ENDINGS`.
    """
    if ending not in ENDINGS:
        raise ConfigError(f"Ending '{ending}' is not one of {', '.join(ENDINGS)}.", "Choose one of these.")
    return stem.replace(".", "_") if ending == FOLDER else f"{stem}.{ending}"


def mask_path(clip: Path) -> Path:
    """Return where the mask of the clip at `clip` lies."""
    ending = clip.suffix.lower()
    mask_ending = ending if ending in ("", ".npz") else ".mkv"
    return clip.with_name(f"{clip.stem}_mask{mask_ending}")


def write_result(
    clip: GeneratedClip,
    path: Path,
    *,
    exact: bool,
    staging: Path | None = None,
    dicom: DicomOutput | None = None,
    record: Provenance | None = None,
) -> None:
    """Write a clip to `path` and its mask, if it has one, beside it.

    Args:
        clip: What to write.
        path: Where to; the ending chooses the format. The folder must exist.
        exact: Write the clip without loss; masks always are.
        staging: Folder on the same file system in which both are written before they are moved into
            place; without it a new one beside `path` is used and removed.
        dicom: How a `.dcm` is written.
        record: How the clip was made: put into clip and mask, and beside them.

    Raises:
        OutputError: something cannot be written.
    """
    try:
        if staging is None:
            with tempfile.TemporaryDirectory(prefix=".us-i2v-", dir=path.parent) as folder:
                _write_staged(clip, path, exact=exact, staging=Path(folder), dicom=dicom, record=record)
        else:
            _write_staged(clip, path, exact=exact, staging=staging, dicom=dicom, record=record)
    except OSError as error:
        raise OutputError(
            f"Cannot write '{path}': {error.strerror or error}.", "Check the path and the free space."
        ) from error


def _write_staged(
    clip: GeneratedClip,
    path: Path,
    *,
    exact: bool,
    staging: Path,
    dicom: DicomOutput | None,
    record: Provenance | None,
) -> None:
    staged, staged_mask = staging / path.name, staging / mask_path(path).name
    write_clip(staged, clip.frames, clip.fps, exact=exact, dicom=dicom, record=record)
    if clip.masks is not None:
        mask_frames = clip.masks.astype(np.uint8) * np.uint8(255)
        of_mask = None if record is None else record.model_copy(update={"part": "mask"})
        write_clip(staged_mask, mask_frames, clip.fps, exact=True, record=of_mask)
    sidecar = None
    if record is not None and not staged.is_dir():
        sidecar = _sidecar(staged, None if clip.masks is None else staged_mask)
    if clip.masks is not None:
        move_into_place(staged_mask, mask_path(path))
    if sidecar is not None:
        write_text(sidecar_path(path), sidecar.dump(), staging)
    move_into_place(staged, path)


def _sidecar(clip: Path, mask: Path | None) -> Sidecar:
    """Return the record of a finished clip as it stands in its container, with the hashes of the files."""
    record = read_record(clip)
    if record is None:
        raise RuntimeError(f"the record of '{clip}' was not written")
    about = {} if mask is None else {"mask": mask.name, "mask_sha256": file_sha256(mask)}
    return Sidecar(record=record, file=clip.name, file_sha256=file_sha256(clip), **about)


def move_into_place(staged: Path, path: Path) -> None:
    """Move a file or folder to `path`; replaces a file, or a folder that holds frames only."""
    if path.is_dir():
        check_target(path)
        shutil.rmtree(path)
    staged.replace(path)


def check_writable(path: Path) -> None:
    """Raise `OutputError` unless a clip can be put at `path`; nothing is left behind."""
    if path.parent.is_dir():
        check_target(path)
        _check_sidecar(path)
    else:
        check_folder_writable(path.parent)


def _check_sidecar(path: Path) -> None:
    """Raise `OutputError` if the record of the clip at `path` would replace something else."""
    beside = sidecar_path(path)
    if path.suffix and beside.exists():
        try:
            read_sidecar(beside)
        except InputError as error:
            raise OutputError(
                f"'{beside}', where the record of '{path.name}' goes, is a file of another kind.", "Move it away."
            ) from error


def check_folder_writable(folder: Path) -> None:
    """Raise `OutputError` unless files can be made in `folder`, or, if it is missing, the folder itself."""
    existing = folder.absolute()
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    check_target(existing / ".us-i2v-check.npz")


def make_folder(path: Path) -> None:
    """Make a folder and its parents; raises `OutputError`."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"Cannot make folder '{path}': {error.strerror or error}.", "Choose another place."
        ) from error


def write_text(path: Path, text: str, staging: Path) -> None:
    """Write a text file in `staging`, then move it to `path`; raises `OutputError`."""
    staged = staging / path.name
    try:
        staged.write_text(text, encoding="utf-8", newline="\n")
        staged.replace(path)
    except OSError as error:
        raise OutputError(
            f"Cannot write '{path}': {error.strerror or error}.", "Check the path and the free space."
        ) from error
