"""A picture of a clip: frames side by side, with the mask's outline if there is one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.ndimage import binary_erosion

from us_i2v.data.writers import write_still
from us_i2v.types import Frames, Image, Mask

OUTLINE = (255, 220, 0)


def strip(frames: Frames, masks: Mask | None, count: int = 8) -> Image:
    """Put `count` evenly spaced frames, the first and the last among them, side by side.

    Args:
        frames: uint8, (T, H, W) or (T, H, W, 3).
        masks: (T, H, W); their one-pixel outline is drawn in colour.
        count: How many frames; fewer if the clip is shorter.

    Returns:
        uint8, (H, count * W), or (H, count * W, 3) if the frames are RGB or masks are given.
    """
    chosen = np.unique(np.linspace(0, len(frames) - 1, min(count, len(frames))).round().astype(int))
    tiles = []
    for index in chosen:
        tile = frames[index]
        if masks is not None:
            if tile.ndim == 2:
                tile = np.repeat(tile[:, :, None], 3, axis=2)
            outline = masks[index] & ~binary_erosion(masks[index])
            tile = np.where(outline[:, :, None], np.array(OUTLINE, np.uint8), tile)
        tiles.append(tile)
    return np.concatenate(tiles, axis=1)


def write_strip(path: Path, frames: Frames, masks: Mask | None = None) -> None:
    """Write `strip` as a PNG; raises `OutputError`, and then leaves nothing behind."""
    write_still(path, strip(frames, masks))
