"""DICOM files without identity: attributes by `identity`, pixels by blanking. Best effort: look at the result.

Pixels
    Outside of the stated 2-D regions everything is blanked (or cropped), since banners with names lie there; where none
    is stated, `blanking` judges what lies beside the ultrasound picture. Text is searched on up to nine frames, spread
    evenly, and blanked in all frames. Faint or thick text on tissue, single letters, handwriting and faces in 3-D
    renderings are not found.
    A file whose pixels change is stored uncompressed, gray or RGB; the others keep their stored bytes.
"""

from __future__ import annotations

import secrets
import tempfile
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, BinaryIO, cast

import numpy as np
import pydicom
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian

from us_i2v.data.dicom.blanking import beside_picture, text_area, to_gray
from us_i2v.data.dicom.files import DicomFile, mapped, reading
from us_i2v.data.dicom.identity import Pseudonyms, remove_identity
from us_i2v.data.dicom.pixels import LOSSY, check_decodable, decode
from us_i2v.data.dicom.regions import View, picture_regions, region_box, view
from us_i2v.data.dicom.writing import save_object
from us_i2v.data.stills import collapse_gray
from us_i2v.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from pydicom import Dataset, FileDataset

    from us_i2v.data.dicom.detect import Regions
    from us_i2v.data.transforms import Box
    from us_i2v.types import Image, Mask

PROBES = 9
"""Frames on which text is searched."""
_STORED_AS = (
    *("RedPaletteColorLookupTableDescriptor", "GreenPaletteColorLookupTableDescriptor"),
    *("BluePaletteColorLookupTableDescriptor", "RedPaletteColorLookupTableData"),
    *("GreenPaletteColorLookupTableData", "BluePaletteColorLookupTableData", "PaletteColorLookupTableUID"),
    *("WindowCenter", "WindowWidth", "WindowCenterWidthExplanation", "VOILUTFunction", "RescaleSlope"),
    *("RescaleIntercept", "RescaleType", "SmallestImagePixelValue", "LargestImagePixelValue", "PixelPaddingValue"),
    *("ExtendedOffsetTable", "ExtendedOffsetTableLengths", "ICCProfile", "ColorSpace", "PlanarConfiguration"),
)
"""What described the pixels as they were stored."""


@dataclass(frozen=True)
class Cleaned:
    """What was done to a file.

    Attributes:
        patient: Pseudonym.
        instance: New SOP Instance UID.
        text_lines: Lines of text that were blanked, of the frame with the most.
        regions: Number of stated 2-D regions; 0 means that where the ultrasound picture lies was estimated.
        rewritten: True if the pixels were changed.
    """

    patient: str
    instance: str
    text_lines: int
    regions: int
    rewritten: bool


class Deidentifier:
    """Cleans files with one salt, so that patients, studies and references stay together.

    Args:
        regions: Blank or crop what lies outside of the 2-D regions, or keep it.
        blank_text: Search burned-in text and blank it.
        salt: Secret text; the same one gives the same pseudonyms. Random if None.
    """

    def __init__(self, *, regions: Regions = "blank", blank_text: bool = True, salt: str | None = None) -> None:
        self.regions: Regions = regions
        self.blank_text = blank_text
        self._pseudonyms = Pseudonyms(salt if salt is not None else secrets.token_hex(32))

    def pseudonym(self, path: Path) -> str:
        """Return the pseudonym of a file's patient; raises `InputError`."""
        header = DicomFile(path).header
        with reading(path):
            return self._pseudonyms.patient(header)

    def clean(self, path: Path, target: Path) -> Cleaned:
        """Write a cleaned copy of a file; atomic.

        Raises:
            InputError: The file cannot be read or decoded.
            OutputError: `target` cannot be written, or is the file itself.
        """
        if path.resolve() == target.resolve():
            raise OutputError(f"'{target}' would overwrite a file that is read.", "Choose another output.")
        file = DicomFile(path)
        check_decodable(file.layout, path)
        with reading(path):
            stated = len(picture_regions(file.header, file.layout.size))
        shown = view(file.header, file.layout.size, self.regions if stated else "keep", path)
        blank, lines = self._blank(file, shown, estimate=not stated and self.regions != "keep")
        with mapped(path) as stream, reading(path):
            dataset = pydicom.dcmread(cast("BinaryIO", stream))
            patient = remove_identity(dataset, self._pseudonyms)
        changed = bool(blank.any()) or shown.outside is not None or shown.crop is not None
        with tempfile.TemporaryFile() as pixels, reading(path):
            if changed:
                _store(dataset, file, shown, blank, pixels)
            save_object(target, dataset)
        return Cleaned(patient, str(dataset.SOPInstanceUID), lines, stated, changed)

    def _blank(self, file: DicomFile, shown: View, estimate: bool) -> tuple[Mask, int]:
        """Return what is to be blanked, (H, W) of the stored picture, and the most lines of text on one frame.

        It is searched in the stored picture, where no edges come from blanking; a line counts where it is shown. With
        `estimate`, what lies beside the ultrasound picture is searched too.
        """
        visible = np.zeros(file.layout.size, np.bool_)
        visible[shown.crop.slices if shown.crop is not None else ...] = True
        if shown.outside is not None:
            visible &= ~shown.outside
        wanted = {round(i * (file.layout.frames - 1) / (PROBES - 1)) for i in range(PROBES)}
        found = np.zeros(file.layout.size, np.bool_)
        brightest = np.zeros(file.layout.size, np.float32)
        most = 0
        for picture in _pictures(file, wanted if self.blank_text or estimate else ()):
            brightest = np.maximum(brightest, to_gray(picture))
            if self.blank_text:
                area, lines = text_area(collapse_gray(picture))
                found |= area
                most = max(most, sum(bool(visible[line].any()) for line in lines))
        if estimate:
            found |= beside_picture(brightest, found)
        return found & visible, most


def _pictures(file: DicomFile, wanted: Collection[int] | None = None) -> Iterator[Image]:
    """Yield a file's pictures as stored; those of the wanted frames only, if some are given."""
    for index, encoded in enumerate(file.encoded_frames()):
        if wanted is None or index in wanted:
            yield decode(encoded, file.layout, file.header, file.path)


def _store(dataset: FileDataset, file: DicomFile, shown: View, blank: Mask, pixels: IO[bytes]) -> None:
    """Replace a data set's pixels by the cleaned ones, frame by frame by way of the file `pixels`."""
    colour = file.layout.samples == 3 or file.layout.photometric == "PALETTE COLOR"
    for picture in _pictures(file):
        cleaned = picture.copy()
        cleaned[blank] = 0
        pixels.write(shown.show(cleaned).tobytes())
    if pixels.tell() % 2:
        pixels.write(b"\0")
    pixels.seek(0)
    for keyword in _STORED_AS:
        if keyword in dataset:
            delattr(dataset, keyword)
    dataset.Rows, dataset.Columns = shown.size
    dataset.SamplesPerPixel = 3 if colour else 1
    dataset.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    kind = [str(part) for part in dataset.get("ImageType") or []]
    dataset.ImageType = ["DERIVED", *kind[1:]] if kind else ["DERIVED", "SECONDARY"]
    if file.layout.syntax in LOSSY:
        dataset.LossyImageCompression = "01"
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    del dataset.PixelData
    dataset.add_new(0x7FE00010, "OB", pixels)
    if shown.crop is not None:
        _move_regions(dataset, file.layout.size, shown.crop)


def _move_regions(dataset: Dataset, size: tuple[int, int], crop: Box) -> None:
    """Shift the stated regions to the cropped picture; those that lie outside of it go."""
    kept = []
    for item in dataset.get("SequenceOfUltrasoundRegions") or []:
        box = region_box(item, size)
        if box is None:
            continue
        top, left = max(box.top - crop.top, 0), max(box.left - crop.left, 0)
        bottom = min(box.top + box.height - crop.top, crop.height)
        right = min(box.left + box.width - crop.left, crop.width)
        if bottom > top and right > left:
            item.RegionLocationMinY0, item.RegionLocationMinX0 = top, left
            item.RegionLocationMaxY1, item.RegionLocationMaxX1 = bottom - 1, right - 1
            kept.append(item)
    dataset.SequenceOfUltrasoundRegions = Sequence(kept)
