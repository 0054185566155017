"""DICOM cines and stills as files: frames, rate, regions, limits, damage, and life without pydicom."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pydicom", reason="the extra 'dicom' is not installed")

from tests.data import dicom_files as files
from tests.data.dicom_files import region, regions, save, ultrasound
from tests.data.test_dicom_pixels import bundled
from tests.factories import textured_still
from us_i2v.data.clips import is_clip, open_clip
from us_i2v.data.datasets import find_samples
from us_i2v.data.dicom import files as reading
from us_i2v.data.dicom.detect import is_dicom
from us_i2v.data.dicom.source import read_dicom_still
from us_i2v.data.manifest import kind_of
from us_i2v.data.splits import split_by_group
from us_i2v.data.stills import is_still, read_still
from us_i2v.errors import InputError


def cine(count: int = 6, *, colour: bool = False) -> np.ndarray:
    """Frames that differ."""
    return np.stack([textured_still(40, 56, colour=colour, seed=seed) for seed in range(count)])


@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("encoding", ["native", "rle", "jpeg2000", "no offsets"])
def test_any_frames_of_a_cine(tmp_path: Path, colour: bool, encoding: str) -> None:
    frames = cine(colour=colour)
    dataset = ultrasound(frames, FrameTime="40")
    if encoding == "rle":
        dataset.compress(files.RLELossless, generate_instance_uid=False)
    elif encoding != "native":
        files.compressed(dataset, [files.jpeg2000(frame, mct=0) for frame in frames], files.JPEG2000Lossless)
    if encoding == "no offsets":
        dataset.PixelData = files.encapsulate([files.jpeg2000(frame, mct=0) for frame in frames], has_bot=False)
    clip = open_clip(save(tmp_path / "a.dcm", dataset))
    assert (clip.n_frames, clip.size, clip.colour, clip.fps, clip.fps_known) == (6, (40, 56), colour, 25.0, True)
    assert np.array_equal(clip.read([4, 1, 4]), frames[[4, 1, 4]])
    assert np.array_equal(np.stack(list(clip.frames())), frames)


def test_frames_of_several_fragments(tmp_path: Path) -> None:
    frames = cine(2)
    dataset = files.compressed(ultrasound(frames), [], files.JPEG2000Lossless)
    dataset.PixelData = files.encapsulate([files.jpeg2000(frame) for frame in frames], fragments_per_frame=3)
    assert np.array_equal(open_clip(save(tmp_path / "a.dcm", dataset)).read([0, 1]), frames)


def test_bundled_cine() -> None:
    clip = open_clip(bundled("examples_ybr_color.dcm"))
    assert (clip.n_frames, clip.size, clip.colour) == (30, (240, 320), True)
    assert clip.fps == pytest.approx(1000 / 33.333, abs=1e-5)
    assert clip.mm_per_pixel == pytest.approx((0.51049706, 0.51049706))
    assert kind_of(clip.path) == "clip"
    assert not np.array_equal(clip.read([0]), clip.read([29]))


TIME, VECTOR = 0x00181063, 0x00181065


@pytest.mark.parametrize(
    ("stated", "fps"),
    [
        ({"FrameTime": "50"}, 20.0),
        ({"FrameTimeVector": ["0", "30", "50"], "FrameIncrementPointer": VECTOR}, 25.0),
        ({"FrameTimeVector": ["0", "30", "50"], "FrameTime": "50", "FrameIncrementPointer": VECTOR}, 25.0),
        ({"FrameTimeVector": ["0", "30", "50"], "FrameTime": "50", "FrameIncrementPointer": TIME}, 20.0),
        ({"FrameTime": "0", "CineRate": "31"}, 31.0),
        ({"CineRate": "31", "RecommendedDisplayFrameRate": "25"}, 31.0),
        ({"RecommendedDisplayFrameRate": "24"}, 24.0),
        ({"FrameTime": "33.3667"}, 29.97),
        ({"FrameTime": "0"}, None),
        ({"FrameTime": "1e-9"}, None),
        ({}, None),
    ],
)
def test_frames_a_second(tmp_path: Path, stated: dict[str, object], fps: float | None) -> None:
    clip = open_clip(save(tmp_path / "a.dcm", ultrasound(cine(3), **stated)))
    assert (clip.fps if clip.fps_known else None) == fps


def test_the_callers_rate_wins(tmp_path: Path) -> None:
    assert open_clip(save(tmp_path / "a.dcm", ultrasound(cine(2), FrameTime="40")), fps=7.0).fps == 7.0


BOX = (10, 6, 41, 29)
"""Columns 10..41, rows 6..29: 32 x 24 pixels."""


def test_regions_crop_and_blank_and_state_the_scale(tmp_path: Path) -> None:
    frames = cine(2)
    path = save(tmp_path / "a.dcm", ultrasound(frames, SequenceOfUltrasoundRegions=regions(region(BOX))))
    inside = frames[:, 6:30, 10:42]
    cropped = open_clip(path, regions="crop")
    assert cropped.size == (24, 32)
    assert np.array_equal(cropped.read([0, 1]), inside)
    blanked = open_clip(path, regions="blank").read([0, 1])
    assert np.array_equal(blanked[:, 6:30, 10:42], inside)
    blanked[:, 6:30, 10:42] = 0
    assert not blanked.any()
    assert np.array_equal(open_clip(path).read([0, 1]), frames)
    assert np.array_equal(read_still(path, regions="crop"), inside[0])
    for way in ("keep", "crop", "blank"):
        assert open_clip(path, regions=way).mm_per_pixel == pytest.approx((0.2, 0.3))
        assert read_dicom_still(path, regions=way).mm_per_pixel == pytest.approx((0.2, 0.3))


def test_only_pictures_are_regions(tmp_path: Path) -> None:
    """A spectrum, an ECG and a region beside the picture are left out; two pictures are cropped to both."""
    other = [region((0, 0, 5, 5), RegionSpatialFormat=3), region((0, 30, 55, 39), RegionDataType=10)]
    outside = region((100, 100, 120, 120))
    two = [region((2, 8, 21, 27)), region((30, 8, 99, 27), RegionDataType=2)]
    path = save(tmp_path / "a.dcm", ultrasound(cine(1), SequenceOfUltrasoundRegions=regions(*other, outside, *two)))
    shown = read_still(path, regions="blank")
    assert read_still(path, regions="crop").shape == (20, 54)
    assert shown[8:28, 2:22].any()
    assert shown[8:28, 30:56].any()
    assert not shown[8:28, 22:30].any()
    assert not shown[30:].any()


@pytest.mark.parametrize(
    ("items", "spacing", "expected"),
    [
        ([region(BOX)], None, (0.2, 0.3)),
        ([region(BOX, (-0.02, 0.03))], None, (0.2, 0.3)),
        ([region(BOX, (0.02, 0.03), PhysicalUnitsYDirection=4)], None, None),
        ([region(BOX, None)], ["0.4", "0.5"], (0.4, 0.5)),
        ([region(BOX), region((0, 0, 20, 20), (0.02, 0.03))], None, (0.2, 0.3)),
        ([region(BOX), region((0, 0, 20, 20), (0.04, 0.06))], None, None),
        ([region(BOX, (0.0, 0.03))], None, None),
        ([], ["0.4", "0.5"], (0.4, 0.5)),
        ([], None, None),
    ],
)
def test_millimetres_a_pixel(tmp_path: Path, items: list, spacing: list[str] | None, expected: object) -> None:
    dataset = ultrasound(cine(1), SequenceOfUltrasoundRegions=regions(*items))
    if spacing is not None:
        dataset.PixelSpacing = spacing
    found = read_dicom_still(save(tmp_path / "a.dcm", dataset)).mm_per_pixel
    assert found is None if expected is None else found == pytest.approx(expected)


def test_without_a_region_nothing_is_cropped_in_silence(tmp_path: Path) -> None:
    path = save(tmp_path / "a.dcm", ultrasound(cine(1)))
    with pytest.raises(InputError, match=r"states no region .* nothing to crop"):
        read_still(path, regions="crop")


def test_names_without_a_telling_ending(tmp_path: Path) -> None:
    source = save(tmp_path / "a.dcm", ultrasound(cine(3)))
    for name in ("IM_0001", "1.2.840.10008.5", "A.DICOM"):
        shutil.copy(source, tmp_path / name)
        assert is_dicom(tmp_path / name)
        assert kind_of(tmp_path / name) == "clip"
    shutil.copy(source, tmp_path / "DICOMDIR")
    (tmp_path / "README").write_text("DICM")
    assert not is_dicom(tmp_path / "DICOMDIR")
    assert not is_dicom(tmp_path / "README")
    assert kind_of(tmp_path / "README") is None


def test_folders_of_stills_and_cines(tmp_path: Path) -> None:
    save(tmp_path / "benign" / "p1" / "still.dcm", ultrasound(cine(1)))
    save(tmp_path / "benign" / "p1" / "cine.dcm", ultrasound(cine(3)))
    found = {sample.path.name: sample for sample in find_samples(tmp_path)}
    assert {name: sample.kind for name, sample in found.items()} == {"still.dcm": "still", "cine.dcm": "clip"}
    assert {sample.group for sample in found.values()} == {"p1"}


def test_files_of_one_patient_are_one_group_where_no_folder_says_so(tmp_path: Path) -> None:
    identities = {
        "benign/a1.dcm": {"PatientID": "MRN-1", "StudyInstanceUID": "1.2.1"},
        "benign/a2.dcm": {"PatientID": "MRN-1", "StudyInstanceUID": "1.2.2"},
        "malignant/a3.dcm": {"PatientID": "MRN-1", "StudyInstanceUID": "1.2.3"},
        "malignant/b.dcm": {"PatientID": "MRN-2"},
        "benign/other.dcm": {"PatientID": "MRN-1", "IssuerOfPatientID": "another hospital"},
        "benign/c1.dcm": {"PatientID": "", "PatientName": "Roe^Ann", "PatientBirthDate": "19700101"},
        "benign/c2.dcm": {"PatientID": " ", "PatientName": "Roe^Ann", "PatientBirthDate": "19700101"},
        "benign/d1.dcm": {"PatientID": "", "PatientName": "", "StudyInstanceUID": "1.2.9"},
        "benign/d2.dcm": {"PatientID": "", "PatientName": "", "StudyInstanceUID": "1.2.9"},
        "benign/clean.dcm": {"PatientID": "ANON-0123456789AB"},
        "benign/p7/in_a_folder.dcm": {"PatientID": "MRN-1"},
    }
    for name, values in identities.items():
        save(tmp_path / name, ultrasound(cine(1), **values))
    unknown = ultrasound(cine(1), PatientID="", PatientName="", StudyInstanceUID="", SOPInstanceUID="")
    save(tmp_path / "benign" / "unknown.dcm", unknown)
    (tmp_path / "benign" / "broken.dcm").write_bytes(b"nothing")
    samples = {sample.path.relative_to(tmp_path).as_posix(): sample for sample in find_samples(tmp_path)}
    group = {name: sample.group for name, sample in samples.items()}
    assert group["benign/a1.dcm"] == group["benign/a2.dcm"] == group["malignant/a3.dcm"]
    assert group["benign/c1.dcm"] == group["benign/c2.dcm"]
    assert group["benign/d1.dcm"] == group["benign/d2.dcm"]
    assert group["benign/clean.dcm"] == "ANON-0123456789AB"
    assert group["benign/p7/in_a_folder.dcm"] == "p7"
    assert group["benign/unknown.dcm"] == "benign/unknown"
    assert group["benign/broken.dcm"] == "benign/broken"
    assert len(set(group.values())) == 9
    assert not any(word in "".join(group.values()) for word in ("MRN", "Roe", "Ann"))
    (single,) = find_samples(tmp_path / "benign" / "a1.dcm")
    assert single.group == group["benign/a1.dcm"]
    items = [(sample.label, sample.group) for sample in samples.values()]
    parts = split_by_group(items, {"train": 0.5, "test": 0.5}, seed=0)
    assert len({part for part, name in zip(parts, samples, strict=True) if "/a" in name}) == 1


def test_a_cine_as_a_still_is_its_first_frame(tmp_path: Path) -> None:
    path = save(tmp_path / "a.dcm", ultrasound(cine(3)))
    assert np.array_equal(read_still(path), cine(3)[0])
    assert is_still(path)


def test_limits_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.dcm", ultrasound(cine(3)))
    with pytest.raises(InputError, match="56x40 pixels; at most 100"):
        read_still(path, max_pixels=100)
    huge = ultrasound(cine(1))
    huge.Rows = huge.Columns = 60_000
    with pytest.raises(InputError, match="60000x60000 pixels"):
        read_still(save(tmp_path / "huge.dcm", huge))
    monkeypatch.setenv("US_I2V_MAX_FRAMES", "2")
    with pytest.raises(InputError, match="has 3 frames or more; at most 2"):
        open_clip(path)
    monkeypatch.setattr(reading, "MAX_BYTES", 1000)
    with pytest.raises(InputError, match="at most 1000 are read"):
        open_clip(path)
    with pytest.raises(InputError, match="at least 16x16"):
        read_still(save(tmp_path / "b.dcm", ultrasound(np.zeros((1, 8, 8), np.uint8))))


def test_missing_frames_are_counted(tmp_path: Path) -> None:
    frames = cine(4)
    dataset = ultrasound(frames)
    files.native(dataset, frames[:2].tobytes())
    with pytest.raises(InputError, match="cut short: 2 of 4 frames"):
        open_clip(save(tmp_path / "a.dcm", dataset))
    dataset = files.compressed(ultrasound(frames), [files.jpeg2000(frames[0])] * 3, files.JPEG2000Lossless)
    with pytest.raises(InputError, match=r"frames|damaged"):
        open_clip(save(tmp_path / "b.dcm", dataset))


def test_volumes_are_no_cines(tmp_path: Path) -> None:
    path = save(tmp_path / "a.dcm", ultrasound(cine(3), SOPClassUID="1.2.840.10008.5.1.4.1.1.6.2"))
    with pytest.raises(InputError, match="its frames are slices"):
        open_clip(path)


@pytest.mark.parametrize("encoding", ["native", "rle", "jpeg", "jpeg2000"])
def test_damaged_files_give_one_clear_error(tmp_path: Path, encoding: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Changed bytes anywhere: a clip or an `InputError`, never anything else."""
    frames = cine(2, colour=True)
    dataset = ultrasound(frames, FrameTime="40", SequenceOfUltrasoundRegions=regions(region(BOX)))
    if encoding == "rle":
        dataset.compress(files.RLELossless, generate_instance_uid=False)
    elif encoding == "jpeg":
        dataset.PhotometricInterpretation = "YBR_FULL_422"
        files.compressed(dataset, [files.jpeg(frame) for frame in frames], files.JPEGBaseline8Bit)
    elif encoding == "jpeg2000":
        files.compressed(dataset, [files.jpeg2000(frame, mct=0) for frame in frames], files.JPEG2000Lossless)
    good = save(tmp_path / "good.dcm", dataset).read_bytes()
    generator = np.random.Generator(np.random.PCG64(len(encoding)))
    read = 0
    for number in range(80):
        bad = bytearray(good)
        header = min(len(bad), 1500)
        for _ in range(generator.integers(1, 6)):
            place = int(generator.integers(header if number % 2 else len(bad)))
            bad[place] = int(generator.integers(256))
        if number % 5 == 0:
            del bad[int(generator.integers(len(bad))) :]
        path = tmp_path / f"{number}.dcm"
        path.write_bytes(bytes(bad))
        with suppress(InputError):
            kind_of(path)
            open_clip(path, regions="crop" if number % 3 else "keep").read([0])
            read += 1
    assert 0 < read < 70
    assert capfd.readouterr() == ("", "")


def test_without_pydicom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.dcm", ultrasound(cine(2)))
    files.without_pydicom(monkeypatch)
    for act in (read_still, open_clip, is_clip, kind_of):
        with pytest.raises(InputError, match=r"pip install 'us-i2v\[dicom\]'"):
            act(path)
    with pytest.raises(InputError, match=r"us-i2v\[dicom\]"):
        find_samples(tmp_path)
    assert is_still(path)
