"""Splits: groups undivided, labels balanced, seeded."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from us_i2v.data.manifest import Sample
from us_i2v.data.splits import check_disjoint, check_split_groups, split_by_group
from us_i2v.errors import DataError

THREE = {"train": 0.6, "val": 0.2, "test": 0.2}


def cohort(n_groups: int = 60) -> list[tuple[str, str]]:
    """Patients with 1 to 4 items each, a third of them malignant."""
    return [("malignant" if g % 3 == 0 else "benign", f"p{g}") for g in range(n_groups) for _ in range(1 + g % 4)]


@pytest.mark.parametrize("seed", range(8))
def test_groups_are_whole_and_labels_balanced(seed):
    items = cohort()
    parts = split_by_group(items, THREE, seed)
    where = {}
    for (_, group), part in zip(items, parts, strict=True):
        assert where.setdefault(group, part) == part
    totals = Counter(label for label, _ in items)
    for label, total in totals.items():
        for part, share in THREE.items():
            found = sum(1 for item, p in zip(items, parts, strict=True) if item[0] == label and p == part)
            assert found / total == pytest.approx(share, abs=0.06)


def test_the_seed_decides_and_the_order_does_not():
    items = cohort()
    one = split_by_group(items, THREE, 0)
    assert one == split_by_group(items, THREE, 0)
    assert one != split_by_group(items, THREE, 1)
    backwards = split_by_group(items[::-1], THREE, 0)
    assert backwards[::-1] == one


def test_every_part_gets_a_group_even_if_there_are_few():
    for n in (3, 4, 5):
        parts = split_by_group([("a", f"p{i}") for i in range(n)], {"train": 0.9, "val": 0.05, "test": 0.05}, 0)
        assert set(parts) == {"train", "val", "test"}
    assert set(split_by_group([(None, "a"), (None, "b")], {"train": 0.8, "val": 0.2}, 3)) == {"train", "val"}


def test_a_group_with_two_labels_stays_whole():
    items = [("a", "x"), ("b", "x"), ("a", "y"), ("b", "z")]
    parts = split_by_group(items, {"train": 0.5, "val": 0.5}, 0)
    assert parts[0] == parts[1]


def test_too_few_groups():
    with pytest.raises(DataError, match=r"1 groups cannot be divided into 2 parts \(train, val\)"):
        split_by_group([("a", "p"), ("b", "p")], {"train": 0.5, "val": 0.5}, 0)


@pytest.mark.parametrize("fractions", [{}, {"train": 0.5}, {"train": 1.2, "val": -0.2}, {"train": 1.0, "val": 0.0}])
def test_wrong_fractions(fractions):
    with pytest.raises(DataError, match="fractions"):
        split_by_group(cohort(), fractions, 0)


def test_a_group_on_both_sides_is_named():
    with pytest.raises(DataError, match="Group 'p7' on both sides of a split: in 'train' and in 'test'"):
        check_disjoint(["p1", "p7"], ["p7", "p2"], ("train", "test"))
    with pytest.raises(DataError, match=r"9 groups, 'p0', .* \.\.\. on both sides"):
        check_disjoint([f"p{i}" for i in range(9)], [f"p{i}" for i in range(9)], ("train", "test"))
    check_disjoint(["p1"], ["p2"], ("train", "test"))


def test_stated_splits_are_checked():
    def sample(group: str, split: str | None) -> Sample:
        return Sample(Path("a.png"), "still", None, group, split)

    check_split_groups([sample("a", "train"), sample("a", "train"), sample("b", "val"), sample("a", None)])
    with pytest.raises(DataError, match="'b' on both sides of a split: in 'test' and in 'val'"):
        check_split_groups([sample("a", "train"), sample("b", "val"), sample("b", "test")])
