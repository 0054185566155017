"""Fitting into the square: where pictures go, and that coordinates and displacements find their way back."""

from __future__ import annotations

import numpy as np
import pytest

from us_i2v.data.transforms import (
    POLICIES,
    Box,
    Fit,
    fit_frames,
    fit_mask,
    fit_still,
    place,
    resize,
    to_float,
    to_gray,
    to_uint8,
)
from us_i2v.errors import ConfigError, InputError

SIZES = [(16, 16), (17, 300), (301, 40), (101, 77), (64, 64), (471, 562), (1080, 776), (128, 127)]


@pytest.mark.parametrize(
    ("policy", "native", "box", "region"),
    [
        ("letterbox", (100, 200), Box(16, 0, 32, 64), Box(0, 0, 100, 200)),
        ("letterbox", (200, 100), Box(0, 16, 64, 32), Box(0, 0, 200, 100)),
        ("letterbox", (101, 77), Box(0, 7, 64, 49), Box(0, 0, 101, 77)),
        ("center-crop", (100, 200), Box(0, 0, 64, 64), Box(0, 50, 100, 100)),
        ("center-crop", (201, 100), Box(0, 0, 64, 64), Box(50, 0, 100, 100)),
        ("stretch", (100, 200), Box(0, 0, 64, 64), Box(0, 0, 100, 200)),
    ],
)
def test_where_a_picture_goes(policy, native, box, region):
    placement = place(native, Fit(policy, 64))
    assert placement.box == box
    assert placement.region == region
    assert (placement.native_size, placement.model_size) == (native, (64, 64))


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("size", [8, 63, 64, 128, 400])
@pytest.mark.parametrize("native", SIZES)
def test_the_mapping_holds_for_every_size_and_policy(policy, size, native):
    placement = place(native, Fit(policy, size))
    box, region = placement.box, placement.region
    # Both rectangles lie inside their pictures, and letterbox and stretch show everything.
    for rectangle, outer in ((box, (size, size)), (region, native)):
        assert rectangle.top >= 0
        assert rectangle.left >= 0
        assert rectangle.top + rectangle.height <= outer[0]
        assert rectangle.left + rectangle.width <= outer[1]
        assert min(rectangle.height, rectangle.width) >= 1
    assert placement.native_mask().sum() == region.height * region.width
    assert placement.model_mask().sum() == box.height * box.width
    if policy != "center-crop":
        assert placement.native_mask().all()
    if policy != "letterbox":
        assert placement.model_mask().all()
    # There and back is the identity.
    rng = np.random.default_rng(0)
    y, x = rng.uniform(-5, size + 5, 50), rng.uniform(-5, size + 5, 50)
    for mapped, original in zip(placement.to_model(*placement.to_native(y, x)), (y, x), strict=True):
        np.testing.assert_allclose(mapped, original, atol=1e-9)
    # Edges of the box fall on edges of the region (an edge lies half a pixel outside the first centre).
    top, left = placement.to_native(box.top - 0.5, box.left - 0.5)
    bottom, right = placement.to_native(box.top + box.height - 0.5, box.left + box.width - 0.5)
    assert (float(top), float(left)) == pytest.approx((region.top - 0.5, region.left - 0.5))
    assert float(bottom) == pytest.approx(region.top + region.height - 0.5)
    assert float(right) == pytest.approx(region.left + region.width - 0.5)
    # A displacement in model pixels times the scale is one in native pixels.
    y2, x2 = placement.to_native(y + 1.25, x - 0.5)
    y1, x1 = placement.to_native(y, x)
    np.testing.assert_allclose(y2 - y1, 1.25 * placement.scale[0], atol=1e-9)
    np.testing.assert_allclose(x2 - x1, -0.5 * placement.scale[1], atol=1e-9)
    # The separable grid is the same map.
    rows, columns = placement.model_grid()
    assert (rows.shape, columns.shape) == ((native[0],), (native[1],))
    np.testing.assert_allclose(placement.to_native(rows, rows)[0], np.arange(native[0]), atol=1e-9)
    np.testing.assert_allclose(placement.to_native(columns, columns)[1], np.arange(native[1]), atol=1e-9)
    # Proportions are kept up to the rounding of one pixel of the box.
    if policy != "stretch":
        sy, sx = placement.scale
        assert abs(sy - sx) <= max(sy, sx) / min(box.height, box.width)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("native", [(96, 160), (160, 96), (101, 77), (40, 50)])
def test_the_pixels_really_go_where_the_placement_says(policy, native):
    """A Gaussian spot's centre of mass in the square maps back to where the spot is."""
    rows, columns = np.mgrid[: native[0], : native[1]]
    centre = (native[0] * 0.46, native[1] * 0.53)
    spot = np.exp(-((rows - centre[0]) ** 2 + (columns - centre[1]) ** 2) / (2 * 6.0**2)) * 255
    fitted, placement = fit_still(spot.astype(np.uint8), Fit(policy, 64))
    weights = fitted.astype(float)
    y, x = (float((weights * grid).sum() / weights.sum()) for grid in np.mgrid[:64, :64])
    back_y, back_x = placement.to_native(y, x)
    assert float(back_y) == pytest.approx(centre[0], abs=0.15)
    assert float(back_x) == pytest.approx(centre[1], abs=0.15)


def test_bars_are_black_and_the_rest_is_the_picture():
    frames = np.full((3, 50, 100, 3), 200, np.uint8)
    fitted, placement = fit_frames(frames, Fit("letterbox", 40))
    assert fitted.shape == (3, 40, 40, 3)
    assert (fitted[:, placement.model_mask()] == 200).all()
    assert (fitted[:, ~placement.model_mask()] == 0).all()


def test_a_picture_of_the_right_size_passes_unchanged():
    frames = np.random.default_rng(0).integers(0, 256, (2, 64, 64), np.uint8)
    for policy in POLICIES:
        np.testing.assert_array_equal(fit_frames(frames, Fit(policy, 64))[0], frames)
    cut, _ = fit_frames(np.pad(frames, ((0, 0), (0, 0), (10, 10))), Fit("center-crop", 64))
    np.testing.assert_array_equal(cut, frames)


def test_reducing_averages_instead_of_picking():
    """A checkerboard of single pixels becomes even gray; picking pixels would keep black or white."""
    board = (np.indices((128, 128)).sum(0) % 2 * 255).astype(np.uint8)
    small = resize(board, (32, 32))
    assert np.abs(small.astype(int) - 127).max() <= 2


def test_masks_keep_their_area():
    mask = np.zeros((100, 200), np.bool_)
    mask[20:70, 60:160] = True
    fitted, placement = fit_mask(mask, Fit("letterbox", 100))
    assert fitted.dtype == np.bool_
    assert fitted.sum() * np.prod(placement.scale) == pytest.approx(mask.sum(), rel=0.03)
    assert not fitted[~placement.model_mask()].any()


def test_gray_is_rec_601_luma():
    primaries = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [77, 77, 77]]], np.uint8)
    assert to_gray(primaries).tolist() == [[76, 150, 29, 255, 77]]
    gray = np.zeros((2, 20, 20), np.uint8)
    assert to_gray(gray) is gray


def test_floats_and_bytes_are_inverse():
    values = np.arange(256, dtype=np.uint8)
    assert to_float(values).dtype == np.float32
    assert (to_float(values)[0], to_float(values)[-1]) == (0.0, 1.0)
    np.testing.assert_array_equal(to_uint8(to_float(values)), values)
    assert to_uint8(np.array([-1.0, 2.0])).tolist() == [0, 255]


def test_bad_settings_are_named():
    with pytest.raises(ConfigError, match="'crop' is unknown"):
        Fit("crop", 64)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="0 is not positive"):
        Fit("stretch", 0)
    with pytest.raises(InputError, match="5x0"):
        place((0, 5), Fit("stretch", 8))
