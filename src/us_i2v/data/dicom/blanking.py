"""Where a picture may name a patient: text, and whatever stands beside the ultrasound picture. Best effort.

Text is what `audit.text` finds, and every character-high mark close to such a line and on its rows: what is left of a
word names a patient as well. Where a file does not say where its ultrasound picture lies, that is taken to be the
largest connected area that is neither black nor text, with what it encloses and areas a tenth as large; everything else
that is not black lies beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from us_i2v.data.audit.text import find_burned_in
from us_i2v.data.hold import overlays

if TYPE_CHECKING:
    from us_i2v.types import FloatArray, Image, Mask

MARGIN = 3
"""Pixels that are blanked around what is found."""
BLACK = 10
"""Gray level up to which a pixel is black."""
_GAP = 120
"""Gaps of twice the shorter side / 120 do not divide an area."""
_LARGE = 0.1
"""An area of this share of the largest one belongs to the picture."""
_OVERLAP = 0.5
"""A mark that belongs to a line shares this part of its own rows with it."""
_SQUARE = np.ones((3, 3), np.bool_)
_HIGHER = 2.0
"""A mark that belongs to a line is at most this many times as high."""
_NEAR = 3.0
"""A mark that belongs to a line is at most this many of its heights away."""


def to_gray(picture: Image) -> FloatArray:
    """Mean of the channels, (H, W)."""
    values = picture.astype(np.float32)
    return values.mean(axis=2) if picture.ndim == 3 else values


def text_area(picture: Image) -> tuple[Mask, list[tuple[slice, slice]]]:
    """Find text.

    Args:
        picture: uint8, (H, W) or (H, W, 3).

    Returns:
        (H, W) bool, True where text or its remains are; and the lines' rows and columns.
    """
    gray = to_gray(picture)
    area = np.zeros(gray.shape, np.bool_)
    lines = [(slice(box.top, box.bottom), slice(box.left, box.right)) for box in find_burned_in(picture).lines]
    for line in lines:
        area[line] = True
    if lines:
        labels, _ = ndimage.label(overlays(picture, gray), _SQUARE)
        for mark in ndimage.find_objects(labels):
            if any(_belongs(mark, line) for line in lines):
                area[mark] = True
        area = ndimage.binary_dilation(area, _SQUARE, iterations=MARGIN)
    return area, lines


def beside_picture(brightest: FloatArray, text: Mask) -> Mask:
    """Find what is not black and does not belong to the ultrasound picture.

    Args:
        brightest: (H, W) gray levels 0..255, of a cine the brightest of every pixel.
        text: (H, W), what was found to be text, which joins nothing to the picture.

    Returns:
        (H, W) bool.
    """
    lit = (brightest > BLACK) & ~text
    reach = max(2, min(brightest.shape) // _GAP)
    # Padded, since a closing eats into what touches the edge.
    joined = ndimage.binary_closing(np.pad(lit, reach), _SQUARE, iterations=reach)[reach:-reach, reach:-reach]
    labels, count = ndimage.label(joined, _SQUARE)
    if count < 2:
        return np.zeros(lit.shape, np.bool_)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    picture = ndimage.binary_fill_holes((sizes >= _LARGE * sizes.max())[labels])
    beside = ndimage.binary_dilation(lit & ~picture, _SQUARE, iterations=MARGIN)
    return np.asarray(beside & ~picture, np.bool_)


def _belongs(mark: tuple[slice, ...], line: tuple[slice, slice]) -> bool:
    """Tell whether a mark is on a line's rows, near it and not much higher than it."""
    (rows, columns), height = mark, mark[0].stop - mark[0].start
    line_height = line[0].stop - line[0].start
    shared = min(rows.stop, line[0].stop) - max(rows.start, line[0].start)
    gap = max(columns.start - line[1].stop, line[1].start - columns.stop)
    near = gap <= _NEAR * line_height and height <= _HIGHER * line_height
    return bool(near and shared >= _OVERLAP * height)
