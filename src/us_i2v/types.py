"""Shared type aliases and the axis conventions that the whole package keeps.

Conventions
    Videos in memory (numpy): uint8, (T, H, W) gray or (T, H, W, 3) RGB, 0..255.
    Videos in models (torch): float, (B, C, T, H, W), 0..1; C is 1 inside the networks.
    Stills in models: float, (B, C, H, W), 0..1.
    Flow: backward displacement, channel 0 = x (columns), channel 1 = y (rows):
    frame_t(p) = still(p + flow_t(p)), in cells of the grid that holds it.
    Latents: float, (B, C_z, T_z, H_z, W_z).
    Time runs forward along T; frame 0 is the anchor (the still).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Frames = npt.NDArray[np.uint8]
"""Decoded video: uint8, (T, H, W) or (T, H, W, 3)."""

Image = npt.NDArray[np.uint8]
"""Decoded still: uint8, (H, W) or (H, W, 3)."""

Mask = npt.NDArray[np.bool_]
"""Binary mask, (H, W) or (T, H, W)."""

FloatArray = npt.NDArray[np.floating[Any]]
"""Any floating-point array."""

Size = tuple[int, int]
"""(height, width) in pixels."""
