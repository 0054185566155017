"""Lesion boxes in pixels of their picture, as annotations state them: real numbers, x to the right, y down."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from us_i2v.types import Mask, Size

_LEAST_SIDE = 1.0  # pixel; annotations hold slips of the mouse


class BoundingBox(NamedTuple):
    """A rectangle; a pixel i covers i .. i + 1."""

    left: float
    top: float
    width: float
    height: float

    @property
    def centre(self) -> tuple[float, float]:
        """Middle, (x, y)."""
        return self.left + self.width / 2, self.top + self.height / 2


def clean_box(box: BoundingBox, size: Size | None = None) -> BoundingBox | None:
    """Return a box with positive sides, cut at the picture's edge; None if less than a pixel is left.

    Args:
        box: Width and height may be negative (drawn from right to left); parts may lie outside.
        size: (height, width) of the picture; nothing is cut if None.
    """
    left, right = sorted((box.left, box.left + box.width))
    top, bottom = sorted((box.top, box.top + box.height))
    if size is not None:
        left, right = max(left, 0.0), min(right, float(size[1]))
        top, bottom = max(top, 0.0), min(bottom, float(size[0]))
    if right - left < _LEAST_SIDE or bottom - top < _LEAST_SIDE:
        return None
    return BoundingBox(left, top, right - left, bottom - top)


def union_box(boxes: Iterable[BoundingBox]) -> BoundingBox | None:
    """Return the smallest box around all boxes; None if there are none."""
    listed = list(boxes)
    if not listed:
        return None
    left, top = min(box.left for box in listed), min(box.top for box in listed)
    right = max(box.left + box.width for box in listed)
    bottom = max(box.top + box.height for box in listed)
    return BoundingBox(left, top, right - left, bottom - top)


def mask_box(mask: Mask) -> BoundingBox | None:
    """Return the smallest box around a mask, (H, W); None if the mask is empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return None
    top, left = int(rows[0]), int(columns[0])
    return BoundingBox(left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top)
