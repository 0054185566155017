"""Masks: any nonzero pixel counts, sizes must agree, several are united."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image as PillowImage

from us_i2v.data.masks import read_mask, read_masks, write_mask
from us_i2v.errors import InputError

MASK = np.random.default_rng(0).random((33, 47)) < 0.3


@pytest.mark.parametrize("value", [1, 255])
@pytest.mark.parametrize("kind", ["1", "L", "I;16", "P", "RGB", "RGBA", "LA"])
def test_any_nonzero_pixel_counts(tmp_path, kind, value):
    gray = MASK.astype(np.uint8) * np.uint8(value)
    picture = {
        "1": lambda: PillowImage.fromarray(MASK),
        "L": lambda: PillowImage.fromarray(gray),
        "I;16": lambda: PillowImage.fromarray(gray.astype(np.uint16)),
        "P": lambda: PillowImage.fromarray(gray).convert("P"),
        "RGB": lambda: PillowImage.fromarray(np.stack([gray * 0, gray * 0, gray], -1)),
        "RGBA": lambda: PillowImage.fromarray(np.stack([gray, gray, gray, np.full_like(gray, 255)], -1)),
        "LA": lambda: PillowImage.merge("LA", [PillowImage.fromarray(gray), PillowImage.new("L", (47, 33), 255)]),
    }[kind]()
    picture.save(tmp_path / "m.png")
    mask = read_mask(tmp_path / "m.png", (33, 47))
    assert mask.dtype == np.bool_
    np.testing.assert_array_equal(mask, MASK)


def test_written_masks_are_read_back(tmp_path):
    np.testing.assert_array_equal(read_mask(write_mask(tmp_path / "d" / "m.png", MASK), (33, 47)), MASK)
    with PillowImage.open(tmp_path / "d" / "m.png") as picture:
        assert set(np.unique(np.asarray(picture))) == {0, 255}
    assert [entry.name for entry in (tmp_path / "d").iterdir()] == ["m.png"]


def test_a_wrong_size_names_both(tmp_path):
    write_mask(tmp_path / "m.png", MASK)
    with pytest.raises(InputError, match=r"m.png' is 47x33 pixels, its still 47x34"):
        read_mask(tmp_path / "m.png", (34, 47))


def test_several_masks_are_united(tmp_path):
    other = np.roll(MASK, 5, 1)
    paths = [write_mask(tmp_path / "a.png", MASK), write_mask(tmp_path / "b.png", other)]
    np.testing.assert_array_equal(read_masks(paths, (33, 47)), MASK | other)
    assert not read_masks([], (33, 47)).any()


@pytest.mark.parametrize("content", [None, b"", b"text", b"\x89PNG\r\n\x1a\n"])
def test_unreadable_masks(tmp_path, content):
    if content is not None:
        (tmp_path / "m.png").write_bytes(content)
    with pytest.raises(InputError, match=r"m\.png"):
        read_mask(tmp_path / "m.png", (33, 47))


def test_a_cut_mask_is_damaged(tmp_path):
    content = write_mask(tmp_path / "w.png", MASK).read_bytes()
    (tmp_path / "m.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="damaged"):
        read_mask(tmp_path / "m.png", (33, 47))
