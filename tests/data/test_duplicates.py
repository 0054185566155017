"""Duplicates: what counts as one picture, what does not, and the groups."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from tests.data.textures import scan
from us_i2v.data.alignment import align, warp
from us_i2v.data.duplicates import (
    RELATED,
    SAME,
    Pair,
    components,
    find_pairs,
    fingerprint,
    in_two_classes,
    members,
    similarity,
)
from us_i2v.data.stills import read_still
from us_i2v.data.transforms import resize
from us_i2v.types import Image


def near_duplicate(picture: Image) -> Image:
    """The picture cropped unevenly, smaller, darker, with a caption and callipers."""
    part = picture[5:-2, 3:-9]
    changed = resize(part, (part.shape[0] * 5 // 6, part.shape[1] * 5 // 6)).astype(np.float64) * 0.8
    changed[10:16, 10:50] = 255
    changed[60:64, 60] = changed[62, 58:62] = 255
    return changed.astype(np.uint8)


def test_an_affine_map_is_found_back() -> None:
    picture = resize(scan(1), (96, 96)).astype(np.float64)
    shift = np.array([[2.5, 3.0, -1.0], [-4.0, 0.5, 2.0]])
    moved, _ = warp(picture, shift)
    # `moved` shows at p what `picture` shows at p + shift(p): laying `picture` on it gives the shift.
    assert np.abs(align(moved, picture) - shift).max() < 0.1
    assert np.abs(align(picture, picture)).max() == 0


def test_near_duplicates_are_alike_and_strangers_are_not() -> None:
    pictures = [scan(seed) for seed in range(6)]
    prints = [fingerprint(picture) for picture in pictures]
    for picture, entry in zip(pictures, prints, strict=True):
        copy = fingerprint(near_duplicate(picture))
        assert similarity(entry, copy) > SAME
        assert similarity(copy, entry) > SAME
    strangers = [similarity(a, b) for i, a in enumerate(prints) for b in prints[i + 1 :]]
    assert max(strangers) < RELATED / 2


def test_pairs_groups_and_exact_copies() -> None:
    first, second = scan(1), scan(2)
    pictures = [first, scan(3), near_duplicate(first), second, first.copy(), np.repeat(second[..., None], 3, axis=2)]
    pairs = find_pairs([fingerprint(picture) for picture in pictures])
    assert [(pair.first, pair.second, pair.exact) for pair in pairs] == [
        (0, 2, False), (0, 4, True), (2, 4, False), (3, 5, False),
    ]  # fmt: skip
    assert pairs[1].similarity == 1.0
    # Gray as three channels looks the same and is not the same array: readers collapse it before.
    assert pairs[3].similarity == pytest.approx(1.0)
    component = components(6, [pair[:2] for pair in pairs])
    assert component == [0, 1, 0, 3, 0, 3]
    assert members(component) == [[0, 2, 4], [1], [3, 5]]
    labels = ["benign", "normal", "malignant", "benign", None, "benign"]
    assert [pair[:2] for pair in in_two_classes(pairs, labels)] == [(0, 2)]


def test_pictures_of_one_source_are_not_compared() -> None:
    prints = [fingerprint(scan(1))] * 3
    assert [pair[:2] for pair in find_pairs(prints, sources=["a", "a", "b"])] == [(0, 2), (1, 2)]


def test_likeness_below_one_picture_is_no_conflict() -> None:
    assert in_two_classes([Pair(0, 1, SAME - 0.01, False)], ["a", "b"]) == []
    assert len(in_two_classes([Pair(0, 1, SAME, False)], ["a", "b"])) == 1


def test_blank_pictures_make_no_pairs() -> None:
    assert find_pairs([fingerprint(np.full((60, 70), 9, np.uint8))] * 2) == []
    assert find_pairs([]) == []


def test_components_do_not_depend_on_the_order_of_pairs() -> None:
    pairs = [(4, 5), (1, 4), (0, 2), (5, 2)]
    assert components(7, pairs) == components(7, pairs[::-1]) == [0, 0, 0, 3, 0, 0, 6]


def test_real_near_duplicates_are_found(shared_data: Path) -> None:
    """Against the groups that the data's own manifest states, on the stills of one half of the groups.

    All of its pairs are found. Further pairs are right as far as eyes can tell (its list is not complete).
    """
    with (shared_data / "data" / "manifest.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["file"].startswith("images/busi")]
    rows = [row for row in rows if "_mask" not in row["file"] and int(row["patient_or_group"].split("-")[1]) % 2]
    prints = [fingerprint(read_still(shared_data / "data" / row["file"])) for row in rows]
    groups = [row["patient_or_group"] for row in rows]
    stated = {(i, j) for i, a in enumerate(groups) for j, b in enumerate(groups[i + 1 :], i + 1) if a == b}
    found = {pair[:2] for pair in find_pairs(prints)}
    assert len(rows) > 300
    assert len(stated) > 60
    assert len(found & stated) == len(stated)
    assert len(found & stated) > 0.85 * len(found)
