"""Colours and grays of DICOM pictures: golden values in every encoding that is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pydicom", reason="the extra 'dicom' is not installed")

from pydicom.data import get_testdata_file

from tests.data import dicom_files as files
from tests.data.dicom_files import COLOURS, bars, middles, save, ultrasound
from us_i2v.data.stills import read_still
from us_i2v.errors import InputError

GOLDEN = ((5, (255, 0, 0)), (15, (255, 128, 128)), (25, (0, 255, 0)), (35, (128, 255, 128)), (45, (0, 0, 255)))
GRAYS = ((65, 0), (75, 64), (85, 192), (95, 255))
"""Rows and values of pydicom's own colour bars."""
YBR_WAYS = ("n1", "n2", "np", "s2", "s4")
"""How DCMTK wrote them as YCbCr: with and without subsampling."""


def bundled(name: str) -> Path:
    """A file that pydicom's package holds; none is downloaded."""
    found = get_testdata_file(name, download=False)
    assert found is not None
    return Path(str(found))


def colours_of(path: Path, dataset) -> np.ndarray:
    """Write, read, and return the bars' values as integers."""
    return middles(read_still(save(path, dataset))).astype(int)


@pytest.mark.parametrize("planar", [0, 1])
@pytest.mark.parametrize("rle", [False, True])
@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL"])
def test_colour_by_pixel_and_plane(tmp_path: Path, planar: int, rle: bool, photometric: str) -> None:
    stored = bars() if photometric == "RGB" else files.ybr(bars())
    dataset = ultrasound(stored[None], photometric)
    if rle:
        dataset.compress(files.RLELossless, generate_instance_uid=False)
    elif planar:
        files.native(dataset, np.ascontiguousarray(stored.transpose(2, 0, 1)).tobytes())
        dataset.PlanarConfiguration = 1
    found = colours_of(tmp_path / "a.dcm", dataset)
    assert np.abs(found - COLOURS).max() <= (0 if photometric == "RGB" else 2)


def test_ybr_full_422_not_compressed(tmp_path: Path) -> None:
    values = files.ybr(bars())
    dataset = ultrasound(values[None], "YBR_FULL_422")
    pairs = values.reshape(32, 64, 2, 3)
    packed = np.concatenate([pairs[:, :, :, 0], pairs[:, :, :1, 1], pairs[:, :, :1, 2]], axis=2)
    files.native(dataset, packed.tobytes())
    assert np.abs(colours_of(tmp_path / "a.dcm", dataset) - COLOURS).max() <= 2


@pytest.mark.parametrize("sampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("photometric", ["YBR_FULL", "YBR_FULL_422"])
@pytest.mark.parametrize("markers", [True, False])
def test_jpeg_of_ycbcr(tmp_path: Path, sampling: str, photometric: str, markers: bool) -> None:
    stream = files.jpeg(bars(), subsampling=sampling)
    stream = stream if markers else files.without_markers(stream)
    dataset = files.compressed(ultrasound(bars()[None], photometric), [stream], files.JPEGBaseline8Bit)
    assert np.abs(colours_of(tmp_path / "a.dcm", dataset) - COLOURS).max() <= 5


def test_jpeg_of_rgb_without_any_marker(tmp_path: Path) -> None:
    """Components 1, 2, 3 that are red, green and blue: only Photometric Interpretation tells."""
    stream = bytearray(files.without_markers(files.jpeg(bars(), subsampling="4:4:4", keep_rgb=True)))
    frame, scan = stream.index(b"\xff\xc0"), stream.index(b"\xff\xda")
    for number in range(3):
        stream[frame + 10 + 3 * number] = stream[scan + 5 + 2 * number] = number + 1
    dataset = files.compressed(ultrasound(bars()[None], "RGB"), [bytes(stream)], files.JPEGBaseline8Bit)
    assert np.abs(colours_of(tmp_path / "a.dcm", dataset) - COLOURS).max() <= 5


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL_422"])
def test_jpeg_whose_components_are_called_rgb(tmp_path: Path, photometric: str) -> None:
    stream = files.jpeg(bars(), subsampling="4:4:4", keep_rgb=True)
    dataset = files.compressed(ultrasound(bars()[None], photometric), [stream], files.JPEGBaseline8Bit)
    assert np.abs(colours_of(tmp_path / "a.dcm", dataset) - COLOURS).max() <= 5


@pytest.mark.parametrize(("lossy", "photometric"), [(False, "YBR_RCT"), (True, "YBR_ICT"), (False, "RGB")])
def test_jpeg_2000(tmp_path: Path, lossy: bool, photometric: str) -> None:
    stream = files.jpeg2000(bars(), lossy=lossy, mct=int(photometric != "RGB"))
    syntax = files.JPEG2000 if lossy else files.JPEG2000Lossless
    dataset = files.compressed(ultrasound(bars()[None], photometric), [stream], syntax)
    assert np.abs(colours_of(tmp_path / "a.dcm", dataset) - COLOURS).max() <= (3 if lossy else 0)


@pytest.mark.parametrize(("bits", "shift"), [(8, 0), (16, 8), (16, 0)])
def test_palette(tmp_path: Path, bits: int, shift: int) -> None:
    """16-bit entries keep the high byte; entries of 8 bits in a 16-bit table are taken as they are."""
    indices = np.repeat(np.arange(8, dtype=np.uint8), 16)[None].repeat(32, axis=0)
    dataset = ultrasound(indices[None], "PALETTE COLOR")
    for number, name in enumerate(("Red", "Green", "Blue")):
        table = np.zeros(256, "<u2")
        table[:8] = COLOURS[:, number].astype(np.uint16) << shift
        setattr(dataset, f"{name}PaletteColorLookupTableDescriptor", [256, 0, bits])
        data = table.astype("u1").tobytes() if bits == 8 else table.tobytes()
        setattr(dataset, f"{name}PaletteColorLookupTableData", data)
    assert np.array_equal(colours_of(tmp_path / "a.dcm", dataset), COLOURS)


def test_grays(tmp_path: Path) -> None:
    ramp = np.arange(256, dtype=np.uint8)[None].repeat(16, axis=0)
    assert np.array_equal(read_still(save(tmp_path / "a.dcm", ultrasound(ramp[None]))), ramp)
    inverted = save(tmp_path / "b.dcm", ultrasound(ramp[None], "MONOCHROME1"))
    assert np.array_equal(read_still(inverted), 255 - ramp)
    falling = save(tmp_path / "c.dcm", ultrasound(ramp[None], RescaleSlope=-1, RescaleIntercept=255))
    assert np.array_equal(read_still(falling), 255 - ramp)


def test_stored_bits_give_the_range_and_a_window_narrows_it(tmp_path: Path) -> None:
    ramp = np.arange(0, 4096, 16, dtype=np.uint16)[None].repeat(16, axis=0)
    dataset = ultrasound(ramp[None], BitsStored=12, HighBit=11)
    found = read_still(save(tmp_path / "a.dcm", dataset))
    assert np.array_equal(found, np.rint(ramp / 4095 * 255))
    dataset.WindowCenter, dataset.WindowWidth = [1024.5, 1], [513, 2]
    narrowed = read_still(save(tmp_path / "b.dcm", dataset))
    # PS3.3 C.11.2.1.2: centre - 0.5 is the middle, width - 1 the whole range.
    assert np.array_equal(narrowed, np.rint(255 * np.clip((ramp - 1024.0) / 512 + 0.5, 0, 1)))


def test_rgb_with_equal_channels_is_gray(tmp_path: Path) -> None:
    gray = np.arange(1024, dtype=np.uint32).reshape(32, 32).astype(np.uint8)
    path = save(tmp_path / "a.dcm", ultrasound(np.stack([gray] * 3, axis=2)[None]))
    assert np.array_equal(read_still(path), gray)


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [
        *[(name, 0) for name in ("dcmtk_+eb+cr", "rle", "rle_16bit", "rle_2frame", "gdcm_KY", "jpeg_gdcm")],
        *[(name, 5) for name in ("jpeg_dcmtk", "jpeg_lossy_gdcm", *(f"dcmtk_+eb+cy+{way}" for way in YBR_WAYS))],
    ],
)
def test_bundled_colour_bars(name: str, tolerance: int) -> None:
    check_bars(read_still(bundled(f"SC_rgb_{name}.dcm")), tolerance)


def test_bundled_ybr_full_422_not_compressed() -> None:
    check_bars(read_still(bundled("SC_ybr_full_422_uncompressed.dcm")), 5)


def check_bars(picture: np.ndarray, tolerance: int) -> None:
    for row, values in (*GOLDEN, *GRAYS):
        assert np.abs(picture[row, 50].astype(int) - values).max() <= tolerance, row


def test_bundled_encodings_of_one_scan_agree() -> None:
    reference = read_still(bundled("MR_small.dcm"))
    for name in ("MR_small_RLE", "MR_small_bigendian", "MR_small_implicit", "MR_small_jp2klossless"):
        assert np.array_equal(read_still(bundled(f"{name}.dcm")), reference), name


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("SC_rgb_jls_lossy_line.dcm", "JPEG-LS"),
        ("JPGExtended.dcm", "12 bits"),
        ("image_dfl.dcm", "deflated"),
        ("SC_rgb_rle_32bit.dcm", "32 in 32 bits"),
        ("reportsi.dcm", "Basic Text SR"),
        ("no_meta.dcm", "no DICOM file"),
        ("MR_truncated.dcm", "0 of 1 frames"),
    ],
)
def test_what_is_not_read_is_said(name: str, what: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=what):
        read_still(bundled(name))
    assert capfd.readouterr() == ("", "")


def test_a_frame_of_another_size_than_stated_is_not_decoded(tmp_path: Path) -> None:
    for number, (make, syntax) in enumerate(((files.jpeg, files.JPEGBaseline8Bit), (files.jpeg2000, files.JPEG2000))):
        large = make(np.zeros((640, 640, 3), np.uint8))
        dataset = files.compressed(ultrasound(bars()[None], "YBR_FULL_422"), [large], syntax)
        dataset.PhotometricInterpretation = "YBR_FULL_422" if number == 0 else "YBR_ICT"
        with pytest.raises(InputError, match="640x640x3, stated are 128x32x3"):
            read_still(save(tmp_path / f"{number}.dcm", dataset))
