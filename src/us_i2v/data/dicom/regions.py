"""Calibrated regions of an ultrasound picture (Sequence of Ultrasound Regions, PS3.3 C.8.5.5).

A region is a rectangle that states what it shows and how large a pixel is. `PhysicalDeltaX` and `PhysicalDeltaY` are
centimetres a pixel where their unit is 3; here they become millimetres. Pictures are 2-D (spatial format 1) of tissue
or colour flow (data types 1 and 2); M-mode, spectra, ECG, colour bars and patient banners lie outside of them.

With "blank" everything outside of the 2-D regions becomes black, and masks still fit; with "crop" the smallest
rectangle around them is cut out. Pixel Spacing (0028,0030), millimetres too, counts where no region states a size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from us_i2v.data.dicom.files import reading
from us_i2v.data.transforms import Box
from us_i2v.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from pydicom import Dataset

    from us_i2v.data.dicom.detect import Regions
    from us_i2v.types import Image, Mask, Size

TWO_D = 1
"""Region Spatial Format of pictures."""
TISSUE, COLOUR_FLOW = 1, 2
"""Region Data Types of pictures."""
CENTIMETRES = 3
"""Physical Units of lengths."""
_AGREE = 0.005
"""Relative difference up to which two regions have one scale."""


@dataclass(frozen=True)
class Region:
    """A 2-D region.

    Attributes:
        box: Where it lies, cut at the picture's edge.
        mm_per_pixel: (row, column) spacing; None if it is not stated in centimetres.
    """

    box: Box
    mm_per_pixel: tuple[float, float] | None


@dataclass(frozen=True)
class View:
    """How pictures of a file are shown.

    Attributes:
        size: (height, width) as shown.
        crop: The rectangle that is cut out; None for the whole picture.
        outside: (H, W) of the stored picture, True where it is blanked; None if nothing is.
        mm_per_pixel: (row, column) spacing, or None where it is not known or differs between regions.
    """

    size: Size
    crop: Box | None
    outside: Mask | None
    mm_per_pixel: tuple[float, float] | None

    def show(self, picture: Image) -> Image:
        """Blank or crop a stored picture, (H, W) or (H, W, 3)."""
        if self.outside is not None:
            picture = picture.copy()
            picture[self.outside] = 0
        return np.ascontiguousarray(picture[self.crop.slices]) if self.crop is not None else picture


def view(header: Dataset, size: Size, regions: Regions, path: Path) -> View:
    """Decide what is shown of a file's pictures.

    Args:
        header: The data set.
        size: (height, width) as stored.
        regions: What to do with what lies outside of the 2-D regions.
        path: The file, for messages.

    Raises:
        InputError: Something is to be cropped or blanked, and no 2-D region is stated.
    """
    with reading(path):
        found = picture_regions(header, size)
        spacing = _common(found) or _pixel_spacing(header)
    if regions == "keep":
        return View(size, None, None, spacing)
    if not found:
        raise InputError(
            f"'{path}' states no region with a 2-D picture (0018,6011); there is nothing to {regions} it to.",
            "Use --region keep, or cut the picture out by hand.",
        )
    if regions == "crop":
        box = around([region.box for region in found])
        return View((box.height, box.width), box, None, spacing)
    outside = np.ones(size, np.bool_)
    for region in found:
        outside[region.box.slices] = False
    return View(size, None, outside, spacing)


def picture_regions(header: Dataset, size: Size) -> list[Region]:
    """List the 2-D regions of tissue or colour flow that lie in the picture."""
    found = []
    for item in header.get("SequenceOfUltrasoundRegions") or []:
        box = region_box(item, size)
        shows = item.get("RegionDataType") in (TISSUE, COLOUR_FLOW) and item.get("RegionSpatialFormat") == TWO_D
        if shows and box is not None:
            found.append(Region(box, _spacing(item)))
    return found


def region_box(item: Dataset, size: Size) -> Box | None:
    """Return a region's rectangle (its maxima are inside), cut at the picture's edge; None if nothing is left."""
    names = ("RegionLocationMinY0", "RegionLocationMinX0", "RegionLocationMaxY1", "RegionLocationMaxX1")
    values = [item.get(name) for name in names]
    if any(value is None for value in values):
        return None
    top, left, bottom, right = (int(str(value)) for value in values)
    top, left = max(top, 0), max(left, 0)
    bottom, right = min(bottom + 1, size[0]), min(right + 1, size[1])
    return Box(top, left, bottom - top, right - left) if bottom > top and right > left else None


def around(boxes: list[Box]) -> Box:
    """Return the smallest rectangle around all of at least one box."""
    top, left = min(box.top for box in boxes), min(box.left for box in boxes)
    bottom = max(box.top + box.height for box in boxes)
    right = max(box.left + box.width for box in boxes)
    return Box(top, left, bottom - top, right - left)


def _spacing(item: Dataset) -> tuple[float, float] | None:
    if item.get("PhysicalUnitsXDirection") != CENTIMETRES or item.get("PhysicalUnitsYDirection") != CENTIMETRES:
        return None
    spacing = (10 * abs(float(item.get("PhysicalDeltaY") or 0)), 10 * abs(float(item.get("PhysicalDeltaX") or 0)))
    return spacing if all(math.isfinite(side) and side > 0 for side in spacing) else None


def _common(found: list[Region]) -> tuple[float, float] | None:
    """Return the scale that all regions with a scale share."""
    scales = [region.mm_per_pixel for region in found if region.mm_per_pixel is not None]
    if not scales:
        return None
    same = all(math.isclose(a, b, rel_tol=_AGREE) for scale in scales for a, b in zip(scale, scales[0], strict=True))
    return scales[0] if same else None


def _pixel_spacing(header: Dataset) -> tuple[float, float] | None:
    value = header.get("PixelSpacing")
    if value is None or len(value) != 2:
        return None
    spacing = (float(value[0]), float(value[1]))
    return spacing if all(math.isfinite(side) and side > 0 for side in spacing) else None
