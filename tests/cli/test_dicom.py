"""Commands on DICOM files: generate from and to them, augment, inspect, train, evaluate."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pydicom", reason="the extra 'dicom' is not installed")

import pydicom
from typer.testing import Result

from tests.cli.conftest import one_line_error
from tests.cli.test_end_to_end import SETTINGS
from tests.data.audit.planted import with_text
from tests.data.dicom_files import region, regions, save, ultrasound, without_pydicom
from tests.evaluation.sets import drifting
from tests.factories import textured_still
from tests.fakes import FakeGenerator, tree, write_png
from us_i2v.data.clips import open_clip

Run = Callable[..., Result]
BOX = (10, 6, 49, 45)
"""40 x 40 pixels."""


@pytest.fixture
def still(tmp_path: Path) -> Path:
    dataset = ultrasound(textured_still(60, 72)[None], SequenceOfUltrasoundRegions=regions(region(BOX)))
    dataset.LossyImageCompression = "01"
    return save(tmp_path / "in" / "still.dcm", dataset)


@pytest.fixture
def png(tmp_path: Path) -> Path:
    return write_png(tmp_path / "in" / "still.png", textured_still(40, 48))


def test_a_clip_of_a_dicom_still(us_i2v: Run, generator: FakeGenerator, still: Path, tmp_path: Path) -> None:
    result = us_i2v("generate", still, "-o", tmp_path / "c.npz", "--region", "blank")
    assert result.exit_code == 0, result.stderr
    shown = np.zeros((60, 72), np.uint8)
    shown[6:46, 10:50] = textured_still(60, 72)[6:46, 10:50]
    assert np.array_equal(np.load(tmp_path / "c.npz")["frames"][0], shown)


def test_a_dicom_clip_of_a_dicom_still(us_i2v: Run, generator: FakeGenerator, still: Path, tmp_path: Path) -> None:
    line = ["generate", still, "-o", tmp_path / "c.dcm", "--region", "crop", "--size", 20, "--no-mark", "--seed", 5]
    result = us_i2v(*line)
    assert result.exit_code == 0, result.stderr
    clip = open_clip(tmp_path / "c.dcm")
    assert (clip.n_frames, clip.size, clip.fps) == (16, (20, 20), 20.0)
    assert clip.mm_per_pixel == pytest.approx((0.4, 0.6))
    dataset = pydicom.dcmread(tmp_path / "c.dcm")
    assert dataset.SyntheticData == "YES"
    assert "seed 5" in dataset.DerivationDescription
    assert "ab" * 32 in dataset.DerivationDescription
    assert dataset.LossyImageCompression == "01"
    assert b"Doe" not in (tmp_path / "c.dcm").read_bytes()
    assert dataset.StudyInstanceUID != "1.2.3.4"


def test_several_dicom_clips_with_masks(us_i2v: Run, generator: FakeGenerator, png: Path, tmp_path: Path) -> None:
    mask = np.zeros((40, 48), bool)
    mask[5:20, 5:20] = True
    masked = ["--mask", write_png(tmp_path / "in" / "m.png", mask)]
    result = us_i2v("generate", png, "-o", tmp_path / "out", "--num-clips", 2, "--ext", "dcm", *masked)
    assert result.exit_code == 0, result.stderr
    made = {name for name in tree(tmp_path / "out") if not name.endswith(".json")}
    assert made == {"still_seed0.dcm", "still_seed0_mask.mkv", "still_seed1.dcm", "still_seed1_mask.mkv"}
    first, second = (pydicom.dcmread(tmp_path / "out" / f"still_seed{seed}.dcm") for seed in (0, 1))
    assert first.PatientID == second.PatientID
    assert first.SOPInstanceUID != second.SOPInstanceUID
    assert (open_clip(tmp_path / "out" / "still_seed0.dcm").read([0])[0] != textured_still(40, 48)).any()


def test_burned_in_text_is_refused_before_any_work(us_i2v: Run, generator: FakeGenerator, tmp_path: Path) -> None:
    picture = with_text(textured_still(120, 200) // 2, "DOE JANE", (20, 90))
    text = save(
        tmp_path / "in" / "t.dcm",
        ultrasound(picture[None], SequenceOfUltrasoundRegions=regions(region((0, 0, 199, 79)))),
    )
    message = one_line_error(us_i2v("generate", text, "-o", tmp_path / "c.dcm"))
    assert "burned-in text" in message
    assert "--keep-text" in message
    assert generator.calls == []
    assert us_i2v("generate", text, "-o", tmp_path / "c.dcm", "--keep-text").exit_code == 0
    assert us_i2v("generate", text, "-o", tmp_path / "d.dcm", "--region", "crop").exit_code == 0
    assert us_i2v("generate", text, "-o", tmp_path / "e.mp4").exit_code == 0
    assert pydicom.dcmread(tmp_path / "c.dcm").BurnedInAnnotation == "YES"


def test_wrong_use_is_one_line(us_i2v: Run, generator: FakeGenerator, png: Path, still: Path, tmp_path: Path) -> None:
    assert "no DICOM file" in one_line_error(us_i2v("generate", png, "-o", tmp_path / "c.mp4", "--region", "crop"))
    assert us_i2v("generate", still, "-o", tmp_path / "c.mp4", "--region", "cut").exit_code == 2
    (tmp_path / "bad.dcm").write_bytes(b"nothing")
    assert "'DICM'" in one_line_error(us_i2v("generate", tmp_path / "bad.dcm", "-o", tmp_path / "c.mp4"))
    assert sorted(tree(tmp_path)) == ["bad.dcm", "in/still.dcm", "in/still.png"]


def test_without_the_extra_one_line_names_it(
    us_i2v: Run, png: Path, still: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_pydicom(monkeypatch)
    lines = (
        ("generate", still, "-o", tmp_path / "c.mp4"),
        ("generate", png, "-o", tmp_path / "c.dcm"),
        ("augment", still.parent, tmp_path / "out"),
        ("inspect", still.parent),
        ("train-ae", still.parent, "-o", tmp_path / "run", "--preset", "tiny"),
        ("deidentify", still, "-o", tmp_path / "out"),
    )
    for line in lines:
        assert "pip install 'us-i2v[dicom]'" in one_line_error(us_i2v(*line)), line


def test_augment_and_inspect(us_i2v: Run, generator: FakeGenerator, tmp_path: Path) -> None:
    for number, label in enumerate(("benign", "malignant")):
        picture = textured_still(60, 72, seed=number)
        save(tmp_path / "data" / label / f"p{number}" / "IM_0001", ultrasound(picture[None]))
    (tmp_path / "data" / "benign" / "broken.dcm").write_bytes(b"nothing")
    result = us_i2v("augment", tmp_path / "data", tmp_path / "out", "--ext", "npz")
    assert result.exit_code == 1
    assert "broken.dcm" in result.stderr
    clips = {name for name in tree(tmp_path / "out") if name.endswith(".npz")}
    assert clips == {"benign/p0/IM_0001_0.npz", "malignant/p1/IM_0001_0.npz"}
    report = tmp_path / "report.json"
    assert us_i2v("inspect", tmp_path / "data", "-o", report).exit_code == 0
    found = json.loads(report.read_text())
    assert (found["read"], found["unreadable"]) == (3, 1)
    assert {entry["file"]: entry["size"] for entry in found["records"] if entry["size"]} == {
        "benign/p0/IM_0001": [60, 72],
        "malignant/p1/IM_0001": [60, 72],
    }


def test_augment_of_regions(us_i2v: Run, generator: FakeGenerator, still: Path, tmp_path: Path) -> None:
    save(still.parent / "without.dcm", ultrasound(textured_still(60, 72)[None]))
    result = us_i2v("augment", still.parent, tmp_path / "out", "--ext", "npz", "--region", "crop")
    assert result.exit_code == 1
    assert "without.dcm: " in result.stderr
    assert np.load(tmp_path / "out" / "still_0.npz")["frames"].shape == (16, 40, 40)
    assert json.loads((tmp_path / "out" / "settings.json").read_text())["region"] == "crop"
    assert us_i2v("augment", still.parent, tmp_path / "keep", "--ext", "npz").exit_code == 0
    assert "region" not in json.loads((tmp_path / "keep" / "settings.json").read_text())
    assert us_i2v("augment", still.parent, tmp_path / "bad", "--region", "cut").exit_code == 2


@pytest.fixture
def cines(tmp_path: Path) -> Path:
    """Four cines of four patients."""
    for number in range(4):
        dataset = ultrasound(drifting(number, frames=20), FrameTime="50")
        save(tmp_path / "cines" / "benign" / f"p{number}" / "cine.dcm", dataset)
    return tmp_path / "cines"


def test_train_on_dicom_cines(us_i2v: Run, cines: Path, tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(SETTINGS)
    line = ["train-ae", cines, "-o", tmp_path / "ae", "--preset", "tiny", "--config", tmp_path / "small.toml"]
    result = us_i2v(*line, "--steps", 2, "--device", "cpu")
    assert result.exit_code == 0, result.stderr
    assert "step 2/2" in result.stderr
    assert (tmp_path / "ae" / "weights.safetensors").is_file()


def test_evaluate_dicom_cines(us_i2v: Run, cines: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    fast = ("--size", 64, "--metrics", "paired,motion", "--threads", 1, "--stride", 1)
    result = us_i2v("evaluate", cines, cines, *fast, "-o", tmp_path / "r.json")
    assert result.exit_code == 0, result.output
    assert "4 real clips of 4 groups, 4 fakes, 4 of them paired" in result.stdout
    part = next(iter(json.loads((tmp_path / "r.json").read_text())["parts"].values()))
    assert part["paired"]["l1"]["fake"]["mean"] == 0
