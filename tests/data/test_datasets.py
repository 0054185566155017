"""Data-set layouts: every row of the table, and what each makes of its folder."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

from tests.data.busv_folder import write_busv
from tests.data.test_echonet import write_echonet
from us_i2v.data.datasets import LAYOUTS, find_samples
from us_i2v.data.manifest import read_manifest, write_manifest
from us_i2v.data.masks import read_masks
from us_i2v.data.stills import read_still
from us_i2v.data.writers import write_clip
from us_i2v.errors import DataError


def still(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PillowImage.new("L", (20, 18), 90).save(path)


def mask(path: Path, column: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((18, 20), np.bool_)
    pixels[5, column] = True
    PillowImage.fromarray(pixels).save(path)


def busi(root: Path) -> Path:
    """Two benign (one with three masks), one malignant, two normal: one with a mask file and one without."""
    for name in (
        "benign/benign (2)",
        "benign/benign (10)",
        "malignant/malignant (1)",
        "normal/normal (1)",
        "normal/normal (2)",
    ):
        still(root / f"{name}.png")
    mask(root / "benign/benign (2)_mask.png", 3)
    mask(root / "benign/benign (10)_mask.png", 3)
    mask(root / "benign/benign (10)_mask_1.png", 7)
    mask(root / "benign/benign (10)_mask_2.png", 9)
    mask(root / "malignant/malignant (1)_mask.png", 3)
    mask(root / "normal/normal (1)_mask.png", 0)
    (root / "normal" / "Thumbs.db").write_bytes(b"x")
    return root


def class_folders(root: Path) -> Path:
    still(root / "cyst" / "b10.jpg")
    still(root / "cyst" / "b2.bmp")
    mask(root / "cyst" / "b2_mask.png", 2)
    still(root / "tumour" / "patient7" / "left.tif")
    still(root / "tumour" / "patient7" / "2020" / "right.png")
    write_clip(root / "tumour" / "v.mp4", np.zeros((3, 16, 16), np.uint8), 25)
    write_clip(root / "tumour" / "run1", np.zeros((3, 16, 16), np.uint8), 25)
    write_clip(root / "loose.gif", np.zeros((3, 16, 16), np.uint8), 25)
    still(root / ".hidden" / "a.png")
    (root / "tumour" / "notes.txt").write_text("x")
    return root


def with_manifest(root: Path) -> Path:
    write_manifest(root / "manifest.csv", find_samples(busi(root)))
    return root


BUILDERS = {
    "manifest": with_manifest,
    "busv": write_busv,
    "echonet": write_echonet,
    "busi": busi,
    "class-folders": class_folders,
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_is_found_by_itself_and_by_name(tmp_path, name):
    root = BUILDERS[name](tmp_path)
    samples = find_samples(root)
    assert LAYOUTS[name].detect(root)
    assert samples == find_samples(root, name) == LAYOUTS[name].load(root)
    assert next(key for key, row in LAYOUTS.items() if row.detect(root)) == name
    assert len({sample.path for sample in samples}) == len(samples)
    for sample in samples:
        assert sample.path.exists()
        assert sample.group
        assert all(path.exists() for path in sample.masks)


@pytest.mark.parametrize("name", LAYOUTS)
def test_listing_opens_no_picture(tmp_path, name, monkeypatch):
    root = BUILDERS[name](tmp_path)

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a picture was opened")

    monkeypatch.setattr(PillowImage, "open", refuse)
    monkeypatch.setattr("subprocess.Popen", refuse)
    assert find_samples(root)


def test_busi(tmp_path):
    samples = find_samples(busi(tmp_path))
    assert [s.path.stem for s in samples] == [
        "benign (2)", "benign (10)", "malignant (1)", "normal (1)", "normal (2)",
    ]  # fmt: skip
    assert [s.label for s in samples] == ["benign", "benign", "malignant", "normal", "normal"]
    assert [len(s.masks) for s in samples] == [1, 3, 1, 1, 0]
    assert len({s.group for s in samples}) == 5
    assert all(s.kind == "still" for s in samples)
    union = read_masks(samples[1].masks, read_still(samples[1].path).shape[:2])
    assert np.flatnonzero(union[5]).tolist() == [3, 7, 9]


def test_busi_as_downloaded(tmp_path):
    inner = find_samples(busi(tmp_path / "Dataset_BUSI_with_GT"))
    assert find_samples(tmp_path) == inner
    assert len(inner) == 5


def test_class_folders(tmp_path):
    samples = find_samples(class_folders(tmp_path))
    found = [(s.path.relative_to(tmp_path).as_posix(), s.kind, s.label, s.group, len(s.masks)) for s in samples]
    assert found == [
        ("loose.gif", "clip", None, "loose", 0),
        ("cyst/b2.bmp", "still", "cyst", "cyst/b2", 1),
        ("cyst/b10.jpg", "still", "cyst", "cyst/b10", 0),
        ("tumour/run1", "clip", "tumour", "tumour/run1", 0),
        ("tumour/v.mp4", "clip", "tumour", "tumour/v", 0),
        ("tumour/patient7/left.tif", "still", "tumour", "patient7", 0),
        ("tumour/patient7/2020/right.png", "still", "tumour", "patient7", 0),
    ]


def test_a_folder_of_frames_is_one_clip(tmp_path):
    write_clip(tmp_path / "run", np.zeros((3, 16, 16), np.uint8), 25)
    (sample,) = find_samples(tmp_path / "run")
    assert (sample.kind, sample.path) == ("clip", tmp_path / "run")


def test_single_files_and_manifests_by_name(tmp_path):
    root = with_manifest(tmp_path)
    assert find_samples(root / "manifest.csv") == read_manifest(root / "manifest.csv")
    (one,) = find_samples(root / "benign" / "benign (2).png")
    assert (one.kind, one.group) == ("still", "benign (2)")


def test_nothing_to_be_found(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("x")
    for name in ("empty", "text"):
        with pytest.raises(DataError, match=f"{name}' holds no stills or clips"):
            find_samples(tmp_path / name)
    with pytest.raises(DataError, match="in layout 'busi'"):
        find_samples(tmp_path / "text", "busi")
    with pytest.raises(DataError, match="does not exist"):
        find_samples(tmp_path / "none")
    with pytest.raises(DataError, match="neither a still nor a clip"):
        find_samples(tmp_path / "text" / "a.txt")
    with pytest.raises(DataError, match="Layout 'other' is unknown"):
        find_samples(tmp_path, "other")


def test_real_busi(shared_data):
    samples = find_samples(shared_data / "data" / "images" / "busi")
    assert len(samples) == 669
    assert Counter(s.label for s in samples) == {"benign": 374, "malignant": 184, "normal": 111}
    assert sum(len(s.masks) > 1 for s in samples) == 14
    assert all(s.masks for s in samples)
    for sample in samples[::83]:
        picture = read_still(sample.path)
        assert read_masks(sample.masks, picture.shape[:2]).any() == (sample.label != "normal")
