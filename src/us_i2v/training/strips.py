"""Sample strips: rows of frames in one PNG, to look at while training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image as PillowImage

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
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp.png")
    PillowImage.fromarray(strip).save(temporary)
    temporary.replace(path)
