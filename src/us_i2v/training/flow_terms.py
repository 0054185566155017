"""Terms of stage 1's loss that look at the flow."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from us_i2v.training.matched_flow import matched_flow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from us_i2v.data.training_clips import Window
    from us_i2v.models.motion import Motion


def matched_windows(windows: Sequence[Window], known: Tensor) -> Tensor:
    """Flow of the windows by block matching, (B, 2, T, s, s); NaN for those whose flow is known."""
    found = torch.full_like(known, torch.nan)
    for row, window in enumerate(windows):
        if window.flow is None:
            found[row] = torch.from_numpy(matched_flow(window.frames, known.shape[-1])).transpose(0, 1)
    return found


def flow_error(motion: Motion, known: Tensor, size: int) -> Tensor:
    """Mean absolute error of the flow in model pixels, where it is known (not NaN): (B, 2, T, s, s)."""
    there = torch.isfinite(known)
    if not bool(there.any()):
        return motion.flow.sum() * 0
    flow = motion.flow * (size / motion.grid[1])
    coarse = F.avg_pool3d(flow, (1, motion.grid[0] // known.shape[-2], motion.grid[1] // known.shape[-1]))
    return (coarse - known)[there].abs().mean()


def flow_gradient(motion: Motion) -> Tensor:
    """Mean absolute spatial difference of the flow between neighbouring cells, in cells."""
    flow = motion.flow
    return (flow.diff(dim=-1).abs().mean() + flow.diff(dim=-2).abs().mean()) / 2
