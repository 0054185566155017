"""The report of a privacy check: Markdown for people, JSON with every clip."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

from us_i2v import __version__
from us_i2v.data.atomic import write_bytes
from us_i2v.evaluation.report import FEW_GROUPS

if TYPE_CHECKING:
    from pathlib import Path

    from us_i2v.evaluation.privacy import Checked, Count, PrivacyResult
    from us_i2v.metrics.intervals import Interval

FORMAT_VERSION = 2
STILL = "first frame is a near-copy of a training picture"


def document(result: PrivacyResult) -> dict[str, Any]:
    """Return everything as a mapping for JSON."""
    header = result.fitted.header
    return {
        "format_version": FORMAT_VERSION,
        "package_version": __version__,
        "settings": result.settings,
        "quantile": header.quantile,
        "held_auc": header.held_auc,
        "thresholds": {
            name: {
                "by_windows": [held.threshold(count, header.quantile) for count in range(1, header.windows + 1)],
                "windows": len(held.similarities),
                "clips": held.n_clips,
                "groups": held.n_groups,
            }
            for name, held in result.fitted.held.items()
        },
        "counts": {name: dataclasses.asdict(count) for name, count in result.counts.items()},
        "first_frames": None if result.seeds is None else dataclasses.asdict(result.seeds),
        "clips": [dataclasses.asdict(clip) for clip in result.clips],
        "notes": list(result.notes),
    }


def write_report(path: Path, result: PrivacyResult) -> Path:
    """Write a Markdown report to `path` and the JSON beside it, whose path is returned; raises `OutputError`."""
    beside = path.with_suffix(".json")
    write_bytes(beside, (json.dumps(document(result), indent=1, allow_nan=False) + "\n").encode())
    write_bytes(path, ("\n".join(markdown(result)) + "\n").encode())
    return beside


def summary(result: PrivacyResult) -> list[str]:
    """Return the table as lines of Markdown."""
    lines = [
        "| measure | copies | of clips | share [95 %] | of strangers | copies with a still that is a near-copy "
        "| threshold | from |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, count in result.counts.items():
        held = result.fitted.held[name]
        source = f"{held.n_clips} held-out clips of {held.n_groups} groups"
        still = "not asked" if count.by_still is None else count.by_still
        low, high = (f"{value:.4f}" for value in count.thresholds)
        limit = low if low == high else f"{low} to {high}"
        lines.append(f"| {name} | {_cells(count)} | {count.strangers:.3f} | {still} | {limit} | {source} |")
    if result.seeds is not None:
        lines.append(f"| {STILL} | {_cells(result.seeds)} | | | | |")
    return lines


def remarks(result: PrivacyResult) -> list[str]:
    """Return what the reader must know about the numbers."""
    header, settings = result.fitted.header, result.settings
    shares = ", ".join(f"{count.strangers:.1%} ({name})" for name, count in result.counts.items())
    text = [
        f"Compared with {settings['training_windows']} windows of {settings['training_clips']} training clips.",
        f"By construction about {shares} of strangers' clips are above the thresholds.",
    ]
    if header.held_auc is not None:
        text.append(
            f"Held-out pairs of one clip against pairs of two groups: the network has an AUC of {header.held_auc:.3f}."
        )
    few = min(result.fitted.held[name].n_groups for name in result.counts)
    if few < FEW_GROUPS:
        text.append(f"The thresholds come from {few} held-out groups: they are rough.")
    return [*text, *(f"{note}." for note in result.notes)]


def markdown(result: PrivacyResult) -> list[str]:
    """Return the whole report as lines."""
    lines = ["# Privacy check", "", *summary(result), "", *(f"- {text}" for text in remarks(result)), ""]
    copies = [clip for clip in result.clips if any(match.copy for match in clip.matches.values())]
    if copies:
        lines += [
            "## Copies",
            "",
            "| clip | measure | training clip | group | similarity | threshold | held-out as high |",
        ]
        lines += ["|---|---|---|---|---|---|---|"]
        lines += [line for clip in copies for line in _pairs(clip)]
        lines.append("")
    stills = [clip for clip in result.clips if clip.seed is not None]
    if stills:
        lines += ["## First frames", "", "| clip | training clip | group | similarity | |", "|---|---|---|---|---|"]
        lines += [
            f"| {_cell(clip.name)} | {_cell(clip.seed.clip)} | {_cell(clip.seed.group)} | {clip.seed.similarity:.3f} | "
            f"{'mirrored' if clip.seed.mirrored else ''} |"
            for clip in stills
            if clip.seed is not None
        ]
        lines.append("")
    return [
        *lines,
        "A generated clip identifies its patient as much as its still does: frame 0 is the still. This check says "
        "whether clips repeat the training set, not whether they are anonymous.",
    ]


def _pairs(clip: Checked) -> list[str]:
    return [
        f"| {_cell(clip.name)} | {name} | {_cell(match.clip)} | {_cell(match.group)} | {match.similarity:.4f} | "
        f"{match.threshold:.4f} | {match.as_high:.3f} |"
        for name, match in clip.matches.items()
        if match.copy
    ]


def _cells(count: Count) -> str:
    return f"{count.copies} | {count.share.n} | {_share(count.share)}"


def _share(interval: Interval) -> str:
    return f"{interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}], {interval.groups} groups"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
