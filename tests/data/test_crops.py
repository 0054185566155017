"""Boxes and lesion crops."""

from __future__ import annotations

import numpy as np
import pytest

from us_i2v.data.boxes import BoundingBox, clean_box, mask_box, union_box
from us_i2v.data.crops import crop_box, crop_mask, crop_picture, crop_region
from us_i2v.data.transforms import Box
from us_i2v.errors import InputError


def test_boxes_are_put_right_and_cut_at_the_edge() -> None:
    assert clean_box(BoundingBox(40, 20, -30, 40)) == BoundingBox(10, 20, 30, 40)
    assert clean_box(BoundingBox(-5, 10, 20, 200), (100, 80)) == BoundingBox(0, 10, 15, 90)
    assert clean_box(BoundingBox(10, 10, 0.4, 30)) is None
    assert clean_box(BoundingBox(90, 10, 30, 30), (100, 80)) is None


def test_union_and_mask() -> None:
    assert union_box([BoundingBox(1, 2, 3, 4), BoundingBox(10, 0, 5, 3)]) == BoundingBox(1, 0, 14, 6)
    assert union_box([]) is None
    mask = np.zeros((30, 40), np.bool_)
    assert mask_box(mask) is None
    mask[5:9, 11] = mask[20, 3] = True
    assert mask_box(mask) == BoundingBox(3, 5, 9, 16)


def test_the_region_is_a_quarter_larger_and_centred() -> None:
    assert crop_region(BoundingBox(100, 200, 80, 40), (600, 800)) == Box(195, 90, 50, 100)
    assert crop_region(BoundingBox(100, 200, 80, 40), (600, 800), margin=0) == Box(200, 100, 40, 80)
    assert crop_region(BoundingBox(0, 580, 80, 20), (600, 800)) == Box(577, 0, 23, 90)
    with pytest.raises(InputError, match="outside of a picture of 50x40"):
        crop_region(BoundingBox(70, 5, 10, 10), (40, 50))


def test_a_crop_is_letterboxed_and_keeps_proportions() -> None:
    picture = np.full((300, 400), 10, np.uint8)
    picture[100:150, 100:200] = 200
    region = Box(100, 100, 50, 100)
    crop = crop_picture(picture, region)
    assert crop.shape == (224, 224)
    assert (crop[56:168] == 200).all()
    assert (crop[:56] == 0).all()
    assert (crop[168:] == 0).all()
    mask = crop_mask(picture > 100, region)
    assert mask.dtype == np.bool_
    assert np.array_equal(mask, crop == 200)
    assert crop_picture(np.stack([picture] * 3, axis=2), region).shape == (224, 224, 3)


def test_boxes_move_with_the_crop() -> None:
    region = Box(100, 100, 50, 100)
    assert crop_box(BoundingBox(100, 100, 100, 50), region) == BoundingBox(0, 56, 224, 112)
    inner = crop_box(BoundingBox(125, 110, 50, 10), region)
    assert inner == pytest.approx((56, 56 + 22.4, 112, 22.4))
