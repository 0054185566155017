"""Clips: one reader for video files, GIFs, NumPy files, folders of frames, DICOM, NIfTI and MetaImage files.

Conventions
    Frames are uint8, (T, H, W) gray or (T, H, W, 3) RGB; a clip in which all channels agree is gray.
    Reading is lazy: opening scans the clip once in bounded memory (exact frame count, damage, colour), and
    `read` decodes again and keeps only the frames asked for.
    Video files that `writers` padded by an edge line are cropped to their true size.
"""

from __future__ import annotations

import hashlib
import math
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from us_i2v.data.decoding.arrays import ArraySource
from us_i2v.data.decoding.ffmpeg import VIDEO_SUFFIXES, FfmpegSource
from us_i2v.data.decoding.folders import FolderSource, frame_files, is_frame_folder
from us_i2v.data.decoding.gif import GifSource
from us_i2v.data.decoding.volumes import VolumeSource, volume_frames
from us_i2v.data.dicom.detect import has_several_frames, is_dicom, require_pydicom
from us_i2v.data.repeats import (
    Distinct,
    distinct_frames,
    distinct_indices,
    repeated_frames,
)
from us_i2v.data.stills import VOLUME_SUFFIXES, check_size, is_volume, require_file
from us_i2v.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from us_i2v.data.decoding.base import ClipInfo, FrameSource
    from us_i2v.data.dicom.detect import Regions
    from us_i2v.types import Frames, Image, Size

__all__ = [
    "CLIP_SUFFIXES",
    "DEFAULT_FPS",
    "ClipReader",
    "Distinct",
    "distinct_frames",
    "distinct_indices",
    "is_clip",
    "open_clip",
    "repeated_frames",
]

ARRAY_SUFFIXES = frozenset({".npy", ".npz"})
CLIP_SUFFIXES = VIDEO_SUFFIXES | ARRAY_SUFFIXES | {".gif"}
"""Of files that are always clips; DICOM, NIfTI and MetaImage files are clips if they have several frames."""
DEFAULT_FPS = 25.0
"""Assumed where neither the file nor the caller states a rate."""

_CACHE_ENTRIES = 4096
_cache: dict[tuple[str, int, int, str], ClipInfo] = {}


class ClipReader:
    """One opened clip. Holds no file handle and no frames; safe to send to another process.

    Attributes:
        path: The file or folder.
        fps: Frames per second: the caller's, else the container's, else `DEFAULT_FPS`.
        fps_known: False if `fps` is only the default.
        size: (height, width).
        n_frames: Exact number of frames.
        colour: True if frames come as (H, W, 3).
        mm_per_pixel: (row, column) spacing in millimetres, or None where the container does not say.
    """

    def __init__(self, source: FrameSource, info: ClipInfo, fps: float | None = None) -> None:
        self._source = source
        self._info = info
        self.path = source.path
        self.size: Size = info.size
        self.n_frames = info.n_frames
        self.colour = info.colour
        self.mm_per_pixel = info.mm_per_pixel
        self.fps_known = fps is not None or info.fps is not None
        self.fps = fps if fps is not None else (info.fps or DEFAULT_FPS)

    def read(self, indices: Sequence[int]) -> Frames:
        """Return the frames at `indices` (any order, repeats allowed) as (len(indices), H, W[, 3]).

        Raises:
            InputError: An index is outside 0 .. n_frames - 1, or the file changed meanwhile.
        """
        wanted = [int(index) for index in indices]
        shape = (len(wanted), *self.size, 3) if self.colour else (len(wanted), *self.size)
        out = np.empty(shape, np.uint8)
        places: dict[int, list[int]] = {}
        for place, index in enumerate(wanted):
            places.setdefault(index, []).append(place)
        order = sorted(places)
        for index, frame in zip(order, self._stream(order), strict=True):
            out[places[index]] = frame
        return out

    def frames(self) -> Iterator[Image]:
        """Yield all frames in order, one at a time."""
        return self._source.stream(self._info, 0, self.n_frames - 1, 1)

    def source_hash(self) -> str:
        """Return the SHA-256 of the file, or of a folder's frame names and contents, in hexadecimal."""
        digest = hashlib.sha256()
        files = frame_files(self.path) if self.path.is_dir() else [self.path]
        for file in files:
            if self.path.is_dir():
                digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
            with file.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
        return digest.hexdigest()

    def _stream(self, order: list[int]) -> Iterator[Image]:
        """Yield the frames of a rising list of indices; the decoder passes over what lies between."""
        if not order:
            return
        if order[0] < 0 or order[-1] >= self.n_frames:
            wrong = order[0] if order[0] < 0 else order[-1]
            raise InputError(
                f"Clip '{self.path}' has {self.n_frames} frames; frame {wrong} was asked for.",
                f"Use indices 0..{self.n_frames - 1}.",
            )
        step = reduce(math.gcd, (index - order[0] for index in order), 0) or 1
        wanted = set(order)
        frames = self._source.stream(self._info, order[0], order[-1], step)
        for index, frame in zip(range(order[0], order[-1] + 1, step), frames, strict=True):
            if index in wanted:
                yield frame

    def __repr__(self) -> str:
        """Return path, frames, size, kind and rate."""
        height, width = self.size
        kind = "RGB" if self.colour else "gray"
        return f"ClipReader('{self.path}', {self.n_frames} x {height} x {width} {kind}, {self.fps:g} fps)"


def is_clip(path: Path) -> bool:
    """Tell by its ending, or for a folder by its frames' names, whether a path is meant to be a clip.

    DICOM, NIfTI and MetaImage files are clips if their headers state several frames; raises `InputError` for a DICOM
    file where pydicom is missing.
    """
    if path.is_dir():
        return is_frame_folder(path)
    if is_volume(path):
        return volume_frames(path) > 1
    if is_dicom(path):
        return has_several_frames(path)
    return path.suffix.lower() in CLIP_SUFFIXES


def open_clip(path: Path | str, fps: float | None = None, regions: Regions = "keep") -> ClipReader:
    """Open a clip and scan it once; scans are remembered by path, time of change and size.

    Args:
        path: mp4, m4v, mov, avi, mkv, webm, mpg, mpeg, gif, npy, npz, nii, nii.gz, mha, mhd, a DICOM file, or a folder
            of numbered frames.
        fps: Overrides the rate that the container states.
        regions: Of DICOM files: keep, crop or blank what lies outside of their ultrasound regions.

    Raises:
        InputError: The clip is missing, empty, damaged, not a clip or smaller than 16 x 16, or `fps` is not
            positive.
    """
    path = Path(path)
    if fps is not None and not (math.isfinite(fps) and fps > 0):
        raise InputError(f"Frame rate {fps:g} for '{path}' is not a positive number.", "Give for example 25.")
    source = _source_of(path, regions)
    key = (*_cache_key(path), regions)
    info = _cache.get(key)
    if info is None:
        info = source.scan()
        check_size(path, info.size)
        if len(_cache) >= _CACHE_ENTRIES:
            _cache.pop(next(iter(_cache)))
        _cache[key] = info
    return ClipReader(source, info, fps)


def _source_of(path: Path, regions: Regions) -> FrameSource:
    if path.is_dir():
        return FolderSource(path)
    require_file(path, "Clip")
    suffix = path.suffix.lower()
    if suffix in VIDEO_SUFFIXES:
        return FfmpegSource(path)
    if suffix in ARRAY_SUFFIXES:
        return ArraySource(path)
    if suffix == ".gif":
        return GifSource(path)
    if is_volume(path):
        return VolumeSource(path)
    if is_dicom(path):
        require_pydicom(path)
        from us_i2v.data.dicom.source import DicomSource

        return DicomSource(path, regions)
    raise InputError(
        f"'{path}' is not a clip by its ending '{suffix}'.",
        f"Give a folder of numbered frames or one of {', '.join(sorted({*CLIP_SUFFIXES, *VOLUME_SUFFIXES, '.dcm'}))}.",
    )


def _cache_key(path: Path) -> tuple[str, int, int]:
    """Return what identifies the clip's present content without reading it."""
    files = [path / name for name in ("clip.json",)] + frame_files(path) if path.is_dir() else [path]
    stats = [file.stat() for file in files if file.exists()]
    newest = max((stat.st_mtime_ns for stat in stats), default=0)
    return str(path.resolve()), newest, sum(stat.st_size for stat in stats) + len(stats)
