"""Motion: what a decoder says about a clip, relative to its anchor still x0.

A decoder never paints. The mean frames that a motion stands for are

    m_t = (1 + gain_t) * warp(x0, flow_t) + gate_t * mean_t

and gate_t * scale_t is the standard deviation of what they leave out; `render` draws that.

Conventions: flow is a backward displacement in cells of the motion's own grid; gain 0, gate 0 and flow 0 give
the still exactly. Each motion names the frame that is the still, its anchor (frame 0 of a generated clip).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


@dataclass(frozen=True)
class Motion:
    """Motion of a clip relative to its anchor still.

    Attributes:
        flow: (B, 2, T, h, w), backward displacement, x then y, in cells of this grid.
        gain: (B, 1, T, h, w), relative change of brightness; 0 = none.
        gate: (B, 1, T, h, w), 0..1, where the residual acts.
        mean: (B, 1, T, h, w), mean of the residual, gray in 0..1 units.
        scale: (B, 1, T, h, w), standard deviation of the residual, same units, >= 0.
        anchor: Index of the frame that is the still; outside 0..T-1 in a part that does not hold it.
    """

    flow: Tensor
    gain: Tensor
    gate: Tensor
    mean: Tensor
    scale: Tensor
    anchor: int = 0

    @property
    def n_frames(self) -> int:
        """Number of frames T, the anchor included."""
        return int(self.flow.shape[2])

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w) of the grid."""
        return int(self.flow.shape[3]), int(self.flow.shape[4])

    def map(self, change: Callable[[Tensor], Tensor]) -> Motion:
        """Return a copy with every field changed alike."""
        return replace(
            self,
            flow=change(self.flow),
            gain=change(self.gain),
            gate=change(self.gate),
            mean=change(self.mean),
            scale=change(self.scale),
        )

    def first(self, n_frames: int) -> Motion:
        """Return the first `n_frames` frames."""
        return self.frames(0, n_frames)

    def frames(self, start: int, stop: int) -> Motion:
        """Return frames start .. stop - 1."""
        return replace(self.map(lambda x: x[:, :, start:stop]), anchor=self.anchor - start)

    def samples(self, start: int, stop: int) -> Motion:
        """Return samples start .. stop - 1 of the batch."""
        return self.map(lambda x: x[start:stop])

    def in_float32(self) -> Motion:
        """Return the fields as float32."""
        return self.map(lambda x: x.float())

    def anchored(self) -> Motion:
        """Return the motion with the anchor frame at rest, so that it renders as the still itself."""
        frame = torch.arange(self.n_frames, device=self.flow.device)
        keep = (frame != self.anchor).to(self.flow.dtype)
        keep = keep[None, None, :, None, None]
        return replace(self, flow=self.flow * keep, gain=self.gain * keep, gate=self.gate * keep)

    def scaled(self, motion: float = 1.0, speckle: float | Tensor = 1.0) -> Motion:
        """Scale the movement (flow, gain, mean) and the drawn residual, the latter alike or by (T,) frame by frame."""
        if isinstance(speckle, torch.Tensor):
            speckle = speckle.to(self.scale)[:, None, None]
        return replace(
            self,
            flow=self.flow * motion,
            gain=self.gain * motion,
            mean=self.mean * motion,
            scale=self.scale * speckle,
        )

    def at_size(self, size: tuple[int, int]) -> Motion:
        """Resample the whole grid to H x W pixels, see `resample`."""
        return self.resample((0, 0, *self.grid), size)

    def resample(self, box: tuple[float, float, float, float], size: tuple[int, int]) -> Motion:
        """Resample a part of the grid to another size (cubic in flow, linear elsewhere).

        Args:
            box: (top, left, height, width) of the part, in cells; fractions are allowed.
            size: (H, W) of the result.

        Returns:
            Motion on the H x W grid, its flow in cells (pixels) of that grid.
        """
        top, left, height, width = box
        rows, columns = self.grid

        def matrices(kind: Literal["linear", "cubic"]) -> tuple[Tensor, Tensor]:
            return (
                interpolation_matrix(rows, size[0], top, height, kind).to(self.flow),
                interpolation_matrix(columns, size[1], left, width, kind).to(self.flow),
            )

        def apply(x: Tensor, pair: tuple[Tensor, Tensor]) -> Tensor:
            return pair[0] @ x @ pair[1].T

        cubic, linear = matrices("cubic"), matrices("linear")
        unit = torch.tensor([size[1] / width, size[0] / height]).to(self.flow)[None, :, None, None, None]
        return Motion(
            flow=apply(self.flow, cubic) * unit,
            gain=apply(self.gain, linear),
            gate=apply(self.gate, linear),
            mean=apply(self.mean, linear),
            scale=apply(self.scale, linear),
            anchor=self.anchor,
        )


@lru_cache(maxsize=64)
def interpolation_matrix(
    n_in: int, n_out: int, start: float, extent: float, kind: Literal["linear", "cubic"]
) -> Tensor:
    """Rows of weights that sample `n_out` cell centres of [start, start + extent) out of `n_in` cells.

    Cubic is Catmull-Rom (a = -1/2); outside the grid the edge cell is repeated. Returns (n_out, n_in), float32, kept
    for the next call with the same arguments: not to be changed in place.
    """
    position = start + (np.arange(n_out) + 0.5) * (extent / n_out) - 0.5
    base = np.floor(position).astype(int)
    fraction = position - base
    if kind == "linear":
        taps = {0: 1 - fraction, 1: fraction}
    else:
        f, f2, f3 = fraction, fraction**2, fraction**3
        taps = {
            -1: -0.5 * f + f2 - 0.5 * f3,
            0: 1 - 2.5 * f2 + 1.5 * f3,
            1: 0.5 * f + 2 * f2 - 1.5 * f3,
            2: -0.5 * f2 + 0.5 * f3,
        }
    matrix = np.zeros((n_out, n_in), np.float32)
    for offset, weight in taps.items():
        np.add.at(matrix, (np.arange(n_out), np.clip(base + offset, 0, n_in - 1)), weight)
    return torch.from_numpy(matrix)


def warp(still: Tensor, flow: Tensor, mode: Literal["bilinear", "nearest", "bicubic"] = "bilinear") -> Tensor:
    """Sample the still at p + flow_t(p); zero flow returns the still exactly.

    Args:
        still: (B, C, H, W).
        flow: (B, 2, T, H, W), in pixels of the still; samples beyond the edge repeat it.
        mode: Interpolation.

    Returns:
        (B, C, T, H, W), dtype of the still.
    """
    b, c, h, w = still.shape
    t = flow.shape[2]
    y, x = torch.meshgrid(
        torch.arange(h, device=still.device, dtype=torch.float32),
        torch.arange(w, device=still.device, dtype=torch.float32),
        indexing="ij",
    )
    base = torch.stack([(2 * x + 1) / w - 1, (2 * y + 1) / h - 1], dim=-1)
    unit = torch.tensor([2 / w, 2 / h], device=still.device)
    grid = base[None, None] + flow.float().permute(0, 2, 3, 4, 1) * unit
    source = still.float()
    repeated = source[:, None].expand(b, t, c, h, w).reshape(b * t, c, h, w)

    def sample(image: Tensor, where: Tensor) -> Tensor:
        return F.grid_sample(image, where, mode=mode, padding_mode="border", align_corners=False)

    moved = sample(repeated, grid.reshape(b * t, h, w, 2)).reshape(b, t, c, h, w)
    if mode == "nearest":
        return moved.transpose(1, 2).to(still.dtype)
    # grid_sample at rest is off by rounding; adding only the difference makes zero flow exact.
    at_rest = sample(source, base[None].expand(b, h, w, 2))
    out = source[:, None] + (moved - at_rest[:, None])
    return out.transpose(1, 2).to(still.dtype)


def deterministic_frames(still: Tensor, motion: Motion) -> Tensor:
    """Mean frames m_t (no noise): (B, C, H, W), motion on the same grid -> (B, C, T, H, W)."""
    return (1 + motion.gain) * warp(still, motion.flow) + motion.gate * motion.mean


def warp_mask(mask: Tensor, flow: Tensor) -> Tensor:
    """Carry a mask along: (B, 1, H, W) in 0..1, flow (B, 2, T, H, W) -> (B, 1, T, H, W) bool.

    The mask is sampled linearly where the picture is and cut at one half, so that both move alike.
    """
    return warp(mask.float(), flow) > 0.5
