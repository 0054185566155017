"""`us-i2v deidentify`: attributes by PS3.15's table, identifiers that stay consistent, burned-in text and regions."""

from __future__ import annotations

import csv
import shutil
import subprocess
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pydicom", reason="the extra 'dicom' is not installed")

import pydicom
from pydicom import Dataset
from pydicom.datadict import dictionary_VR
from pydicom.sequence import Sequence
from typer.testing import CliRunner

from tests.data import dicom_files as files
from tests.data.audit.planted import with_text
from tests.data.dicom_files import region, regions, save, ultrasound
from tests.data.test_dicom_pixels import bundled
from tests.factories import textured_still
from us_i2v.cli.app import app
from us_i2v.data.audit.text import find_burned_in
from us_i2v.data.clips import open_clip
from us_i2v.data.datasets import find_samples
from us_i2v.data.dicom.blanking import beside_picture, text_area
from us_i2v.data.dicom.deidentify import Deidentifier
from us_i2v.data.dicom.profile import basic_profile
from us_i2v.data.stills import read_still
from us_i2v.errors import OutputError

SECRET = "Doe"
NAMES = {"PN": "Doe^Jane", "LO": "Doe", "SH": "Doe", "ST": "Doe", "LT": "Doe", "UT": "Doe", "UC": "Doe", "CS": "DOE"}
VALUES = {
    **NAMES,
    **{
        "DA": "20240229",
        "TM": "121314",
        "DT": "20240229121314",
        "AS": "042Y",
        "UI": "1.2.3.9",
        "AE": "DOE",
        "UR": "http://Doe",
    },
    **{"IS": "42", "DS": "4.2", "US": 42, "UL": 42, "SL": 42, "FL": 4.25, "FD": 4.25, "OB": b"Doe!", "UN": b"Doe!"},
    **{"AT": 0x00100010, "SS": 42, "UV": 42, "SV": 42, "OW": b"Doe!", "OF": b"Doe!", "OL": b"Doe!", "OD": b"Doe!Doe!"},
}


def dark(seed: int = 0, height: int = 120, width: int = 200) -> np.ndarray:
    return textured_still(height, width, seed=seed) // 2


def cleaned(path: Path, target: Path, **settings: object) -> Dataset:
    Deidentifier(**({"salt": "s"} | settings)).clean(path, target)
    return pydicom.dcmread(target)


def table() -> list[dict[str, str]]:
    text = resources.files("us_i2v.data.dicom").joinpath("basic_profile.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def test_the_table_has_the_actions_that_everyone_knows() -> None:
    """Attributes whose action is plain from the standard's text, by keyword."""
    known = {
        **{"PatientBirthDate": "Z", "AccessionNumber": "Z", "StudyDate": "Z", "ReferringPhysicianName": "Z"},
        **{"PatientAddress": "X", "OtherPatientIDs": "X", "PatientComments": "X", "IconImageSequence": "X"},
        **{"SOPInstanceUID": "U", "StudyInstanceUID": "U", "FrameOfReferenceUID": "U", "ReferencedSOPInstanceUID": "U"},
        **{"ReferencedImageSequence": "references", "SourceImageSequence": "references", "DeviceSerialNumber": "D"},
        **{"StationName": "D", "ContentDate": "D", "SOPClassUID": None, "Rows": None, "Modality": None},
    }
    profile = basic_profile()
    for keyword, action in known.items():
        assert profile.action(pydicom.datadict.tag_for_keyword(keyword)) == action, keyword
    assert profile.action(0x60023000) == profile.action(0x50040010) == "X"
    assert profile.action(0x60020010) is None
    assert len(table()) > 600


def test_every_attribute_of_the_table_loses_its_value(tmp_path: Path) -> None:
    dataset = ultrasound(dark()[None])
    put = {}
    for row in table():
        if "X" in row["tag"] or row["tag"].startswith(("0000", "0002", "FF")):
            continue
        tag = int(row["tag"], 16)
        if not pydicom.datadict.dictionary_has_tag(tag):
            continue
        representation = dictionary_VR(tag).split(" or ")[-1]
        if representation == "SQ":
            item = Dataset()
            item.PatientName, item.CodeMeaning = "Doe^Jane", "kept"
            dataset.add_new(tag, "SQ", Sequence([item]))
        else:
            dataset.add_new(tag, representation, VALUES[representation])
        put[tag] = row["action"]
    assert len(put) > 600
    path = save(tmp_path / "a.dcm", dataset)
    assert b"Doe" in path.read_bytes()
    found = cleaned(path, tmp_path / "b.dcm")
    content = (tmp_path / "b.dcm").read_bytes()
    for secret in (b"Doe", b"DOE", b"20240229", b"1.2.3.9"):
        assert secret not in content
    for tag, action in put.items():
        if action == "X":
            assert tag not in found, hex(tag)
        elif found.get(tag) is not None and found[tag].VR != "SQ" and tag not in (0x00100010, 0x00100020):
            assert found[tag].value != VALUES[found[tag].VR], hex(tag)
        if action in ("U", "D"):
            assert tag in found, hex(tag)


def test_beyond_the_table(tmp_path: Path) -> None:
    dataset = ultrasound(dark()[None], TransducerType="LINEAR", FocusDepth=3.5)
    block = dataset.private_block(0x0019, "ACME", create=True)
    block.add_new(0x10, "LO", "Doe")
    dataset.add_new(0x00182222, "LO", "Doe")
    dataset.add_new(0x60003000, "OW", b"Doe!")
    item = Dataset()
    item.private_block(0x0019, "ACME", create=True).add_new(0x10, "LO", "Doe")
    item.OperatorsName, item.TransducerData = "Doe^Jane", ["L12-3"]
    dataset.SequenceOfUltrasoundRegions = Sequence([item])
    dataset.preamble = b"Doe" + b"\0" * 125
    save(tmp_path / "a.dcm", dataset)
    found = cleaned(tmp_path / "a.dcm", tmp_path / "b.dcm", regions="keep")
    assert b"Doe" not in (tmp_path / "b.dcm").read_bytes()
    assert found.preamble == b"\0" * 128
    assert (found.TransducerType, found.FocusDepth, found.Rows) == ("LINEAR", 3.5, 120)
    assert found.SequenceOfUltrasoundRegions[0].TransducerData == "L12-3"
    assert found.PatientIdentityRemoved == "YES"
    assert "best effort" in found.DeidentificationMethod
    assert found.DeidentificationMethodCodeSequence[0].CodeValue == "113100"


def test_identifiers_stay_consistent_within_one_salt(tmp_path: Path) -> None:
    def write(name: str, patient: str, instance: str, refers_to: str) -> Path:
        dataset = ultrasound(dark()[None], PatientID=patient, SOPInstanceUID=instance)
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.6.1", refers_to
        dataset.SourceImageSequence = Sequence([item])
        dataset.file_meta.MediaStorageSOPInstanceUID = instance
        return save(tmp_path / name, dataset)

    first, second = write("a.dcm", "1", "1.2.3.1", "1.2.3.2"), write("b.dcm", "1", "1.2.3.2", "1.2.3.1")
    third = write("c.dcm", "2", "1.2.3.3", "1.2.3.1")
    one, two, three = (cleaned(path, tmp_path / f"out{path.name}") for path in (first, second, third))
    assert one.PatientID == two.PatientID != three.PatientID
    assert one.StudyInstanceUID == two.StudyInstanceUID != "1.2.3.4"
    reference = one.SourceImageSequence[0]
    assert reference.ReferencedSOPInstanceUID == two.SOPInstanceUID
    assert reference.ReferencedSOPClassUID == "1.2.840.10008.5.1.4.1.1.6.1"
    assert one.SOPInstanceUID == one.file_meta.MediaStorageSOPInstanceUID != "1.2.3.1"
    other = cleaned(first, tmp_path / "other.dcm", salt="t")
    drawn = cleaned(first, tmp_path / "drawn.dcm", salt=None)
    assert len({one.PatientID, other.PatientID, drawn.PatientID}) == 3
    assert len({one.SOPInstanceUID, other.SOPInstanceUID, drawn.SOPInstanceUID}) == 3


@pytest.mark.parametrize("count", [1, 12])
def test_text_is_blanked_in_all_frames(tmp_path: Path, count: int) -> None:
    frames = np.stack([dark(seed) for seed in range(count)])
    painted = np.stack([with_text(frame, "DOE JANE", (20, 40)) for frame in frames])
    path = save(tmp_path / "a.dcm", ultrasound(painted, FrameTime="40"))
    outcome = Deidentifier(salt="s").clean(path, tmp_path / "b.dcm")
    assert (outcome.text_lines, outcome.rewritten, outcome.regions) == (1, True, 0)
    found = open_clip(tmp_path / "b.dcm").read(range(count))
    strokes = painted != frames
    assert not found[strokes].any()
    blank = (found == 0).all(axis=0)
    assert blank.mean() < 0.15
    assert np.array_equal(found[:, ~blank], painted[:, ~blank])
    assert all(not find_burned_in(frame).lines for frame in found)
    assert pydicom.dcmread(tmp_path / "b.dcm").ImageType[0] == "DERIVED"
    kept = Deidentifier(salt="s", blank_text=False).clean(path, tmp_path / "c.dcm")
    assert (kept.text_lines, kept.rewritten) == (0, False)
    assert np.array_equal(open_clip(tmp_path / "c.dcm").read(range(count)), painted)


def test_without_a_region_what_stands_beside_the_picture_is_blanked(tmp_path: Path) -> None:
    """A faint note in the dark border, which no search for text finds, goes; the picture and a hole in it stay."""
    picture = np.zeros((2, 120, 200), np.uint8)
    picture[:, 30:110, 30:170] = np.maximum(dark(1)[30:110, 30:170], 12)
    picture[:, 60:90, 60:100] = 0
    picture[:, 70:75, 75:80] = 60
    scan = picture.copy()
    picture[1, 5:12, 20:60:3] = 70
    assert not find_burned_in(picture[1]).lines
    path = save(tmp_path / "a.dcm", ultrasound(picture, FrameTime="40"))
    outcome = Deidentifier(salt="s").clean(path, tmp_path / "b.dcm")
    assert (outcome.text_lines, outcome.regions, outcome.rewritten) == (0, 0, True)
    assert np.array_equal(open_clip(tmp_path / "b.dcm").read([0, 1]), scan)
    assert not Deidentifier(salt="s", regions="keep").clean(path, tmp_path / "c.dcm").rewritten


def test_what_is_left_of_a_word_goes_too() -> None:
    line = with_text(dark(2), "DOE JANE", (20, 40))
    area, lines = text_area(line)
    assert len(lines) == 1
    rows, columns = lines[0]
    single = line.copy()
    single[rows, columns.stop + 24 : columns.stop + 27] = 250
    grown, again = text_area(single)
    assert again == lines
    assert grown[rows, columns.stop + 24 : columns.stop + 27].all()
    assert not area[rows, columns.stop + 24].any()
    assert not text_area(dark(2))[0].any()


def test_two_pictures_side_by_side_stay() -> None:
    lit = np.zeros((100, 200), np.float32)
    lit[20:80, 10:90], lit[20:80, 120:180], lit[5:9, 5:60] = 80, 80, 80
    beside = beside_picture(lit, np.zeros(lit.shape, bool))
    assert beside[5:9, 5:60].all()
    assert not beside[20:80].any()
    assert not beside_picture(np.full((50, 50), 90.0), np.zeros((50, 50), bool)).any()


def test_without_text_the_stored_bytes_stay(tmp_path: Path) -> None:
    frames = np.stack([dark(seed) for seed in range(2)])
    dataset = files.compressed(ultrasound(frames), [files.jpeg2000(frame) for frame in frames], files.JPEG2000Lossless)
    path = save(tmp_path / "a.dcm", dataset)
    found = cleaned(path, tmp_path / "b.dcm")
    assert found.PixelData == pydicom.dcmread(path).PixelData
    assert found.file_meta.TransferSyntaxUID == files.JPEG2000Lossless


def test_outside_of_regions_is_blanked_or_cropped(tmp_path: Path) -> None:
    frames = np.stack([textured_still(40, 56, colour=True, seed=seed) for seed in range(3)])
    inner = region((12, 8, 20, 20), (0.05, 0.05))
    spectrum = region((0, 30, 9, 39), RegionSpatialFormat=3)
    dataset = ultrasound(frames, SequenceOfUltrasoundRegions=regions(region((10, 6, 42, 28)), inner, spectrum))
    dataset.compress(files.RLELossless, generate_instance_uid=False)
    path = save(tmp_path / "a.dcm", dataset)
    blanked = open_clip(cleaned_path(path, tmp_path / "b.dcm", "blank")).read(range(3))
    assert np.array_equal(blanked[:, 6:29, 10:43], frames[:, 6:29, 10:43])
    assert blanked.sum() == frames[:, 6:29, 10:43].sum()
    cropped = open_clip(cleaned_path(path, tmp_path / "c.dcm", "crop"))
    assert np.array_equal(cropped.read(range(3)), frames[:, 6:29, 10:43])
    moved = pydicom.dcmread(tmp_path / "c.dcm").SequenceOfUltrasoundRegions
    boxes = [(item.RegionLocationMinX0, item.RegionLocationMinY0, item.RegionLocationMaxX1) for item in moved]
    assert boxes == [(0, 0, 32), (2, 2, 10)]
    assert open_clip(path, regions="crop").mm_per_pixel == cropped.mm_per_pixel
    kept = pydicom.dcmread(cleaned_path(path, tmp_path / "d.dcm", "keep"))
    assert kept.PixelData == pydicom.dcmread(path).PixelData


def cleaned_path(path: Path, target: Path, ways: str) -> Path:
    Deidentifier(salt="s", regions=ways).clean(path, target)
    return target


def test_bundled_scan_loses_its_banner(tmp_path: Path) -> None:
    path = bundled("examples_palette.dcm")
    found = cleaned(path, tmp_path / "b.dcm")
    assert not read_still(tmp_path / "b.dcm")[:55].any()
    assert found.PhotometricInterpretation == "RGB"
    assert "RedPaletteColorLookupTableData" not in found
    original = read_still(path)
    assert np.array_equal(read_still(tmp_path / "b.dcm")[100:130, 400:500], original[100:130, 400:500])


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (dicom3tools) is not installed")
@pytest.mark.parametrize("name", ["examples_palette", "examples_ybr_color", "ExplVR_BigEnd"])
def test_cleaning_breaks_no_object(tmp_path: Path, name: str) -> None:
    """What dciodvfy finds wrong afterwards was wrong before."""

    def errors(path: Path) -> set[str]:
        done = subprocess.run(["dciodvfy", str(path)], capture_output=True, check=False)
        lines = (done.stdout + done.stderr).decode("utf-8", "replace").splitlines()
        assert any("US" in line and line.endswith("Image") for line in lines)
        return {line for line in lines if line.startswith("Error")}

    path = bundled(f"{name}.dcm")
    cleaned(path, tmp_path / "b.dcm")
    assert errors(tmp_path / "b.dcm") <= errors(path)


def run(*arguments: object):
    result = CliRunner().invoke(app, ["deidentify", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_a_folder(tmp_path: Path) -> None:
    data = tmp_path / "in" / "benign"
    save(data / "Doe_Jane_1.dcm", ultrasound(dark(1)[None], PatientID="1"))
    save(data / "Doe_Jane_2.dcm", ultrasound(np.stack([dark(2), dark(3)]), PatientID="1"))
    save(tmp_path / "in" / "IM1", ultrasound(dark(4)[None], PatientID="2"))
    (data / "broken.dcm").write_bytes(b"nothing")
    (data / "notes.txt").write_text("Doe")
    result = run(tmp_path / "in", "-o", tmp_path / "out", "--salt", "s")
    assert result.exit_code == 1
    assert "3 files of 2 patients" in result.stdout
    assert "best effort" in result.stderr
    assert "3 files state no ultrasound region" in result.stderr
    assert "benign/broken.dcm: " in result.stderr
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert len(names) == 4
    assert not any("Doe" in name for name in names)
    samples = find_samples(tmp_path / "out")
    assert sorted(sample.kind for sample in samples) == ["clip", "still", "still"]
    assert len({sample.group for sample in samples}) == 2
    first = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    run(tmp_path / "in", "-o", tmp_path / "again", "--salt", "s")
    assert first == {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()}
    kept = run(tmp_path / "in", "-o", tmp_path / "kept", "--keep-names")
    assert kept.exit_code == 1
    labels = {sample.path.name: sample.label for sample in find_samples(tmp_path / "kept")}
    assert labels == {"Doe_Jane_1.dcm": "benign", "Doe_Jane_2.dcm": "benign", "IM1": None}


def test_one_file(tmp_path: Path) -> None:
    path = save(tmp_path / "a.dcm", ultrasound(dark()[None]))
    assert run(path, "-o", tmp_path / "b.dcm").exit_code == 0
    assert str(pydicom.dcmread(tmp_path / "b.dcm").PatientName).startswith("ANON-")
    with pytest.raises(OutputError, match="overwrite a file that is read"):
        Deidentifier().clean(path, path)


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("a.dcm", "-o", "a.dcm"), "overwrite"),
        (("a.dcm", "a.dcm", "-o", "b.dcm"), "several files need a folder"),
        (("a.dcm", "a.dcm", "-o", "out", "--keep-names"), "same name"),
        (("a.png", "-o", "out"), "no DICOM file or folder"),
        (("empty", "-o", "out"), "no DICOM file in"),
        ((".", "-o", "out"), "lies in"),
        (("bad.dcm", "-o", "out"), "no DICOM file"),
        (("missing.dcm", "-o", "out"), "cannot be read"),
    ],
)
def test_wrong_input_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], what: str
) -> None:
    save(tmp_path / "a.dcm", ultrasound(dark()[None]))
    (tmp_path / "a.png").write_bytes(b"x")
    (tmp_path / "bad.dcm").write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    result = run(*arguments)
    assert result.exit_code == 2
    assert what in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before
