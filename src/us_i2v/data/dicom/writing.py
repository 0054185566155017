"""Generated clips as Ultrasound Multi-frame Image Storage (PS3.3 A.7), not compressed.

The object says that it is synthetic (Synthetic Data (0008,001C) = YES), how it was made (Derivation Description), and
belongs to a patient and study of its own, never to those of the still. There are no dates or times. All UIDs are
2.25.<number> (PS3.5 B.2) whose number is the first 128 bits of the SHA-256 of the content: the same clip gives the same
bytes. Patient and study derive from frame 0, so that the clips of one still lie together.

Pixels: MONOCHROME2 or RGB, 8 bits, as given but for the mark.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRLittleEndian, UltrasoundMultiFrameImageStorage

from us_i2v import __version__
from us_i2v.data.atomic import publish, temporary_beside, unwritable
from us_i2v.data.dicom.mark import draw_mark
from us_i2v.data.dicom.output import refuse_text
from us_i2v.data.dicom.regions import CENTIMETRES, TISSUE, TWO_D
from us_i2v.data.embedding import BLOCK, ELEMENT, GROUP, frames_sha256
from us_i2v.errors import OutputError

if TYPE_CHECKING:
    from pathlib import Path

    from us_i2v.data.dicom.output import DicomOutput
    from us_i2v.types import Frames

MAX_BYTES = (1 << 32) - 2
"""Longest value of an element (PS3.5 7.1.1)."""
_FRAME_TIME = 0x00181063
_TEXT = 1024
"""Longest text of Derivation Description, characters."""
UNKNOWN = ("PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "ReferringPhysicianName", "AccessionNumber")
"""Attributes of patient and study that must be there and may be empty (type 2)."""


def write_dicom(path: Path, frames: Frames, fps: float, output: DicomOutput) -> None:
    """Write a generated clip; atomic.

    Args:
        path: Target.
        frames: uint8, (T, H, W) or (T, H, W, 3).
        fps: Frames per second.
        output: Mark, text, spacing and description.

    Raises:
        InputError: Frame 0 has burned-in text and `output.keep_text` is not set.
        OutputError: The clip is too large, or cannot be written.
    """
    if not output.keep_text:
        refuse_text(frames[0], str(path))
    if frames.nbytes > MAX_BYTES or max(frames.shape[1:3]) > 65535:
        raise OutputError(f"'{path}': {frames.nbytes} bytes are more than a DICOM object holds.", "Make it shorter.")
    save_object(path, synthetic_object(frames, fps, output))


def save_object(path: Path, dataset: FileDataset) -> None:
    """Write an object with its file header, atomically; raises `OutputError`."""
    with temporary_beside(path) as part:
        try:
            pydicom.dcmwrite(part, dataset, enforce_file_format=True)
        except OSError as error:
            raise unwritable(path, error) from error
        publish(part, path)


def synthetic_object(frames: Frames, fps: float, output: DicomOutput) -> FileDataset:
    """Return the whole object for frames (T, H, W[, 3]); see `write_dicom`."""
    source = hashlib.sha256(repr(frames.shape[1:]).encode() + frames[0].tobytes()).hexdigest()
    shown = draw_mark(frames) if output.mark else np.ascontiguousarray(frames)
    if output.record is not None:
        output = replace(output, record=output.record.of_content("frames", frames_sha256(shown), fps))
    description = " ".join(output.description.split()) or f"Generated from one still by us-i2v {__version__}"
    content = hashlib.sha256(shown.tobytes()).hexdigest()
    instance = content_uid("instance", content, repr(shown.shape), repr(fps), description, repr(output))
    header = file_header(UltrasoundMultiFrameImageStorage, instance)
    dataset = FileDataset("", {}, file_meta=header, preamble=b"\0" * 128)
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = UltrasoundMultiFrameImageStorage
    dataset.SOPInstanceUID = instance
    dataset.SyntheticData = "YES"
    _add_identity(dataset, source, instance)
    _add_image(dataset, description, output)
    _add_pixels(dataset, shown, fps)
    if output.record is not None:
        block = dataset.private_block(GROUP, BLOCK, create=True)
        block.add_new(ELEMENT, "UT", output.record.line())
    if output.mm_per_pixel is not None:
        dataset.SequenceOfUltrasoundRegions = Sequence([_region(shown, output.mm_per_pixel)])
    return dataset


def content_uid(*parts: str) -> UID:
    """Return the UID 2.25.<first 128 bits of the SHA-256 of the parts>."""
    digest = hashlib.sha256("\0".join(parts).encode()).digest()
    return UID(f"2.25.{int.from_bytes(digest[:16], 'big')}")


def file_header(kind: str, instance: str, syntax: str = ExplicitVRLittleEndian) -> FileMetaDataset:
    """Return the file header of an object of the class `kind` (PS3.10 7.1)."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(kind)
    meta.MediaStorageSOPInstanceUID = UID(instance)
    meta.TransferSyntaxUID = UID(syntax)
    meta.ImplementationClassUID = content_uid("us-i2v", "implementation")
    meta.ImplementationVersionName = f"US-I2V {__version__}"[:16]
    return meta


def _add_identity(dataset: Dataset, source: str, instance: UID) -> None:
    """Modules Patient, General Study, General Series and General Equipment."""
    dataset.PatientName = f"SYNTHETIC^{source[:8].upper()}"
    dataset.PatientID = f"SYNTHETIC-{source[:16].upper()}"
    for keyword in UNKNOWN:
        setattr(dataset, keyword, None)
    dataset.StudyInstanceUID = content_uid("study", source)
    dataset.StudyID = "SYNTHETIC"
    dataset.StudyDescription = "Synthetic ultrasound"
    dataset.Modality = "US"
    dataset.SeriesInstanceUID = content_uid("series", instance)
    dataset.SeriesNumber = 1
    dataset.SeriesDescription = "Synthetic clip, generated from one still"
    dataset.Laterality = None
    dataset.Manufacturer = "us-i2v"
    dataset.ManufacturerModelName = "us-i2v"
    dataset.SoftwareVersions = __version__


def _add_image(dataset: Dataset, description: str, output: DicomOutput) -> None:
    """Modules General Image and US Image, but for the pixels."""
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    dataset.InstanceNumber = 1
    dataset.PatientOrientation = None
    dataset.ContentDate = None
    dataset.ContentTime = None
    dataset.DerivationDescription = description[:_TEXT]
    dataset.ImageComments = "Synthetic: plausible, not measured. Not for diagnosis."
    if output.keep_text:
        dataset.BurnedInAnnotation = "YES"
    if output.lossy:
        dataset.LossyImageCompression = "01"


def _add_pixels(dataset: Dataset, frames: Frames, fps: float) -> None:
    """Modules Cine, Multi-frame and Image Pixel."""
    colour = frames.ndim == 4
    dataset.NumberOfFrames = len(frames)
    dataset.FrameIncrementPointer = _FRAME_TIME
    dataset.FrameTime = f"{1000 / fps:.10g}"
    dataset.CineRate = max(1, round(fps))
    dataset.RecommendedDisplayFrameRate = max(1, round(fps))
    dataset.Rows, dataset.Columns = frames.shape[1:3]
    dataset.SamplesPerPixel = 3 if colour else 1
    dataset.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PixelRepresentation = 0
    dataset.UltrasoundColorDataPresent = int(colour)
    pixels = frames.tobytes()
    dataset.add_new(0x7FE00010, "OB", pixels + b"\0" * (len(pixels) % 2))


def _region(frames: Frames, mm_per_pixel: tuple[float, float]) -> Dataset:
    """One region, the whole picture: module US Region Calibration."""
    item = Dataset()
    item.RegionSpatialFormat = TWO_D
    item.RegionDataType = TISSUE
    item.RegionFlags = 0
    item.RegionLocationMinX0, item.RegionLocationMinY0 = 0, 0
    item.RegionLocationMaxX1, item.RegionLocationMaxY1 = frames.shape[2] - 1, frames.shape[1] - 1
    item.PhysicalUnitsXDirection = item.PhysicalUnitsYDirection = CENTIMETRES
    item.PhysicalDeltaY, item.PhysicalDeltaX = mm_per_pixel[0] / 10, mm_per_pixel[1] / 10
    return item
