"""Clips longer than the model's: motions of several windows told as one, relative to the first still.

Windows of a stitched clip overlap and are relative to the still themselves. Where two of them tell a frame,

    field = (1 - w) field_k + w field_(k+1),     w_j = sin^2(pi j / 2 J)     (frame j of the J shared ones)

(scale in squares). The later window begins at rest as every window does: w_0 = 0 hides that. In a loop the last one
runs backwards from the still that the clip returns to. A decoder that warps tells motion in steps, most of it where
one latent frame ends: `eased` spreads them.

Segments instead follow each other. A segment's motion is relative to the frame that it starts from, which is itself
the still moved. Displacements add,

    flow(p) = flow_2(p) + flow_1(p + flow_2(p))

so that every frame is rendered from the still, in one interpolation, and texture stays as sharp as at the first
segment's end. What else changes is not summed: a decoder's mean frames lose the contrast that it cannot foresee,
and summed up over segments all of it would go; and speckle that is new already cannot become newer. Instead

    gain = (1 - w) gain_1 + w gain_2        (mean and scale^2 likewise; w rises from 0 to 1 over the segment)

with fields of segment 1 sampled at p + flow_2(p): no jump where a segment begins, and no standstill either. Only
a decoder that paints has its means added, since each is "painted frame minus start" and they telescope.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from us_i2v.models.motion import Motion, warp

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

_OUTSIDE = -1
_EASE = 3
"""Frames either side of the mean in `eased`: the fewest with which a latent frame's border cannot be told from other
frames (change there over change elsewhere 4.9, 2.7, 1.5, 1.1 with 0, 1, 2, 3; see docs/long-clips.md)."""


def last_frame(motion: Motion) -> Motion:
    """Return the last frame of a motion, gate folded into mean and scale, so that `continued` can go on from it."""
    end = motion.frames(motion.n_frames - 1, motion.n_frames)
    return Motion(
        flow=end.flow,
        gain=end.gain,
        gate=end.gate.new_ones(end.gate.shape),
        mean=end.gate * end.mean,
        scale=end.gate * end.scale,
        anchor=_OUTSIDE,
    )


def continued(end: Motion, motion: Motion, *, painted: bool) -> Motion:
    """Tell a segment relative to the still that the segments before it started from.

    Args:
        end: `last_frame` of the motion before, on the same grid.
        motion: The segment, relative to that frame.
        painted: Whether frames are painted (means add up) instead of warped.

    Returns:
        The segment relative to the first still, without its first frame (which is that last frame).
    """
    new = motion.frames(1, motion.n_frames)
    rise = torch.linspace(0, 1, motion.n_frames, device=new.gain.device)[1:, None, None]

    def carried(field: Tensor) -> Tensor:
        return warp(field[:, :, 0], new.flow)

    def passing(old: Tensor, fresh: Tensor) -> Tensor:
        return (1 - rise) * carried(old) + rise * fresh

    mean = new.gate * new.mean
    return Motion(
        flow=new.flow + carried(end.flow),
        gain=passing(end.gain, new.gain),
        gate=new.gate.new_ones(new.gate.shape),
        mean=carried(end.mean) + mean if painted else passing(end.mean, mean),
        scale=passing(end.scale.square(), (new.gate * new.scale).square()).sqrt(),
        anchor=_OUTSIDE,
    )


def joined(parts: Iterable[Motion], hop: int, n_frames: int, *, loop: bool = False) -> Motion:
    """Join windows that overlap in time.

    Args:
        parts: Windows in order, all relative to the still, on one grid; window k begins at frame k `hop`. In a
            loop the last one begins at the frame after the clip's last, which is the still again, and runs
            backwards.
        hop: Frames from one window's beginning to the next one's, at least half a window.
        n_frames: Frames of the clip; what windows tell beyond is left out.
        loop: See `parts`.

    Returns:
        The clip's motion, gate folded into mean and scale, anchored in frame 0.
    """
    windows = iter(parts)
    window, following = next(windows), next(windows, None)
    total = _empty(window, n_frames)
    start = 0
    while True:
        closing = loop and following is None
        shared = window.n_frames - hop
        rise = torch.sin(torch.arange(shared, device=window.flow.device) / shared * (math.pi / 2)).square()
        share = window.flow.new_ones(window.n_frames)
        if start > 0:
            share[:shared] = rise
        if following is not None:
            share[hop:] = 1 - rise
        if closing:  # Frame j of it is frame n_frames - j of the clip.
            first = n_frames - window.n_frames + 1
            share = torch.cat([share.new_zeros(window.n_frames - 1 - shared), rise])
            window = window.map(lambda x: x.flip(2)[:, :, :-1])
        else:
            first = start
        _add(total, window, share, first)
        if following is None:
            break
        window, following = following, next(windows, None)
        start += hop
    return Motion(total.flow, total.gain, total.gate, total.mean, total.scale.sqrt(), anchor=0)


def _empty(like: Motion, n_frames: int) -> Motion:
    """Return fields of zeros with gate 1, to add to."""
    empty = like.map(lambda x: x.new_zeros((*x.shape[:2], n_frames, *x.shape[3:])))
    return Motion(empty.flow, empty.gain, empty.gate + 1, empty.mean, empty.scale, anchor=0)


def _add(total: Motion, window: Motion, share: Tensor, first: int) -> None:
    """Add a window's share, in place; scale is summed in squares."""
    count = min(window.n_frames, total.n_frames - first)
    here, weight = slice(first, first + count), share[:count, None, None]
    window = window.first(count)
    total.flow[:, :, here] += weight * window.flow
    total.gain[:, :, here] += weight * window.gain
    total.mean[:, :, here] += weight * (window.gate * window.mean)
    total.scale[:, :, here] += weight * (window.gate * window.scale).square()


def eased(motion: Motion, *, loop: bool = False) -> Motion:
    """Spread a clip's changes over a few frames: the mean over the frames t - 3 .. t + 3, the outer two by half.

    Before frame 0 fields are continued with the other sign, so that it stays at rest; after the last frame likewise
    in a loop (where the still comes next), otherwise the last frame is repeated. Scale is averaged in squares.
    The gate must be folded in, as `joined` does.
    """
    last = motion.n_frames - 1
    frame = torch.arange(-_EASE, motion.n_frames + _EASE, device=motion.flow.device)
    source, sign = frame.abs(), torch.where(frame < 0, -1.0, 1.0)
    if loop:
        sign = torch.where(frame > last, torch.where(frame == last + 1, 0.0, -1.0), sign)
        source = torch.where(frame > last, 2 * (last + 1) - frame, source)
    source, sign = source.clamp(0, last), sign.to(motion.flow)[:, None, None]

    def mean(field: Tensor) -> Tensor:
        out = torch.zeros_like(field)
        for offset in range(2 * _EASE + 1):
            weight = 1 / (4 * _EASE) if offset in (0, 2 * _EASE) else 1 / (2 * _EASE)
            here = slice(offset, offset + motion.n_frames)
            out += weight * sign[here] * field[:, :, source[here]]
        # Opposite terms cancel at frame 0 up to rounding.
        out[:, :, 0] = field[:, :, 0]
        return out

    return Motion(
        flow=mean(motion.flow),
        gain=mean(motion.gain),
        gate=motion.gate,
        mean=mean(motion.mean),
        scale=mean(motion.scale.square()).clamp_min(0).sqrt(),
        anchor=motion.anchor,
    )
