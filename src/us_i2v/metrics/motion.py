"""How much a clip moves, and whether it keeps its contrast while it does.

All take clips in gray levels 0..255, (T, H, W) or (T, H, W, 3), and compute in float.
Compare values of clips of one size and frame interval only: every one of them depends on both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from us_i2v.errors import InputError
from us_i2v.metrics.block_matching import BlockMotion, block_motion
from us_i2v.metrics.gray import Clip, gray_levels

HIGHPASS_SIGMA = 2.0
"""Pixels: what a Gaussian of this width leaves over counts as fine texture."""

BLOCK, SEARCH = 8, 8
"""Pixels: side of the blocks and reach of the search of `default_motion`."""

MEDIAN = 5
"""Blocks along each axis over which `steady_flow` takes its median."""

TEXTURED = 2.0
"""Gray levels: blocks of less contrast show no motion that could be measured."""


@dataclass(frozen=True)
class FlowStatistics:
    """Lengths of flow vectors, in pixels of the grid on which they were measured.

    Attributes:
        mean: Mean length.
        median: Median length.
        p95: 95th percentile.
        moving: Share of vectors longer than half a pixel.
    """

    mean: float
    median: float
    p95: float
    moving: float


def motion_energy(frames: Clip) -> float:
    """Return the mean absolute difference of neighbouring frames in gray levels."""
    clip = gray_levels(frames, at_least=2)
    return float(np.abs(np.diff(clip, axis=0)).mean(dtype=np.float64))


def change_from_first(frames: Clip) -> npt.NDArray[np.float64]:
    """Return the mean absolute difference of frames 1.. to frame 0 in gray levels, (T - 1,)."""
    clip = gray_levels(frames, at_least=2)
    change: npt.NDArray[np.float64] = np.abs(clip[1:] - clip[0]).mean(axis=(1, 2), dtype=np.float64)
    return change


def highpass_ratio(frames: Clip, sigma: float = HIGHPASS_SIGMA) -> float:
    """Return std(high-pass of the last frame) / std(high-pass of frame 0); about 1 for real clips.

    The high-pass is the frame minus its Gaussian blur of width `sigma` pixels. Below 1 texture is
    washed out, above 1 something is laid over it (another clip's differences on a still: 1.3). Lung
    clips at 128 px: median and mean 0.995 at the default width. NaN if frame 0 has no texture (a blank frame);
    average over clips by the median.
    """
    clip = gray_levels(frames, at_least=2)
    first, last = (_highpass_std(clip[index], sigma) for index in (0, -1))
    return last / first if first > 1e-3 else math.nan


def flow_statistics(flow: npt.NDArray[np.float32], where: npt.NDArray[np.bool_] | None = None) -> FlowStatistics:
    """Summarise vectors.

    Args:
        flow: (..., 2, H, W), channel 0 = x, 1 = y: block matching's or a decoder's own.
        where: (..., H, W), the vectors that count; None for all. All lengths are 0 if none does.

    Raises:
        InputError: If the flow has no channel axis of two.
    """
    if flow.ndim < 3 or flow.shape[-3] != 2:
        raise InputError(f"A flow of shape {flow.shape} has no channel axis of two.", "Pass (..., 2, H, W).")
    length = np.hypot(flow[..., 0, :, :], flow[..., 1, :, :]).astype(np.float64)
    chosen = length.ravel() if where is None else length[where]
    if chosen.size == 0:
        return FlowStatistics(0.0, 0.0, 0.0, 0.0)
    median, p95 = np.percentile(chosen, [50, 95])
    return FlowStatistics(float(chosen.mean()), float(median), float(p95), float((chosen > 0.5).mean()))


def default_motion(frames: Clip, motion: BlockMotion | None = None) -> BlockMotion:
    """Return block motion against frame 0 with `BLOCK` and `SEARCH`, on which other metrics build.

    Args:
        frames: (T, H, W) or (T, H, W, 3), gray levels 0..255, T >= 2.
        motion: The result, if the caller has it already (matching is what costs); returned as it is.

    Raises:
        InputError: If the clip is too short or too small, or `motion` does not have its grid.
    """
    if motion is None:
        return block_motion(frames, block=BLOCK, search=SEARCH)
    margin = -(-SEARCH // BLOCK)
    expected = (len(frames) - 1, *(side // BLOCK - 2 * margin for side in frames.shape[1:3]))
    if motion.change.shape != expected:
        raise InputError(
            f"Block motion has the grid {motion.change.shape}, the clip needs {expected}.",
            f"Match this clip with blocks of {BLOCK} and a search of {SEARCH}.",
        )
    return motion


def steady_flow(motion: BlockMotion) -> npt.NDArray[np.float64]:
    """Return the flow, (T - 1, 2, h, w), as its median over `MEDIAN` x `MEDIAN` blocks.

    A block's best match among all places is found even where there is nothing to match. The median of
    unrelated matches is near 0, that of a coherent motion is the motion.
    """
    flow = motion.flow.astype(np.float64)
    return np.asarray(ndimage.median_filter(flow, (1, 1, MEDIAN, MEDIAN), mode="nearest"), dtype=np.float64)


def motion_statistics(motion: BlockMotion, texture: float = TEXTURED) -> FlowStatistics:
    """Summarise block motion over blocks of some contrast."""
    return flow_statistics(motion.flow, motion.texture >= texture)


def _highpass_std(frame: npt.NDArray[np.float32], sigma: float) -> float:
    return float((frame - ndimage.gaussian_filter(frame, sigma)).std(dtype=np.float64))
