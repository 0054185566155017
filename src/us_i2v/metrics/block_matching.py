"""Block matching: how far square blocks moved, and what share of the frame change that explains.

For each block of frame t the reference frame (frame 0) is searched within +-search pixels:

    cost(d) = sum_{p in region} (frame_t(p) - frame_0(p + d))^2,     d* = argmin cost
    explained share = 1 - sum_blocks left / sum_blocks change
    change = cost of the block at d = 0,     left = cost of the block at its chosen d

Three regions choose d, each for its own purpose:
    block   the block itself: `share`. It fits noise too: the best of 289 places "explains" 0.37 of
            frames of white noise with 8 px blocks. Compare real with generated, never with 0 or 1.
    ring    the pixels around the block, not the block: `held_out_share`. What is judged has not been
            used to choose, so noise scores 0 (or slightly below) and only coherent motion scores.
    both    the window of twice the block's side: `flow`, the steadiest estimate, refined below a
            pixel by a parabola through the neighbouring costs.

d is a backward flow in pixels, as everywhere: frame_t(p) = frame_0(p + d), channel 0 = x, 1 = y.
Ties go to the shortest d, so that flat areas stand still. Blocks within `search` of the border are
left out: what enters there cannot be found in frame 0.

Reference: 40 lung clips (a patient each, 25 fps, stride 3, 16 frames) reduced to 128 px, 8 px blocks,
search 8: mean share 0.46, mean held-out share 0.17. A still with another clip's frame differences laid
over it: 0.17 and 0.01.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from us_i2v.errors import ConfigError, InputError
from us_i2v.metrics.gray import Clip, gray_levels

Reference = Literal["first", "previous"]
"""Which frame is searched: frame 0 (the anchor) or the one before."""

FloatMap = npt.NDArray[np.float32]


@dataclass(frozen=True)
class BlockMotion:
    """Motion of T - 1 frames on a grid of h x w blocks.

    Attributes:
        flow: Backward flow in pixels, (T - 1, 2, h, w), below a pixel.
        change: Sum of squared differences without motion, (T - 1, h, w).
        left: The same after the block's own best motion.
        left_held_out: The same after the motion of the ring around the block.
        texture: Standard deviation of the reference frame within each block, (T - 1, h, w).
    """

    flow: FloatMap
    change: FloatMap
    left: FloatMap
    left_held_out: FloatMap
    texture: FloatMap

    @property
    def share(self) -> float:
        """Share of the squared frame change that block motion explains; 0 for a clip without change."""
        return _share(self.change, self.left)

    @property
    def held_out_share(self) -> float:
        """The same for motion chosen by neighbours; 0 for noise, below 0 if that motion harms."""
        return _share(self.change, self.left_held_out)


def block_motion(frames: Clip, *, block: int = 8, search: int = 8, reference: Reference = "first") -> BlockMotion:
    """Match the blocks of every frame but the first.

    Args:
        frames: (T, H, W) or (T, H, W, 3), gray levels 0..255, T >= 2.
        block: Side of a block in pixels, even.
        search: Largest displacement along each axis in pixels.
        reference: Frame that is searched.

    Returns:
        The motion on the grid of blocks that lie at least `search` away from the border.

    Raises:
        ConfigError: If `block` or `search` is out of range.
        InputError: If the clip is too short or too small for one block.
    """
    if block < 2 or block % 2 or search < 1:
        raise ConfigError(
            f"Block matching got block {block} and search {search}.", "Use an even block and a search of 1 or more."
        )
    clip = torch.from_numpy(gray_levels(frames, at_least=2))
    margin = -(-search // block)
    height, width = (side // block - 2 * margin for side in clip.shape[1:])
    if min(height, width) < 1:
        needed = (2 * margin + 1) * block
        raise InputError(
            f"Frames of {clip.shape[1]} x {clip.shape[2]} are too small for block matching.",
            f"Use {needed} x {needed} or more, or a smaller block.",
        )
    inner = (slice(margin, margin + height), slice(margin, margin + width))
    order = _by_length(search)
    parts = [
        _match(clip[0 if reference == "first" else t - 1], clip[t], block, search, order, inner)
        for t in range(1, len(clip))
    ]
    return BlockMotion(*(np.stack([part[k] for part in parts]) for k in range(5)))


def _share(change: FloatMap, left: FloatMap) -> float:
    total = float(change.sum(dtype=np.float64))
    return 1.0 - float(left.sum(dtype=np.float64)) / total if total > 0.0 else 0.0


def _by_length(search: int) -> npt.NDArray[np.intp]:
    """Return the displacements' indices (dy major, then dx), shortest first."""
    axis = np.arange(-search, search + 1)
    return np.argsort((axis[:, None] ** 2 + axis[None, :] ** 2).ravel(), kind="stable")


def _match(
    before: Tensor, now: Tensor, block: int, search: int, order: npt.NDArray[np.intp], inner: tuple[slice, slice]
) -> tuple[FloatMap, FloatMap, FloatMap, FloatMap, FloatMap]:
    """Match one frame; return (flow, change, left, left_held_out, texture) on the inner blocks."""
    rows, columns = (side // block * block for side in now.shape)
    own, wide = _costs(before, now[:rows, :columns], block, search)
    own, wide = (volume[(slice(None), *inner)] for volume in (own, wide))
    chosen_own, chosen_ring, chosen_wide = (_argmin(volume, order) for volume in (own, wide - own, wide))
    change = own[own.shape[0] // 2]
    left, left_held_out = (np.take_along_axis(own, chosen[None], 0)[0] for chosen in (chosen_own, chosen_ring))
    blocks = before[:rows, :columns].reshape(rows // block, block, columns // block, block)
    texture = blocks.std((1, 3), correction=0).numpy()[inner]
    return _refine(wide, chosen_wide, search), change, left, left_held_out, texture


def _costs(before: Tensor, now: Tensor, block: int, search: int) -> tuple[FloatMap, FloatMap]:
    """Return the costs of each displacement: of blocks, and of windows of twice their side.

    Both are sums over half blocks, (D, rows, columns) with D = (2 search + 1)^2; windows are cut off
    at the border of the frame.
    """
    rows, columns = now.shape
    padded = F.pad(before[None, None], (search,) * 4, mode="replicate")[0, 0]
    span, half = 2 * search + 1, block // 2
    shifted = padded.unfold(1, columns, 1)[:, :span]  # (padded rows, dx, columns), a view.
    halves = []
    difference = torch.empty(span, rows, columns)
    for dy in range(span):
        torch.sub(shifted[dy : dy + rows].transpose(0, 1), now, out=difference)
        halves.append(F.avg_pool2d(difference.square_()[:, None], half, divisor_override=1))
    volume = torch.cat(halves)
    own = F.avg_pool2d(volume, 2, divisor_override=1)[:, 0]
    wide = F.avg_pool2d(volume, 4, stride=2, padding=1, divisor_override=1)[:, 0]
    return own.numpy(), wide.numpy()


def _argmin(volume: FloatMap, order: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Return the index of the least cost, of several equal ones that of the shortest displacement."""
    chosen: npt.NDArray[np.intp] = order[np.argmin(volume[order], axis=0)]
    return chosen


def _refine(volume: FloatMap, chosen: npt.NDArray[np.intp], search: int) -> FloatMap:
    """Return the flow (2, h, w): the chosen displacement, moved to the vertex of a parabola on each axis."""
    span = 2 * search + 1
    dy, dx = np.divmod(chosen, span)
    flow = np.stack([dx, dy]).astype(np.float32) - search
    centre = np.take_along_axis(volume, chosen[None], 0)[0]
    for channel, (index, stride) in enumerate(((dx, 1), (dy, span))):
        inside = (index > 0) & (index < span - 1)
        below, above = (
            np.take_along_axis(volume, np.where(inside, chosen + step, chosen)[None], 0)[0]
            for step in (-stride, stride)
        )
        curvature = below - 2 * centre + above
        # Only a true minimum is moved, by half a pixel at most; an exact match (cost 0) stays put.
        sound = inside & (curvature > 0) & (centre > 0)
        shift = np.where(sound, 0.5 * (below - above) / np.where(sound, curvature, 1.0), 0.0)
        flow[channel] += np.clip(shift, -0.5, 0.5)
    return flow
