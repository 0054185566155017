"""The card of an augmented data set, `README.md`: what it is, where it comes from, what it is not.

It is made from the manifest's rows and the settings, as the manifest is from the plan, so the same run gives the same
bytes. Its head (YAML between two lines "---") is what the Hugging Face hub reads from data sets.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import TYPE_CHECKING, Any

from us_i2v.config import flatten

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from us_i2v.augmentation.settings import AugmentSettings

CARD_NAME = "README.md"
RESULTS_NAME = "results.json"
"""What `us-i2v evaluate -o OUT/results.json` writes; a run that finds it puts its distances into the card."""
NOT_STATED = "not stated"
_LARGEST = 1 << 24


def card(
    rows: Sequence[Mapping[str, str]],
    settings: AugmentSettings,
    skipped: int,
    results: str = "",
    rejected: int | None = None,
) -> str:
    """Return the card's text.

    Args:
        rows: Rows of the manifest, see `manifest.COLUMNS`.
        settings: What the folder is pinned to.
        skipped: Stills that could not be read.
        results: Lines about metrics, see `measured`.
        rejected: Clips that were made and rejected for their quality; None if none were judged.
    """
    labels = sorted({row["label"] for row in rows})
    values = flatten(settings.model_dump(mode="json"))
    splits = Counter(row["split"] or "none stated" for row in rows)
    lines = [
        "---",
        f"license: {json.dumps(settings.license or 'other')}",
        "tags: [synthetic, ultrasound, us-i2v]",
        "---",
        "",
        "# Synthetic ultrasound clips",
        "",
        f"Every clip here was generated from a still by us-i2v {settings.version}. Motion is plausible, not measured: "
        "not for diagnosis. Frame 0 of a clip is its still, so a clip identifies a patient as much as its still does. "
        "`us-i2v verify` says of each file whether it is as it was made.",
        "",
        "| | |",
        "|---|---|",
        f"| clips | {len(rows)} |",
        f"| stills | {len({row['source'] for row in rows})} |",
        f"| groups (patients) | {len({row['group'] for row in rows})} |",
        f"| clips with masks | {sum(bool(row['mask']) for row in rows)} |",
        f"| stills that could not be read | {skipped} |",
        *([] if rejected is None else [f"| clips rejected for their quality, see `quality.csv` | {rejected} |"]),
        *(f"| split: {_cell(name)} | {splits[name]} |" for name in sorted(splits)),
        f"| source of the stills | {_cell(settings.source or NOT_STATED)} |",
        f"| licence | {_cell(settings.license or NOT_STATED + '; that of the stills and of the weights bind')} |",
        "",
        "| class | clips | stills |",
        "|---|---|---|",
        *(_class_row(label, rows) for label in labels),
        "",
        "`manifest.csv` lists every clip with its label, group, split, still, seed and weights. `settings.json` holds:",
        "",
        "| setting | value |",
        "|---|---|",
        *(f"| `{key}` | {_cell(json.dumps(value))} |" for key, value in values.items()),
        "",
    ]
    return "\n".join(lines) + results


def measured(path: Path) -> str:
    """Return lines about the Frechet distances in a file of `us-i2v evaluate`; nothing if there is no such file."""
    try:
        if path.stat().st_size > _LARGEST:
            return ""
        parts = json.loads(path.read_text(encoding="utf-8"))["parts"]
        rows = [
            (name, distances["name"], line, values)
            for name, part in parts.items()
            for distances in part["distances"].values()
            for line, values in distances["frechet"].items()
        ]
        lines = [
            f"| {_cell(name)} | {_cell(label)} | {_cell(line)} | {_interval(values)} | {int(values['n'])} |"
            for name, label, line, values in rows
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ""
    head = ["## Measured against real clips", "", f"From `{RESULTS_NAME}`, which holds the rest.", ""]
    head += ["| part | distance | of | mean [95 % interval] | n |", "|---|---|---|---|---|"]
    return "\n".join([*head, *lines, ""]) if lines else ""


def _class_row(label: str, rows: Sequence[Mapping[str, str]]) -> str:
    own = [row for row in rows if row["label"] == label]
    return f"| {_cell(label or 'none')} | {len(own)} | {len({row['source'] for row in own})} |"


def _interval(values: Mapping[str, Any]) -> str:
    mean, low, high = (math.nan if values[name] is None else float(values[name]) for name in ("mean", "low", "high"))
    return f"{mean:.4g}" if math.isnan(low) or math.isnan(high) else f"{mean:.4g} [{low:.4g}, {high:.4g}]"


def _cell(text: str) -> str:
    """Return a text that stays in its cell."""
    return " ".join(text.split()).replace("|", "\\|")
