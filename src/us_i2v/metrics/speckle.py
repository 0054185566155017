"""Speckle: how it decorrelates in time, how strong it is, and how a clip's brightness flickers.

Decorrelation. Whole-frame correlation measures anatomy; speckle must be looked at in fine texture and on the
tissue that carries it. With h = frame - Gaussian blur (sigma 2 px) and d_t the backward flow to frame 0:

    r_t(window) = Pearson correlation of h_t(p) and h_0(p + d_t(p)) over the window's pixels p
    c_t         = mean of r_t over windows in which h_0 has texture,        c_0 = 1

The flow is `motion.steady_flow`, block matching's median over 5 x 5 blocks, interpolated between blocks. The
median is what keeps the curve honest: a block's own best match among 289 places correlates with anything, so a
curve at each block's own match never falls; the median of unrelated matches is no match. Frame 0 is sampled by
cubic splines, since linear interpolation between pixels would blur texture and lower r.
That speckle correlation falls with motion across the imaging plane: Chen 1997. The estimator is our own.

Strength. Log compression turns developed speckle of any brightness into one deviation (5.57 dB for a raw Rayleigh
envelope), so the local deviation of the B-mode tells compression, smoothing and compounding; the linear envelope's
mean over deviation is 1.91 = sqrt(pi / (4 - pi)) for fully developed speckle (Burckhardt 1978).

Clips are (T, H, W) or (T, H, W, 3), gray levels 0..255; values depend on the pixel size, so compare one size only.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from us_i2v.errors import InputError
from us_i2v.metrics.block_matching import BlockMotion
from us_i2v.metrics.gray import Clip, gray_levels
from us_i2v.metrics.motion import BLOCK, HIGHPASS_SIGMA, SEARCH, default_motion, steady_flow

Array = npt.NDArray[np.float64]
Plane = npt.NDArray[np.float32]

WINDOW = 16
"""Pixels: side of the windows in which correlation is taken; windows overlap by half."""

TEXTURE = 2.0
"""Gray levels: least deviation of high-passed frame 0 in a window that counts."""

LOCAL_SIDE = 7
"""Pixels: side of the windows of `local_deviation`."""

DARK = 5.0
"""Gray levels: windows of a lower mean show no tissue."""

CELL = 16
"""Pixels: side of the cells whose mean brightness `flicker` follows."""


def decorrelation(frames: Clip, motion: BlockMotion | None = None) -> Array:
    """Return the flow-compensated correlation of each frame's texture with frame 0's, (T,), in -1..1.

    Args:
        frames: T >= 2 frames of 32 x 32 px or more.
        motion: `block_motion(frames)` with its default settings, if the caller has it already.

    Raises:
        InputError: If the clip is too short, too small, not finite, frame 0 has no textured window, or
            `motion` is another clip's.
    """
    clip = gray_levels(frames, at_least=2)
    blocks = default_motion(clip, motion)
    fine = np.stack([_highpass(frame) for frame in clip])
    height, width = (count * BLOCK for count in blocks.change.shape[1:])
    if min(height, width) < WINDOW:
        least = 2 * SEARCH + WINDOW
        raise InputError(
            f"Frames of {clip.shape[1]} x {clip.shape[2]} hold no window away from the border.",
            f"Use {least} x {least} or more.",
        )
    inner = (slice(SEARCH, SEARCH + height), slice(SEARCH, SEARCH + width))
    deviation = _window_deviation(fine[0][inner])
    chosen = deviation >= TEXTURE
    if not chosen.any():
        raise InputError(
            f"Frame 0 has no window with texture of {TEXTURE:g} gray levels or more.",
            "Leave out clips that begin blank.",
        )
    spline = ndimage.spline_filter(fine[0].astype(np.float64), order=3, mode="nearest")
    rows, columns = np.mgrid[inner].astype(np.float64)
    curve = np.ones(len(clip))
    for t, flow in enumerate(steady_flow(blocks), start=1):
        flow_x, flow_y = (_at_pixels(channel) for channel in flow)
        at = np.stack([rows + flow_y, columns + flow_x])
        moved = ndimage.map_coordinates(spline, at, order=3, mode="nearest", prefilter=False)
        curve[t] = _correlation(fine[t][inner], moved)[chosen].mean()
    return curve


def local_deviation(frames: Clip) -> float:
    """Return the mean deviation of gray levels in 7 x 7 windows over all frames.

    Windows darker than `DARK` show no tissue and do not count; 0 if all are. Compare clips of one size and one
    anatomy only: edges count too.
    """
    clip = gray_levels(frames).astype(np.float64)
    total, count = 0.0, 0
    for frame in clip:
        mean = _inner(ndimage.uniform_filter(frame, LOCAL_SIDE, mode="nearest"), LOCAL_SIDE)
        square = _inner(ndimage.uniform_filter(frame * frame, LOCAL_SIDE, mode="nearest"), LOCAL_SIDE)
        tissue = mean >= DARK
        total += float(np.sqrt(np.maximum(square - mean**2, 0.0))[tissue].sum())
        count += int(tissue.sum())
    return total / count if count else 0.0


def envelope_snr(envelope: npt.NDArray[np.floating], where: npt.NDArray[np.bool_] | None = None) -> float:
    """Return mean / standard deviation of a linear envelope: 1.91 for fully developed speckle.

    Mean and deviation are over one region, which must be homogeneous: a gradient counts as deviation. Of n
    independent looks averaged it is 1.91 sqrt(n). Not for B-mode, whose compression changes it.

    Args:
        envelope: Linear envelope before log compression, any shape, finite and not negative.
        where: The same shape: the pixels that count; None for all.

    Raises:
        InputError: If the shapes differ, fewer than two pixels count, or they are not an envelope.
    """
    if where is not None and where.shape != envelope.shape:
        raise InputError(f"An envelope of {envelope.shape} got a mask of {where.shape}.", "Use one shape.")
    values = np.asarray(envelope if where is None else envelope[where], dtype=np.float64).ravel()
    if values.size < 2 or not np.isfinite(values).all() or values.min() < 0:
        raise InputError("No envelope: fewer than two pixels, NaN, or negative values.", "Pass the linear envelope.")
    deviation = float(values.std())
    return float(values.mean()) / deviation if deviation > 0.0 else math.inf


def flicker(frames: Clip) -> float:
    """Return temporal flicker in gray levels: how far local brightness lies from its neighbours in time.

        flicker = mean over cells and t of | m_t - (m_{t-1} + m_{t+1}) / 2 |,     m = mean of a 16 x 16 px cell

    i.e. half the absolute second difference. Brightness that drifts evenly scores 0, brightness that jumps to
    and fro by +-a scores 2 a. Needs T >= 3 and one cell; our own definition.

    Raises:
        InputError: If the clip is too short, too small or not finite.
    """
    clip = gray_levels(frames, at_least=3)
    rows, columns = (side // CELL for side in clip.shape[1:])
    if min(rows, columns) < 1:
        raise InputError(f"Frames of {clip.shape[1]} x {clip.shape[2]} hold no {CELL} px cell.", "Use larger frames.")
    cells = clip[:, : rows * CELL, : columns * CELL].reshape(len(clip), rows, CELL, columns, CELL)
    means = cells.mean(axis=(2, 4), dtype=np.float64)
    return float(np.abs(means[1:-1] - 0.5 * (means[:-2] + means[2:])).mean())


def _highpass(frame: Plane) -> Plane:
    smooth: Plane = ndimage.gaussian_filter(frame, HIGHPASS_SIGMA, mode="nearest")
    return frame - smooth


def _at_pixels(flow: Array) -> Array:
    """Interpolate the flow (h, w) of blocks at each of their pixels, (h * BLOCK, w * BLOCK)."""
    return np.asarray(ndimage.zoom(flow, BLOCK, order=1, mode="nearest", grid_mode=True), dtype=np.float64)


def _windows(plane: Array) -> Array:
    """Return the sums over windows of half-blocks: side WINDOW, step WINDOW / 2."""
    half = WINDOW // 2
    rows, columns = plane.shape[0] // half, plane.shape[1] // half
    cells = plane[: rows * half, : columns * half].reshape(rows, half, columns, half).sum((1, 3))
    sums: Array = cells[:-1, :-1] + cells[1:, :-1] + cells[:-1, 1:] + cells[1:, 1:]
    return sums


def _window_deviation(plane: Plane) -> Array:
    x = plane.astype(np.float64)
    mean = _windows(x) / WINDOW**2
    deviation: Array = np.sqrt(np.maximum(_windows(x * x) / WINDOW**2 - mean**2, 0.0))
    return deviation


def _correlation(now: Plane, moved: Array) -> Array:
    """Return Pearson's correlation in each window; 0 where either side is flat."""
    x, y = now.astype(np.float64), moved
    n = WINDOW**2
    sum_x, sum_y = _windows(x), _windows(y)
    var_x = np.maximum(_windows(x * x) - sum_x**2 / n, 0.0)
    var_y = np.maximum(_windows(y * y) - sum_y**2 / n, 0.0)
    covariance = _windows(x * y) - sum_x * sum_y / n
    scale = np.sqrt(var_x * var_y)
    correlation: Array = np.divide(covariance, scale, out=np.zeros_like(scale), where=scale > 1e-6)
    return correlation


def _inner(plane: Array, side: int) -> Array:
    """Leave out the border on which a window of `side` does not fit into the frame."""
    edge = side // 2
    if min(plane.shape) < side:
        raise InputError(f"Frames of {plane.shape[0]} x {plane.shape[1]} are too small.", f"Use {side} px or more.")
    return plane[edge:-edge, edge:-edge]
