"""A still as the generators need it: what must not move, what the networks see, and its speckle."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from us_i2v.data.hold import fill_held, find_hold
from us_i2v.data.transforms import Fit, Placement, fit_still, to_float, to_gray
from us_i2v.errors import ConfigError, InputError
from us_i2v.models.motion import interpolation_matrix
from us_i2v.models.render import StillTexture

if TYPE_CHECKING:
    from torch import Tensor

    from us_i2v.models.motion import Motion
    from us_i2v.types import Image, Mask


@dataclass(frozen=True)
class Still:
    """A still, prepared once for all of its clips.

    Attributes:
        picture: uint8 (H, W) or (H, W, 3), as given.
        filled: float (1, C, H, W) in 0..1, the tissue continued under held pixels; on the device where it is rendered.
        hold: (H, W) bool, pixels that do not move.
        seen: float (1, 1, S, S), what the networks see: the still fitted as in their training.
        small: float (1, 1, S, S), the whole picture in the square, for the statistics of its speckle; same device.
        placement: How `seen` lies on the picture.
    """

    picture: Image
    filled: Tensor
    hold: Mask
    seen: Tensor
    small: Tensor
    placement: Placement
    _textures: dict[tuple[int, int], StillTexture] = field(default_factory=dict, compare=False, repr=False)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return int(self.picture.shape[0]), int(self.picture.shape[1])

    @classmethod
    def prepare(cls, picture: Image, fit: Fit, device: torch.device | None = None) -> Still:
        """Find what must not move, and make the networks' view of the picture.

        Args:
            picture: uint8 (H, W) or (H, W, 3).
            fit: How the networks see it.
            device: Where it will be rendered; None: on the CPU.
        """
        hold = find_hold(picture)
        gray = to_gray(picture[None])[0]
        seen, placement = seen_by_networks(picture, fit)
        filled = fill_held(picture.astype(np.float32) / 255, hold)
        channels = filled[None] if filled.ndim == 2 else filled.transpose(2, 0, 1)
        small = fit_still(gray, Fit("stretch", fit.size))[0]
        return cls(
            picture=picture,
            filled=torch.from_numpy(np.ascontiguousarray(channels))[None].to(device or "cpu"),
            hold=hold,
            seen=seen,
            small=torch.from_numpy(to_float(small))[None, None].to(device or "cpu"),
            placement=placement,
        )

    def from_square(self, motion: Motion) -> Motion:
        """Turn a motion of the model's square into one whose grid covers the whole picture.

        Where the square shows only a part (centre crop), the rest moves as the nearest shown place.
        """
        box = self._box(motion.grid)
        whole = (0.0, 0.0, float(motion.grid[0]), float(motion.grid[1]))
        return motion if np.allclose(box, whole) else motion.resample(box, motion.grid)

    def map_from_square(self, field: Tensor) -> Tensor:
        """Do the same with a map of the model's square that does not move: (1, C, h, w) -> same, linearly."""
        grid = (int(field.shape[-2]), int(field.shape[-1]))
        top, left, height, width = self._box(grid)
        rows = interpolation_matrix(grid[0], grid[0], top, height, "linear").to(field)
        columns = interpolation_matrix(grid[1], grid[1], left, width, "linear").to(field)
        return rows @ field @ columns.T

    def _box(self, grid: tuple[int, int]) -> tuple[float, float, float, float]:
        """Where the whole picture lies on a grid over the model's square: top, left, height, width in cells."""
        place, (rows, columns) = self.placement, grid
        side = place.model_size[0]
        (scale_y, scale_x), (height, width) = place.scale, self.size
        top = (place.box.top - place.region.top / scale_y) / side * rows
        left = (place.box.left - place.region.left / scale_x) / side * columns
        return top, left, height / scale_y / side * rows, width / scale_x / side * columns

    def texture(self, grid: tuple[int, int]) -> StillTexture:
        """Measure the speckle on the filled picture, once a grid; held pixels count in no statistic.

        On a CPU if not on CUDA: other devices lack some of the resizing, and so draw their noise on the CPU.
        """
        if grid not in self._textures:
            where = self.filled.device if self.filled.is_cuda else torch.device("cpu")
            gray = self.filled.to(where).mean(dim=1, keepdim=True)
            weight = torch.from_numpy(~self.hold)[None, None].to(gray)
            self._textures[grid] = StillTexture.measure(gray, self.small.to(where), grid, weight)
        return self._textures[grid]

    def compose(self, frames: Tensor) -> Tensor:
        """(B, C, T, H, W) in 0..1 -> uint8 (B, T, H, W[, C]) with held pixels put back, on the same device."""
        shown = (frames * 255).round().to(torch.uint8)
        out = shown[:, 0] if self.picture.ndim == 2 else shown.permute(0, 2, 3, 4, 1)
        if not self.hold.any():
            return out
        hold, picture = (torch.from_numpy(x).to(out.device) for x in (self.hold, self.picture))
        return torch.where(hold if picture.ndim == 2 else hold[..., None], picture, out)


def seen_by_networks(picture: Image, fit: Fit) -> tuple[Tensor, Placement]:
    """Fit a picture as in training: (1, 1, S, S) in 0..1, and how that lies on the picture."""
    fitted, placement = fit_still(to_gray(picture[None])[0], fit)
    return torch.from_numpy(to_float(fitted))[None, None], placement


def check_picture(picture: Image, mask: Mask | None) -> None:
    """Raise `InputError` for a picture or mask of a wrong shape or type."""
    if picture.dtype != np.uint8 or picture.ndim not in (2, 3) or (picture.ndim == 3 and picture.shape[2] != 3):
        raise InputError(
            f"The still is {picture.dtype} of shape {picture.shape}; uint8 (H, W) or (H, W, 3) is needed.",
            "Scale it to 0..255.",
        )
    if min(picture.shape[:2]) < 16:
        raise InputError(f"The still is {picture.shape[1]}x{picture.shape[0]} px; at least 16x16 is needed.", "")
    if mask is not None and mask.shape != picture.shape[:2]:
        raise InputError(
            f"The mask is {mask.shape[1]}x{mask.shape[0]} px, the still {picture.shape[1]}x{picture.shape[0]}.",
            "Give a mask of the still's size.",
        )


def resize_longer(picture: Image, mask: Mask | None, size: int) -> tuple[Image, Mask | None]:
    """Resize so that the longer side has `size` pixels (antialiased; masks cut at one half)."""
    if not 16 <= size <= 8192:
        raise ConfigError(f"Size {size} px was asked for; 16 to 8192 is possible.", "Choose --size in that range.")
    factor = size / max(picture.shape[:2])
    shape = [max(16, round(side * factor)) for side in picture.shape[:2]]

    def resize(x: Tensor) -> Tensor:
        return F.interpolate(x, size=shape, mode="bilinear", antialias=True)

    channels = picture[None] if picture.ndim == 2 else picture.transpose(2, 0, 1)
    resized = resize(torch.from_numpy(channels.astype(np.float32))[None])[0].round().clamp(0, 255)
    array = resized.to(torch.uint8).numpy()
    out = array[0] if picture.ndim == 2 else np.ascontiguousarray(array.transpose(1, 2, 0))
    if mask is None:
        return out, None
    return out, (resize(torch.from_numpy(mask)[None, None].float())[0, 0] > 0.5).numpy()
