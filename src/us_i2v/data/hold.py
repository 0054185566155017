"""The static mask: pixels of a still that must not move.

Outside the ultrasound sector there is no tissue, and text, rulers and callipers are painted onto the picture.
Both are found on the still itself:

- outside: dark, featureless regions that touch the picture's edge;
- overlays: coloured pixels, and thin strokes that are bright and much sharper than any speckle.

`fill_held` continues the tissue under held pixels, so that nothing painted is dragged along by the flow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    import numpy.typing as npt

    from us_i2v.types import FloatArray, Image, Mask

    _Gray = npt.NDArray[np.uint8] | FloatArray

_DARK = 10
"""Gray level up to which a region counts as empty."""
_COLOUR = 40
"""Spread of the channels from which a pixel counts as painted."""
_STROKE = 90
"""Rise over the surroundings, gray levels, of a painted stroke."""
_FEW = 40
"""Held regions up to which each is filled in its own box; more are filled together."""
_EDGE = 70
"""Gray-level step between neighbouring pixels that speckle does not reach."""


def find_hold(image: Image) -> Mask:
    """Find the pixels of a still that must not move.

    Args:
        image: uint8, (H, W) or (H, W, 3).

    Returns:
        (H, W) bool, True where the picture stays as it is.
    """
    gray = image.astype(np.float32).mean(axis=2) if image.ndim == 3 else image
    return outside_sector(gray) | overlays(image, gray)


def outside_sector(gray: _Gray) -> Mask:
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
    return grow(kept[labels], reach // 2 + 1) & (gray <= _DARK)


def overlays(image: Image, gray: _Gray) -> Mask:
    """Painted strokes: coloured pixels and thin bright ones with edges sharper than speckle."""
    painted = np.zeros(gray.shape, bool)
    if image.ndim == 3:
        spread = image.max(axis=2).astype(np.int16) - image.min(axis=2)
        # A picture that is tinted all over (Doppler, sepia) has no painted strokes to be told by colour.
        if np.mean(spread > _COLOUR) < 0.1:
            painted |= spread > _COLOUR
    rise = gray - sliding(sliding(gray, 9, np.minimum), 9, np.maximum)
    step = np.zeros_like(gray)
    for axis in (0, 1):
        # Larger less smaller, since unsigned numbers know no negative difference.
        a, b = (np.moveaxis(gray, axis, 0)[part] for part in (slice(1, None), slice(None, -1)))
        beside = np.moveaxis(step, axis, 0)[1:]
        np.maximum(beside, np.maximum(a, b) - np.minimum(a, b), out=beside)
    step = sliding(step, 3, np.maximum)
    strokes = (rise > _STROKE) & (step > _EDGE)
    if strokes.any():
        labels, count = ndimage.label(strokes, np.ones((3, 3)))
        where = labels[strokes]
        sizes = np.bincount(where, minlength=count + 1)
        sharp = np.bincount(where, step[strokes] > 1.4 * _EDGE, minlength=count + 1) / np.maximum(sizes, 1)
        kept = ((sizes >= 6) & (sharp > 0.4)) | ((sizes >= 3) & (sharp > 0.7))
        painted |= kept[labels]
    return grow(painted, 2) if painted.any() else painted


def grow(mask: Mask, steps: int) -> Mask:
    """Add the four neighbours of every pixel, `steps` times: (H, W) bool -> same."""
    grown = mask.copy()
    for _ in range(steps):
        before = grown.copy()
        grown[1:] |= before[:-1]
        grown[:-1] |= before[1:]
        grown[:, 1:] |= before[:, :-1]
        grown[:, :-1] |= before[:, 1:]
    return grown


def sliding(values: _Gray, size: int, extreme: np.ufunc) -> _Gray:
    """Largest or smallest value of the square around every pixel, of what lies in the picture.

    Windows are put together from overlapping ones of half their length: log2(size) passes an axis, a tenth of the
    time of `ndimage.maximum_filter`, and the same numbers.

    Args:
        values: (H, W), uint8 or float.
        size: Side of the square, odd.
        extreme: `np.maximum` or `np.minimum`.
    """
    low, high = (0, 255) if values.dtype == np.uint8 else (-np.inf, np.inf)
    worst = low if extreme is np.maximum else high
    found: npt.NDArray[Any] = values
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
    filled = image.copy()
    # On the way to the nearest visible pixel all are held: it touches the region, and lies in its box and one more.
    labels, count = ndimage.label(hold, np.ones((3, 3)))
    if count > _FEW:
        labels = hold.astype(np.int32)
    for number, box in enumerate(ndimage.find_objects(labels), 1):
        wider = tuple(slice(max(0, part.start - 1), part.stop + 1) for part in box)
        here = labels[wider] == number
        rows, columns = ndimage.distance_transform_edt(hold[wider], return_distances=False, return_indices=True)
        filled[wider][here] = image[wider][rows[here], columns[here]]
    return filled
