"""Generated clips as DICOM objects: modules, identity, UIDs, mark, refusal of text, other readers."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pydicom", reason="the extra 'dicom' is not installed")

import pydicom

from tests.data.audit.planted import with_text
from tests.factories import textured_still
from us_i2v.data.atomic import write_bytes
from us_i2v.data.audit.text import find_burned_in
from us_i2v.data.clips import open_clip
from us_i2v.data.dicom.mark import draw_mark, word_mask
from us_i2v.data.dicom.output import DicomOutput
from us_i2v.data.dicom.writing import content_uid, synthetic_object
from us_i2v.data.writers import write_clip
from us_i2v.errors import InputError, OutputError

MANDATORY = {
    "Patient": {"PatientName": 2, "PatientID": 2, "PatientBirthDate": 2, "PatientSex": 2},
    "General Study": {
        **{"StudyInstanceUID": 1, "StudyDate": 2, "StudyTime": 2, "ReferringPhysicianName": 2, "StudyID": 2},
        "AccessionNumber": 2,
    },
    "General Series": {"Modality": 1, "SeriesInstanceUID": 1, "SeriesNumber": 2},
    "General Equipment": {"Manufacturer": 2},
    "General Image": {"InstanceNumber": 2, "PatientOrientation": 2},
    "Image Pixel": {
        **{"SamplesPerPixel": 1, "PhotometricInterpretation": 1, "Rows": 1, "Columns": 1, "BitsAllocated": 1},
        **{"BitsStored": 1, "HighBit": 1, "PixelRepresentation": 1, "PixelData": 1},
    },
    "Cine": {"FrameTime": 1},
    "Multi-frame": {"NumberOfFrames": 1, "FrameIncrementPointer": 1},
    "US Image": {"ImageType": 2},
    "SOP Common": {"SOPClassUID": 1, "SOPInstanceUID": 1},
}
"""Mandatory modules of the Ultrasound Multi-frame Image IOD (PS3.3 A.7.4) and their attributes of types 1 and 2, among
them the conditional ones whose condition holds for our objects."""
REGION = ("RegionSpatialFormat", "RegionDataType", "RegionFlags", "PhysicalUnitsXDirection", "PhysicalUnitsYDirection")
REGION_BOX = ("RegionLocationMinX0", "RegionLocationMinY0", "RegionLocationMaxX1", "RegionLocationMaxY1")


def frames(count: int = 5, *, colour: bool = False) -> np.ndarray:
    """A texture that moves."""
    still = textured_still(60, 203, colour=colour)
    return np.stack([np.roll(still, t, axis=1) for t in range(count)])


def written(path: Path, clip: np.ndarray, fps: float = 20.0, **about: object) -> pydicom.FileDataset:
    write_clip(path, clip, fps, dicom=DicomOutput(**about))
    return pydicom.dcmread(path)


@pytest.mark.parametrize("colour", [False, True])
def test_mandatory_modules_are_complete(tmp_path: Path, colour: bool) -> None:
    dataset = written(tmp_path / "a.dcm", frames(colour=colour), mm_per_pixel=(0.2, 0.3))
    for module, attributes in MANDATORY.items():
        for keyword, kind in attributes.items():
            assert keyword in dataset, (module, keyword)
            assert kind == 2 or dataset[keyword].value not in (None, "", []), (module, keyword)
    assert dataset.SOPClassUID == "1.2.840.10008.5.1.4.1.1.3.1"
    assert dataset.FrameIncrementPointer == 0x00181063
    assert dataset.HighBit == dataset.BitsStored - 1 == 7
    assert len(dataset.PixelData) % 2 == 0
    assert ("PlanarConfiguration" in dataset) == colour
    assert dataset.ImageType[0] == "DERIVED"
    (region,) = dataset.SequenceOfUltrasoundRegions
    assert all(keyword in region for keyword in (*REGION, *REGION_BOX))
    meta = dataset.file_meta
    assert meta.MediaStorageSOPClassUID == dataset.SOPClassUID
    assert meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID
    assert meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
    for element in dataset.iterall():
        if element.VR == "UI" and element.value:
            assert pydicom.uid.UID(str(element.value)).is_valid


@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("fps", [13.63, 23.976, 25.0, 200.0])
def test_reads_back_exactly(tmp_path: Path, colour: bool, fps: float) -> None:
    clip = frames(3, colour=colour)
    written(tmp_path / "a.dcm", clip, fps, mark=False, mm_per_pixel=(0.2, 0.3))
    found = open_clip(tmp_path / "a.dcm")
    assert np.array_equal(found.read(range(3)), clip)
    assert found.fps == pytest.approx(fps, abs=1e-4)
    assert found.mm_per_pixel == pytest.approx((0.2, 0.3))


def test_says_that_it_is_synthetic_and_how_it_was_made(tmp_path: Path) -> None:
    dataset = written(tmp_path / "a.dcm", frames(), description="seed 3,\nweights abc")
    assert dataset.SyntheticData == "YES"
    assert dataset[0x0008, 0x001C].VR == "CS"
    assert dataset.DerivationDescription == "seed 3, weights abc"
    assert "LossyImageCompression" not in dataset
    assert "BurnedInAnnotation" not in dataset
    assert written(tmp_path / "b.dcm", frames(), lossy=True).LossyImageCompression == "01"
    assert written(tmp_path / "c.dcm", frames(), keep_text=True).BurnedInAnnotation == "YES"
    write_clip(tmp_path / "d.dcm", frames(), 20.0, comment="made by hand")
    assert pydicom.dcmread(tmp_path / "d.dcm").DerivationDescription == "made by hand"


def test_identity_is_new_and_follows_from_the_content(tmp_path: Path) -> None:
    first = written(tmp_path / "a.dcm", frames(5))
    again = written(tmp_path / "b.dcm", frames(5))
    assert (tmp_path / "a.dcm").read_bytes() == (tmp_path / "b.dcm").read_bytes()
    longer = written(tmp_path / "c.dcm", frames(6))
    other = written(tmp_path / "d.dcm", frames(5)[:, ::-1])
    assert first.StudyInstanceUID == again.StudyInstanceUID == longer.StudyInstanceUID != other.StudyInstanceUID
    assert first.PatientID == longer.PatientID != other.PatientID
    assert first.PatientID.startswith("SYNTHETIC-")
    assert len({item.SOPInstanceUID for item in (first, longer, other)}) == 3
    assert len({item.SeriesInstanceUID for item in (first, longer, other)}) == 3
    assert not first.StudyDate
    expected = int.from_bytes(hashlib.sha256(b"a\0b").digest()[:16], "big")
    assert content_uid("a", "b") == f"2.25.{expected}"
    assert all(uid.startswith("2.25.") and len(uid) <= 64 for uid in (first.SOPInstanceUID, first.StudyInstanceUID))


def test_every_frame_is_marked_unless_told_otherwise(tmp_path: Path) -> None:
    clip = frames(3, colour=True)
    written(tmp_path / "a.dcm", clip)
    shown = open_clip(tmp_path / "a.dcm").read(range(3))
    changed = (shown != clip).any(axis=(0, 3))
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    assert rows[0] == 60 - 9
    assert columns[-1] < word_mask().shape[1]
    assert np.array_equal(shown[0, -9:, : columns[-1] + 1], shown[2, -9:, : columns[-1] + 1])
    assert set(np.unique(shown[:, -9:, :50])) == {0, 255}


@pytest.mark.parametrize("size", [(16, 16), (40, 48), (60, 203), (480, 640), (700, 33)])
def test_the_mark_fits_and_reads_as_text_where_it_is_large(size: tuple[int, int]) -> None:
    marked = draw_mark(np.full((2, *size), 60, np.uint8))
    assert marked.shape == (2, *size)
    assert 0 < (marked == 255).mean() < 0.5
    if size[1] > 600:
        (line,) = find_burned_in(marked[0]).lines
        assert line.width == pytest.approx(0.25 * size[1], rel=0.2)


def test_burned_in_text_is_refused_and_can_be_kept(tmp_path: Path) -> None:
    still = with_text(textured_still(120, 200) // 2, "DOE JANE", (20, 20))
    clip = np.stack([still] * 3)
    with pytest.raises(InputError, match=r"lines of burned-in text .* --keep-text"):
        write_clip(tmp_path / "a.dcm", clip, 20.0)
    assert list(tmp_path.iterdir()) == []
    assert written(tmp_path / "a.dcm", clip, keep_text=True).NumberOfFrames == 3


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="more than a DICOM object holds"):
        write_clip(tmp_path / "a.dcm", np.zeros((1, 1, 65536), np.uint8), 20.0)
    (tmp_path / "b.dcm").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        write_clip(tmp_path / "b.dcm", frames(), 20.0)
    assert not (tmp_path / "a.dcm").exists()


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (dicom3tools) is not installed")
@pytest.mark.parametrize("colour", [False, True])
def test_dciodvfy_finds_no_error(tmp_path: Path, colour: bool) -> None:
    written(tmp_path / "a.dcm", frames(colour=colour), mm_per_pixel=(0.2, 0.3), lossy=colour, keep_text=colour)
    done = subprocess.run(["dciodvfy", str(tmp_path / "a.dcm")], capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).splitlines()
    assert "USMultiFrameImage" in lines
    # Synthetic Data is younger than some versions of the program.
    assert [line for line in lines if line.startswith("Error") and "(0x0008,0x001c)" not in line] == []


@pytest.mark.skipif(shutil.which("dcmdump") is None, reason="dcmdump (DCMTK) is not installed")
def test_dcmtk_reads_it(tmp_path: Path) -> None:
    written(tmp_path / "a.dcm", frames())
    done = subprocess.run(["dcmdump", str(tmp_path / "a.dcm")], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stderr == ""
    assert "=UltrasoundMultiframeImageStorage" in done.stdout
    assert "(0008,001c) CS [YES]" in done.stdout


def test_gdcm_reads_the_same_pixels(tmp_path: Path) -> None:
    gdcm = pytest.importorskip("gdcm", reason="python-gdcm is not installed")
    clip = frames(3, colour=True)
    written(tmp_path / "a.dcm", clip, mark=False)
    reader = gdcm.ImageReader()
    reader.SetFileName(str(tmp_path / "a.dcm"))
    assert reader.Read()
    image = reader.GetImage()
    assert [image.GetDimension(axis) for axis in range(3)] == [203, 60, 3]
    assert image.GetBuffer().encode("utf-8", "surrogateescape")[:8] == clip.tobytes()[:8]


def test_an_object_without_a_file_is_the_same_as_the_written_one(tmp_path: Path) -> None:
    made = synthetic_object(frames(), 20.0, DicomOutput())
    assert made.SOPInstanceUID == written(tmp_path / "a.dcm", frames()).SOPInstanceUID
    write_bytes(tmp_path / "other", b"")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.dcm", "other"]
