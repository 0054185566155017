"""The static mask: pixels of a still that must not move.

Outside the ultrasound sector there is no tissue, and text, rulers and callipers are painted onto the picture.
Both are found on the still itself:

- outside: dark, featureless regions that touch the picture's edge;
- overlays: coloured pixels, and thin strokes that are bright and much sharper than any speckle.

`fill_held` continues the tissue under held pixels, so that nothing painted is dragged along by the flow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from us_i2v.types import FloatArray, Image, Mask

_DARK = 10
"""Gray level up to which a region counts as empty."""
_COLOUR = 40
"""Spread of the channels from which a pixel counts as painted."""
_STROKE = 90
"""Rise over the surroundings, gray levels, of a painted stroke."""
_EDGE = 70
"""Gray-level step between neighbouring pixels that speckle does not reach."""


def find_hold(image: Image) -> Mask:
    """Find the pixels of a still that must not move.

    Args:
        image: uint8, (H, W) or (H, W, 3).

    Returns:
        (H, W) bool, True where the picture stays as it is.
    """
    gray = image.astype(np.float32).mean(axis=2) if image.ndim == 3 else image.astype(np.float32)
    return outside_sector(gray) | overlays(image, gray)


def outside_sector(gray: FloatArray) -> Mask:
    """Empty regions at the picture's edge: (H, W) gray levels 0..255 -> (H, W) bool."""
    reach = max(3, min(gray.shape) // 40) | 1
    empty = sliding(gray, reach, np.maximum) <= _DARK
    if not empty.any():
        return empty
    labels, count = ndimage.label(empty)
    edge = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    kept = np.zeros(count + 1, bool)
    kept[edge] = sizes[edge] >= 0.002 * gray.size
    kept[0] = False
    # The maximum filter shrank the region by its reach; grow it back over dark pixels only.
    grown = ndimage.binary_dilation(kept[labels], iterations=reach // 2 + 1)
    return grown & (gray <= _DARK)


def overlays(image: Image, gray: FloatArray) -> Mask:
    """Painted strokes: coloured pixels and thin bright ones with edges sharper than speckle."""
    painted = np.zeros(gray.shape, bool)
    if image.ndim == 3:
        spread = image.max(axis=2).astype(np.int16) - image.min(axis=2)
        # A picture that is tinted all over (Doppler, sepia) has no painted strokes to be told by colour.
        if np.mean(spread > _COLOUR) < 0.1:
            painted |= spread > _COLOUR
    rise = gray - sliding(sliding(gray, 9, np.minimum), 9, np.maximum)
    steps = (np.abs(np.diff(gray, axis=0, prepend=gray[:1])), np.abs(np.diff(gray, axis=1, prepend=gray[:, :1])))
    step = sliding(np.maximum(*steps), 3, np.maximum)
    strokes = (rise > _STROKE) & (step > _EDGE)
    if strokes.any():
        labels, count = ndimage.label(strokes, np.ones((3, 3)))
        index = np.arange(1, count + 1)
        sizes = ndimage.sum_labels(strokes, labels, index)
        sharp = ndimage.sum_labels(step > 1.4 * _EDGE, labels, index) / sizes
        kept = np.concatenate([[False], ((sizes >= 6) & (sharp > 0.4)) | ((sizes >= 3) & (sharp > 0.7))])
        painted |= kept[labels]
    return ndimage.binary_dilation(painted, iterations=2) if painted.any() else painted


def sliding(values: FloatArray, size: int, extreme: np.ufunc) -> FloatArray:
    """Largest or smallest value of the square around every pixel, of what lies in the picture.

    Windows are put together from overlapping ones of half their length: log2(size) passes an axis, a tenth of the
    time of `ndimage.maximum_filter`, and the same numbers.

    Args:
        values: (H, W).
        size: Side of the square, odd.
        extreme: `np.maximum` or `np.minimum`.
    """
    worst = -np.inf if extreme is np.maximum else np.inf
    found = values
    for axis in (0, 1):
        around = [(0, 0), (0, 0)]
        around[axis] = (size // 2, size // 2)
        found = np.moveaxis(np.pad(found, around, constant_values=worst), axis, 0)
        length = 1
        while length < size:
            step = min(length, size - length)
            found = extreme(found[:-step], found[step:])
            length += step
        found = np.moveaxis(found, 0, axis)
    return np.ascontiguousarray(found)


def fill_held(image: FloatArray, hold: Mask) -> FloatArray:
    """Continue the tissue under held pixels by its nearest visible neighbour.

    Args:
        image: (H, W) or (H, W, C).
        hold: (H, W) bool.

    Returns:
        A copy of the image; unchanged if nothing or everything is held.
    """
    if not hold.any() or hold.all():
        return image
    rows, columns = ndimage.distance_transform_edt(hold, return_distances=False, return_indices=True)
    filled: FloatArray = image[rows, columns]
    return filled
