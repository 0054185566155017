"""Going on from a clip's last frame: motions of successive segments, all told relative to the first still.

A segment's motion is relative to the frame that it starts from, which is itself the still moved. Displacements add,

    flow(p) = flow_2(p) + flow_1(p + flow_2(p))

so that every frame is rendered from the still, in one interpolation, and texture stays as sharp as at the first
segment's end. What else changes is not summed: a decoder's mean frames lose the contrast that it cannot foresee,
and summed up over segments all of it would go; and speckle that is new already cannot become newer. Instead

    gain = (1 - w) gain_1 + w gain_2        (mean and scale^2 likewise; w rises from 0 to 1 over the segment)

with fields of segment 1 sampled at p + flow_2(p): no jump where a segment begins, and no standstill either. Only
a decoder that paints has its means added, since each is "painted frame minus start" and they telescope.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from us_i2v.models.motion import Motion, warp

if TYPE_CHECKING:
    from torch import Tensor

_OUTSIDE = -1


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
