"""Sample strips: rows of frames in one PNG, to look at while training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image as PillowImage

from us_i2v.data.atomic import publish, temporary_beside

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor


def write_strip(path: Path, rows: Sequence[Tensor], n_frames: int = 8) -> None:
    """Write rows of evenly spaced frames as a gray PNG, atomically.

    Args:
        path: Target.
        rows: Videos (T, H, W) in 0..1, all of one size.
        n_frames: Frames a row.
    """
    pictures = []
    for row in rows:
        index = np.linspace(0, row.shape[0] - 1, n_frames).round().astype(int)
        frames = row.detach().float().cpu().numpy()[index]
        pictures.append(np.concatenate(list(frames), axis=1))
    strip = (np.concatenate(pictures).clip(0, 1) * 255).round().astype(np.uint8)
    with temporary_beside(path) as part:
        PillowImage.fromarray(strip).save(part)
        publish(part, path)
