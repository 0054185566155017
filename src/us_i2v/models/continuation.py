"""Going on from a clip's last frame: motions of successive segments, all told relative to the first still.

A segment's motion is relative to the frame that it starts from, which is itself the still moved. Joining both

    flow(p) = flow_2(p) + flow_1(p + flow_2(p))          gain = (1 + gain_1) (1 + gain_2) - 1
    mean = (1 + gain_2) mean_1 + mean_2                  scale = max(scale_1, scale_2)

(fields of segment 1 sampled at p + flow_2(p)) lets every frame be rendered from the still in one interpolation:
texture stays as sharp and as contrasty at frame 500 as at frame 16. The scale of the drawn residual is not summed:
it levels off within a segment, as speckle that has decorrelated cannot decorrelate further.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

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


def continued(end: Motion, motion: Motion) -> Motion:
    """Tell a segment relative to the still that the segments before it started from.

    Args:
        end: `last_frame` of the motion before, on the same grid.
        motion: The segment, relative to that frame.

    Returns:
        The segment relative to the first still, without its first frame (which is that last frame).
    """
    new = motion.frames(1, motion.n_frames)

    def carried(field: Tensor) -> Tensor:
        return warp(field[:, :, 0], new.flow)

    gain = 1 + new.gain
    return Motion(
        flow=new.flow + carried(end.flow),
        gain=(1 + carried(end.gain)) * gain - 1,
        gate=new.gate.new_ones(new.gate.shape),
        mean=gain * carried(end.mean) + new.gate * new.mean,
        scale=carried(end.scale).maximum(new.gate * new.scale),
        anchor=_OUTSIDE,
    )
