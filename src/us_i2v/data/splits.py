"""Splits by group: what belongs together (a patient, a recording set, near-duplicates) is never divided.

Groups are taken in a seeded order, the large ones first, and each goes to the part whose share of the group's
labels lacks most. The result depends on the seed and the items, not on their order.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from us_i2v.errors import DataError
from us_i2v.seeding import derive_seed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from us_i2v.data.manifest import Sample


def in_turn(groups: Sequence[str]) -> list[int]:
    """Return all indices, one of each group in turn: the first of every group, then the second ones, and so on."""
    by_group: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        by_group.setdefault(group, []).append(index)
    turns = max(map(len, by_group.values()), default=0)
    return [rows[turn] for turn in range(turns) for rows in by_group.values() if turn < len(rows)]


def split_by_group(items: Sequence[tuple[str | None, str]], fractions: Mapping[str, float], seed: int) -> list[str]:
    """Assign every item to a part, stratified by label, groups undivided.

    Args:
        items: (label, group) of each item.
        fractions: Share of each part, for example {"train": 0.8, "val": 0.2}; positive, their sum is 1.
        seed: Chooses the assignment.

    Returns:
        The part of each item, in the order of `items`. Every part gets at least one group.

    Raises:
        DataError: The fractions do not add up, or there are fewer groups than parts.
    """
    _check_fractions(fractions)
    counts: dict[str, Counter[str | None]] = defaultdict(Counter)
    for label, group in items:
        counts[group][label] += 1
    if len(counts) < len(fractions):
        raise DataError(
            f"{len(counts)} groups cannot be divided into {len(fractions)} parts ({', '.join(fractions)}).",
            "Add data of other groups, or ask for fewer parts.",
        )
    totals: Counter[str | None] = Counter(label for label, _ in items)
    missing = {part: {label: share * n for label, n in totals.items()} for part, share in fractions.items()}
    order = sorted(counts, key=lambda group: (-counts[group].total(), derive_seed(seed, "split", group)))
    assigned: dict[str, str] = {}
    for group in order:
        need = {
            part: sum(n * missing[part][label] / totals[label] for label, n in counts[group].items())
            for part in fractions
        }
        part = max(fractions, key=lambda name: (need[name], fractions[name]))
        assigned[group] = part
        for label, n in counts[group].items():
            missing[part][label] -= n
    _fill_empty_parts(assigned, fractions, order)
    return [assigned[group] for _, group in items]


def check_disjoint(first: Iterable[str], second: Iterable[str], names: tuple[str, str]) -> None:
    """Raise `DataError` naming the groups that are on both sides.

    Args:
        first: Groups of one side.
        second: Groups of the other.
        names: What the sides are called in the message, for example ("train", "test").
    """
    shared = sorted(set(first) & set(second))
    if shared:
        listed = ", ".join(f"'{group}'" for group in shared[:5]) + (" ..." if len(shared) > 5 else "")
        plural = "Group" if len(shared) == 1 else f"{len(shared)} groups,"
        raise DataError(
            f"{plural} {listed} on both sides of a split: in '{names[0]}' and in '{names[1]}'.",
            "Put all files of a group on one side.",
        )


def check_split_groups(samples: Sequence[Sample]) -> None:
    """Raise `DataError` if a group of `samples` is in two of their stated splits."""
    groups: dict[str, set[str]] = defaultdict(set)
    for sample in samples:
        if sample.split:
            groups[sample.split].add(sample.group)
    parts = sorted(groups)
    for index, part in enumerate(parts):
        for other in parts[index + 1 :]:
            check_disjoint(groups[part], groups[other], (part, other))


def _fill_empty_parts(assigned: dict[str, str], fractions: Mapping[str, float], order: Sequence[str]) -> None:
    """Give each part without a group the smallest group of the part that has most."""
    for part in fractions:
        sizes = Counter(assigned.values())
        if not sizes[part]:
            richest = max(fractions, key=lambda name: sizes[name])
            assigned[next(group for group in reversed(order) if assigned[group] == richest)] = part


def _check_fractions(fractions: Mapping[str, float]) -> None:
    total = sum(fractions.values())
    if not fractions or min(fractions.values()) <= 0 or not math.isclose(total, 1.0, abs_tol=1e-6):
        stated = ", ".join(f"{part} {share:g}" for part, share in fractions.items()) or "none"
        raise DataError(f"Split fractions are {stated}; positive ones with the sum 1 are needed.", "Correct them.")
