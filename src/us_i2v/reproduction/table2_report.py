"""Table 2 as Markdown, JSON and plot, with the paper's figures beside ours."""

from __future__ import annotations

import dataclasses
import io
import json
import math
from typing import TYPE_CHECKING, Any

from us_i2v import __version__
from us_i2v.data.atomic import write_bytes
from us_i2v.evaluation.classification import TITLES
from us_i2v.evaluation.plot import check_plot
from us_i2v.evaluation.report import FEW_GROUPS, finite, interval_text
from us_i2v.models.classifiers import CLASSIFIERS
from us_i2v.reproduction.table2_paper import SOURCE
from us_i2v.reproduction.table2_scores import SHOWN
from us_i2v.reproduction.table2_settings import source_title

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from us_i2v.reproduction.table2_scores import Row, Table2

FORMAT_VERSION = 1
MISSING = "missing"
LISTED = 12
"""Missing cells that are named."""

_DIETS = {"real": "real only", "synthetic": "synthetic only", "both": "real + synthetic"}
_COLOURS = ("#2c3e50", "#c0392b", "#2980b9", "#27ae60", "#8e44ad", "#e67e22", "#16a085", "#7f8c8d", "#d35400")


def markdown(table: Table2, settings: dict[str, Any]) -> str:
    """Return the table as Markdown: in the paper's layout, in full, as differences from real, and what is missing."""
    lines = ["# Table 2", "", *_compact(table), "", *_full(table), "", *_differences(table)]
    if table.missing:
        named = ", ".join(f"`{name}`" for name in table.missing[:LISTED])
        more = f" and {len(table.missing) - LISTED} more" if len(table.missing) > LISTED else ""
        lines += ["", f"Missing: {len(table.missing)} of {table.cells} cells: {named}{more}."]
    lines += ["", *(f"- left out: {note}" for note in table.notes)] if table.notes else []
    if settings["folds"] > 1:
        lines += ["", f"Every patient is tested once ({settings['folds']} folds); AUC compares scores across folds."]
    few = [value.groups for row in table.rows for value in row.values.values() if value.groups < FEW_GROUPS]
    if few:
        lines += ["", f"Intervals over {min(few)} patients (fewer than {FEW_GROUPS}) are too narrow."]
    return "\n".join(lines) + "\n"


def write_table2(out: Path, table: Table2, settings: dict[str, Any], *, plot: bool) -> None:
    """Write table2.md, table2.json and, if asked, table2.png; raises `OutputError`."""
    write_bytes(out / "table2.md", markdown(table, settings).encode())
    text = json.dumps(document(table, settings), indent=1, allow_nan=False) + "\n"
    write_bytes(out / "table2.json", text.encode())
    if plot:
        write_plot(out / "table2.png", table)


def document(table: Table2, settings: dict[str, Any]) -> dict[str, Any]:
    """Return what the JSON file holds; unknown numbers are null."""
    rows = []
    for row in table.rows:
        values = dataclasses.asdict(row)
        values["paper"] = None if row.paper is None else row.paper._asdict()
        rows.append(values)
    found: dict[str, Any] = finite(
        {
            "format_version": FORMAT_VERSION,
            "package_version": __version__,
            "settings": settings,
            "classes": list(table.classes),
            "paper": SOURCE,
            "rows": rows,
            "pooled": [dataclasses.asdict(row) for row in table.pooled],
            "missing": list(table.missing),
            "cells": table.cells,
            "notes": list(table.notes),
        }
    )
    return found


def _compact(table: Table2) -> list[str]:
    """Lay the table out as the paper does: a line a classifier and ratio, F1 and accuracy in per cent."""
    columns = list(dict.fromkeys((row.diet, row.source, row.mix) for row in table.rows))
    columns.sort(key=lambda column: list(_DIETS).index(column[0]))
    lines = ["Macro F1 / accuracy in per cent, mean over seeds; in brackets the paper's.", ""]
    lines.append(f"| classifier | ratio | {' | '.join(_diet(*column) for column in columns)} |")
    lines.append("|---" * (len(columns) + 2) + "|")
    by_key = {(row.model, row.split, row.diet, row.source, row.mix): row for row in table.rows}
    for model, split in dict.fromkeys((row.model, row.split) for row in table.rows):
        cells = [_short(by_key.get((model, split, *column))) for column in columns]
        lines.append(f"| {CLASSIFIERS[model].title} | {split} | {' | '.join(cells)} |")
    return [*lines, "", f"In brackets: {SOURCE}. Other data than yours, unless yours are BUSV and BUSI; no target."]


def _short(row: Row | None) -> str:
    if row is None:
        return ""
    ours = MISSING
    if row.values:
        ours = f"{100 * row.values['macro_f1'].mean:.2f} / {100 * row.values['accuracy'].mean:.2f}"
    return ours if row.paper is None else f"{ours} ({row.paper.f1:.2f} / {row.paper.accuracy:.2f})"


def _full(table: Table2) -> list[str]:
    names = [name for name in SHOWN if name != "binary_f1" or len(table.classes) == 2]
    titles = [TITLES[name].format(table.classes[-1] if table.classes else "the last class") for name in names]
    lines = ["Mean over seeds [95 % interval over patients], +- standard deviation over seeds.", ""]
    lines.append(f"| classifier | ratio | trained on | clips | seeds | {' | '.join(titles)} |")
    lines.append("|---" * (len(names) + 5) + "|")
    for row in table.rows:
        cells = [_value(row, name) for name in names]
        first = f"| {CLASSIFIERS[row.model].title} | {row.split} | {_diet(row.diet, row.source, row.mix)}"
        clips = f"{row.clips:.0f}" if row.seeds else "-"
        lines.append(f"{first} | {clips} | {len(row.seeds)} of {row.wanted} | {' | '.join(cells)} |")
    tested = [value for row in table.rows for value in list(row.values.values())[:1]]
    if tested:
        videos, patients = _range([v.n for v in tested]), _range([v.groups for v in tested])
        lines += ["", f"Tested on {videos} videos of {patients} patients."]
    return lines


def _range(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"


def _value(row: Row, name: str) -> str:
    found = row.values.get(name)
    if found is None:
        return MISSING
    spread = row.spread[name]
    return interval_text(found) + (f" +- {spread:.3f}" if math.isfinite(spread) else "")


def _differences(table: Table2) -> list[str]:
    """Return what a diet gains over real only: by classifier, and over all of them."""
    if all(row.diet == "real" for row in table.rows):
        return []
    names = ("macro_f1", "accuracy", "auc")
    lines = ["Minus real only, paired by seed and patient [95 % interval over patients]:", ""]
    lines.append(f"| classifier | ratio | trained on | seeds | {' | '.join(TITLES[name] for name in names)} |")
    lines.append("|---" * (len(names) + 4) + "|")
    for row in table.rows:
        if row.diet != "real":
            cells = [interval_text(row.minus_real[name]) if name in row.minus_real else MISSING for name in names]
            first = f"| {CLASSIFIERS[row.model].title} | {row.split} | {_diet(row.diet, row.source, row.mix)}"
            lines.append(f"{first} | {row.paired_seeds} | {' | '.join(cells)} |")
    for pooled in table.pooled:
        cells = [interval_text(pooled.minus_real.get(name)) for name in names]
        first = f"| mean of {len(pooled.models)} | {pooled.split} | {_diet(pooled.diet, pooled.source, pooled.mix)}"
        lines.append(f"{first} | | {' | '.join(cells)} |")
    return lines


def _diet(diet: str, source: str, mix: str) -> str:
    how = "" if mix in ("", "all") else f", {mix}"
    return _DIETS[diet] + (f": {source_title(source)}{how}" if source else "")


def write_plot(path: Path, table: Table2) -> None:
    """Draw macro F1 of every diet, and what it gains over real only; raises `ConfigError`, `OutputError`."""
    check_plot()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    splits = list(dict.fromkeys(row.split for row in table.rows))
    kinds = list(dict.fromkeys((row.diet, row.source, row.mix) for row in table.rows))
    models = list(dict.fromkeys(row.model for row in table.rows))
    figure = Figure(figsize=(14, 1.5 + len(splits) * max(2.5, 0.16 * len(kinds) * len(models))), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(splits), 2, squeeze=False)
    for split, (left, right) in zip(splits, axes, strict=True):
        rows = [row for row in table.rows if row.split == split]
        _panel(left, rows, models, kinds, minus=False)
        _panel(right, rows, models, kinds, minus=True)
        left.set_title(f"{split}: macro F1", loc="left")
        right.set_title(f"{split}: macro F1 minus real only, paired", loc="left")
        right.axvline(0, color="black", lw=0.8)
    handles, labels = axes[0][0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110, metadata={"Software": None})
    write_bytes(path, content.getvalue())


def _panel(
    axis: Any, rows: Sequence[Row], models: Sequence[str], kinds: Sequence[tuple[str, str, str]], *, minus: bool
) -> None:
    labelled: set[int] = set()
    for row in rows:
        found = (row.minus_real if minus else row.values).get("macro_f1")
        if found is None:
            continue
        kind = kinds.index((row.diet, row.source, row.mix))
        y = models.index(row.model) + 0.8 * ((kind + 0.5) / len(kinds) - 0.5)
        colour = _COLOURS[kind % len(_COLOURS)]
        if math.isfinite(found.low) and math.isfinite(found.high):
            axis.plot([found.low, found.high], [y, y], color=colour, lw=2)
        label = None if kind in labelled else _diet(row.diet, row.source, row.mix)
        axis.plot(found.mean, y, "o", ms=4, color=colour, label=label)
        labelled.add(kind)
        if not minus and row.paper is not None:
            axis.plot(row.paper.f1 / 100, y, "x", ms=5, color=colour)
    axis.set_yticks(range(len(models)), [CLASSIFIERS[model].title for model in models])
    axis.set_ylim(len(models) - 0.5, -0.5)
