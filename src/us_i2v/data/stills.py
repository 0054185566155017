"""Stills: PNG, JPEG, TIFF, BMP, GIF and DICOM files, and first frames of NIfTI and MetaImage files, to 8-bit arrays.

Conventions
    A still is uint8, (H, W) gray or (H, W, 3) RGB, 0..255. RGB whose three channels are equal becomes gray.
    16-bit files are scaled by the full range of their type, v8 = round(v16 * 255 / 65535): never by the
    values that happen to occur, so that pictures of one series stay comparable (RGB keeps the high byte).
    A 16-bit file whose largest value is below 256 would come out black and is refused. Floating-point TIFFs
    follow `scale_to_uint8`.
    Alpha is dropped; palette, 1-bit, CMYK and other colour spaces are converted to gray or RGB.
    Of a file with several pages or frames the first is read. The EXIF orientation is applied.
Nothing is decoded before the header has shown a plausible size.
"""

from __future__ import annotations

import re
import struct
import warnings
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage
from PIL import ImageOps, UnidentifiedImageError

from us_i2v.data.dicom.detect import is_dicom, require_pydicom
from us_i2v.data.limits import check_bytes, limits
from us_i2v.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from us_i2v.data.dicom.detect import Regions
    from us_i2v.types import Image, Size

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF")
STILL_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif"})
VOLUME_SUFFIXES = (".nii", ".nii.gz", ".mha", ".mhd")
"""NIfTI and MetaImage files, see `decoding.volumes`."""
MIN_SIDE = 16

PILLOW_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    OverflowError,
    struct.error,
    zlib.error,
    PillowImage.DecompressionBombError,
)
"""What Pillow's readers raise on damaged files."""


def is_still(path: Path) -> bool:
    """Tell by its ending whether a path is meant to be a still; GIFs count as stills and as clips.

    So do DICOM, NIfTI and MetaImage files, of which `clips.is_clip` tells by their headers.
    """
    return path.suffix.lower() in STILL_SUFFIXES or is_volume(path) or is_dicom(path)


def is_volume(path: Path) -> bool:
    """Tell by its ending whether a path is meant to be a NIfTI or MetaImage file."""
    return path.name.lower().endswith(VOLUME_SUFFIXES)


def read_still(path: Path, max_pixels: int | None = None, regions: Regions = "keep") -> Image:
    """Read one still as uint8, (H, W) or (H, W, 3).

    Args:
        path: A PNG, JPEG, TIFF, BMP, GIF, DICOM, NIfTI or MetaImage file.
        max_pixels: Largest allowed height x width, checked on the header before anything is decoded; None takes
            that of `limits`, 50 million unless raised.
        regions: Of DICOM files: keep, crop or blank what lies outside of their ultrasound regions.

    Raises:
        InputError: The file is missing, empty, truncated, not an image of these formats, smaller than
            16 x 16 or larger than `max_pixels`.
    """
    if is_volume(path):
        from us_i2v.data.decoding.volumes import first_frame

        return first_frame(path, max_pixels)
    if is_dicom(path):
        require_pydicom(path)
        from us_i2v.data.dicom.source import read_dicom_still

        return read_dicom_still(path, max_pixels or limits().pixels, regions).picture
    with open_image(path, max_pixels) as picture:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                picture.load()
                oriented = ImageOps.exif_transpose(picture)
                pixels = _to_array(oriented, path)
        except PILLOW_ERRORS as error:
            raise damaged(path, error) from error
    return collapse_gray(pixels)


def still_size(path: Path, max_pixels: int | None = None) -> Size:
    """Return (height, width) from the header alone; raises `InputError` like `read_still`."""
    with open_image(path, max_pixels) as picture:
        return picture.height, picture.width


def open_image(path: Path, max_pixels: int | None = None, min_side: int = MIN_SIDE) -> PillowImage.Image:
    """Open a still without decoding it, after checking that it exists and has a plausible size."""
    require_file(path, "Still")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about tags that are not read; sizes are checked below
            picture = PillowImage.open(path, formats=FORMATS)
    except PillowImage.DecompressionBombError as error:
        found = re.search(r"\d+", str(error))
        cap = max_pixels or limits().pixels
        raise _too_large(path, f"{found.group() if found else 'too many'} pixels", cap) from error
    except UnidentifiedImageError as error:
        raise InputError(
            f"'{path}' is not a readable image; {', '.join(FORMATS)} are.",
            "Check that the file is what its name says.",
        ) from error
    except PILLOW_ERRORS as error:
        raise damaged(path, error) from error
    height, width = picture.height, picture.width
    try:
        check_size(path, (height, width), max_pixels, min_side)
    except InputError:
        picture.close()
        raise
    return picture


def require_file(path: Path, what: str) -> None:
    """Raise `InputError` unless `path` is a readable, non-empty file."""
    try:
        if path.is_dir():
            raise InputError(f"{what} '{path}' is a folder; a file is needed.", "Give the file inside it.")
        size = path.stat().st_size
        with path.open("rb"):
            pass
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(f"{what} '{path}' cannot be read: {reason}.", "Check the path and its permissions.") from error
    if size == 0:
        raise InputError(f"{what} '{path}' is empty (0 bytes).", "Copy or export the file again.")
    check_bytes(path, size)


def check_size(path: Path, size: Size, max_pixels: int | None = None, min_side: int = MIN_SIDE) -> None:
    """Raise `InputError` if a picture of this size is too small or too large to work with."""
    height, width = size
    cap = max_pixels or limits().pixels
    if height * width > cap:
        raise _too_large(path, f"{width}x{height} pixels", cap)
    if min(height, width) < min_side:
        raise InputError(
            f"'{path}' is {width}x{height} pixels; at least {min_side}x{min_side} are needed.",
            "Use a larger picture.",
        )


def damaged(path: Path, error: Exception) -> InputError:
    """Return the error for a file that begins like an image and cannot be decoded."""
    reason = " ".join(str(error).split())[:120] or type(error).__name__
    return InputError(f"'{path}' is damaged or cut short ({reason}).", "Copy or export the file again.")


def collapse_gray(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return (..., H, W) for (..., H, W, 3) whose three channels are equal, anything else as it is."""
    if pixels.ndim >= 3 and pixels.shape[-1] == 3:
        first = pixels[..., 0]
        if np.array_equal(first, pixels[..., 1]) and np.array_equal(first, pixels[..., 2]):
            return np.ascontiguousarray(first)
    return pixels


def scale_to_uint8(values: npt.NDArray[Any], name: str, largest: float) -> npt.NDArray[np.uint8]:
    """Scale pixel values of any type to uint8 by a rule that depends on the type, not on the contrast.

    bool: 0 and 255. uint8: unchanged. uint16: v * 255 / 65535 (refused if `largest`, the whole clip's
    maximum, is 1..255: such data is 8-bit in a wide type and would turn black). Other integers: unchanged,
    must lie in 0..255. Floats: must be finite; 0..1 is scaled by 255, 0..255 is rounded; `largest` decides.

    Args:
        values: Any shape.
        name: The file's name for the error message.
        largest: Maximum over the whole file of which `values` is a part.
    """
    kind = values.dtype.kind
    if values.dtype == np.uint8:
        return np.asarray(values, np.uint8)
    if kind == "b":
        return np.asarray(values, np.uint8) * np.uint8(255)
    if kind == "u" and values.dtype.itemsize == 2:
        if 0 < largest < 256:
            raise InputError(
                f"'{name}' holds 16-bit values up to {largest:.0f} only, of 65535; it would turn black.",
                "Save it as 8 bit, or scale it to the full 16-bit range.",
            )
        wide = values.astype(np.uint32)
        return np.asarray((wide * 255 + 32767) // 65535, np.uint8)
    if kind not in "uif":
        raise InputError(f"'{name}' holds values of type {values.dtype}; numbers are needed.", "Save it as uint8.")
    if kind == "f" and not np.isfinite(values).all():
        raise InputError(
            f"'{name}' holds NaN or infinite values; finite ones are needed.", "Replace them and save again."
        )
    if values.size and (float(values.min()) < 0 or largest > 255):
        raise InputError(
            f"'{name}' holds values from {float(values.min()):g} to {largest:g}; 0..255 is needed.",
            "Scale them to 0..255 (or floats to 0..1) and save again.",
        )
    if kind == "f" and largest <= 1:
        values = values * 255.0
    return np.asarray(np.rint(values), np.uint8)


def _to_array(picture: PillowImage.Image, path: Path) -> npt.NDArray[np.uint8]:
    mode = picture.mode
    if mode.startswith("I;16"):
        wide = np.asarray(picture).astype(np.uint16)
        return scale_to_uint8(wide, str(path), float(wide.max()))
    if mode == "I":
        values = np.asarray(picture)
        low, high = int(values.min()), int(values.max())
        if low >= 0 and 255 < high <= 65535:
            return scale_to_uint8(values.astype(np.uint16), str(path), float(high))
        return scale_to_uint8(values, str(path), float(high))
    if mode == "F":
        floats = np.asarray(picture)
        return scale_to_uint8(floats, str(path), float(np.nanmax(floats)) if np.isfinite(floats).any() else 0.0)
    if mode in ("1", "L", "LA", "La"):
        return np.array(picture.convert("L"), np.uint8)
    return np.array(picture.convert("RGB"), np.uint8)


def _too_large(path: Path, found: str, max_pixels: int) -> InputError:
    return InputError(
        f"'{path}' has {found}; at most {max_pixels} are allowed.",
        "Scale it down, cut out the ultrasound picture, or raise --max-pixels.",
    )
