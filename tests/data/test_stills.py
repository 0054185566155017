"""Stills of every kind become uint8; everything else is one clear error."""

from __future__ import annotations

import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image as PillowImage

from us_i2v.data.stills import collapse_gray, is_still, read_still, scale_to_uint8, still_size
from us_i2v.errors import InputError

GRAY = np.random.default_rng(0).integers(0, 256, (37, 21), np.uint8)
RGB = np.random.default_rng(1).integers(0, 256, (37, 21, 3), np.uint8)


def png16(path, values):
    """A 16-bit PNG by hand: gray for (H, W), RGB for (H, W, 3)."""
    height, width = values.shape[:2]
    rows = b"".join(b"\x00" + row.astype(">u2").tobytes() for row in values)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 16, 0 if values.ndim == 2 else 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )
    return path


@pytest.mark.parametrize("ending", ["png", "bmp", "tif", "tiff"])
@pytest.mark.parametrize("pixels", [GRAY, RGB])
def test_lossless_formats_are_exact_at_odd_sizes(tmp_path, ending, pixels):
    path = tmp_path / f"a.{ending}"
    PillowImage.fromarray(pixels).save(path)
    np.testing.assert_array_equal(read_still(path), pixels)
    assert still_size(path) == (37, 21)


def test_jpeg_is_close(tmp_path):
    smooth = np.add.outer(np.arange(40), 2 * np.arange(50)).astype(np.uint8)
    PillowImage.fromarray(smooth).save(tmp_path / "a.jpg", quality=95)
    assert np.abs(read_still(tmp_path / "a.jpg").astype(int) - smooth).max() <= 4


@pytest.mark.parametrize("ending", ["png", "tif", "bmp", "gif"])
def test_rgb_with_equal_channels_is_gray(tmp_path, ending):
    PillowImage.fromarray(np.repeat(GRAY[..., None], 3, -1)).save(tmp_path / f"a.{ending}")
    np.testing.assert_array_equal(read_still(tmp_path / f"a.{ending}"), GRAY)


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_alpha_is_dropped_without_blending(tmp_path, mode):
    pixels = GRAY if mode == "LA" else RGB
    picture = PillowImage.fromarray(pixels)
    picture.putalpha(PillowImage.fromarray(255 - GRAY))
    picture.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_still(tmp_path / "a.png"), pixels)


def test_palette_one_bit_and_cmyk_are_converted(tmp_path):
    picture = PillowImage.fromarray(GRAY % 3).convert("L")
    palette = PillowImage.fromarray(GRAY % 3)
    palette = palette.convert("P")
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    palette.save(tmp_path / "p.png")
    np.testing.assert_array_equal(read_still(tmp_path / "p.png"), np.eye(3, dtype=np.uint8)[GRAY % 3] * 255)
    picture.point(lambda v: 255 if v else 0).convert("1").save(tmp_path / "1.png")
    np.testing.assert_array_equal(read_still(tmp_path / "1.png"), (GRAY % 3 > 0) * np.uint8(255))
    PillowImage.fromarray(RGB).convert("CMYK").save(tmp_path / "c.tif")
    np.testing.assert_array_equal(read_still(tmp_path / "c.tif"), RGB)


def test_16_bit_gray_is_scaled_by_its_full_range(tmp_path):
    wide = np.linspace(0, 65535, 37 * 21).astype(np.uint16).reshape(37, 21)
    expected = np.rint(wide / 257.0).astype(np.uint8)
    np.testing.assert_array_equal(read_still(png16(tmp_path / "a.png", wide)), expected)
    PillowImage.fromarray(wide).save(tmp_path / "a.tif")
    np.testing.assert_array_equal(read_still(tmp_path / "a.tif"), expected)
    assert read_still(tmp_path / "a.tif").max() == 255


def test_16_bit_is_not_stretched_to_its_contents(tmp_path):
    wide = np.full((20, 20), 32896, np.uint16)
    assert (read_still(png16(tmp_path / "a.png", wide)) == 128).all()


def test_16_bit_rgb(tmp_path):
    wide = RGB.astype(np.uint16) * 257
    np.testing.assert_array_equal(read_still(png16(tmp_path / "a.png", wide)), RGB)


def test_8_bit_values_in_a_16_bit_file_are_refused(tmp_path):
    with pytest.raises(InputError, match="16-bit values up to 255 only"):
        read_still(png16(tmp_path / "a.png", np.full((20, 20), 255, np.uint16)))


def test_float_tiff(tmp_path):
    PillowImage.fromarray(np.full((20, 20), 0.5, np.float32)).save(tmp_path / "a.tif")
    assert (read_still(tmp_path / "a.tif") == 128).all()
    PillowImage.fromarray(np.full((20, 20), np.nan, np.float32)).save(tmp_path / "b.tif")
    with pytest.raises(InputError, match="NaN"):
        read_still(tmp_path / "b.tif")


def test_exif_orientation_is_applied(tmp_path):
    picture = PillowImage.fromarray(GRAY)
    exif = PillowImage.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_still(tmp_path / "a.png"), np.rot90(GRAY, -1))


def _png(tmp_path, name="whole.png"):
    PillowImage.fromarray(GRAY).save(tmp_path / name)
    return (tmp_path / name).read_bytes()


@pytest.mark.parametrize("ending", ["png", "jpg", "tif", "bmp", "gif"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_cut_stills(tmp_path, ending, share):
    PillowImage.fromarray(np.random.default_rng(0).integers(0, 256, (90, 90), np.uint8)).save(tmp_path / f"w.{ending}")
    content = (tmp_path / f"w.{ending}").read_bytes()
    (tmp_path / f"cut.{ending}").write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InputError) as caught:
        read_still(tmp_path / f"cut.{ending}")
    assert f"cut.{ending}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_flipped_byte_is_found(tmp_path):
    content = bytearray(_png(tmp_path))
    content[len(content) // 2] ^= 0xFF
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        read_still(tmp_path / "a.png")


def test_missing_empty_misnamed_and_folder(tmp_path):
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "folder.png").mkdir()
    for name, message in (
        ("none.png", "cannot be read: No such file"),
        ("empty.png", "is empty"),
        ("text.png", "not a readable image"),
        ("folder.png", "is a folder"),
    ):
        with pytest.raises(InputError, match=message):
            read_still(tmp_path / name)


@pytest.mark.parametrize("size", [(1, 1), (15, 400), (400, 15)])
def test_too_small(tmp_path, size):
    PillowImage.new("L", size).save(tmp_path / "a.png")
    with pytest.raises(InputError, match=f"{size[0]}x{size[1]} pixels; at least 16x16"):
        read_still(tmp_path / "a.png")


@pytest.mark.parametrize("side", [8000, 10000, 20000])
def test_too_large_is_found_on_the_header_without_a_warning(tmp_path, side):
    """The header alone claims the size: decoding would fail otherwise."""
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    chunk = b"IHDR" + header
    content = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (tmp_path / "a.png").write_bytes(content + b"\0\0\0\0IDAT" + struct.pack(">I", zlib.crc32(b"IDAT")))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError, match="at most 50000000"):
            read_still(tmp_path / "a.png")


def test_the_limit_is_a_parameter(tmp_path):
    _png(tmp_path)
    with pytest.raises(InputError, match="21x37 pixels; at most 700"):
        read_still(tmp_path / "whole.png", max_pixels=700)


def test_other_formats_are_not_opened(tmp_path):
    PillowImage.fromarray(GRAY).save(tmp_path / "a.ppm")
    (tmp_path / "a.ppm").rename(tmp_path / "a.png")
    with pytest.raises(InputError, match="not a readable image"):
        read_still(tmp_path / "a.png")


def test_collapse_gray_needs_every_channel_equal():
    clip = np.repeat(np.stack([GRAY, GRAY])[..., None], 3, -1)
    assert collapse_gray(clip).shape == (2, 37, 21)
    clip[1, 5, 5, 2] ^= 1
    assert collapse_gray(clip).shape == (2, 37, 21, 3)


def test_complex_values_are_refused():
    with pytest.raises(InputError, match="type complex128"):
        scale_to_uint8(np.zeros((2, 2), complex), "a.npy", 0.0)


def test_endings(tmp_path):
    assert is_still(tmp_path / "A.PNG")
    assert not is_still(tmp_path / "a.mp4")


def test_real_stills(shared_data):
    folder = shared_data / "data" / "images" / "busi"
    paths = sorted(folder.rglob("*.png"))[::97]
    for path in paths:
        pixels = read_still(path)
        assert pixels.dtype == np.uint8
        assert pixels.shape[:2] == still_size(path)
        assert pixels.ndim in (2, 3)
