"""Opening DICOM files: limits before anything is decoded, the header, and the encoded frames one by one.

The file is mapped, not loaded: a header claims lengths, and a map gives no more bytes than there are. Nothing is
decoded before file size, picture size, frame count and encoding have been checked. What pydicom raises on damaged
files becomes one `InputError`.
"""

from __future__ import annotations

import io
import mmap
import struct
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, cast

import pydicom
from pydicom.encaps import generate_frames
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.uid import UID

from us_i2v.data.limits import check_frames
from us_i2v.data.stills import check_size, require_file
from us_i2v.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pydicom import Dataset, FileDataset

MAX_BYTES = 4 << 30
"""Largest file."""
_LARGE = 1 << 20
"""Elements larger than this are passed over when a header is read."""
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_META = 1 << 16
_VOLUMES = ("1.2.840.10008.5.1.4.1.1.6.2", "1.2.840.10008.5.1.4.1.1.6.3")
"""Enhanced US Volume and Photoacoustic: their frames are slices, not moments."""

DICOM_ERRORS = (
    InvalidDicomError,
    BytesLengthException,
    OSError,
    ValueError,
    KeyError,
    IndexError,
    AttributeError,
    TypeError,
    NotImplementedError,
    RuntimeError,
    EOFError,
    OverflowError,
    AssertionError,
    MemoryError,
    SyntaxError,
    struct.error,
)
"""What pydicom and Pillow raise on damaged files."""


@dataclass(frozen=True)
class Layout:
    """How the pixels are stored (PS3.3 C.7.6.3).

    Attributes:
        syntax: Transfer syntax.
        size: (rows, columns).
        frames: Number of Frames, 1 where it is not stated.
        samples: 1 or 3 values a pixel.
        photometric: Photometric Interpretation.
        allocated: Bits a value takes, 8 or 16.
        stored: Bits that count.
        signed: Two's complement.
        planar: 0 for colour by pixel, 1 by plane.
        words: True if 8-bit values are stored as words (OW), whose bytes big endian files swap.
    """

    syntax: UID
    size: tuple[int, int]
    frames: int
    samples: int
    photometric: str
    allocated: int
    stored: int
    signed: bool
    planar: int
    words: bool

    @property
    def encapsulated(self) -> bool:
        """True if the pixels are compressed."""
        return bool(self.syntax.is_encapsulated)

    @property
    def frame_bytes(self) -> int:
        """Bytes of a frame that is not encapsulated."""
        values = self.size[0] * self.size[1] * self.samples
        if self.photometric == "YBR_FULL_422":
            values = values * 2 // 3
        return values * self.allocated // 8


class DicomFile:
    """One DICOM picture or cine.

    Attributes:
        path: The file.
        header: The data set without its pixels.
        kind: SOP Class UID.
        layout: How the pixels are stored.
    """

    def __init__(self, path: Path, max_pixels: int | None = None) -> None:
        """Read and check the header.

        Raises:
            InputError: The file is missing, empty, too large, damaged, no DICOM, or has no pictures of a known kind.
        """
        self.path = path
        with mapped(path) as stream, reading(path):
            self.header = read_header(stream, path)
            _require_picture(self.header, path)
            self.kind = str(self.header.get("SOPClassUID", ""))
            self._start, representation = _pixel_start(stream, self.header)
        self.layout = _layout(self.header, representation == b"OW", path)
        if self.kind in _VOLUMES:
            raise InputError(f"'{path}' is a volume: its frames are slices.", "Export its cine or a plane.")
        check_size(path, self.layout.size, max_pixels)
        if self.layout.frames < 1:
            raise InputError(
                f"'{path}' states {self.layout.frames} frames; at least 1 is needed.",
                "Correct Number of Frames (0028,0008).",
            )
        check_frames(path, self.layout.frames)

    def encoded_frames(self, first: int = 0) -> Iterator[bytes]:
        """Yield the stored bytes of frame `first` and all later ones.

        Raises:
            InputError: There are fewer frames than stated.
        """
        found = first
        with mapped(self.path) as stream:
            stream.seek(self._start)
            frames = self._encapsulated(stream, first) if self.layout.encapsulated else self._native(stream, first)
            while (encoded := self._next(frames)) is not None:
                yield encoded
                found += 1
                if found == self.layout.frames:
                    return
        raise InputError(
            f"'{self.path}' is cut short: {found} of {self.layout.frames} frames are there.",
            "Copy or export the file again.",
        )

    def _next(self, frames: Iterator[bytes]) -> bytes | None:
        with reading(self.path):
            return next(frames, None)

    def _encapsulated(self, stream: mmap.mmap, first: int) -> Iterator[bytes]:
        offsets = None
        if "ExtendedOffsetTable" in self.header and "ExtendedOffsetTableLengths" in self.header:
            offsets = (self.header.ExtendedOffsetTable, self.header.ExtendedOffsetTableLengths)
        frames = generate_frames(
            cast("BinaryIO", stream), number_of_frames=self.layout.frames, extended_offsets=offsets
        )
        for index, encoded in enumerate(frames):
            if index >= first:
                yield encoded

    def _native(self, stream: mmap.mmap, first: int) -> Iterator[bytes]:
        count = self.layout.frame_bytes
        stream.seek(min(first * count, len(stream) - stream.tell()), io.SEEK_CUR)
        while len(raw := stream.read(count)) == count:
            yield raw


def read_header(stream: mmap.mmap, path: Path) -> FileDataset:
    """Read what comes before the pixels; the stream stands at them afterwards."""
    if stream.find(_DEFLATED, 0, _META) >= 0:
        raise InputError(
            f"'{path}' is deflated as a whole, which is not read.", "Convert it, for example with dcmconv +te."
        )
    stream.seek(0)
    return pydicom.dcmread(cast("BinaryIO", stream), stop_before_pixels=True, defer_size=_LARGE)


class Stated(NamedTuple):
    """What a header says of a file as a sample: frames (0: no picture), and its patient's group, "" if unknown."""

    frames: int
    patient: str


def stated(path: Path) -> Stated:
    """Return Number of Frames, 1 if it is not stated, and the patient; 0 and "" if the header cannot be read."""
    from us_i2v.data.dicom.identity import patient_group

    try:
        with mapped(path) as stream, reading(path):
            header = read_header(stream, path)
            return Stated(_whole(header, "NumberOfFrames", 1) if "Rows" in header else 0, patient_group(header))
    except InputError:
        return Stated(0, "")


@contextmanager
def mapped(path: Path) -> Iterator[mmap.mmap]:
    """Map a file for reading; raises `InputError` where it is missing, empty or larger than `MAX_BYTES`."""
    require_file(path, "DICOM file")
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise InputError(f"'{path}' has {size} bytes; at most {MAX_BYTES} are read.", "Divide the cine.")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as stream:
        yield stream


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what the libraries raise on damaged files into one `InputError`, and silence their warnings."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except InvalidDicomError as error:
        raise InputError(
            f"'{path}' is no DICOM file: 'DICM' does not follow its first 128 bytes.",
            "Give it its proper ending, or export it as a DICOM file.",
        ) from error
    except DICOM_ERRORS as error:
        reason = " ".join(str(error).split())[:120].rstrip(".") or type(error).__name__
        raise InputError(
            f"'{path}' is damaged or no usable DICOM file ({reason}).", "Copy or export the file again."
        ) from error


def _layout(header: Dataset, words: bool, path: Path) -> Layout:
    with reading(path):
        stored = Layout(
            syntax=UID(str(header.file_meta.get("TransferSyntaxUID", ""))),
            size=(_whole(header, "Rows"), _whole(header, "Columns")),
            frames=_whole(header, "NumberOfFrames", 1),
            samples=_whole(header, "SamplesPerPixel"),
            photometric=str(header.get("PhotometricInterpretation", "")),
            allocated=_whole(header, "BitsAllocated"),
            stored=_whole(header, "BitsStored"),
            signed=_whole(header, "PixelRepresentation", 0) == 1,
            planar=_whole(header, "PlanarConfiguration", 0),
            words=words,
        )
    usable = stored.samples in (1, 3) and stored.allocated in (8, 16) and 1 <= stored.stored <= stored.allocated
    if not usable or (stored.samples == 3 and stored.signed):
        raise InputError(
            f"'{path}' has {stored.samples} samples a pixel of {stored.stored} in {stored.allocated} bits; "
            "1 or 3 of 8 or 16 bits are needed.",
            "Export it as an ordinary ultrasound picture.",
        )
    return stored


def _require_picture(header: Dataset, path: Path) -> None:
    if "Rows" not in header:
        kind = UID(str(header.get("SOPClassUID", ""))).name or "an object of no stated class"
        raise InputError(f"'{path}' holds no picture: it is {kind}.", "Give a DICOM picture or cine.")


def _pixel_start(stream: mmap.mmap, header: Dataset) -> tuple[int, bytes]:
    """Return where the value of Pixel Data (7FE0,0010) begins, and how it is represented; the stream is at its tag."""
    implicit, little = header.original_encoding
    start = stream.tell()
    order = "<" if little else ">"
    group, element, representation = struct.unpack(f"{order}HH2s", stream.read(6))
    if (group, element) != (0x7FE0, 0x0010):
        raise ValueError("it holds no Pixel Data (7FE0,0010)")
    return (start + 8, b"OW") if implicit else (start + 12, representation)


def _whole(header: Dataset, keyword: str, default: int | None = None) -> int:
    value = header.get(keyword)
    if value in (None, ""):
        if default is None:
            raise ValueError(f"{keyword} is not stated")
        return default
    return int(str(value))
