"""Rendering: still + motion + speckle noise -> frames, at the still's own size.

The mean frames (see `motion`) repeat the still's speckle for ever; real speckle changes. The decoder predicts by
how much, as the standard deviation s of the residual at the model's size. It is drawn in one of three ways:

    additive      frame = m + s * coarse noise
    stationary    frame = m + (rho - 1) h + a * fine noise + e * coarse noise
                  a^2 = (1 - rho^2) V + 2 (1 - rho) c
                  rho = 1 - s^2 / (2 v)   clipped to 0..1,      e^2 = max(0, s^2 - 2 v) / 4
    envelope      frame = m - h + k * exchanged(h) + e * coarse noise,      see `envelope`
                  k^2 V + 2 k rho c = V + 2 c

h is the warped fine texture of the full-size still, V its local variance, c a quarter of its local covariance with
what is left of the still (which is coarse, so that high frequencies lose less than all of it), and v = (V + c) times
the share of V that h keeps when it is shrunk to the model's size. Exchanging a share of the texture for fresh one then
changes the shrunk picture by s on average, E(change^2) = 2 (1 - rho) v = s^2, while the contrast of the picture stays
what it was. What exceeds a full exchange (motion and brightness that the latent missed) would add contrast: half of
its amplitude is drawn.

Scatterers travel with the tissue, and so do the texture's statistics and what changes in it: V, c, v and the noise of
frame t are taken at p + flow_t(p). What interpolation between pixels takes away from the noise's variance is given
back, see `carried`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F

from us_i2v.models.envelope import LOG_DEVIATION, exchange, phasor_correlation
from us_i2v.models.motion import Motion, deterministic_frames, interpolation_matrix, warp
from us_i2v.models.speckle import Grain, SpeckleProcess

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from us_i2v.seeding import Seed

TextureMode = Literal["additive", "stationary", "envelope"]

_FINE_CELLS = 10
"""Texture finer than this many pixels (at the longer side's 500) is speckle."""
_EXCESS = 0.5
"""Share of the amplitude beyond a full exchange. On held-out lung clips 0 loses half of the motion energy, 1 raises
the contrast by a fifth."""
_CROSS = 0.25
"""Share of the covariance of fine and coarse that is made up for. Held-out lung clips (n = 14 and 10) lose 1 and 2 % of
their native contrast at 0, and gain 11 and 15 % at 1."""
_COARSE_CELLS = 10
"""Texture finer than this many pixels of the model's square gives the coarse noise its grain."""
_PHASOR = ("fine real", "fine imaginary")
_LOCAL_CELLS = 24
"""Local statistics are means over squares of about 1/24 of the picture."""


@dataclass(frozen=True)
class StillTexture:
    """The speckle of a still.

    Attributes:
        fine: (B, 1, H, W), texture of the still at output size, zero mean; B of 1 stands for all clips.
        variance: (B, 1, h, w), V, local variance of `fine`, on the motion's grid.
        covariance: (B, 1, h, w), c, a share of its local covariance with the rest of the still, >= 0.
        small_variance: (B, 1, h, w), v, see the module's head.
        fine_grain: Grain at output size.
        coarse_grain: Grain at the model's size.
    """

    fine: Tensor
    variance: Tensor
    covariance: Tensor
    small_variance: Tensor
    fine_grain: Grain
    coarse_grain: Grain

    @cached_property
    def phasor_grain(self) -> Grain:
        """Grain at output size of complex noise whose log-magnitude has `fine_grain`."""
        return self.fine_grain.of_phasors()

    @classmethod
    def measure(cls, gray: Tensor, small: Tensor, grid: tuple[int, int], weight: Tensor | None = None) -> StillTexture:
        """Measure the texture of a still.

        Args:
            gray: (B, 1, H, W) in 0..1, at output size, held pixels filled.
            small: (B, 1, S, S), the same at the model's size.
            grid: (h, w) of the motion.
            weight: (B, 1, H, W), 0 at pixels that are no tissue; they count in no statistic.
        """
        h, w = gray.shape[-2:]
        cell = max(4.0, _FINE_CELLS * max(h, w) / 500)
        coarse = (max(2, round(h / cell)), max(2, round(w / cell)))
        low = _low_pass(gray, coarse)
        fine = gray - low
        if weight is not None:
            fine = fine * weight
        variance = _local_mean(fine.square(), grid)
        covariance = _CROSS * _local_mean(fine * low, grid).clamp_min(0).minimum(variance)
        shrunk = F.interpolate(fine, small.shape[-2:], mode="bilinear", antialias=True)
        hold = small_hold = None
        if weight is not None:
            hold = weight[0, 0] < 0.5
            small_hold = F.interpolate(weight[:1].float(), small.shape[-2:], mode="area")[0, 0] < 0.5
        side = max(2, small.shape[-1] // _COARSE_CELLS)
        return cls(
            fine=fine,
            variance=variance,
            covariance=covariance,
            small_variance=_local_mean(shrunk.square(), grid) * (1 + covariance / variance.clamp_min(1e-8)),
            fine_grain=Grain.measure(fine[0, 0], hold),
            coarse_grain=Grain.measure((small - _low_pass(small, (side, side)))[0, 0], small_hold),
        )


def _low_pass(x: Tensor, cells: tuple[int, int]) -> Tensor:
    """Means of rows x columns cells, interpolated back to the picture's size: (B, 1, H, W) -> same."""
    return F.interpolate(F.interpolate(x, cells, mode="area"), x.shape[-2:], mode="bicubic", align_corners=False)


def _local_mean(x: Tensor, grid: tuple[int, int]) -> Tensor:
    """Mean over squares of about 1/24 of the picture, interpolated to the grid: (B, 1, H, W) -> (B, 1, h, w)."""
    cells = (min(_LOCAL_CELLS, x.shape[-2]), min(_LOCAL_CELLS, x.shape[-1]))
    return F.interpolate(F.interpolate(x, cells, mode="area"), grid, mode="bilinear", align_corners=False)


class SpeckleNoise:
    """The two noise processes of a clip, taken frame by frame.

    Args:
        seeds: One a sample.
        texture: Grain at both sizes, the sizes themselves, and the device.
        model_size: Side of the model's square.
        correlation: AR(1) correlation from frame to frame: one number, or by place of the still, (B or 1, 1, h, w).
        loop: Frames after which the noise repeats; None: never.
    """

    def __init__(
        self,
        seeds: Sequence[Seed],
        texture: StillTexture,
        model_size: int,
        correlation: float | Tensor,
        loop: int | None = None,
    ) -> None:
        size = (int(texture.fine.shape[-2]), int(texture.fine.shape[-1]))
        small = (model_size, model_size)
        self.size, device = size, texture.fine.device
        fine, coarse = _at_size(correlation, size, device), _at_size(correlation, small, device)
        self.fine = SpeckleProcess(seeds, size, texture.fine_grain, fine, "fine", loop, device)
        self.coarse = SpeckleProcess(seeds, small, texture.coarse_grain, coarse, "coarse", loop, device)
        self._seeds, self._texture, self._loop = seeds, texture, loop
        self._rows = interpolation_matrix(model_size, size[0], 0, model_size, "cubic").to(device)
        self._columns = interpolation_matrix(model_size, size[1], 0, model_size, "cubic").to(device)

    @cached_property
    def phasor(self) -> list[SpeckleProcess]:
        """Real and imaginary part of the envelope's noise; made where a clip is drawn that way."""
        # The correlation is that of gray levels; phasors of that correlation of logarithms are more alike.
        alike = phasor_correlation(self.fine.correlation).clamp(max=0.9999)
        grain = self._texture.phasor_grain
        device = self._texture.fine.device
        return [SpeckleProcess(self._seeds, self.size, grain, alike, name, self._loop, device) for name in _PHASOR]

    def take(self, n_frames: int, mode: TextureMode) -> tuple[Tensor | None, Tensor]:
        """Next frames of (fine, coarse) noise, each (B, 1, n, H, W); a clip is drawn in one mode throughout.

        Fine is None in mode "additive", and real and imaginary part, (B, 2, n, H, W), in mode "envelope".
        """
        coarse = self._rows @ self.coarse.take(n_frames) @ self._columns.T
        if mode == "envelope":
            return torch.cat([part.take(n_frames) for part in self.phasor], dim=1), coarse
        return (self.fine.take(n_frames) if mode == "stationary" else None), coarse


def _at_size(correlation: float | Tensor, size: tuple[int, int], device: torch.device) -> float | Tensor:
    if not isinstance(correlation, torch.Tensor):
        return correlation
    return F.interpolate(correlation.float().to(device), size, mode="bilinear", align_corners=False)[:, 0]


def render(
    still: Tensor,
    motion: Motion,
    noise: SpeckleNoise | None = None,
    texture: StillTexture | None = None,
    *,
    mode: TextureMode = "stationary",
) -> Tensor:
    """Turn a motion into frames at the still's size.

    Args:
        still: (B, C, H, W) in 0..1, the anchor; B of 1 stands for all.
        motion: On its own grid, which covers the whole still.
        noise: Where the speckle change is drawn from; None gives the mean frames.
        texture: The still's texture; needed with `noise`.
        mode: How the noise enters, see the module's head.

    Returns:
        (B, C, T, H, W) in 0..1; the anchor frame, if the motion holds it, is the still itself.
    """
    size = (int(still.shape[-2]), int(still.shape[-1]))
    still = still.expand(len(motion.flow), -1, -1, -1)
    if noise is None or texture is None:
        frames = deterministic_frames(still, motion.at_size(size))
    else:
        fine, coarse = noise.take(motion.n_frames, mode)
        frames = _with_speckle(still, motion, size, texture, fine, coarse)
    if 0 <= motion.anchor < motion.n_frames:
        frames[:, :, motion.anchor] = still
    return frames.clamp(0, 1)


def _with_speckle(
    still: Tensor,
    motion: Motion,
    size: tuple[int, int],
    texture: StillTexture,
    fine: Tensor | None,
    coarse: Tensor,
) -> Tensor:
    change = (motion.gate * motion.scale).square()
    if fine is None:
        full = replace(motion, scale=change.sqrt(), mean=motion.gate * motion.mean).at_size(size)
        return (1 + full.gain) * warp(still, full.flow) + full.mean + full.scale * carried(coarse.to(still), full.flow)
    still_has = torch.cat([texture.variance, texture.covariance, texture.small_variance], dim=1).to(change)
    still_has = still_has.expand(len(still), -1, -1, -1)
    variance, covariance, small = warp(still_has, motion.flow).chunk(3, dim=1)
    rho = (1 - change / (2 * small).clamp_min(1e-8)).clamp(0, 1)
    excess = _EXCESS * (change - 2 * small).clamp_min(0).sqrt()
    phasors = fine.shape[1] == len(_PHASOR)
    if phasors:
        keep, grain = phasor_correlation(rho), texture.phasor_grain
        strength = (variance.sqrt() / LOG_DEVIATION).clamp_min(1e-4)
    else:
        keep, grain = rho, texture.fine_grain
        strength = ((1 - rho.square()) * variance + 2 * (1 - rho) * covariance).sqrt()
    # The fields of a Motion are resampled together; here they carry what the noise needs.
    first = replace(motion, mean=motion.gate * motion.mean, gate=keep, scale=strength).at_size(size)
    rows = interpolation_matrix(motion.grid[0], size[0], 0, motion.grid[0], "linear").to(change)
    columns = interpolation_matrix(motion.grid[1], size[1], 0, motion.grid[1], "linear").to(change)
    channels = still.shape[1]
    moved = warp(torch.cat([still, texture.fine.to(still).expand(len(still), -1, -1, -1)], dim=1), first.flow)
    picture, high = moved[:, :channels], moved[:, channels:]
    noise = carried(fine.to(still), first.flow, grain)
    if phasors:
        crossed = rho * covariance
        share = ((crossed.square() + variance * (variance + 2 * covariance)).sqrt() - crossed) / variance.clamp_min(
            1e-8
        )
        changed = (rows @ share @ columns.T) * exchange(high, noise, first.gate, first.scale)
        frames = picture.add_(changed - high).mul_(1 + first.gain).add_(first.mean)
    else:
        frames = picture.add_((first.gate - 1) * high).mul_(1 + first.gain).add_(first.mean) + first.scale * noise
    if bool((excess > 0).any()):
        frames = frames + (rows @ excess @ columns.T) * carried(coarse.to(still), first.flow)
    return frames


def carried(noise: Tensor, flow: Tensor, grain: Grain | None = None) -> Tensor:
    """Carry noise along with the tissue: sample each frame at p + flow(p), linearly, around the edges.

    Between two pixels of correlation r, at share f, linear interpolation leaves a variance of 1 - 2 f (1 - f) (1 - r)
    along each axis; the result is divided by its root.

    Args:
        noise: (B, C, T, H, W), unit variance, periodic along both sides.
        flow: (B, 2, T, H, W), backward displacement in pixels, x then y.
        grain: Of the noise; None for noise so smooth that neighbours are alike.

    Returns:
        Same shape as the noise; a flow of whole pixels keeps every value.
    """
    height, width = noise.shape[-2:]
    margin = min(int(flow.abs().max()) + 2, height, width)
    wrapped = F.pad(noise.transpose(1, 2).flatten(0, 1), (margin,) * 4, mode="circular")
    x = (flow[:, 0] + torch.arange(width, device=flow.device)).clamp(-margin, width + margin - 1)
    y = (flow[:, 1] + torch.arange(height, device=flow.device)[:, None]).clamp(-margin, height + margin - 1)
    at = torch.stack(
        [
            (2 * (x + margin) + 1) / (width + 2 * margin) - 1,
            (2 * (y + margin) + 1) / (height + 2 * margin) - 1,
        ],
        dim=-1,
    )
    frames = F.grid_sample(wrapped, at.flatten(0, 1), mode="bilinear", align_corners=False)
    moved: Tensor = frames.reshape(noise.transpose(1, 2).shape).transpose(1, 2)
    if grain is None:
        return moved
    left: Tensor = torch.ones_like(x)
    alike_y, alike_x = grain.at_work(height, x.device)[2][:, :, None]
    for place, alike in ((x, alike_x), (y, alike_y)):
        share = place - place.floor()
        left = left * (1 - 2 * share * (1 - share) * (1 - alike))
    kept: Tensor = moved / left.clamp_min(0.05).sqrt()[:, None]
    return kept
