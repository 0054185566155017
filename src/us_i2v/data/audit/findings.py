"""What the audit finds: problems, which spoil a training or a measurement, and notes, which are good to know."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from us_i2v.data.duplicates import SAME, components, members

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from us_i2v.data.audit.records import MaskRecord, Record
    from us_i2v.data.manifest import Sample

PROBLEMS = {
    "unreadable": "files that cannot be read",
    "mask-unreadable": "masks that cannot be read",
    "mask-size": "masks of another size than their picture",
    "mask-empty": "empty masks in a class that has lesions",
    "black": "black pictures, and clips that begin black",
    "two-classes": "one picture in two classes",
    "leak": "one picture in two splits",
    "group-in-two-splits": "groups in two splits",
    "duplicates-apart": "one picture in different groups",
}
"""Kinds of problems and what they are, in the order of the report. `--strict` fails if there is any."""

NOTES = {
    "related-apart": "pairs that may come from one scan, in different groups",
    "duplicates-together": "one picture several times within one group",
    "group-in-two-classes": "groups in two classes",
    "mask-empty-class": "classes with empty masks only",
    "text": "pictures with burned-in text",
    "repeats": "clips with repeated frames",
    "no-rate": "clips whose frame rate is not known",
    "unused": "pictures and clips that the layout does not use",
}
"""Kinds of notes and what they are."""


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes:
        kind: A key of `PROBLEMS` or `NOTES`.
        files: Whom it concerns, relative to the data set.
        text: It in one line.
    """

    kind: str
    files: tuple[str, ...]
    text: str

    @property
    def problem(self) -> bool:
        """Whether it is a problem; else it is a note."""
        return self.kind in PROBLEMS

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {"problem": self.problem, **asdict(self)}


class Twins(NamedTuple):
    """Two samples that are one, or alike.

    Attributes:
        first: Index of one record.
        second: Index of the other; larger.
        similarity: 1 if exact, else below 1; see `data.duplicates`.
        exact: The files' bytes agree, or all pixels of two stills.
    """

    first: int
    second: int
    similarity: float
    exact: bool


def find_all(
    samples: Sequence[Sample], records: Sequence[Record], twins: Sequence[Twins], unused: Sequence[str] = ()
) -> list[Finding]:
    """List everything that is wrong or worth knowing, problems first, in the order of the tables above.

    Args:
        samples: All samples of the data set.
        records: Of those that were read.
        twins: Pairs of records.
        unused: Pictures and clips that no sample uses.
    """
    found = [
        *_of_files(records),
        *_of_masks(records),
        *_of_groups(samples),
        *_of_twins(records, twins),
        *(Finding("unused", (name,), f"{name}: no sample or mask of this layout") for name in unused),
    ]
    order = {kind: place for place, kind in enumerate([*PROBLEMS, *NOTES])}
    return sorted(found, key=lambda finding: order[finding.kind])


def _of_files(records: Sequence[Record]) -> Iterable[Finding]:
    for record in records:
        name = record.file
        if record.error is not None:
            yield Finding("unreadable", (name,), record.error if name in record.error else f"{name}: {record.error}")
            continue
        if record.black_frames:
            all_black = record.black_frames == record.frames
            what = "it is black" if all_black else f"begins with {_count(record.black_frames, 'black frame')}"
            yield Finding("black", (name,), f"{name}: {what}")
        if record.text_lines:
            yield Finding(
                "text", (name,), f"{name}: {_count(record.text_lines, 'line')}, {record.text_share:.2%} of its area"
            )
        if record.repeats:
            yield Finding(
                "repeats", (name,), f"{name}: {record.repeats} of {record.frames} frames repeat the one before"
            )
        if record.kind == "clip" and record.fps is None:
            yield Finding("no-rate", (name,), f"{name}: states no frame rate")


def _of_masks(records: Sequence[Record]) -> Iterable[Finding]:
    states: dict[str | None, Counter[str]] = defaultdict(Counter)
    for record in records:
        states[record.label].update(mask.state for mask in record.masks)
    without = {label for label, counts in states.items() if label and counts["empty"] and not counts["ok"]}
    for label in sorted(str(label) for label in without):
        files = tuple(mask.file for record in records if record.label == label for mask in record.masks)
        yield Finding("mask-empty-class", files, f"class '{label}': all {len(files)} masks are empty")
    kinds = {"unreadable": "mask-unreadable", "other size": "mask-size", "empty": "mask-empty"}
    for record in records:
        for mask in record.masks:
            if mask.state != "ok" and not (mask.state == "empty" and record.label in without):
                yield Finding(kinds[mask.state], (mask.file, record.file), _mask_text(mask))


def _mask_text(mask: MaskRecord) -> str:
    return mask.why if mask.file in mask.why else f"{mask.file}: {mask.why}"


def _of_groups(samples: Sequence[Sample]) -> Iterable[Finding]:
    """Groups in two splits (a problem) or two classes (a note: one patient may have two lesions)."""
    for kind, part in (("group-in-two-splits", "split"), ("group-in-two-classes", "label")):
        parts: dict[str, Counter[str]] = defaultdict(Counter)
        for sample in samples:
            value = getattr(sample, part)
            if value is not None:
                parts[sample.group][value] += 1
        for group, counts in sorted(parts.items()):
            if len(counts) > 1:
                listed = ", ".join(f"{value} ({n})" for value, n in sorted(counts.items()))
                yield Finding(kind, (), f"group '{group}': {listed}")


def _of_twins(records: Sequence[Record], twins: Sequence[Twins]) -> Iterable[Finding]:
    """One picture several times: a finding a connected set; in two classes or splits, or merely related: one a pair.

    What is merely related (`RELATED` to `SAME`) is a note: scans of other organs share more structure than the
    breast stills that those limits come from.
    """
    same = [pair for pair in twins if pair.similarity >= SAME]
    for pair in twins:
        first, second = records[pair.first], records[pair.second]
        files = (first.file, second.file)
        alike = f"{files[0]} = {files[1]}" if pair.exact else f"{files[0]} ~ {files[1]} ({pair.similarity:.2f})"
        if pair.similarity < SAME:
            if first.group != second.group:
                parts = f": {first.split} and {second.split}" if _differ(first.split, second.split) else ""
                yield Finding("related-apart", files, alike + parts)
            continue
        if _differ(first.label, second.label):
            yield Finding("two-classes", files, f"{alike}: {first.label} and {second.label}")
        if _differ(first.split, second.split):
            yield Finding("leak", files, f"{alike}: {first.split} and {second.split}")
    component_of = components(len(records), [(pair.first, pair.second) for pair in same])
    near = {component_of[pair.first] for pair in same if not pair.exact}
    for found in members(component_of):
        if len(found) > 1:
            yield _duplicates(
                [records[index] for index in found], "near" if component_of[found[0]] in near else "exact"
            )


def _duplicates(found: Sequence[Record], what: str) -> Finding:
    groups = {record.group for record in found}
    files = tuple(record.file for record in found)
    listed = ", ".join(files[:4]) + (" ..." if len(files) > 4 else "")
    kind = "duplicates-apart" if len(groups) > 1 else "duplicates-together"
    return Finding(kind, files, f"{len(files)} files, {what}, {_count(len(groups), 'group')}: {listed}")


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def _differ(first: str | None, second: str | None) -> bool:
    return first is not None and second is not None and first != second


def by_kind(findings: Iterable[Finding]) -> dict[str, list[Finding]]:
    """Return findings by kind, every kind in order, also those with none."""
    found: dict[str, list[Finding]] = {kind: [] for kind in (*PROBLEMS, *NOTES)}
    for finding in findings:
        found[finding.kind].append(finding)
    return found
