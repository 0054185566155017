from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

from tests.data.audit.planted import DataSet, blob, clean, moving, picture, with_text
from tests.fakes import write_png
from us_i2v.data.audit import NOTES, PROBLEMS, Audit, Record, audit, summary, write_report
from us_i2v.data.audit.findings import Twins, find_all
from us_i2v.data.clips import ClipReader
from us_i2v.data.duplicates import SAME
from us_i2v.data.manifest import Sample


def kinds_of(data: DataSet) -> set[str]:
    return {finding.kind for finding in run(data).findings}


def run(data: DataSet) -> Audit:
    return audit(data.samples, data.root)


def broken_still(data: DataSet) -> None:
    path = data.still("benign/x.png", picture(9)).path
    path.write_bytes(path.read_bytes()[:300])


def missing_still(data: DataSet) -> None:
    data.still("benign/x.png", picture(9)).path.unlink()


def broken_clip(data: DataSet) -> None:
    path = data.root / "benign" / "x.mp4"
    path.write_bytes(b"this is no video" * 50)
    data.add(path, "clip")


def broken_mask(data: DataSet) -> None:
    sample = data.still("benign/x.png", picture(9), mask=blob())
    sample.masks[0].write_bytes(b"\x89PNG\r\n\x1a\n nothing")


def mask_of_another_size(data: DataSet) -> None:
    data.still("benign/x.png", picture(9), mask=blob()[:-2])


def empty_mask(data: DataSet) -> None:
    data.still("benign/x.png", picture(9), mask=np.zeros_like(blob()))


def class_without_lesions(data: DataSet) -> None:
    for seed in (8, 9):
        data.still(f"normal/n{seed}.png", picture(seed), mask=np.zeros_like(blob()), label="normal")


def moving_mask_is_too_short(data: DataSet) -> None:
    sample = data.clip("benign/x.npz", moving(9))
    mask = data.root / "benign" / "x_mask.npz"
    np.savez(mask, frames=np.repeat(blob()[None], 7, axis=0))
    data.samples[-1] = Sample(sample.path, "clip", "benign", "x", None, (mask,))


def black_still(data: DataSet) -> None:
    data.still("benign/x.png", np.zeros((96, 120), np.uint8))


def clip_that_begins_black(data: DataSet) -> None:
    frames = moving(9)
    frames[0] = 1
    data.clip("benign/x.npz", frames)


def same_file_in_two_classes(data: DataSet) -> None:
    data.still("malignant/x.png", picture(1), label="malignant")


def same_picture_in_two_splits(data: DataSet) -> None:
    path = data.root / "benign" / "x.bmp"
    PillowImage.fromarray(picture(1)).save(path)
    data.add(path, "still", split="test")


def brighter_crop_in_another_group(data: DataSet) -> None:
    data.still("benign/x.png", np.minimum(picture(1)[2:-2, 3:] * 1.2, 255).astype(np.uint8))


def copy_in_the_same_group(data: DataSet) -> None:
    data.still("benign/x.png", picture(1), group="s1")


def first_frame_of_a_clip_in_another_split(data: DataSet) -> None:
    data.still("benign/x.png", moving(4)[0], split="test")


def clip_copied_to_another_split(data: DataSet) -> None:
    data.clip("benign/x.npz", moving(4), split="test")


def group_in_two_splits(data: DataSet) -> None:
    data.still("benign/x.png", picture(9), group="s1", split="test")


def group_in_two_classes(data: DataSet) -> None:
    data.still("malignant/x.png", picture(9), label="malignant", group="s1")


def text_in_a_still(data: DataSet) -> None:
    data.still("benign/x.png", with_text(picture(9), "LT AX", (20, 30)))


def repeated_frames(data: DataSet) -> None:
    data.clip("benign/x.npz", np.repeat(moving(9), 2, axis=0))


def clip_without_rate(data: DataSet) -> None:
    data.clip("benign/x.npy", moving(9))


def picture_that_no_one_uses(data: DataSet) -> None:
    write_png(data.root / "benign" / "gone_mask.png", blob())


DEFECTS: list[tuple[Callable[[DataSet], None], set[str]]] = [
    (broken_still, {"unreadable"}),
    (missing_still, {"unreadable"}),
    (broken_clip, {"unreadable"}),
    (broken_mask, {"mask-unreadable"}),
    (mask_of_another_size, {"mask-size"}),
    (moving_mask_is_too_short, {"mask-size"}),
    (empty_mask, {"mask-empty"}),
    (class_without_lesions, {"mask-empty-class"}),
    (black_still, {"black"}),
    (clip_that_begins_black, {"black"}),
    (same_file_in_two_classes, {"two-classes", "duplicates-apart"}),
    (same_picture_in_two_splits, {"leak", "duplicates-apart"}),
    (first_frame_of_a_clip_in_another_split, {"leak", "duplicates-apart"}),
    (clip_copied_to_another_split, {"leak", "duplicates-apart"}),
    (brighter_crop_in_another_group, {"duplicates-apart"}),
    (copy_in_the_same_group, {"duplicates-together"}),
    (group_in_two_splits, {"group-in-two-splits"}),
    (group_in_two_classes, {"group-in-two-classes"}),
    (text_in_a_still, {"text"}),
    (repeated_frames, {"repeats"}),
    (clip_without_rate, {"no-rate"}),
    (picture_that_no_one_uses, {"unused"}),
]


def test_clean_data_has_no_findings(tmp_path: Path) -> None:
    assert run(clean(tmp_path)).findings == []


@pytest.mark.parametrize(("plant", "expected"), DEFECTS, ids=[plant.__name__ for plant, _ in DEFECTS])
def test_every_defect_is_found_and_nothing_else(
    plant: Callable[[DataSet], None], expected: set[str], tmp_path: Path
) -> None:
    data = clean(tmp_path)
    plant(data)
    findings = run(data).findings
    assert {finding.kind for finding in findings} == expected
    planted = [name for finding in findings for name in finding.files if Path(name).stem not in ("s1", "c4")]
    assert all(Path(name).stem.startswith(("x", "n8", "n9", "gone")) for name in planted)
    assert all("\n" not in finding.text for finding in findings)


def test_every_kind_is_tested() -> None:
    tested = {kind for _, kinds in DEFECTS for kind in kinds}
    assert tested | {"related-apart"} == {*PROBLEMS, *NOTES}


@pytest.mark.parametrize(
    ("similarity", "kinds"), [(SAME, {"duplicates-apart", "leak"}), (SAME - 0.01, {"related-apart"})]
)
def test_related_pictures_are_a_note(similarity: float, kinds: set[str]) -> None:
    records = [Record(f"{name}.png", "still", None, name, split) for name, split in (("a", "train"), ("b", "test"))]
    findings = find_all([], records, [Twins(0, 1, similarity, False)])
    assert {finding.kind for finding in findings} == kinds
    assert all(finding.files == ("a.png", "b.png") for finding in findings)
    assert "train and test" in findings[0].text
    assert [finding.problem for finding in findings] == [similarity == SAME] * len(kinds)


def test_numbers_of_a_clip(tmp_path: Path) -> None:
    data = DataSet(tmp_path)
    frames = np.repeat(moving(9, 20), 2, axis=0)
    data.clip("x.npz", np.concatenate([np.zeros((1, 96, 120), np.uint8), frames]), fps=40.0)
    (record,) = run(data).records
    assert (record.frames, record.fps, record.size, record.black_frames) == (41, 40.0, (96, 120), 1)
    assert record.repeats == 20
    assert record.effective_fps == pytest.approx(40 * 21 / 41)


def test_unreadable_file_says_why_and_others_are_read(tmp_path: Path) -> None:
    data = clean(tmp_path)
    broken_still(data)
    found = run(data)
    assert [record.file for record in found.records if record.error] == ["benign/x.png"]
    assert "damaged" in found.findings[0].text
    assert sum(record.sha256 is not None for record in found.records) == 5


def test_one_frame_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = ClipReader.read
    asked: list[int] = []

    def watched(self: ClipReader, indices: list[int]) -> object:
        asked.append(len(indices))
        return read(self, indices)

    monkeypatch.setattr(ClipReader, "read", watched)
    run(clean(tmp_path))
    assert asked == [1, 1]


def test_sample_reads_some_and_counts_all(tmp_path: Path) -> None:
    data = clean(tmp_path)
    drawn = [audit(data.samples, tmp_path, at_most=2, seed=seed) for seed in (0, 0, 1, 2, 3)]
    names = [[record.file for record in found.records] for found in drawn]
    assert {len(found) for found in names} == {2}
    assert names[0] == names[1]
    assert len({tuple(found) for found in names}) > 1
    report = summary(drawn[0])
    assert report["samples"] == {"stills": 3, "clips": 2}
    assert report["read"] == 2
    assert len(audit(data.samples, tmp_path, at_most=99).records) == 5


def test_summary_counts(tmp_path: Path) -> None:
    data = clean(tmp_path)
    text_in_a_still(data)
    (tmp_path / "readme.txt").write_text("x")
    report = summary(run(data))
    assert report["classes"]["benign"] == {"stills": 3, "clips": 1, "masks": 2, "groups": 4}
    assert report["splits"]["train"] == {"stills": 2, "clips": 1, "masks": 2, "groups": 3}
    assert report["groups"]["n"] == 6
    assert report["clips"]["frames"] == {"min": 12, "median": 12, "max": 12}
    assert report["sizes"]["stills"]["most_common"] == [{"width": 120, "height": 96, "n": 4}]
    assert report["masks"] == {"n": 3, "ok": 3, "empty": 0, "other_size": 0, "unreadable": 0}
    assert report["burned_in"]["by_class"]["benign"] == {"n": 4, "text": 1, "marks": 1}
    assert report["other_files"] == {".txt": 1}
    assert report["findings"]["text"] == 1
    assert report["problems"] == 0


def test_report_is_stable(tmp_path: Path) -> None:
    data = clean(tmp_path / "data")
    same_file_in_two_classes(data)
    for name in ("a.json", "b.json"):
        write_report(tmp_path / name, run(data))
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    report = json.loads((tmp_path / "a.json").read_text())
    assert list(report) == [
        *("format_version", "samples", "read", "unreadable", "classes", "splits", "groups", "sizes", "colour"),
        *("clips", "masks", "duplicates", "burned_in", "other_files", "findings", "problems"),
        *("finding_list", "duplicate_pairs", "records"),
    ]
    assert report["duplicate_pairs"] == [
        {"first": "benign/s1.png", "second": "malignant/x.png", "similarity": 1.0, "exact": True}
    ]
    assert report["finding_list"][0]["kind"] == "two-classes"
    assert [record["file"] for record in report["records"]][:2] == ["benign/s1.png", "malignant/s2.png"]


def test_stages_report_progress(tmp_path: Path) -> None:
    calls: list[tuple[str, int, int]] = []

    @contextmanager
    def stage(what: str) -> Iterator[Callable[[int, int, str], None]]:
        yield lambda done, total, name: calls.append((what, done, total))

    data = clean(tmp_path)
    audit(data.samples, tmp_path, stage=stage)
    assert [call for call in calls if call[0] == "read"] == [("read", done, 5) for done in range(1, 6)]


def test_nothing_but_black(tmp_path: Path) -> None:
    data = DataSet(tmp_path)
    black_still(data)
    data.still("benign/y.png", np.zeros((96, 120), np.uint8))
    assert kinds_of(data) == {"black", "duplicates-apart"}
