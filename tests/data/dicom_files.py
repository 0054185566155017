"""DICOM files that tests write: ultrasound pictures and cines in several encodings. Needs pydicom."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PillowImage
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    JPEG2000,
    UID,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
    UltrasoundImageStorage,
    UltrasoundMultiFrameImageStorage,
)

COLOURS = np.array(
    [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 128, 128], [64, 64, 64], [192, 192, 192], [255, 255, 0], [0, 0, 0]],
    np.uint8,
)
"""Colours of `bars`, from left to right."""


def bars(height: int = 32, width: int = 16) -> np.ndarray:
    """Vertical bars of `COLOURS`, (height, 8 * width, 3)."""
    return np.broadcast_to(np.repeat(COLOURS, width, axis=0), (height, 8 * width, 3)).copy()


def middles(picture: np.ndarray, width: int = 16) -> np.ndarray:
    """The values in the middle of each bar."""
    return picture[picture.shape[0] // 2, width // 2 :: width]


def ultrasound(frames: np.ndarray, photometric: str | None = None, **values: Any) -> Dataset:
    """An ultrasound object of uint8 or uint16 frames (T, H, W) or (T, H, W, 3), not compressed."""
    samples = 3 if frames.ndim == 4 else 1
    dataset = Dataset()
    several = len(frames) > 1
    dataset.SOPClassUID = UltrasoundMultiFrameImageStorage if several else UltrasoundImageStorage
    dataset.SOPInstanceUID = "1.2.3.4.5"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3.4", "1.2.3.4.1"
    dataset.PatientName, dataset.PatientID = "Doe^Jane", "MRN-4711"
    dataset.Modality = "US"
    dataset.Rows, dataset.Columns = frames.shape[1:3]
    dataset.SamplesPerPixel = samples
    dataset.PhotometricInterpretation = photometric or ("RGB" if samples == 3 else "MONOCHROME2")
    if samples == 3:
        dataset.PlanarConfiguration = 0
    bits = 8 * frames.dtype.itemsize
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = bits, bits, bits - 1, 0
    if several:
        dataset.NumberOfFrames = len(frames)
    native(dataset, frames.tobytes())
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


def native(dataset: Dataset, pixels: bytes) -> None:
    """Put pixels that are not compressed into an object."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta = meta
    dataset.PixelData = pixels + b"\0" * (len(pixels) % 2)
    dataset["PixelData"].VR = "OB" if dataset.BitsAllocated == 8 else "OW"


def compressed(dataset: Dataset, streams: list[bytes], syntax: UID) -> Dataset:
    """Replace an object's pixels by encoded frames."""
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate(streams)
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    return dataset


def jpeg(frame: np.ndarray, **options: Any) -> bytes:
    """A baseline JPEG stream; YCbCr 4:2:2 unless told otherwise."""
    out = io.BytesIO()
    PillowImage.fromarray(frame).save(out, "JPEG", quality=95, **({"subsampling": "4:2:2"} | options))
    return out.getvalue()


def without_markers(stream: bytes) -> bytes:
    """A JPEG stream without its APP segments, as scanners write them."""
    out, place = bytearray(stream[:2]), 2
    while stream[place + 1] != 0xDA:
        length = int.from_bytes(stream[place + 2 : place + 4], "big")
        if not 0xE0 <= stream[place + 1] <= 0xEF:
            out += stream[place : place + 2 + length]
        place += 2 + length
    return bytes(out + stream[place:])


def jpeg2000(frame: np.ndarray, *, lossy: bool = False, **options: Any) -> bytes:
    """A JPEG 2000 stream."""
    out = io.BytesIO()
    PillowImage.fromarray(frame).save(out, "JPEG2000", no_jp2=True, irreversible=lossy, **options)
    return out.getvalue()


def ybr(rgb: np.ndarray) -> np.ndarray:
    """RGB to YBR_FULL by the formula of PS3.3 C.7.6.3.1.2."""
    wide = rgb.astype(np.float64)
    matrix = np.array([[0.299, 0.587, 0.114], [-0.1687, -0.3313, 0.5], [0.5, -0.4187, -0.0813]])
    return np.clip(np.rint(wide @ matrix.T + [0, 128, 128]), 0, 255).astype(np.uint8)


def region(
    box: tuple[int, int, int, int], spacing_cm: tuple[float, float] | None = (0.02, 0.03), **values: Any
) -> Dataset:
    """A 2-D tissue region; `box` is (x0, y0, x1, y1), maxima inside; spacing is (row, column)."""
    item = Dataset()
    item.RegionSpatialFormat, item.RegionDataType, item.RegionFlags = 1, 1, 0
    item.RegionLocationMinX0, item.RegionLocationMinY0, item.RegionLocationMaxX1, item.RegionLocationMaxY1 = box
    if spacing_cm is not None:
        item.PhysicalUnitsXDirection = item.PhysicalUnitsYDirection = 3
        item.PhysicalDeltaY, item.PhysicalDeltaX = spacing_cm
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


def regions(*items: Dataset) -> Sequence:
    """A Sequence of Ultrasound Regions."""
    return Sequence(list(items))


def without_pydicom(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make pydicom, and what was imported with it, look as if it were not installed."""
    for name in list(sys.modules):
        if name.startswith("us_i2v.data.dicom.") and not name.endswith((".detect", ".output", ".mark")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pydicom", None)


def save(path: Path, dataset: Dataset) -> Path:
    """Write an object, making the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dcmwrite(path, dataset, enforce_file_format=True)
    return path


__all__ = [
    "COLOURS",
    "JPEG2000",
    "JPEG2000Lossless",
    "JPEGBaseline8Bit",
    "RLELossless",
    "bars",
    "compressed",
    "encapsulate",
    "jpeg",
    "jpeg2000",
    "middles",
    "native",
    "region",
    "regions",
    "save",
    "ultrasound",
    "without_markers",
    "without_pydicom",
    "ybr",
]
