"""Cines in NIfTI (.nii, .nii.gz) and MetaImage files (.mha, .mhd with its raw file); no library is needed.

A frame's columns run along the first axis of the file, its rows along the second; the third, or the fourth if the third
has one entry, is time. Orientation matrices are not applied. Values follow `stills.scale_to_uint8`, with the maximum
taken over the whole file, after NIfTI's slope and intercept. NIfTI states the time between frames if time is its fourth
axis and has a unit; MetaImage does not. Spacing is millimetres in MetaImage, and in NIfTI what its unit says.

Formats: NIfTI-1 and NIfTI-2 (nifti1.h, nifti2.h of the NIfTI working group), MetaIO (ITK). Frames are read one by one.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from us_i2v.data.decoding.base import ClipInfo, as_declared
from us_i2v.data.limits import Deadline, check_frames
from us_i2v.data.stills import check_size, collapse_gray, require_file, scale_to_uint8
from us_i2v.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from us_i2v.types import Image, Size

MAX_FRAME_BYTES = 256 << 20
"""Largest frame as it is stored."""
_HEADER = 1 << 16
_ERRORS = (OSError, ValueError, EOFError, KeyError, IndexError, OverflowError, struct.error, zlib.error)
_NIFTI_TYPES = {
    **{
        2: "u1",
        4: "i2",
        8: "i4",
        16: "f4",
        64: "f8",
        128: "u1",
        256: "i1",
        512: "u2",
        768: "u4",
        1024: "i8",
        1280: "u8",
    }
}
_NIFTI_RGB = 128
_MILLIMETRES = {1: 1000.0, 2: 1.0, 3: 0.001}
_SECONDS = {8: 1.0, 16: 1e-3, 24: 1e-6}
_META_TYPES = {
    **{"MET_UCHAR": "u1", "MET_CHAR": "i1", "MET_USHORT": "u2", "MET_SHORT": "i2", "MET_UINT": "u4", "MET_INT": "i4"},
    **{"MET_ULONG_LONG": "u8", "MET_LONG_LONG": "i8", "MET_FLOAT": "f4", "MET_DOUBLE": "f8"},
}


@dataclass(frozen=True)
class Volume:
    """Where the frames of a file lie and what their values are.

    Attributes:
        size: (height, width).
        frames: Number of frames.
        dtype: Of a stored value, byte order included.
        channels: 1, or 3 for colour.
        data: The file with the values.
        packing: How `data` is compressed.
        offset: Bytes of (unpacked) `data` before the first value; -1 if the values are its end.
        slope, intercept: Stored value times slope plus intercept is the value.
        fps: Frames per second, or None.
        mm_per_pixel: (row, column) spacing, or None.
    """

    size: Size
    frames: int
    dtype: np.dtype[Any]
    channels: int
    data: Path
    packing: Literal["none", "gzip", "zlib"]
    offset: int
    slope: float = 1.0
    intercept: float = 0.0
    fps: float | None = None
    mm_per_pixel: tuple[float, float] | None = None

    @property
    def frame_bytes(self) -> int:
        """Bytes of a frame."""
        return self.size[0] * self.size[1] * self.channels * self.dtype.itemsize


class VolumeSource:
    """A NIfTI or MetaImage file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._largest: float | None = None

    def scan(self) -> ClipInfo:
        """Check the header and the values of all frames, one at a time."""
        volume = read_volume(self.path)
        colour, largest = False, -math.inf
        deadline = Deadline(self.path)
        for values in self._values(volume):
            deadline.check()
            if not np.isfinite(values).all():
                raise InputError(f"'{self.path}' holds NaN or infinite values.", "Replace them and save again.")
            largest = max(largest, float(values.max()))
            colour = colour or collapse_gray(values).ndim == 3
        self._largest = largest
        for values in () if volume.dtype == np.uint8 else self._values(volume):
            scale_to_uint8(values, str(self.path), largest)
        return ClipInfo(volume.frames, volume.size, volume.fps, colour, volume.size, mm_per_pixel=volume.mm_per_pixel)

    def stream(self, info: ClipInfo, first: int, last: int, step: int) -> Iterator[Image]:
        """Yield frames first, first + step, ... <= last."""
        volume = read_volume(self.path)
        if self._largest is None:
            self._largest = max(float(values.max()) for values in self._values(volume))
        for index, values in enumerate(self._values(volume)):
            if index > last:
                return
            if index >= first and (index - first) % step == 0:
                yield as_declared(collapse_gray(scale_to_uint8(values, str(self.path), self._largest)), info.colour)

    def _values(self, volume: Volume) -> Iterator[npt.NDArray[Any]]:
        """Yield frames, (H, W) or (H, W, 3)."""
        try:
            with volume.data.open("rb") as file:
                stream = _unpacked(file, volume)
                for index in range(volume.frames):
                    raw = stream.read(volume.frame_bytes)
                    if len(raw) < volume.frame_bytes:
                        raise ValueError(f"it ends within frame {index} of {volume.frames}")
                    shape = volume.size if volume.channels == 1 else (*volume.size, volume.channels)
                    values = np.frombuffer(raw, volume.dtype).reshape(shape)
                    plain = (volume.slope, volume.intercept) == (1.0, 0.0)
                    yield values if plain else values * volume.slope + volume.intercept
        except _ERRORS as error:
            raise _unreadable(self.path, error) from error


def read_volume(path: Path, max_pixels: int | None = None) -> Volume:
    """Read and check a file's header; raises `InputError`."""
    require_file(path, "Volume")
    try:
        volume = _read_meta_image(path) if path.suffix.lower() in (".mha", ".mhd") else _read_nifti(path)
    except _ERRORS as error:
        raise _unreadable(path, error) from error
    check_size(path, volume.size, max_pixels)
    check_frames(path, volume.frames)
    if volume.frame_bytes > MAX_FRAME_BYTES:
        raise InputError(
            f"'{path}' has frames of {volume.frame_bytes} bytes; at most {MAX_FRAME_BYTES} are read.",
            "Save it as uint8.",
        )
    return volume


def volume_frames(path: Path) -> int:
    """Return the number of frames that a header states, 0 if it cannot be read."""
    try:
        return read_volume(path).frames
    except InputError:
        return 0


def first_frame(path: Path, max_pixels: int | None = None) -> Image:
    """Read the first frame as a still, (H, W) or (H, W, 3) uint8; raises `InputError`."""
    read_volume(path, max_pixels)
    source = VolumeSource(path)
    return collapse_gray(next(source.stream(source.scan(), 0, 0, 1)))


def _read_nifti(path: Path) -> Volume:
    packed = path.suffix.lower() == ".gz"
    with gzip.open(path) if packed else path.open("rb") as file:
        head = file.read(540)
    order = next((sign for sign in "<>" if struct.unpack_from(f"{sign}i", head)[0] in (348, 540)), None)
    if order is None:
        raise ValueError("it does not begin with a NIfTI header")
    if struct.unpack_from(f"{order}i", head)[0] == 348:
        magic, (kind,) = head[344:348], struct.unpack_from(f"{order}h", head, 70)
        dims, pixdim = struct.unpack_from(f"{order}8h", head, 40), struct.unpack_from(f"{order}8f", head, 76)
        offset, slope, intercept = struct.unpack_from(f"{order}3f", head, 108)
        units = head[123]
    else:
        magic, (kind,) = head[4:8], struct.unpack_from(f"{order}h", head, 12)
        dims, pixdim = struct.unpack_from(f"{order}8q", head, 16), struct.unpack_from(f"{order}8d", head, 104)
        offset, slope, intercept = struct.unpack_from(f"{order}qdd", head, 168)
        (units,) = struct.unpack_from(f"{order}i", head, 500)
    if magic[:3] not in (b"n+1", b"n+2"):
        raise ValueError("header and values must be in one file (.nii)")
    if kind not in _NIFTI_TYPES:
        raise ValueError(f"values of type {kind} are not read")
    width, height, depth, moments = _axes(dims[1 : 1 + dims[0]])
    if slope == 0 or not math.isfinite(slope) or not math.isfinite(intercept):
        slope, intercept = 1.0, 0.0
    seconds = pixdim[4] * _SECONDS.get(units & 0x38, 0.0) if depth == 1 and moments > 1 else 0.0
    spacing = tuple(abs(side) * _MILLIMETRES.get(units & 0x07, 0.0) for side in (pixdim[2], pixdim[1]))
    return Volume(
        size=(height, width),
        frames=depth * moments,
        dtype=np.dtype(f"{order}{_NIFTI_TYPES[kind]}"),
        channels=3 if kind == _NIFTI_RGB else 1,
        data=path,
        packing="gzip" if packed else "none",
        offset=int(offset),
        slope=slope,
        intercept=intercept,
        fps=_positive(1 / seconds) if seconds > 0 else None,
        mm_per_pixel=_spacing(spacing),
    )


def _read_meta_image(path: Path) -> Volume:
    with path.open("rb") as file:
        head = file.read(_HEADER)
    fields, offset = _meta_fields(head)
    local = fields["ElementDataFile"].upper() == "LOCAL"
    data = path if local else path.parent / fields["ElementDataFile"]
    if not local and (data.name != fields["ElementDataFile"] or data.name.upper() == "LIST"):
        raise ValueError(f"its values are said to lie in '{fields['ElementDataFile']}'; one file beside it is needed")
    if fields.get("BinaryData", "True").lower() == "false":
        raise ValueError("its values are written as text")
    dims = tuple(int(text) for text in fields["DimSize"].split())
    width, height, depth, moments = _axes(dims)
    kind = fields["ElementType"].removesuffix("_ARRAY")
    if kind not in _META_TYPES:
        raise ValueError(f"values of type {kind} are not read")
    channels = int(fields.get("ElementNumberOfChannels", "1"))
    if channels not in (1, 3):
        raise ValueError(f"it has {channels} values a pixel; 1 or 3 are needed")
    swapped = fields.get("BinaryDataByteOrderMSB", fields.get("ElementByteOrderMSB", "False"))
    spacing = [float(text) for text in fields.get("ElementSpacing", fields.get("ElementSize", "")).split()]
    return Volume(
        size=(height, width),
        frames=depth * moments,
        dtype=np.dtype(f"{'>' if swapped.lower() == 'true' else '<'}{_META_TYPES[kind]}"),
        channels=channels,
        data=data,
        packing="zlib" if fields.get("CompressedData", "False").lower() == "true" else "none",
        offset=offset if local else int(fields.get("HeaderSize", "0")),
        mm_per_pixel=_spacing((spacing[1], spacing[0])) if len(spacing) > 1 else None,
    )


def _meta_fields(head: bytes) -> tuple[dict[str, str], int]:
    """Return the header's fields and where it ends; `ElementDataFile` is the last."""
    fields: dict[str, str] = {}
    place = 0
    while "ElementDataFile" not in fields:
        end = head.find(b"\n", place)
        key, sign, value = head[place : end if end >= 0 else len(head)].decode("latin-1").partition("=")
        if not sign or len(key) > 80:
            raise ValueError("it does not begin with a MetaImage header")
        fields[key.strip()] = value.strip()
        place = end + 1 if end >= 0 else len(head)
    return fields, place


def _axes(dims: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Return width, height, entries along the third and along the fourth axis; one of the last two is 1."""
    if not 2 <= len(dims) <= 7 or any(side < 1 for side in dims):
        raise ValueError(f"its shape is {dims}; (width, height, time) is needed")
    width, height, depth, moments = (*dims, 1, 1)[:4]
    if (depth > 1 and moments > 1) or any(side > 1 for side in dims[4:]):
        raise ValueError(f"its shape is {dims}; (width, height, time) is needed: it has a further axis")
    return width, height, depth, moments


def _unpacked(file: IO[bytes], volume: Volume) -> IO[bytes]:
    """Return a stream that stands at the first value."""
    if volume.packing == "zlib":
        file.seek(volume.offset)
        return _Inflating(file)  # type: ignore[return-value]
    if volume.packing == "gzip":
        stream = gzip.GzipFile(fileobj=file)
        stream.seek(max(volume.offset, 0))
        return stream  # type: ignore[return-value]
    if volume.offset < 0:
        file.seek(0, 2)
        file.seek(max(file.tell() - volume.frames * volume.frame_bytes, 0))
    else:
        file.seek(volume.offset)
    return file


class _Inflating:
    """A zlib stream, unpacked no further than is asked for."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._inflate = zlib.decompressobj()

    def read(self, count: int) -> bytes:
        out = bytearray()
        while len(out) < count:
            packed = self._inflate.unconsumed_tail or self._file.read(1 << 16)
            if not packed or self._inflate.eof:
                break
            out += self._inflate.decompress(packed, count - len(out))
        return bytes(out)


def _spacing(sides: tuple[float, ...]) -> tuple[float, float] | None:
    return (sides[0], sides[1]) if all(math.isfinite(side) and side > 0 for side in sides) else None


def _positive(rate: float) -> float | None:
    return round(rate, 5) if math.isfinite(rate) and 0 < rate <= 10_000 else None


def _unreadable(path: Path, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:160].rstrip(".") or type(error).__name__
    return InputError(
        f"'{path}' cannot be read as a cine ({reason}).",
        "Save it as (width, height, time) in a .nii, .nii.gz or .mha file.",
    )
