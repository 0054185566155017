"""DICOM cines behind `clips.open_clip`, DICOM stills behind `stills.read_still`; frames one at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from us_i2v.data.decoding.base import ClipInfo, as_declared
from us_i2v.data.dicom.files import DicomFile, reading
from us_i2v.data.dicom.pixels import check_decodable, decode
from us_i2v.data.dicom.regions import view
from us_i2v.data.dicom.timing import frame_rate
from us_i2v.data.stills import collapse_gray

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from us_i2v.data.dicom.detect import Regions
    from us_i2v.data.dicom.regions import View
    from us_i2v.types import Image


class DicomSource:
    """A DICOM file with one or more frames.

    Args:
        path: The file.
        regions: What to do with the picture outside of its ultrasound regions.
    """

    def __init__(self, path: Path, regions: Regions = "keep") -> None:
        self.path = path
        self.regions = regions

    def scan(self) -> ClipInfo:
        """Check the header, then decode all frames once, keeping none."""
        file, shown = self._open()
        with reading(self.path):
            fps = frame_rate(file.header)
        colour = False
        for encoded in file.encoded_frames():
            picture = shown.show(decode(encoded, file.layout, file.header, self.path))
            colour = colour or collapse_gray(picture).ndim == 3
        return ClipInfo(
            n_frames=file.layout.frames,
            size=shown.size,
            fps=fps,
            colour=colour,
            padded=shown.size,
            mm_per_pixel=shown.mm_per_pixel,
        )

    def stream(self, info: ClipInfo, first: int, last: int, step: int) -> Iterator[Image]:
        """Yield frames first, first + step, ... <= last; the others are not decoded."""
        file, shown = self._open()
        for index, encoded in enumerate(file.encoded_frames(first), start=first):
            if index > last:
                return
            if (index - first) % step == 0:
                picture = shown.show(decode(encoded, file.layout, file.header, self.path))
                yield as_declared(collapse_gray(picture), info.colour)

    def _open(self) -> tuple[DicomFile, View]:
        file = DicomFile(self.path)
        check_decodable(file.layout, self.path)
        return file, view(file.header, file.layout.size, self.regions, self.path)


@dataclass(frozen=True)
class DicomStill:
    """A still and what its file says about it.

    Attributes:
        picture: uint8, (H, W) or (H, W, 3).
        mm_per_pixel: (row, column) spacing, or None where it is not known.
        lossy: True if the file states that the picture was compressed with loss.
    """

    picture: Image
    mm_per_pixel: tuple[float, float] | None
    lossy: bool


def read_dicom_still(path: Path, max_pixels: int | None = None, regions: Regions = "keep") -> DicomStill:
    """Read the first frame of a DICOM file; raises `InputError`."""
    file = DicomFile(path, max_pixels)
    check_decodable(file.layout, path)
    shown = view(file.header, file.layout.size, regions, path)
    picture = shown.show(decode(next(file.encoded_frames()), file.layout, file.header, path))
    with reading(path):
        lossy = str(file.header.get("LossyImageCompression", "")) == "01"
    return DicomStill(collapse_gray(picture), shown.mm_per_pixel, lossy)
