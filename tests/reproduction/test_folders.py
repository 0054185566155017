import csv

import numpy as np
import pytest

from us_i2v.data.datasets import find_samples
from us_i2v.errors import DataError
from us_i2v.reproduction.folders import divided


def clips(folder, groups, split=None):
    folder.mkdir()
    rows = []
    for k, group in enumerate(groups):
        np.savez(folder / f"c{k}.npz", frames=np.full((4, 16, 16), k, np.uint8), fps=np.float32(10))
        rows.append({"file": f"c{k}.npz", "label": "", "group": group, "split": split[k] if split else ""})
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["file", "label", "group", "split"])
        writer.writeheader()
        writer.writerows(rows)
    return folder


def test_stated_splits_are_kept(tmp_path):
    folder = clips(tmp_path / "a", ["p", "q"], ["train", "test"])
    assert divided([folder], tmp_path / "out", 0.7, 0) == [folder]
    assert not (tmp_path / "out").exists()


def test_others_are_divided_by_group_into_folders_of_links(tmp_path):
    folder = clips(tmp_path / "a", list("ppqqrrsstt"))
    (made,) = divided([folder], tmp_path / "out", 0.6, 0)
    samples = find_samples(made)
    assert len(samples) == 10
    sides = {split: {s.group for s in samples if s.split == split} for split in ("train", "test")}
    assert sides["train"] | sides["test"] == set("pqrst")
    assert not sides["train"] & sides["test"]
    assert len(sides["train"]) == 3
    originals = {s.path.resolve() for s in samples}
    assert originals == {folder.resolve() / f"c{k}.npz" for k in range(10)}
    # A second call finds the same division, whatever the seed would choose now.
    assert divided([folder], tmp_path / "out", 0.6, 5) == [made]
    assert [s.split for s in find_samples(made)] == [s.split for s in samples]


def test_half_stated_splits_are_an_error(tmp_path):
    folder = clips(tmp_path / "a", ["p", "q"], ["train", ""])
    with pytest.raises(DataError, match="1 of 2"):
        divided([folder], tmp_path / "out", 0.7, 0)


def test_one_group_cannot_be_divided(tmp_path):
    folder = clips(tmp_path / "a", ["p", "p"])
    with pytest.raises(DataError, match="1 groups cannot be divided"):
        divided([folder], tmp_path / "out", 0.7, 0)
    assert not list((tmp_path / "out").rglob("manifest.csv"))
