"""How a clip's motion ends, in two numbers that a user can ask for: pressure and slide.

The mean backward flow of the last frames, v(x, y) in fractions of the picture, is fitted by least squares:

    v_x = s_x + a x + b y        v_y = s_y + c x + d y        (x, y from -1/2 to 1/2 over the picture)

    pressure = d       frame(p) = still(p + v): where d = 0.05, what lay 1.05 apart in depth now lies 1 apart,
                       so positive = compressed along the beam, negative = released
    slide = -s_x       displacement of the tissue in picture widths, positive = to the picture's right

Mirroring the clip changes the sign of the slide and leaves the pressure; shifting it leaves the pressure too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

LAST_FRAMES = 4
"""Frames whose mean flow is measured: the last quarter of the model's 16."""


def measure_controls(flow: Tensor) -> Tensor:
    """Measure pressure and slide.

    Args:
        flow: (B, 2, T, h, w), backward displacement from frame 0, x then y, in cells of this grid; h, w >= 2.

    Returns:
        (B, 2), float32: pressure (strain) and slide (share of the picture's width).
    """
    rows, columns = int(flow.shape[3]), int(flow.shape[4])
    mean = flow[:, :, -LAST_FRAMES:].double().mean(dim=2)
    down = (torch.arange(rows, device=flow.device).double() + 0.5) / rows - 0.5
    # Over a full grid 1, x and y are orthogonal: each coefficient of the fit is a projection of its own.
    slide = -mean[:, 0].mean(dim=(1, 2)) / columns
    profile = mean[:, 1].mean(dim=2) / rows
    pressure = (profile * down).sum(dim=1) / down.square().sum()
    return torch.stack([pressure, slide], dim=1).float()
