"""One stored frame to a uint8 picture, (H, W) gray or (H, W, 3) RGB.

| encoding | decoded by |
|---|---|
| not compressed, RLE | pydicom |
| JPEG baseline and extended (8 bits) | Pillow |
| JPEG 2000 | Pillow, by way of pydicom |
| lossless JPEG (8 bits) | ffmpeg, see `lossless` |

Colour
    YBR_FULL and YBR_FULL_422 become RGB by PS3.3 C.7.6.3.1.2. The components of a JPEG frame are what its own markers
    say (JFIF: YCbCr; Adobe: its transform; component names "RGB"), else what Photometric Interpretation says. JPEG 2000
    undoes YBR_RCT and YBR_ICT itself. Palettes of 16 bits keep the high byte.
Gray
    A window (0028,1050), if stated, maps to 0..255 (PS3.3 C.11.2.1.2); else the full range of the stored bits does,
    never the values that occur. MONOCHROME1 is inverted.
A compressed frame's own header must state the size that the data set states: it is looked at before decoding.
"""

from __future__ import annotations

import io
import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut, convert_color_space
from pydicom.uid import (
    JPEG2000,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    RLELossless,
)

from us_i2v.data.dicom.files import reading
from us_i2v.data.dicom.lossless import decode_lossless
from us_i2v.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from pydicom import Dataset

    from us_i2v.data.dicom.files import Layout
    from us_i2v.types import Image

_JPEG = (JPEGBaseline8Bit, JPEGExtended12Bit)
_LOSSLESS_JPEG = (JPEGLossless, JPEGLosslessSV1)
_JPEG2000 = (JPEG2000, JPEG2000Lossless)
LOSSY = (*_JPEG, JPEG2000)
"""Encodings that lose something."""
_NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian)
_COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_GRAYS = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
_NAMES = (b"RGB", b"rgb")
_FRAME_MARKERS = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_ALONE = frozenset({0x01, *range(0xD0, 0xD8)})


def check_decodable(layout: Layout, path: Path) -> None:
    """Raise `InputError` unless frames of this encoding and colour space can be decoded."""
    allowed = _GRAYS if layout.samples == 1 else _COLOURS
    if layout.photometric not in allowed:
        raise InputError(
            f"'{path}' has the colour space '{layout.photometric}' at {layout.samples} samples a pixel; "
            f"{', '.join(allowed)} are read.",
            "Convert it to RGB, for example with dcmconv or gdcmconv.",
        )
    if layout.syntax not in (*_NATIVE, RLELossless, *_JPEG, *_LOSSLESS_JPEG, *_JPEG2000):
        raise InputError(
            f"'{path}' is compressed as {layout.syntax.name or 'nothing known'}, which is not read.",
            "Decompress it first, for example with GDCM (gdcmconv).",
        )
    eight = layout.syntax in (*_JPEG, *_LOSSLESS_JPEG) or (layout.samples == 3 and layout.syntax in _JPEG2000)
    if eight and layout.stored > 8:
        raise InputError(
            f"'{path}' holds {layout.stored} bits a sample as {layout.syntax.name}; 8 are read.",
            "Decompress it first, for example with GDCM (gdcmconv).",
        )


def decode(encoded: bytes, layout: Layout, header: Dataset, path: Path) -> Image:
    """Decode one frame.

    Args:
        encoded: Its stored bytes.
        layout: How they are stored; see `check_decodable`.
        header: The data set, for palette and window.
        path: The file, for messages.

    Returns:
        uint8, (H, W) or (H, W, 3).

    Raises:
        InputError: The frame is damaged or of another size than stated.
    """
    with reading(path):
        if layout.syntax in _JPEG:
            values = _jpeg(encoded, layout)
        elif layout.syntax in _LOSSLESS_JPEG:
            values = _lossless_jpeg(encoded, layout)
        else:
            if layout.syntax in _JPEG2000:
                _check_stated(jpeg2000_size(encoded), layout)
            values = _by_pydicom(encoded, layout)
        if layout.photometric == "PALETTE COLOR":
            return _palette(values, header)
        if layout.samples == 3:
            return values if values.dtype == np.uint8 else np.asarray(values >> (layout.stored - 8), np.uint8)
        return _gray(values, layout, header)


def _by_pydicom(encoded: bytes, layout: Layout) -> npt.NDArray[Any]:
    decoder = get_decoder(layout.syntax)
    plugin = "pillow" if layout.syntax in _JPEG2000 else "pydicom" if layout.encapsulated else ""
    stated: dict[str, Any] = {
        "number_of_frames": 1,
        "rows": layout.size[0],
        "columns": layout.size[1],
        "samples_per_pixel": layout.samples,
        "photometric_interpretation": layout.photometric,
        "bits_allocated": layout.allocated,
        "bits_stored": layout.stored,
        "pixel_representation": int(layout.signed),
        "planar_configuration": layout.planar,
        "pixel_keyword": "PixelData",
        "pixel_vr": "OW" if layout.words else "OB",
    }
    source = encapsulate([encoded]) if layout.encapsulated else encoded
    values, _ = decoder.as_array(source, index=0, decoding_plugin=plugin, **stated)
    return values


def _jpeg(encoded: bytes, layout: Layout) -> npt.NDArray[np.uint8]:
    size, names = jpeg_frame(encoded)
    _check_stated((*size, len(names)), layout)
    with PillowImage.open(io.BytesIO(encoded), formats=("JPEG",)) as picture:
        told = "adobe_transform" in picture.info or "jfif" in picture.info or names in _NAMES
        if layout.samples == 3 and layout.photometric == "RGB" and not told:
            # libjpeg takes unnamed components for YCbCr: asked for that, it hands them out as they are.
            picture.draft("YCbCr", picture.size)
            return np.asarray(picture, np.uint8)
        return np.asarray(picture if layout.samples == 1 else picture.convert("RGB"), np.uint8)


def _lossless_jpeg(encoded: bytes, layout: Layout) -> npt.NDArray[Any]:
    size, names = jpeg_frame(encoded)
    _check_stated((*size, len(names)), layout)
    values = decode_lossless(encoded, size)
    if layout.samples == 3 and layout.photometric != "RGB" and names not in _NAMES:
        return convert_color_space(values, "YBR_FULL", "RGB")
    return values


def jpeg_frame(encoded: bytes) -> tuple[tuple[int, int], bytes]:
    """Return (rows, columns) and the names of the components that a JPEG stream's frame header states."""
    place = 2
    while encoded[:2] == b"\xff\xd8" and place + 4 <= len(encoded):
        if encoded[place] != 0xFF:
            break
        marker = encoded[place + 1]
        if marker in _FRAME_MARKERS:
            rows, columns, count = struct.unpack_from(">HHB", encoded, place + 5)
            return (rows, columns), encoded[place + 10 : place + 10 + 3 * count : 3]
        if marker == 0xFF or marker in _ALONE:
            place += 1 if marker == 0xFF else 2
        else:
            place += 2 + struct.unpack_from(">H", encoded, place + 2)[0]
    raise ValueError("a frame is no JPEG stream")


def jpeg2000_size(encoded: bytes) -> tuple[int, int, int]:
    """Return (rows, columns, components) that a JPEG 2000 stream's SIZ segment states."""
    place = encoded.find(b"\xff\x4f\xff\x51", 0, 1 << 16)
    if place < 0:
        raise ValueError("a frame is no JPEG 2000 stream")
    right, bottom, left, top = struct.unpack_from(">4I", encoded, place + 8)
    return bottom - top, right - left, struct.unpack_from(">H", encoded, place + 40)[0]


def _check_stated(found: tuple[int, int, int], layout: Layout) -> None:
    stated = (*layout.size, layout.samples)
    if found != stated:
        raise ValueError(f"a frame is {found[1]}x{found[0]}x{found[2]}, stated are {stated[1]}x{stated[0]}x{stated[2]}")


def _palette(values: npt.NDArray[Any], header: Dataset) -> Image:
    colours = apply_color_lut(values, header)
    if colours.dtype == np.uint8:
        return np.asarray(colours, np.uint8)
    # Some writers state 16 bits and store 8: their largest entry gives them away.
    return np.asarray(colours if int(colours.max()) < 256 else colours >> 8, np.uint8)


def _gray(values: npt.NDArray[Any], layout: Layout, header: Dataset) -> Image:
    inverted = layout.photometric == "MONOCHROME1"
    window = _window(header)
    slope, intercept = float(header.get("RescaleSlope") or 1), float(header.get("RescaleIntercept") or 0)
    if window is None and slope < 0:
        inverted = not inverted
    if window is None and values.dtype == np.uint8 and layout.stored == 8:
        return np.asarray(255 - values if inverted else values, np.uint8)
    if "ModalityLUTSequence" in header or "VOILUTSequence" in header:
        raise ValueError("gray scales given as tables are not read")
    wide = values.astype(np.float64)
    if window is None:
        lowest = -(2 ** (layout.stored - 1)) if layout.signed else 0
        shares = (wide - lowest) / (2**layout.stored - 1)
    else:
        centre, width = window
        shares = (wide * slope + intercept - (centre - 0.5)) / max(width - 1, 1e-6) + 0.5
    levels = np.rint(255 * np.clip(shares, 0, 1)).astype(np.uint8)
    return np.asarray(255 - levels if inverted else levels, np.uint8)


def _window(header: Dataset) -> tuple[float, float] | None:
    """Return the first window's centre and width; None if there is none."""
    found = []
    for keyword in ("WindowCenter", "WindowWidth"):
        value = header.get(keyword)
        if value is None or value == "":
            return None
        found.append(float(value[0] if hasattr(value, "__iter__") and not isinstance(value, str) else value))
    if found[1] < 1:
        raise ValueError(f"Window Width is {found[1]:g}; at least 1 is needed")
    return found[0], found[1]
