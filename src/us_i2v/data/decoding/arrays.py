"""Clips in NumPy files: `.npy`, and `.npz` whose array `frames` (or only array) is the clip.

Accepted: (T, H, W), (T, H, W, 1), (T, H, W, 3) or (T, H, W, 4); value rules in `stills.scale_to_uint8`, with
the maximum taken over the whole clip. An `.npz` may hold a number `fps`; an `.npy` says nothing about time.
Neither is loaded whole: an `.npy` is mapped, an `.npz` is unpacked frame by frame. Nothing is unpickled.
"""

from __future__ import annotations

import math
import struct
import tokenize
import zipfile
import zlib
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from us_i2v.data.decoding.base import ClipInfo, as_declared
from us_i2v.data.limits import Deadline, check_bytes, check_frames
from us_i2v.data.stills import check_size, collapse_gray, require_file, scale_to_uint8
from us_i2v.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from us_i2v.types import Image

READ_ERRORS = (
    *(OSError, ValueError, EOFError, KeyError, IndexError, TypeError, OverflowError, RecursionError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error, NotImplementedError, SyntaxError, tokenize.TokenError, struct.error),
)
"""What NumPy and zipfile raise on damaged files: a header is Python text."""


class ArraySource:
    """A `.npy` or `.npz` file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._largest: float | None = None

    def scan(self) -> ClipInfo:
        """Check shape and values of all frames, one at a time."""
        require_file(self.path, "Clip")
        shape = (0, 0, 0)
        colour = False
        largest = -math.inf
        deadline = Deadline(self.path)
        for values in self._values():
            deadline.check()
            if values.dtype.kind not in "buif":
                raise InputError(
                    f"'{self.path}' holds values of type {values.dtype}; numbers are needed.",
                    "Save it as uint8.",
                )
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                raise InputError(
                    f"'{self.path}' holds NaN or infinite values (frame {shape[0]}); finite ones are needed.",
                    "Replace them and save again.",
                )
            largest = max(largest, float(values.max()))
            shape = (shape[0] + 1, values.shape[0], values.shape[1])
            colour = colour or collapse_gray(values).ndim == 3
        self._largest = largest
        for values in self._values():
            if values.dtype != np.uint8:
                scale_to_uint8(values, str(self.path), largest)
        size = (shape[1], shape[2])
        return ClipInfo(shape[0], size, self._fps(), colour, size)

    def stream(self, info: ClipInfo, first: int, last: int, step: int) -> Iterator[Image]:
        """Yield frames first, first + step, ... <= last."""
        if self._largest is None:
            self._largest = max(float(values.max()) for values in self._values())
        for values in self._values(first, last, step):
            frame = scale_to_uint8(values, str(self.path), self._largest)
            yield as_declared(np.ascontiguousarray(frame), info.colour)

    def _values(self, first: int = 0, last: int | None = None, step: int = 1) -> Iterator[npt.NDArray[Any]]:
        """Yield raw frames, (H, W) or (H, W, 3), in the file's own type."""
        try:
            frames = _mapped(self.path) if self.path.suffix.lower() == ".npy" else _unpacked(self.path, last)
            for index, frame in enumerate(frames):
                if last is not None and index > last:
                    return
                if index >= first and (index - first) % step == 0:
                    yield _without_alpha(frame)
        except READ_ERRORS as error:
            reason = " ".join(str(error).split())[:120].rstrip(".")
            if "pickle" in reason or "Python objects" in reason:
                reason = "it is no array of numbers"
            raise InputError(
                f"'{self.path}' cannot be read as a NumPy clip ({reason}).",
                "Save uint8 frames (T, H, W) or (T, H, W, 3) with numpy.save or numpy.savez.",
            ) from error

    def _fps(self) -> float | None:
        if self.path.suffix.lower() == ".npy":
            return None
        try:
            with np.load(self.path, allow_pickle=False) as archive:
                if "fps" not in archive.files:
                    return None
                fps = float(np.asarray(archive["fps"]).reshape(-1)[0])
        except READ_ERRORS as error:
            raise InputError(f"'{self.path}' holds no readable number 'fps'.", "Save it again, or without.") from error
        if not math.isfinite(fps) or fps <= 0:
            raise InputError(f"'{self.path}' holds fps = {fps:g}; a positive number is needed.", "Save it again.")
        return fps


def _mapped(path: Path) -> Iterator[npt.NDArray[Any]]:
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(array, np.ndarray):
        raise ValueError("it is an archive, not a single array")
    _check_shape(array.shape, path)
    yield from array


def _unpacked(path: Path, last: int | None) -> Iterator[npt.NDArray[Any]]:
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(".npy")]
        if "frames.npy" in names:
            name = "frames.npy"
        elif len(names) == 1:
            name = names[0]
        else:
            raise ValueError(f"arrays {sorted(name[:-4] for name in names)}, none called 'frames'")
        with archive.open(name) as member:
            shape, fortran, dtype = _header(member)
            _check_shape(shape, path)
            if dtype.hasobject:
                raise ValueError("it holds Python objects")
            if not fortran:
                yield from _sequential(member, shape, dtype, last)
                return
            # The order of the axes lets nothing be read frame by frame.
            check_bytes(path, math.prod(shape) * dtype.itemsize)
        with np.load(path, allow_pickle=False) as loaded:
            yield from loaded[name[:-4]]


def _sequential(
    member: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any], last: int | None
) -> Iterator[npt.NDArray[Any]]:
    count = math.prod(shape[1:]) * dtype.itemsize
    for _ in range(shape[0] if last is None else min(shape[0], last + 1)):
        raw = member.read(count)
        if len(raw) < count:
            raise ValueError("it ends within a frame")
        yield np.frombuffer(raw, dtype).reshape(shape[1:])


def _header(member: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(member)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(member)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(member)
    raise ValueError(f"format version {version} is not supported")


def _check_shape(shape: tuple[int, ...], path: Path) -> None:
    if len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] not in (1, 3, 4)) or 0 in shape:
        raise ValueError(f"its shape is {shape}; (T, H, W) or (T, H, W, 3) is needed")
    check_size(path, (shape[1], shape[2]), min_side=1)
    check_frames(path, shape[0])


def _without_alpha(frame: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if frame.ndim == 3:
        return frame[..., 0] if frame.shape[-1] == 1 else frame[..., :3]
    return frame
