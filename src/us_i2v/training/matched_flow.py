"""Flow of real clips by block matching: a target for the auto-encoder's flow where nobody knows the true one.

Speckle makes the photometric error of a displacement of more than a grain useless: its gradient points nowhere, so an
auto-encoder that is trained on real clips alone explains motion by brightness. Matching searches instead. Its answer is
kept only in blocks where the motion that the ring around the block chose also explains the block itself, and where the
neighbours moved alike:

    trusted  <=>  1 - left_held_out / change >= 0.2   (see `metrics.block_matching`)
                  and |flow - median of 3 x 3 blocks in 3 frames| <= 2 px along each axis

That keeps 0.19 of the area of 22 training clips of lungs and a calf, where 0.64 of the squared change is explained, and
0.02 of white noise. Everywhere else the flow stays unknown (NaN) and no error is counted. Frame 0 is at rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage

from us_i2v.metrics.block_matching import block_motion

if TYPE_CHECKING:
    from us_i2v.types import FloatArray

TRUSTED = 0.2
"""Least share of a block's squared change that its neighbours' motion explains."""
AGREEING = 2.0
"""Largest distance from the neighbours' median, pixels of the full size."""
_SHRINK = 2
_BLOCK = 4
_SEARCH = 4


def matched_flow(frames: FloatArray, cells: int) -> FloatArray:
    """Match a window's frames with its first one, at half size: 8 px blocks within 8 px for the cost of a tenth.

    Args:
        frames: (T, S, S) in 0..1, S even and at least 24.
        cells: Side of the answer's grid, a multiple or a divisor of S / 8.

    Returns:
        (T, 2, cells, cells) float32, backward flow from frame 0 in pixels of S, x then y; NaN where not trusted.
    """
    video = torch.from_numpy(np.ascontiguousarray(frames, dtype=np.float32))[:, None]
    small = (F.avg_pool2d(video, _SHRINK)[:, 0] * 255).numpy()
    found = block_motion(small, block=_BLOCK, search=_SEARCH)
    flow = found.flow * _SHRINK
    around = ndimage.median_filter(flow, size=(3, 1, 3, 3), mode="nearest")
    trusted = (found.change > 0) & (found.left_held_out <= (1 - TRUSTED) * found.change)
    trusted &= (np.abs(flow - around) <= AGREEING).all(axis=1)
    flow = np.where(trusted[:, None], flow, np.float32(np.nan))
    blocks = small.shape[1] // _BLOCK
    margin = (blocks - flow.shape[-1]) // 2
    whole = np.full((len(frames), 2, blocks, blocks), np.nan, np.float32)
    whole[1:, :, margin : blocks - margin, margin : blocks - margin] = flow
    whole[0] = 0
    answer: FloatArray = F.interpolate(torch.from_numpy(whole), (cells, cells), mode="nearest").numpy()
    return answer
