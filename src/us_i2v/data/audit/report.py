"""The report of an audit: plain values with stable keys, and the JSON file that holds them."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from us_i2v.data.atomic import write_bytes
from us_i2v.data.audit.findings import by_kind
from us_i2v.data.duplicates import SAME

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from us_i2v.data.audit.auditing import Audit
    from us_i2v.data.audit.records import Record
    from us_i2v.data.manifest import Sample

FORMAT_VERSION = 1
NO_LABEL = "(none)"


def summary(audit: Audit) -> dict[str, Any]:
    """Return the whole report without the single files.

    "samples", "classes", "splits" and "groups" count all samples of the data set; everything else counts the
    records, that is the samples that were read.
    """
    readable = [record for record in audit.records if record.error is None]
    clips = [record for record in readable if record.kind == "clip"]
    return {
        "format_version": FORMAT_VERSION,
        "samples": _kinds(audit.samples),
        "read": len(audit.records),
        "unreadable": len(audit.records) - len(readable),
        "classes": _by(audit.samples, "label"),
        "splits": _by(audit.samples, "split"),
        "groups": _groups(audit.samples),
        "sizes": {
            "stills": _sizes(record for record in readable if record.kind == "still"),
            "clips": _sizes(clips),
        },
        "colour": sum(record.colour for record in readable),
        "clips": {
            "frames": _spread([record.frames for record in clips]),
            "fps": _spread([record.fps for record in clips if record.fps is not None]),
            "effective_fps": _spread([record.effective_fps for record in clips if record.effective_fps is not None]),
            "fps_unknown": sum(record.fps is None for record in clips),
            "with_repeats": sum(record.repeats > 0 for record in clips),
            "beginning_black": sum(record.black_frames > 0 for record in clips),
        },
        "masks": _masks(audit.records),
        "duplicates": {
            "exact_pairs": sum(pair.exact for pair in audit.twins),
            "same_picture_pairs": sum(not pair.exact and pair.similarity >= SAME for pair in audit.twins),
            "related_pairs": sum(pair.similarity < SAME for pair in audit.twins),
        },
        "burned_in": _burned_in(readable),
        "other_files": audit.other_files,
        "findings": {kind: len(found) for kind, found in by_kind(audit.findings).items()},
        "problems": len(audit.problems),
    }


def write_report(path: Path, audit: Audit) -> None:
    """Write the summary, the findings, the pairs of duplicates and all records as JSON, atomically.

    Raises:
        OutputError: The file cannot be written.
    """
    names = [record.file for record in audit.records]
    content = {
        **summary(audit),
        "finding_list": [finding.as_json() for finding in audit.findings],
        "duplicate_pairs": [
            {
                "first": names[pair.first],
                "second": names[pair.second],
                "similarity": round(pair.similarity, 4),
                "exact": pair.exact,
            }
            for pair in audit.twins
        ],
        "records": [record.as_json() for record in audit.records],
    }
    write_bytes(path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


def _kinds(samples: Iterable[Sample]) -> dict[str, int]:
    counts = Counter(sample.kind for sample in samples)
    return {"stills": counts["still"], "clips": counts["clip"]}


def _by(samples: Sequence[Sample], part: str) -> dict[str, dict[str, int]]:
    """Return stills, clips, masks and groups by class or split."""
    found: dict[str, list[Sample]] = {}
    for sample in samples:
        found.setdefault(getattr(sample, part) or NO_LABEL, []).append(sample)
    return {
        value: {
            **_kinds(members),
            "masks": sum(len(sample.masks) for sample in members),
            "groups": len({sample.group for sample in members}),
        }
        for value, members in sorted(found.items())
    }


def _groups(samples: Sequence[Sample]) -> dict[str, Any]:
    counts = Counter(sample.group for sample in samples)
    return {
        "n": len(counts),
        "single": sum(n == 1 for n in counts.values()),
        "sizes": _spread(list(counts.values())),
        "largest": [{"group": group, "n": n} for group, n in counts.most_common(5)],
    }


def _sizes(records: Iterable[Record]) -> dict[str, Any]:
    sizes = Counter(record.size for record in records if record.size is not None)
    common = [{"width": size[1], "height": size[0], "n": n} for size, n in sizes.most_common(5)]
    return {
        "different": len(sizes),
        "width": _spread([size[1] for size in sizes.elements()]),
        "height": _spread([size[0] for size in sizes.elements()]),
        "most_common": common,
    }


def _masks(records: Iterable[Record]) -> dict[str, int]:
    counts = Counter(mask.state for record in records for mask in record.masks)
    return {
        "n": counts.total(),
        "ok": counts["ok"],
        "empty": counts["empty"],
        "other_size": counts["other size"],
        "unreadable": counts["unreadable"],
    }


def _burned_in(readable: Sequence[Record]) -> dict[str, Any]:
    """Return how many pictures hold text or other marks, and which share of the area of those that do."""
    labels = sorted({record.label or NO_LABEL for record in readable})
    text = [record for record in readable if record.text_lines]
    marks = [record for record in readable if record.mark_share > 0]
    by_class = {}
    for label in labels:
        own = [record for record in readable if (record.label or NO_LABEL) == label]
        by_class[label] = {
            "n": len(own),
            "text": sum(record.text_lines > 0 for record in own),
            "marks": sum(record.mark_share > 0 for record in own),
        }
    return {
        "text": len(text),
        "text_share": _spread([record.text_share for record in text]),
        "marks": len(marks),
        "mark_share": _spread([record.mark_share for record in marks]),
        "by_class": by_class,
    }


def _spread(values: Sequence[float]) -> dict[str, float] | None:
    """Return least, median and greatest value; None of nothing."""
    if not values:
        return None
    array = np.asarray(values, np.float64)
    return {
        "min": round(float(array.min()), 6),
        "median": round(float(np.median(array)), 6),
        "max": round(float(array.max()), 6),
    }
