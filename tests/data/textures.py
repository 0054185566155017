"""Pictures with the make-up of B-mode stills: slow gray levels, edges and speckle."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from us_i2v.types import Image


def scan(seed: int, height: int = 300, width: int = 390) -> Image:
    """Layers, a dark lesion and speckle, (H, W) uint8; another picture for every seed."""
    rng = np.random.Generator(np.random.PCG64(seed))
    slow = ndimage.gaussian_filter(rng.standard_normal((height, width)), (height / 25, width / 9))
    speckle = ndimage.gaussian_filter(rng.standard_normal((height, width)), height / 120)
    y, x = np.mgrid[:height, :width]
    lesion = ((y - height * rng.uniform(0.3, 0.7)) / (0.15 * height)) ** 2
    lesion = lesion + ((x - width * rng.uniform(0.3, 0.7)) / (0.15 * width)) ** 2 < 1
    levels = 110 + 30 * slow / slow.std() + 18 * speckle / speckle.std() - 50 * lesion
    return np.clip(levels, 0, 255).astype(np.uint8)
