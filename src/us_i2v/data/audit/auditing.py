"""The audit of a data set: read every sample once, compare the pictures, and say what was found.

Memory: one picture or two frames at a time, and about 10 kB a sample for its record and fingerprint.
"""

from __future__ import annotations

import os
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from us_i2v.data.audit.findings import Finding, Twins, find_all
from us_i2v.data.audit.scan import Scanned, relative, scan_sample
from us_i2v.data.duplicates import find_pairs
from us_i2v.data.manifest import Sample, kind_of
from us_i2v.seeding import numpy_generator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from us_i2v.data.audit.records import Record

    Progress = Callable[[int, int, str], None]
    Stage = Callable[[str], AbstractContextManager[Progress]]


@dataclass(frozen=True)
class Audit:
    """All that was found out about a data set.

    Attributes:
        root: Its folder.
        samples: All its samples.
        records: Those that were read, in the order of `samples`.
        twins: Exact and near duplicates among the records.
        findings: Problems and notes.
        other_files: Number of other files in the folder by ending.
    """

    root: Path
    samples: Sequence[Sample]
    records: Sequence[Record]
    twins: Sequence[Twins]
    findings: Sequence[Finding]
    other_files: dict[str, int]

    @property
    def problems(self) -> list[Finding]:
        """The findings that are problems."""
        return [finding for finding in self.findings if finding.problem]


@contextmanager
def silent(what: str) -> Iterator[Progress]:
    """Yield a progress function that does nothing."""
    yield lambda done, total, name: None


def audit(
    samples: Sequence[Sample], root: Path, *, at_most: int | None = None, seed: int = 0, stage: Stage = silent
) -> Audit:
    """Audit a data set.

    Args:
        samples: As `data.datasets.find_samples` lists them.
        root: The data set's folder.
        at_most: Read only so many samples, drawn at random; None reads all. Counts of classes, splits and
            groups are of all samples in any case.
        seed: Of that draw.
        stage: Gives a progress function for each stage by its name.
    """
    chosen = draw(samples, at_most, seed)
    scanned: list[Scanned] = []
    with stage("read") as progress:
        for done, sample in enumerate(chosen, 1):
            scanned.append(scan_sample(sample, root))
            progress(done, len(chosen), sample.path.name)
    records = [entry.record for entry in scanned]
    with stage("compare") as progress:
        twins = find_twins(scanned, progress)
    unused, other = other_files(root, samples)
    return Audit(root, samples, records, twins, find_all(samples, records, twins, unused), other)


def draw(samples: Sequence[Sample], at_most: int | None, seed: int) -> list[Sample]:
    """Draw `at_most` samples at random, in their order; all if there are no more."""
    if at_most is None or at_most >= len(samples):
        return list(samples)
    chosen = numpy_generator(seed, "inspect").choice(len(samples), at_most, replace=False)
    return [samples[index] for index in sorted(chosen.tolist())]


def find_twins(scanned: Sequence[Scanned], progress: Progress) -> list[Twins]:
    """Find exact and near duplicates: files by their hash, first pictures by their fingerprints.

    A clip is compared by its first frame that is not black, with stills too. Clips whose first frames agree but
    whose files do not are alike, not exact.
    """
    places = [index for index, entry in enumerate(scanned) if entry.print is not None]
    prints = [entry.print for entry in scanned if entry.print is not None]
    found: dict[tuple[int, int], Twins] = {}
    for pair in find_pairs(prints, progress=progress):
        first, second = places[pair.first], places[pair.second]
        stills = scanned[first].record.kind == scanned[second].record.kind == "still"
        found[first, second] = Twins(first, second, pair.similarity, pair.exact and stills)
    by_hash: dict[str, int] = {}
    for index, entry in enumerate(scanned):
        if entry.record.sha256 is not None:
            first = by_hash.setdefault(entry.record.sha256, index)
            if first != index:
                found[first, index] = Twins(first, index, 1.0, True)
    return [found[key] for key in sorted(found)]


def other_files(root: Path, samples: Sequence[Sample]) -> tuple[list[str], dict[str, int]]:
    """List pictures and clips in the folder that no sample uses, and count its other files by ending.

    Hidden files and folders are passed over; a folder of frames counts as one clip.
    """
    used = {sample.path for sample in samples} | {mask for sample in samples for mask in sample.masks}
    unused: list[str] = []
    other: Counter[str] = Counter()
    for folder, folders, files in os.walk(root):
        place = Path(folder)
        if place in used:
            folders.clear()
            continue
        names = sorted(name for name in (*folders, *files) if not name.startswith("."))
        clips = {name for name in names if name in folders and kind_of(place / name) == "clip"}
        folders[:] = [name for name in names if name in folders and name not in clips]
        for path in (place / name for name in names if name not in folders):
            if path not in used and kind_of(path) is None:
                other[path.suffix.lower()] += 1
            elif path not in used:
                unused.append(relative(path, root))
    return unused, dict(sorted(other.items()))
