"""Lesion crops: the lesion's box and a quarter more, letterboxed into a square of 224 pixels.

As in the LDDM paper's own preparation, which says "box + 25 %"; that is read as width and height times 1.25
about the same centre, cut at the picture's edge. Of a clip, one region around all of its boxes is cut out of every
frame: a crop that followed the box would take the lesion's motion out and put the box's jitter in.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from us_i2v.data.transforms import Box, Fit, fit_mask, fit_still, place
from us_i2v.errors import InputError

if TYPE_CHECKING:
    from us_i2v.data.boxes import BoundingBox
    from us_i2v.types import Image, Mask, Size

MARGIN = 0.25
SIDE = 224


def crop_region(box: BoundingBox, size: Size, margin: float = MARGIN) -> Box:
    """Return the whole pixels to cut out.

    Args:
        box: The lesion.
        size: (height, width) of the picture.
        margin: Share of the box's sides that is added in all, half of it on either side.

    Raises:
        InputError: The box lies outside of the picture.
    """
    height, width = size
    left = max(0, math.floor(box.left - margin / 2 * box.width))
    top = max(0, math.floor(box.top - margin / 2 * box.height))
    right = min(width, math.ceil(box.left + (1 + margin / 2) * box.width))
    bottom = min(height, math.ceil(box.top + (1 + margin / 2) * box.height))
    if right <= left or bottom <= top:
        raise InputError(
            f"Box {tuple(round(value) for value in box)} lies outside of a picture of {width}x{height} pixels.",
            "Check that boxes and pictures belong together.",
        )
    return Box(top, left, bottom - top, right - left)


def crop_picture(picture: Image, region: Box, side: int = SIDE) -> Image:
    """Cut a region out of (H, W[, 3]) and letterbox it into (side, side[, 3])."""
    return fit_still(picture[region.slices], Fit("letterbox", side))[0]


def crop_mask(mask: Mask, region: Box, side: int = SIDE) -> Mask:
    """Cut and letterbox a mask, (H, W) to (side, side), like its picture."""
    return fit_mask(mask[region.slices], Fit("letterbox", side))[0]


def crop_box(box: BoundingBox, region: Box, side: int = SIDE) -> BoundingBox:
    """Return where a box of the picture lies in the crop."""
    fitted = place((region.height, region.width), Fit("letterbox", side))
    scale_y, scale_x = fitted.scale
    return box._replace(
        left=(box.left - region.left) / scale_x + fitted.box.left,
        top=(box.top - region.top) / scale_y + fitted.box.top,
        width=box.width / scale_x,
        height=box.height / scale_y,
    )
