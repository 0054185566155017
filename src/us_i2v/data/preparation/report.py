"""What a preparation did, as `report.json` and as lines to print."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from us_i2v.data.atomic import write_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from us_i2v.data.manifest import Sample

REPORT = "report.json"
UNREADABLE = "unreadable"
_SHOWN = 8


class LeftOut(NamedTuple):
    """Something that is not in the new folder.

    Attributes:
        file: Its name in the source.
        cause: "unreadable", "duplicate", "near duplicate", "two classes", "erratum" or "no lesion".
        reason: The same in full.
    """

    file: str
    cause: str
    reason: str


class Related(NamedTuple):
    """Two pictures or videos that share a group, and why."""

    first: str
    second: str
    reason: str


@dataclass
class Report:
    """What a preparation did.

    Attributes:
        dataset: "busi" or "busv".
        unit: What is counted: "stills" or "videos".
        settings: The options.
        before: Number by class as found.
        after: Number by class as written; stretches of a video count singly.
        splits: Number by split and class.
        groups: Number of groups written.
        largest_group: Samples in the largest one.
        left_out: What is missing and why.
        related: What was found to belong together.
        conflicts: Pairs in two classes, dropped or not.
        erratum: Corrections and whether their video was there.
        notes: Anything else that a reader must know.
    """

    dataset: str
    unit: str
    settings: dict[str, object]
    before: dict[str, int] = field(default_factory=dict)
    after: dict[str, int] = field(default_factory=dict)
    splits: dict[str, dict[str, int]] = field(default_factory=dict)
    groups: int = 0
    largest_group: int = 0
    left_out: list[LeftOut] = field(default_factory=list)
    related: list[Related] = field(default_factory=list)
    conflicts: list[Related] = field(default_factory=list)
    erratum: list[dict[str, object]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def leave_out(self, file: str, cause: str, reason: str) -> None:
        """Note that something is not in the new folder."""
        self.left_out.append(LeftOut(file, cause, reason))

    def count(self, samples: Sequence[Sample]) -> None:
        """Fill in what was written."""
        self.after = count_labels([sample.label for sample in samples])
        sizes = Counter(sample.group for sample in samples)
        self.groups, self.largest_group = len(sizes), max(sizes.values(), default=0)
        for split in sorted({sample.split for sample in samples if sample.split}):
            self.splits[split] = count_labels([sample.label for sample in samples if sample.split == split])

    @property
    def unreadable(self) -> list[LeftOut]:
        """What could not be read."""
        return [entry for entry in self.left_out if entry.cause == UNREADABLE]

    def write(self, path: Path) -> None:
        """Write JSON, atomically; raises `OutputError`."""
        content = asdict(self)
        for key in ("left_out", "related", "conflicts"):
            content[key] = [entry._asdict() for entry in getattr(self, key)]
        write_bytes(path, (json.dumps(content, indent=2, sort_keys=True) + "\n").encode())

    def lines(self) -> list[str]:
        """Return what to print: counts before and after, then what was left out, corrected and found."""
        found = [f"{'class':<12}{'before':>8}{'after':>8}"]
        for label in sorted(self.before | self.after):
            found.append(f"{label:<12}{self.before.get(label, 0):>8}{self.after.get(label, 0):>8}")
        found.append(f"{'all':<12}{sum(self.before.values()):>8}{sum(self.after.values()):>8}")
        for split, counts in self.splits.items():
            listed = ", ".join(f"{label} {number}" for label, number in counts.items())
            found.append(f"{split}: {sum(counts.values())} ({listed})")
        found.append(f"groups: {self.groups}, the largest of {self.largest_group}")
        for entry in self.erratum:
            state = "applied" if entry["applied"] else "NOT APPLIED, no such video"
            found.append(f"erratum: {entry['video']}: {entry['action']} {entry['value']}: {state}")
        for cause, number in Counter(entry.cause for entry in self.left_out).items():
            found.append(f"left out, {cause}: {number}")
            listed_out = [entry for entry in self.left_out if entry.cause == cause]
            found += _shortened([f"  {entry.file}: {entry.reason}" for entry in listed_out])
        if self.conflicts:
            found.append(f"in two classes: {len(self.conflicts)} pairs")
            found += _shortened([f"  {pair.first} and {pair.second}: {pair.reason}" for pair in self.conflicts])
        return found + self.notes


def count_labels(labels: Sequence[str | None]) -> dict[str, int]:
    """Return the number by class, in the order of the classes' names."""
    return dict(sorted(Counter(label or "(none)" for label in labels).items()))


def _shortened(lines: list[str]) -> list[str]:
    rest = len(lines) - _SHOWN
    return lines if rest <= 0 else [*lines[:_SHOWN], f"  and {rest} more, see {REPORT}"]
