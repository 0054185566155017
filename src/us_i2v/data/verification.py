"""Says of a clip whether it is synthetic, altered since it was made, or of unknown origin.

| verdict | when |
|---|---|
| synthetic | it holds a record, and the content is the recorded one |
| altered | it holds a record, and content, frame rate, mask or the JSON file differ from it, or the record is damaged |
| unknown | no record is there: a real clip, another program's, or one whose record was removed |

The record is no signature: it shows damage and honest changes, not forgery.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from us_i2v.data.clips import is_clip
from us_i2v.data.decoding.folders import is_frame_folder
from us_i2v.data.embedding import content_sha256, file_sha256, other_rate, read_record
from us_i2v.errors import InputError
from us_i2v.provenance import DamagedRecordError, read_sidecar, sidecar_path

if TYPE_CHECKING:
    from us_i2v.provenance import Provenance, Sidecar

Status = Literal["synthetic", "unknown", "altered"]


@dataclass(frozen=True)
class Verdict:
    """What is known of a clip.

    Attributes:
        path: The clip.
        status: See the module's head.
        reason: Why, in a few words.
        record: How it was made, as far as a record could be read.
    """

    path: Path
    status: Status
    reason: str
    record: Provenance | None = None


def find_clips(path: Path) -> list[Path]:
    """Return a clip itself, or all clips below a folder, sorted; raises `InputError` if there is none."""
    if not path.exists():
        raise InputError(f"Clip '{path}' does not exist.", "Check the path.")
    if not path.is_dir() or is_frame_folder(path):
        return [path]
    found: list[Path] = []
    _collect(path, found)
    if not found:
        raise InputError(f"Folder '{path}' holds no clips.", "Give a clip, or a folder of clips.")
    return found


def verify(path: Path) -> Verdict:
    """Check one clip; raises `InputError` only if it does not exist."""
    if not path.exists():
        raise InputError(f"Clip '{path}' does not exist.", "Check the path.")
    beside = sidecar_path(path)
    sidecar: Sidecar | None = None
    complaint = ""
    if beside.is_file():
        try:
            sidecar = read_sidecar(beside)
        except InputError as error:
            complaint = error.message
    try:
        record = read_record(path)
    except InputError as error:
        known = sidecar.record if sidecar is not None else None
        damaged = known is not None or isinstance(error, DamagedRecordError)
        if known is None and isinstance(error, DamagedRecordError):
            known = error.record
        return Verdict(path, "altered" if damaged else "unknown", error.message, known)
    if sidecar is not None:
        return _against_sidecar(path, record, sidecar)
    if record is None:
        return Verdict(path, "unknown", complaint or "no record")
    if complaint:
        return Verdict(path, "altered", complaint, record)
    return _against_content(path, record)


def _against_sidecar(path: Path, record: Provenance | None, sidecar: Sidecar) -> Verdict:
    if sidecar.file_sha256 != file_sha256(path):
        return Verdict(path, "altered", "the file is not the one that its JSON file describes", sidecar.record)
    if record is not None and record != sidecar.record:
        return Verdict(path, "altered", "the record in the file and the one beside it differ", record)
    if sidecar.mask is not None and sidecar.mask_sha256 is not None:
        mask = path.with_name(Path(sidecar.mask).name)
        if mask.is_file() and file_sha256(mask) != sidecar.mask_sha256:
            return Verdict(path, "altered", f"its mask '{mask.name}' is not the one that was made", sidecar.record)
    return Verdict(path, "synthetic", "the whole file is as it was made", sidecar.record)


def _against_content(path: Path, record: Provenance) -> Verdict:
    if record.content is None or record.content_sha256 is None:
        return Verdict(path, "synthetic", "by its record, which states no content", record)
    if path.suffix.lower() == ".png":
        return Verdict(path, "synthetic", "a frame, by its record; its own content is not recorded", record)
    try:
        found = content_sha256(path, record.content)
        rate = other_rate(path, record)
    except InputError as error:
        return Verdict(path, "altered", error.message, record)
    if found != record.content_sha256:
        return Verdict(path, "altered", f"its {record.content} are not the recorded ones", record)
    if rate is not None:
        return Verdict(path, "altered", f"it states {rate:.4g} frames a second, its record {record.fps:.4g}", record)
    return Verdict(path, "synthetic", f"its {record.content} are as they were made", record)


def _collect(folder: Path, found: list[Path]) -> None:
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if is_clip(entry):
            found.append(entry)
        elif entry.is_dir():
            _collect(entry, found)
