"""The static mask: sector, text and callipers are held, tissue is not."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy import ndimage

from tests.factories import textured_still
from us_i2v.data.hold import fill_held, find_hold, sliding


def test_plain_texture_is_not_held():
    assert not find_hold(textured_still(120, 160)).any()


def test_outside_of_the_sector_is_held_and_dark_tissue_inside_is_not():
    picture = textured_still(200, 200)
    rows, columns = np.mgrid[:200, :200]
    outside = np.abs(columns - 100) > 20 + rows * 0.45
    picture[outside] = 2
    picture[100:120, 90:110] = 3  # a cyst
    hold = find_hold(picture)
    assert hold[outside].mean() > 0.95
    assert hold[~outside].mean() < 0.02
    assert not hold[102:118, 92:108].any()


def test_white_text_and_callipers_are_held():
    image = Image.fromarray((textured_still(200, 260) * 0.5).astype(np.uint8))
    before = np.asarray(image).copy()
    draw = ImageDraw.Draw(image)
    draw.text((20, 170), "LT BREAST 3", fill=255)
    draw.line((150, 60, 162, 60), fill=255)
    draw.line((156, 54, 156, 66), fill=255)
    picture = np.asarray(image)
    hold = find_hold(picture)
    painted = picture != before
    assert hold[painted].mean() > 0.9
    assert hold.mean() < 0.05


def test_coloured_marks_are_held_but_a_tinted_picture_is_not():
    picture = np.stack([textured_still(100, 120)] * 3, axis=2)
    picture[40:44, 50:60] = (255, 230, 0)
    hold = find_hold(picture)
    assert hold[40:44, 50:60].all()
    assert hold.mean() < 0.05
    assert not find_hold(textured_still(100, 120, colour=True)).any()


def test_fill_continues_the_nearest_tissue():
    picture = np.full((20, 20), 0.5)
    hold = np.zeros((20, 20), bool)
    hold[5:8, 5:8] = True
    picture[hold] = 1.0
    picture[:, 15:] = 0.2
    filled = fill_held(picture, hold)
    assert (filled[hold] == 0.5).all()
    assert np.array_equal(filled[~hold], picture[~hold])
    everything = np.ones((20, 20), bool)
    assert fill_held(picture, everything) is picture


@pytest.mark.parametrize("shape", [(40, 61), (16, 16), (5, 30)])
@pytest.mark.parametrize("size", [3, 9, 13])
def test_sliding_extremes_are_those_of_scipy(shape, size):
    values = np.random.default_rng(0).integers(0, 256, shape).astype(np.float32)
    assert np.array_equal(sliding(values, size, np.maximum), ndimage.maximum_filter(values, size))
    opened = sliding(sliding(values, size, np.minimum), size, np.maximum)
    assert np.array_equal(opened, ndimage.grey_opening(values, (size, size)))


@pytest.mark.parametrize(("share", "regions"), [(0.005, 18), (0.05, 85), (0.4, 1)])
def test_held_pixels_take_a_nearest_visible_one(share, regions):
    """A few regions are filled one by one, many together."""
    hold = ndimage.binary_dilation(np.random.default_rng(1).random((60, 80)) < share)
    assert ndimage.label(hold, np.ones((3, 3)))[1] == regions
    rows, columns = np.indices(hold.shape)
    filled = fill_held(np.stack([rows, columns], axis=-1).astype(np.float32), hold)
    away = np.hypot(filled[..., 0] - rows, filled[..., 1] - columns)
    assert np.allclose(away, ndimage.distance_transform_edt(hold))
