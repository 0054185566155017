"""Segmentation masks: PNG (or any still) to boolean arrays and back. Any nonzero pixel is in the mask."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image as PillowImage

from us_i2v.data.stills import PILLOW_ERRORS, damaged, open_image
from us_i2v.data.writers import write_still
from us_i2v.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from us_i2v.types import Mask, Size


def read_mask(path: Path, size: Size) -> Mask:
    """Read one mask, (H, W) bool.

    Args:
        path: A still of any readable format; colour counts as nonzero if any channel is. Alpha is ignored.
        size: (height, width) that the mask must have, that of its still.

    Raises:
        InputError: The file cannot be read, or its size differs; the message names both.
    """
    with open_image(path, min_side=1) as picture:
        found = (picture.height, picture.width)
        if found != size:
            raise InputError(
                f"Mask '{path}' is {found[1]}x{found[0]} pixels, its still {size[1]}x{size[0]}.",
                "Give the mask of this very still, at the same size.",
            )
        try:
            pixels = _pixels(picture)
        except PILLOW_ERRORS as error:
            raise damaged(path, error) from error
    return np.asarray(pixels.any(axis=-1), np.bool_) if pixels.ndim == 3 else pixels


def read_masks(paths: Sequence[Path], size: Size) -> Mask:
    """Return the union of several masks, (H, W); all False if there are none."""
    union = np.zeros(size, np.bool_)
    for path in paths:
        union |= read_mask(path, size)
    return union


def write_mask(path: Path, mask: Mask) -> Path:
    """Write (H, W) bool as an 8-bit PNG of 0 and 255; atomic; raises `OutputError`."""
    return write_still(path, mask.astype(np.uint8) * np.uint8(255))


def _pixels(picture: PillowImage.Image) -> Mask:
    """Return which values are nonzero, (H, W) or (H, W, C); palette pictures by their colours."""
    if picture.mode in ("P", "PA"):
        picture = picture.convert("RGB")
    values = np.asarray(picture)
    if picture.mode in ("LA", "RGBA", "La", "RGBa"):
        values = values[..., :-1]
    return np.asarray(values != 0, np.bool_)
