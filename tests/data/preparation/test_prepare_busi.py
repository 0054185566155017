"""Preparing BUSI: groups, copies, two classes, crops, and folders that appear whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.data.test_duplicates import near_duplicate
from tests.data.textures import scan
from tests.fakes import tree, write_png
from us_i2v.data.datasets import find_samples
from us_i2v.data.masks import read_mask
from us_i2v.data.preparation.busi import prepare_busi
from us_i2v.data.preparation.options import BusiOptions, parse_ratio
from us_i2v.data.preparation.report import Report
from us_i2v.data.splits import check_split_groups
from us_i2v.data.stills import read_still
from us_i2v.errors import ConfigError, DataError, OutputError, UsI2VError


def write_download(root: Path) -> Path:
    """Nine stills as BUSI's: (1) has an exact copy and a crop, (4) is in two classes, one file is cut short."""
    first, both = scan(1), scan(4)
    pictures = {
        "benign (1)": first,
        "benign (2)": first,
        "benign (3)": near_duplicate(first),
        "benign (4)": both,
        "benign (5)": scan(5),
        "malignant (1)": near_duplicate(both),
        "malignant (2)": scan(6),
        "normal (1)": scan(7),
        "normal (2)": scan(8),
    }
    for name, picture in pictures.items():
        label = name.split()[0]
        write_png(root / label / f"{name}.png", picture)
        mask = np.zeros(picture.shape, np.bool_)
        if label != "normal":
            mask[40:80, 60:140] = True
        write_png(root / label / f"{name}_mask.png", mask)
    write_png(root / "malignant" / "malignant (2)_mask_1.png", np.eye(300, 390, dtype=np.bool_))
    whole = (root / "normal" / "normal (2).png").read_bytes()
    (root / "normal" / "normal (2).png").write_bytes(whole[: len(whole) // 2])
    return root


@pytest.fixture(scope="module")
def download(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_download(tmp_path_factory.mktemp("busi") / "Dataset_BUSI_with_GT").parent


def causes(report: Report) -> dict[str, str]:
    return {entry.file.partition("/")[2]: entry.cause for entry in report.left_out}


def test_the_prepared_folder(download: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    report = prepare_busi(download, out, BusiOptions())
    samples = find_samples(out)
    assert [(s.path.name, s.label, s.group, len(s.masks)) for s in samples] == [
        ("benign (1).png", "benign", "busi-benign (1)", 1),
        ("benign (3).png", "benign", "busi-benign (1)", 1),
        ("benign (5).png", "benign", "busi-benign (5)", 1),
        ("malignant (2).png", "malignant", "busi-malignant (2)", 2),
        ("normal (1).png", "normal", "busi-normal (1)", 1),
    ]
    assert causes(report) == {
        "normal (2).png": "unreadable",
        "benign (2).png": "duplicate",
        "benign (4).png": "two classes",
        "malignant (1).png": "two classes",
    }
    assert (report.before, report.after) == (
        {"benign": 5, "malignant": 2, "normal": 2},
        {"benign": 3, "malignant": 1, "normal": 1},
    )
    assert (report.groups, report.largest_group) == (4, 2)
    written = json.loads((out / "report.json").read_text())
    assert written["conflicts"][0]["first"] == "benign/benign (4).png"
    assert {entry["cause"] for entry in written["left_out"]} == set(causes(report).values())
    original = download / "Dataset_BUSI_with_GT" / "benign" / "benign (1).png"
    assert (out / "benign" / "benign (1).png").read_bytes() == original.read_bytes()
    lines = report.lines()
    assert lines[1].split() == ["benign", "5", "3"]
    assert any("the same picture as malignant/malignant (1).png" in line for line in lines)


def test_what_may_be_kept(download: Path, tmp_path: Path) -> None:
    kept = BusiOptions(keep_duplicates=True, conflicts="keep")
    report = prepare_busi(download, tmp_path / "all", kept)
    assert causes(report) == {"normal (2).png": "unreadable"}
    assert len(report.conflicts) == 1
    groups = {s.path.name: s.group for s in find_samples(tmp_path / "all")}
    assert groups["benign (2).png"] == groups["benign (3).png"] == "busi-benign (1)"
    assert groups["malignant (1).png"] == "busi-benign (4)"
    near = prepare_busi(download, tmp_path / "near", BusiOptions(drop_near=True))
    assert causes(near)["benign (3).png"] == "near duplicate"
    assert [s.path.name for s in find_samples(tmp_path / "near")][:2] == ["benign (1).png", "benign (5).png"]


def test_a_split_keeps_groups_whole_and_repeats(download: Path, tmp_path: Path) -> None:
    options = BusiOptions(ratio=(5, 5), conflicts="keep", link="copy")
    for run in ("a", "b"):
        prepare_busi(download, tmp_path / run, options)
        samples = find_samples(tmp_path / run)
        check_split_groups(samples)
        assert {s.split for s in samples} == {"train", "test"}
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_the_split_depends_on_the_seed(tmp_path: Path) -> None:
    for number in range(8):
        write_png(tmp_path / "source" / "normal" / f"normal ({number}).png", scan(number, 64, 80))
    splits = []
    for seed in range(4):
        prepare_busi(tmp_path / "source", tmp_path / str(seed), BusiOptions(ratio=(3, 1), seed=seed))
        splits.append(tuple(s.split for s in find_samples(tmp_path / str(seed))))
    assert all(split.count("test") == 2 for split in splits)
    assert len(set(splits)) > 1


def test_crops_show_the_lesion(download: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    report = prepare_busi(download, out, BusiOptions(crop=True))
    assert causes(report)["normal (1).png"] == "no lesion"
    samples = find_samples(out)
    assert [s.path.name for s in samples] == [
        "benign (1).png", "benign (3).png", "benign (5).png", "malignant (2).png",
    ]  # fmt: skip
    assert all(read_still(s.path).shape == (224, 224) for s in samples)
    # 80 x 40 px of lesion and a quarter more: the mask fills 0.8 of the width and 0.8 of half the height.
    mask = read_mask(samples[0].masks[0], (224, 224))
    assert abs(mask.any(axis=0).sum() - 0.8 * 224) <= 2
    assert abs(mask.any(axis=1).sum() - 0.8 * 112) <= 2


@pytest.mark.parametrize(("link", "same", "symbolic"), [("hard", True, False), ("copy", False, False),
                                                        ("symbolic", True, True)])  # fmt: skip
def test_links(download: Path, tmp_path: Path, link: str, same: bool, symbolic: bool) -> None:
    prepare_busi(download, tmp_path / "out", BusiOptions(link=link))
    original = download / "Dataset_BUSI_with_GT" / "benign" / "benign (1).png"
    placed = tmp_path / "out" / "benign" / "benign (1).png"
    assert (placed.samefile(original), placed.is_symlink()) == (same, symbolic)


def test_folders_that_are_refused(download: Path, tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "a.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "other" / "x").mkdir(parents=True)
    cases: list[tuple[Path, Path, type[UsI2VError], str]] = [
        (download, full, OutputError, "not an empty folder"),
        (download, tmp_path / "file", OutputError, "not an empty folder"),
        (download, download / "prepared", OutputError, "lie in one another"),
        (download, download.parent, OutputError, "lie in one another"),
        (tmp_path / "none", tmp_path / "out", DataError, "does not exist"),
        (tmp_path / "other", tmp_path / "out", DataError, "is not BUSI"),
    ]
    before = tree(tmp_path)
    for source, out, kind, said in cases:
        with pytest.raises(kind, match=said):
            prepare_busi(source, out, BusiOptions())
    assert tree(tmp_path) == before
    assert not (tmp_path / "out").exists()


def test_a_failure_leaves_nothing_and_an_empty_folder_will_do(tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "new" / "out"
    write_png(source / "benign" / "benign (1).png", scan(1))
    with pytest.raises(DataError, match="1 groups cannot be divided"):
        prepare_busi(source, out, BusiOptions(ratio=(7, 3)))
    assert list(tmp_path.iterdir()) == [source]
    out.mkdir(parents=True)
    prepare_busi(source, out, BusiOptions())
    assert sorted(path.name for path in out.iterdir()) == ["benign", "manifest.csv", "report.json"]
    assert list(out.parent.iterdir()) == [out]


def test_ratios() -> None:
    assert [parse_ratio(text) for text in ("7:3", " 50:50 ")] == [(7, 3), (50, 50)]
    for text in ("7", "7:0", "0:5", "a:b", "7:3:1", "00:5", "-7:3"):
        with pytest.raises(ConfigError, match="not of the form"):
            parse_ratio(text)
    assert BusiOptions(ratio=(7, 3)).fractions == {"train": 0.7, "test": 0.3}
