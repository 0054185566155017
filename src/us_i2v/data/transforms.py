"""Fitting native pictures into the model's square, and the way back.

A `Placement` records the affine map between both pixel grids, so that motion found at model size can be
applied to the full-size picture. Pixel centres are at whole numbers:

    native = (model - box_offset + 0.5) * scale + region_offset - 0.5     for each axis,

where `region` is the part of the native picture that is shown, `box` the part of the square that shows it,
and scale = region / box (native pixels per model pixel; the two axes differ slightly by rounding, and much
for "stretch"). A displacement in model pixels times `scale` is one in native pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage

from us_i2v.data.decoding.base import luma
from us_i2v.errors import ConfigError, InputError

if TYPE_CHECKING:
    from us_i2v.types import Frames, Image, Mask, Size

Policy = Literal["letterbox", "center-crop", "stretch"]
POLICIES: tuple[Policy, ...] = ("letterbox", "center-crop", "stretch")


class Box(NamedTuple):
    """A rectangle in whole pixels."""

    top: int
    left: int
    height: int
    width: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Row and column slices."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)


@dataclass(frozen=True)
class Placement:
    """How the model square lies on the native picture.

    Attributes:
        native_size: (height, width) of the native picture.
        model_size: (height, width) of the square.
        box: Where the picture lies inside the square; outside of it are bars.
        region: The part of the native picture that the box shows.
    """

    native_size: Size
    model_size: Size
    box: Box
    region: Box

    @property
    def scale(self) -> tuple[float, float]:
        """Native pixels per model pixel, (y, x)."""
        return self.region.height / self.box.height, self.region.width / self.box.width

    def to_native(self, y: npt.ArrayLike, x: npt.ArrayLike) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Map model pixel coordinates to native ones; any shape, both alike."""
        scale_y, scale_x = self.scale
        return (
            (np.asarray(y, np.float64) - self.box.top + 0.5) * scale_y + self.region.top - 0.5,
            (np.asarray(x, np.float64) - self.box.left + 0.5) * scale_x + self.region.left - 0.5,
        )

    def to_model(self, y: npt.ArrayLike, x: npt.ArrayLike) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Map native pixel coordinates to model ones; the inverse of `to_native`."""
        scale_y, scale_x = self.scale
        return (
            (np.asarray(y, np.float64) - self.region.top + 0.5) / scale_y + self.box.top - 0.5,
            (np.asarray(x, np.float64) - self.region.left + 0.5) / scale_x + self.box.left - 0.5,
        )

    def model_grid(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return the model coordinates of every native row, (H,), and column, (W,): the map is separable.

        Coordinates outside the square (native pixels that a centre crop leaves out) are not clamped.
        """
        height, width = self.native_size
        return self.to_model(np.arange(height), np.arange(height))[0], self.to_model(
            np.arange(width), np.arange(width)
        )[1]

    def native_mask(self) -> Mask:
        """Return (H, W): True at native pixels that the square shows."""
        shown = np.zeros(self.native_size, np.bool_)
        shown[self.region.slices] = True
        return shown

    def model_mask(self) -> Mask:
        """Return (S, S): True at model pixels that show the picture, False in the bars."""
        shown = np.zeros(self.model_size, np.bool_)
        shown[self.box.slices] = True
        return shown


@dataclass(frozen=True)
class Fit:
    """A resize policy.

    Attributes:
        policy: "letterbox" keeps all of the picture and its proportions and adds black bars; "center-crop"
            keeps the proportions and cuts the longer side; "stretch" keeps all and not the proportions.
        size: Side of the model's square.
    """

    policy: Policy
    size: int

    def __post_init__(self) -> None:
        """Check both values."""
        if self.policy not in POLICIES:
            raise ConfigError(f"Resize policy '{self.policy}' is unknown.", f"Use one of {', '.join(POLICIES)}.")
        if self.size < 1:
            raise ConfigError(f"Model size {self.size} is not positive.", "Give for example 128.")


def place(native_size: Size, fit: Fit) -> Placement:
    """Return where a picture of `native_size` goes."""
    height, width = native_size
    if height < 1 or width < 1:
        raise InputError(f"A picture of {width}x{height} pixels cannot be resized.", "Give a picture with pixels.")
    size = fit.size
    region = Box(0, 0, height, width)
    box = Box(0, 0, size, size)
    if fit.policy == "center-crop":
        side = min(height, width)
        region = Box((height - side) // 2, (width - side) // 2, side, side)
    elif fit.policy == "letterbox":
        longest = max(height, width)
        rows, columns = (max(1, round(side * size / longest)) for side in (height, width))
        box = Box((size - rows) // 2, (size - columns) // 2, rows, columns)
    return Placement((height, width), (size, size), box, region)


def fit_frames(frames: Frames, fit: Fit) -> tuple[Frames, Placement]:
    """Resize a clip into the model's square.

    Args:
        frames: uint8, (T, H, W) or (T, H, W, 3).
        fit: Policy and size.

    Returns:
        uint8, (T, S, S) or (T, S, S, 3), bars black, and the placement. Reducing is by antialiased
        (triangle-weighted) averaging, enlarging bilinear; a picture of the right size passes unchanged.
    """
    placement = place((frames.shape[1], frames.shape[2]), fit)
    out = np.zeros((frames.shape[0], fit.size, fit.size, *frames.shape[3:]), np.uint8)
    for index, frame in enumerate(frames):
        out[index][placement.box.slices] = resize(frame[placement.region.slices], placement.box[2:])
    return out, placement


def fit_still(still: Image, fit: Fit) -> tuple[Image, Placement]:
    """Resize one still, (H, W[, 3]) to (S, S[, 3]), like `fit_frames`."""
    frames, placement = fit_frames(still[None], fit)
    return frames[0], placement


def fit_mask(mask: Mask, fit: Fit) -> tuple[Mask, Placement]:
    """Resize a mask, (H, W) to (S, S): True where at least half of the area is; False in the bars."""
    frames, placement = fit_frames(mask[None].astype(np.uint8) * np.uint8(255), fit)
    return frames[0] >= 128, placement


def resize(picture: Image, size: tuple[int, ...]) -> Image:
    """Resize (H, W[, 3]) uint8 to `size` (height, width), antialiased."""
    height, width = size
    if picture.shape[:2] == (height, width):
        return picture
    source = PillowImage.fromarray(np.ascontiguousarray(picture))
    return np.asarray(source.resize((width, height), PillowImage.Resampling.BILINEAR), np.uint8)


def to_gray(frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return Rec. 601 luma of (..., H, W, 3); gray input, (H, W) or (T, H, W), passes unchanged.

    The last axis decides: 3 means RGB (pictures are at least 16 pixels wide).
    """
    return luma(frames) if frames.shape[-1] == 3 else frames


def to_float(frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return uint8 0..255 as float32 0..1, same shape."""
    return np.asarray(frames, np.float32) / np.float32(255)


def to_uint8(values: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.uint8]:
    """Return floats 0..1 as uint8 0..255, rounded and clipped, same shape; exact inverse of `to_float`."""
    return np.asarray(np.rint(np.clip(values, 0.0, 1.0) * 255.0), np.uint8)
