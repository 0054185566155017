"""Cines in NIfTI and MetaImage files: axes, types, rates, spacing, packing, limits and damage."""

from __future__ import annotations

import gzip
import struct
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from tests.factories import textured_still
from us_i2v.data.clips import open_clip
from us_i2v.data.manifest import kind_of
from us_i2v.data.stills import read_still
from us_i2v.errors import InputError

TYPES = {"u1": 2, "i2": 4, "i4": 8, "f4": 16, "f8": 64, "i1": 256, "u2": 512}
SECONDS, MILLISECONDS, MILLIMETRES = 8, 16, 2


def cine(count: int = 4) -> np.ndarray:
    """Frames that differ, (T, 24, 40)."""
    return np.stack([textured_still(24, 40, seed=seed) for seed in range(count)])


def tinted() -> np.ndarray:
    """The same in colour."""
    return np.stack([cine(), cine() // 2, cine() // 3], axis=3)


def nifti(frames: np.ndarray, *, dims: tuple[int, ...] | None = None, order: str = "<", **about: float) -> bytes:
    """A NIfTI-1 file of frames (T, H, W[, 3])."""
    colour = frames.ndim == 4
    count, height, width = frames.shape[:3]
    dims = dims or (width, height, 1, count)
    header = bytearray(352)
    kind = 128 if colour else TYPES[frames.dtype.str[1:]]
    struct.pack_into(f"{order}i", header, 0, 348)
    struct.pack_into(f"{order}8h", header, 40, len(dims), *dims, *[1] * (7 - len(dims)))
    struct.pack_into(f"{order}hh", header, 70, kind, 8 * frames.dtype.itemsize * (3 if colour else 1))
    pixdim = (1.0, about.get("x", 0.3), about.get("y", 0.2), 1.0, about.get("t", 0.0), 0, 0, 0)
    struct.pack_into(f"{order}8f", header, 76, *pixdim)
    struct.pack_into(f"{order}3f", header, 108, 352, about.get("slope", 0.0), about.get("intercept", 0.0))
    header[123] = int(about.get("units", MILLIMETRES | SECONDS))
    header[344:348] = b"n+1\0"
    return bytes(header) + frames.astype(frames.dtype.newbyteorder(order)).tobytes()


def meta_image(frames: np.ndarray, kind: str = "MET_UCHAR", *, data: str = "LOCAL", **fields: object) -> bytes:
    """The header of a MetaImage file of frames (T, H, W[, 3])."""
    count, height, width = frames.shape[:3]
    about = {"ObjectType": "Image", "NDims": 3, "BinaryData": "True", "ElementSpacing": "0.3 0.2 1"}
    about |= {"DimSize": f"{width} {height} {count}", "ElementType": kind} | fields
    lines = [f"{key} = {value}" for key, value in about.items()]
    return ("\n".join([*lines, f"ElementDataFile = {data}"]) + "\n").encode()


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_nifti(tmp_path: Path, order: str, name: str) -> None:
    content = nifti(cine(), order=order, t=0.04)
    path = write(tmp_path / name, gzip.compress(content) if name.endswith("gz") else content)
    clip = open_clip(path)
    assert (clip.n_frames, clip.size, clip.colour) == (4, (24, 40), False)
    assert clip.fps == pytest.approx(25.0)
    assert clip.mm_per_pixel == pytest.approx((0.2, 0.3))
    assert np.array_equal(clip.read([3, 0]), cine()[[3, 0]])
    assert kind_of(path) == "clip"
    assert np.array_equal(read_still(path), cine()[0])


@pytest.mark.parametrize(
    ("about", "fps", "spacing"),
    [
        ({"t": 50.0, "units": MILLIMETRES | MILLISECONDS}, 20.0, (0.2, 0.3)),
        ({"t": 50_000.0, "units": 3 | 24}, 20.0, (0.0002, 0.0003)),
        ({"t": 0.05, "units": 0}, None, None),
        ({"t": 0.0}, None, (0.2, 0.3)),
        ({"t": 0.05, "dims": (40, 24, 4)}, None, (0.2, 0.3)),
    ],
)
def test_nifti_units(tmp_path: Path, about: dict, fps: float | None, spacing: tuple[float, float] | None) -> None:
    clip = open_clip(write(tmp_path / "a.nii", nifti(cine(), **about)))
    assert (clip.fps if clip.fps_known else None) == (fps if fps is None else pytest.approx(fps))
    assert clip.mm_per_pixel == (spacing if spacing is None else pytest.approx(spacing))


@pytest.mark.parametrize(
    ("values", "about", "expected"),
    [
        (cine().astype("i2"), {}, cine()),
        ((cine() / 255).astype("f4"), {}, cine()),
        (cine().astype("u2") * 257, {}, cine()),
        (cine().astype("i2") - 100, {"slope": 1.0, "intercept": 100.0}, cine()),
        (tinted(), {}, tinted()),
    ],
)
def test_nifti_values(tmp_path: Path, values: np.ndarray, about: dict, expected: np.ndarray) -> None:
    assert np.array_equal(open_clip(write(tmp_path / "a.nii", nifti(values, **about))).read(range(4)), expected)


def test_nifti_by_another_writer(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel", reason="nibabel is not installed")
    for kind in (nibabel.Nifti1Image, nibabel.Nifti2Image):
        picture = kind(cine().transpose(2, 1, 0)[:, :, None], np.diag([0.3, 0.2, 1.0, 1.0]))
        picture.header.set_zooms((0.3, 0.2, 1.0, 0.04))
        picture.header.set_xyzt_units("mm", "sec")
        for name in ("a.nii", "a.nii.gz"):
            nibabel.save(picture, tmp_path / name)
            clip = open_clip(tmp_path / name)
            assert np.array_equal(clip.read(range(4)), cine())
            assert clip.fps == pytest.approx(25.0)
            assert clip.mm_per_pixel == pytest.approx((0.2, 0.3))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("local", [False, True])
def test_meta_image(tmp_path: Path, packed: bool, local: bool) -> None:
    values = zlib.compress(cine().tobytes()) if packed else cine().tobytes()
    header = meta_image(cine(), data="LOCAL" if local else "a.raw", CompressedData=packed)
    path = write(tmp_path / ("a.mha" if local else "a.mhd"), header + (values if local else b""))
    if not local:
        (tmp_path / "a.raw").write_bytes(values)
    clip = open_clip(path)
    assert np.array_equal(clip.read([2, 2, 1]), cine()[[2, 2, 1]])
    assert not clip.fps_known
    assert clip.mm_per_pixel == pytest.approx((0.2, 0.3))
    assert kind_of(path) == "clip"


def test_meta_image_types(tmp_path: Path) -> None:
    big = meta_image(cine(), "MET_USHORT", ElementByteOrderMSB="True")
    path = write(tmp_path / "a.mha", big + (cine().astype(">u2") * 257).tobytes())
    assert np.array_equal(open_clip(path).read(range(4)), cine())
    path = write(tmp_path / "b.mha", meta_image(tinted(), ElementNumberOfChannels=3) + tinted().tobytes())
    assert np.array_equal(open_clip(path).read(range(4)), tinted())
    tail = meta_image(cine(), data="c.raw", HeaderSize=-1)
    (tmp_path / "c.raw").write_bytes(b"a header" + cine().tobytes())
    assert np.array_equal(open_clip(write(tmp_path / "c.mhd", tail)).read(range(4)), cine())


def test_meta_image_by_another_writer(tmp_path: Path) -> None:
    sitk = pytest.importorskip("SimpleITK", reason="SimpleITK is not installed")
    picture = sitk.GetImageFromArray(cine())
    picture.SetSpacing((0.3, 0.2, 1.0))
    for name, packed in (("a.mha", False), ("b.mha", True), ("c.mhd", True), ("d.nii.gz", True)):
        sitk.WriteImage(picture, str(tmp_path / name), packed)
        clip = open_clip(tmp_path / name)
        assert np.array_equal(clip.read(range(4)), cine())
        assert clip.mm_per_pixel == pytest.approx((0.2, 0.3))


def test_one_frame_is_a_still(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mha", meta_image(cine(1)) + cine(1).tobytes())
    assert kind_of(path) == "still"
    assert np.array_equal(read_still(path), cine(1)[0])


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("a.nii", nifti(cine(), dims=(40, 24, 2, 2)), "further axis"),
        ("a.nii", nifti(cine())[:2000], "ends within frame"),
        ("a.nii", b"x" * 600, "NIfTI header"),
        ("a.nii", nifti(cine())[:344] + b"ni1\0" + bytes(900), "one file"),
        ("a.nii.gz", nifti(cine()), "gzip"),
        ("a.nii", nifti(np.full((2, 24, 40), np.nan, "f4")), "NaN"),
        ("a.nii", nifti(cine(), dims=(30000, 30000, 1, 4)), "30000x30000 pixels"),
        ("a.nii", nifti(cine(), dims=(8, 24, 1, 4)), "at least 16x16"),
        ("a.nii", nifti(cine().astype("f8"), dims=(7000, 7000, 1, 4)), "frames of 392000000 bytes"),
        ("a.mha", b"hello", "MetaImage header"),
        ("a.mha", meta_image(cine(), data="LIST"), "one file beside it"),
        ("a.mhd", meta_image(cine(), data="../secret.raw"), "one file beside it"),
        ("a.mhd", meta_image(cine(), data="missing.raw"), "No such file"),
        ("a.mha", meta_image(cine(), ElementType="MET_OTHER"), "MET_OTHER"),
        ("a.mha", meta_image(cine(), CompressedData=True) + b"xx", "cannot be read"),
        ("a.mha", meta_image(cine(), BinaryData="False"), "as text"),
        ("a.mha", b"", "empty"),
    ],
)
def test_what_is_not_read_is_said(tmp_path: Path, name: str, content: bytes, what: str) -> None:
    path = write(tmp_path / name, content)
    with pytest.raises(InputError, match=what):
        open_clip(path)
    assert kind_of(path) in ("still", "clip")


def test_frames_are_counted_before_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("US_I2V_MAX_FRAMES", "3")
    with pytest.raises(InputError, match="has 4 frames or more; at most 3"):
        open_clip(write(tmp_path / "a.nii", nifti(cine())))


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.mha", "b.mha"])
def test_damaged_files_give_one_clear_error(tmp_path: Path, name: str) -> None:
    content = {
        "a.nii": nifti(cine(), t=0.04),
        "a.nii.gz": gzip.compress(nifti(cine(), t=0.04)),
        "a.mha": meta_image(cine()) + cine().tobytes(),
        "b.mha": meta_image(cine(), CompressedData=True) + zlib.compress(cine().tobytes()),
    }[name]
    generator = np.random.Generator(np.random.PCG64(7))
    read = 0
    for number in range(100):
        bad = bytearray(content)
        for _ in range(generator.integers(1, 6)):
            place = int(generator.integers(350 if number % 2 else len(bad)))
            bad[min(place, len(bad) - 1)] = int(generator.integers(256))
        if number % 5 == 0:
            del bad[int(generator.integers(len(bad))) :]
        path = write(tmp_path / f"{number}{name}", bytes(bad))
        with suppress(InputError):
            open_clip(path).read([0])
            read += 1
    assert read < 100
