"""Preparing BUSV: erratum, shared frames, stable stretches, crops."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

from tests.data.busv_folder import SIZE, STILL_BOX, write_annotations, write_busv, write_video
from tests.fakes import tree
from us_i2v.data.clips import open_clip
from us_i2v.data.datasets import find_samples
from us_i2v.data.datasets.busv_erratum import ERRATUM, Correction
from us_i2v.data.manifest import Sample
from us_i2v.data.preparation.busv import prepare_busv
from us_i2v.data.preparation.options import BusvOptions
from us_i2v.data.splits import check_split_groups
from us_i2v.errors import ConfigError, DataError

PATIENT = "busv-patient-of-x63c9ba1377f35bf6"
PLAIN = BusvOptions()


@pytest.fixture(scope="module")
def download(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_busv(tmp_path_factory.mktemp("busv"))


def listed(out: Path) -> dict[str, Sample]:
    return {sample.path.relative_to(out).as_posix(): sample for sample in find_samples(out)}


def copied(download: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(download, tmp_path / "source"))


def test_the_prepared_folder(download: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    report = prepare_busv(download, out, PLAIN)
    samples = listed(out)
    assert set(samples) == {
        "malignant/x5a1c46ec6377e946", "malignant/x63c9ba1377f35bf6", "benign/xa", "benign/xb",
        "malignant/x3b88488853e8b7d1", "malignant/7a39ab5d4970bf89", "malignant/2390fbea047347b",
        "malignant/xc", "malignant/xd",
    }  # fmt: skip
    assert {s.group for name, s in samples.items() if open_clip(s.path).n_frames == 3} == {PATIENT}
    assert {name for name, s in samples.items() if s.split == "val"} == {"malignant/xd"}
    assert {s.kind for s in samples.values()} == {"clip"}
    assert all(s.label == name.partition("/")[0] for name, s in samples.items())
    assert (report.before, report.after) == ({"benign": 5, "malignant": 5}, {"benign": 2, "malignant": 7})
    assert [entry.file for entry in report.left_out] == ["benign/x66ef02e7f1b9a0ef"]
    assert all(entry["applied"] for entry in report.erratum)
    assert report.conflicts == []
    frames = open_clip(out / "benign" / "xb")
    original = open_clip(download / "rawframes" / "benign" / "xb")
    assert np.array_equal(frames.read([0, 29]), original.read([0, 29]))
    assert any("gaps in the frame numbers: 1 videos" in line for line in report.lines())
    with (out / "boxes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {
        "clip": "benign/xb",
        "frame": "29",
        "left": "30.00",
        "top": "20.00",
        "width": "20.00",
        "height": "16.00",
    } in rows


def test_without_the_erratum_the_copy_is_found_as_a_conflict(download: Path, tmp_path: Path) -> None:
    report = prepare_busv(download, tmp_path / "out", replace(PLAIN, corrections=()))
    samples = listed(tmp_path / "out")
    twins = ("benign/x66ef02e7f1b9a0ef", "malignant/x3b88488853e8b7d1")
    assert report.conflicts == [(*twins, "4 frames in common, similarity 1.00")]
    assert samples[twins[0]].group == samples[twins[1]].group
    assert len(samples) == 10
    assert {s.group for s in samples.values() if open_clip(s.path).n_frames == 3} != {PATIENT}
    assert "erratum: none applied" in report.lines()
    options = replace(PLAIN, corrections=(), conflicts="drop")
    dropped = prepare_busv(download, tmp_path / "dropped", options)
    assert {entry.file for entry in dropped.left_out} == set(twins)


def test_shared_frames_make_a_group_and_copies_go(download: Path, tmp_path: Path) -> None:
    source = copied(download, tmp_path)
    frames = source / "rawframes"
    # xe is the second half of xa under other numbers; xf shares a frame with xc and has others.
    (frames / "benign/xe").mkdir()
    for number in range(10, 20):
        shutil.copy(frames / "benign/xa" / f"{number:06d}.png", frames / "benign/xe" / f"{number - 10:06d}.png")
    write_video(source, "benign/xf", range(1, 4), 20)
    shutil.copy(frames / "malignant/xc" / "000005.png", frames / "benign/xf" / "000000.png")
    # A blank frame in two videos says nothing.
    blank = PillowImage.new("L", SIZE[::-1], 7)
    blank.save(frames / "benign/xb" / "000032.png")
    blank.save(frames / "malignant/xd" / "000016.png")
    report = prepare_busv(source, tmp_path / "out", PLAIN)
    samples = listed(tmp_path / "out")
    assert [(e.file, e.cause) for e in report.left_out][1:] == [("benign/xe", "duplicate")]
    assert samples["benign/xf"].group == samples["malignant/xc"].group
    assert samples["benign/xb"].group != samples["malignant/xd"].group
    assert [pair[:2] for pair in report.conflicts] == [("benign/xf", "malignant/xc")]
    kept = prepare_busv(source, tmp_path / "kept", replace(PLAIN, keep_duplicates=True))
    assert listed(tmp_path / "kept")["benign/xe"].group == "busv-xa"
    assert sum(kept.after.values()) == sum(report.after.values()) + 1


def test_own_corrections_are_applied_and_missing_ones_named(download: Path, tmp_path: Path) -> None:
    more = (Correction("benign/xa", "label", "malignant"), Correction("xb", "group", "pair"),
            Correction("xc", "group", "pair"), Correction("xnone", "drop", ""))  # fmt: skip
    report = prepare_busv(download, tmp_path / "out", replace(PLAIN, corrections=(*ERRATUM, *more)))
    samples = listed(tmp_path / "out")
    assert samples["malignant/xa"].label == "malignant"
    assert samples["benign/xb"].group == samples["malignant/xc"].group == "pair"
    assert [entry["video"] for entry in report.erratum if not entry["applied"]] == ["xnone"]
    assert "erratum: xnone: drop : NOT APPLIED, no such video" in report.lines()


def test_stable_stretches(download: Path, tmp_path: Path) -> None:
    report = prepare_busv(download, tmp_path / "out", replace(PLAIN, stable=True, fps=12.5))
    samples = listed(tmp_path / "out")
    assert set(samples) == {
        "benign/xa_000000-000019", "benign/xb_000012-000031", "malignant/xc_000000-000019",
    }  # fmt: skip
    clip = open_clip(tmp_path / "out" / "benign" / "xb_000012-000031")
    whole = open_clip(download / "rawframes" / "benign" / "xb")
    assert np.array_equal(clip.read([0, 19]), whole.read([10, 29]))
    assert {s.fps for s in samples.values()} == {12.5}
    assert {e.file for e in report.left_out if e.cause == "not stable"} >= {"malignant/xd"}


def test_crops_follow_the_boxes_of_the_whole_clip(download: Path, tmp_path: Path) -> None:
    prepare_busv(download, tmp_path / "out", replace(PLAIN, crop=True))
    clip = open_clip(tmp_path / "out" / "benign" / "xa")
    assert (clip.n_frames, clip.size) == (20, (224, 224))
    assert not clip.fps_known
    with (tmp_path / "out" / "boxes.csv").open(newline="") as file:
        row = next(row for row in csv.DictReader(file) if row["clip"] == "benign/xa")
    # 20 x 16 px and a quarter more is 26 x 20 in whole pixels: letterboxed by 224 / 26.
    assert float(row["width"]) == pytest.approx(20 * 224 / 26, abs=0.01)
    assert float(row["left"]) == pytest.approx(3 * 224 / 26, abs=0.01)
    assert (clip.read([0])[0] > 0).mean() == pytest.approx(20 / 26, abs=0.05)


def test_ratio_replaces_the_split_and_keeps_groups_whole(download: Path, tmp_path: Path) -> None:
    prepare_busv(download, tmp_path / "out", replace(PLAIN, ratio=(5, 5)))
    samples = list(listed(tmp_path / "out").values())
    check_split_groups(samples)
    assert {s.split for s in samples} == {"train", "test"}


def test_videos_without_boxes_and_unreadable_ones_are_left_out(download: Path, tmp_path: Path) -> None:
    source = copied(download, tmp_path)
    write_video(source, "benign/xnobox", range(3), 30)
    write_video(source, "benign/xcut", range(3), 31)
    (source / "rawframes" / "benign" / "xcut" / "000001.png").write_bytes(b"")
    report = prepare_busv(source, tmp_path / "out", replace(PLAIN, crop=True))
    causes = {entry.file: entry.cause for entry in report.left_out}
    assert causes["benign/xnobox"] == "no lesion"
    assert causes["benign/xcut"] == "unreadable"
    assert json.loads((tmp_path / "out" / "report.json").read_text())["after"] == report.after


def test_what_is_refused(download: Path, tmp_path: Path) -> None:
    source = tmp_path / "bare"
    write_video(source, "benign/x1", range(3), 1)
    out = tmp_path / "out"
    for options in (replace(PLAIN, stable=True), replace(PLAIN, crop=True)):
        with pytest.raises(DataError, match="no annotation files"):
            prepare_busv(source, out, options)
    with pytest.raises(DataError, match="is not BUSV"):
        prepare_busv(source / "rawframes" / "benign", out, PLAIN)
    write_annotations(source / "train.json", {"benign/x1": {number: [STILL_BOX] for number in range(3)}})
    with pytest.raises(DataError, match=r"Nothing is left to write .*no stretch"):
        prepare_busv(source, out, replace(PLAIN, stable=True))
    (source / "train.json").write_text("{")
    with pytest.raises(DataError, match=r"train\.json"):
        prepare_busv(source, out, PLAIN)
    with pytest.raises(ConfigError, match="not a positive number"):
        BusvOptions(fps=-1)
    assert not out.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["bare"]


def test_the_source_stays_as_it_was(download: Path, tmp_path: Path) -> None:
    before = tree(download)
    prepare_busv(download, tmp_path / "out", replace(PLAIN, crop=True, stable=True))
    assert tree(download) == before
