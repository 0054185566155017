"""Look into one file after the other. An unreadable one becomes a record that says why; nothing stops the audit.

Each clip is decoded frame by frame, and no more than two frames are held at a time.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from us_i2v.data.audit.records import MaskRecord, Record
from us_i2v.data.audit.text import find_burned_in
from us_i2v.data.clips import open_clip
from us_i2v.data.duplicates import Fingerprint, fingerprint
from us_i2v.data.manifest import kind_of
from us_i2v.data.masks import read_mask
from us_i2v.data.repeats import distinct_frames
from us_i2v.data.stills import open_image, read_still
from us_i2v.errors import UsI2VError

if TYPE_CHECKING:
    from pathlib import Path

    from us_i2v.data.clips import ClipReader
    from us_i2v.data.manifest import Sample
    from us_i2v.types import Image, Size

BLACK = 5.0
"""A picture whose mean gray level is below this shows nothing."""

READ_ERRORS = (UsI2VError, OSError)
"""What reading a damaged, missing or forbidden file raises."""


class Scanned(NamedTuple):
    """What is left of a sample once it was read.

    Attributes:
        record: Everything that the report tells.
        print: Of its first picture that is not black, for finding duplicates; None if it cannot be read or is
            black all over.
    """

    record: Record
    print: Fingerprint | None


def scan_sample(sample: Sample, root: Path) -> Scanned:
    """Read one sample and its masks.

    Args:
        sample: What to read.
        root: The data set's folder; names in the record are relative to it.
    """
    record = Record(relative(sample.path, root), sample.kind, sample.label, sample.group, sample.split)
    found = None
    try:
        record, picture = _scan_still(record, sample.path) if sample.kind == "still" else _scan_clip(record, sample)
        burned = find_burned_in(picture)
        found = fingerprint(picture) if record.black_frames < record.frames else None
        record = replace(
            record, text_lines=len(burned.lines), text_share=burned.text_share, mark_share=burned.mark_share
        )
    except READ_ERRORS as error:
        record = replace(record, error=_reason(error))
    masks = tuple(_scan_mask(mask, sample, record, root) for mask in sample.masks)
    return Scanned(replace(record, masks=masks), found)


def relative(path: Path, root: Path) -> str:
    """Return a path relative to the data set, or as it is if it lies elsewhere; its name if it is all of it."""
    if path == root:
        return path.name
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


def _scan_still(record: Record, path: Path) -> tuple[Record, Image]:
    picture = read_still(path)
    with path.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    black = int(picture.mean() < BLACK)
    size = (picture.shape[0], picture.shape[1])
    return replace(record, sha256=sha256, size=size, colour=picture.ndim == 3, frames=1, black_frames=black), picture


def _scan_clip(record: Record, sample: Sample) -> tuple[Record, Image]:
    reader = open_clip(sample.path, sample.fps)
    distinct = distinct_frames(reader)
    black = _black_frames(reader)
    record = replace(
        record,
        sha256=reader.source_hash(),
        size=reader.size,
        colour=reader.colour,
        frames=reader.n_frames,
        fps=reader.fps if reader.fps_known else None,
        effective_fps=distinct.fps if reader.fps_known else None,
        repeats=reader.n_frames - len(distinct.indices),
        black_frames=black,
    )
    return record, np.asarray(reader.read([min(black, reader.n_frames - 1)])[0])


def _black_frames(reader: ClipReader) -> int:
    """Count the black frames before the first that shows something; decoding stops there."""
    frames = reader.frames()
    for index, frame in enumerate(frames):
        if frame.mean() >= BLACK:
            return index
    return reader.n_frames


def _scan_mask(path: Path, sample: Sample, record: Record, root: Path) -> MaskRecord:
    name = relative(path, root)
    moving = sample.kind == "clip" and kind_of(path) == "clip"
    try:
        return _scan_moving_mask(name, path, record) if moving else _scan_still_mask(name, path, record.size)
    except READ_ERRORS as error:
        return MaskRecord(name, "unreadable", why=_reason(error))


def _scan_still_mask(name: str, path: Path, wanted: Size | None) -> MaskRecord:
    with open_image(path, min_side=1) as picture:
        size = (picture.height, picture.width)
    share = float(read_mask(path, size).mean())
    return _judge_mask(MaskRecord(name, "ok", size, share), wanted)


def _scan_moving_mask(name: str, path: Path, record: Record) -> MaskRecord:
    reader = open_clip(path)
    share = float(np.mean([np.mean(frame > 0) for frame in reader.frames()]))
    mask = _judge_mask(MaskRecord(name, "ok", reader.size, share), record.size)
    if mask.state == "ok" and reader.n_frames != record.frames and record.error is None:
        return replace(mask, state="other size", why=f"{reader.n_frames} frames, its clip {record.frames}")
    return mask


def _judge_mask(mask: MaskRecord, wanted: Size | None) -> MaskRecord:
    """Say whether a mask that was read fits its picture's size (None: unknown) and holds anything."""
    if mask.size is not None and wanted is not None and mask.size != wanted:
        why = f"{mask.size[1]}x{mask.size[0]} pixels, its picture {wanted[1]}x{wanted[0]}"
        return replace(mask, state="other size", why=why)
    return replace(mask, state="empty", why="no pixel is in it") if mask.share == 0 else mask


def _reason(error: BaseException) -> str:
    """Return an error as one line, without its remedy."""
    text = error.message if isinstance(error, UsI2VError) else str(error)
    return " ".join(text.split()) or type(error).__name__
