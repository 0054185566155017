"""Table 1 as Markdown, JSON and plot, beside the paper's figures.

The paper's numbers are of other data (BUSV) and of an unknown number of clips; they stand beside ours to be seen,
not to be hit.
"""

from __future__ import annotations

import dataclasses
import io
import json
from typing import TYPE_CHECKING, Any

from us_i2v import __version__
from us_i2v.data.atomic import write_bytes
from us_i2v.evaluation.compare import ALL
from us_i2v.evaluation.divisions import paired_difference
from us_i2v.evaluation.plot import check_plot
from us_i2v.evaluation.report import finite, interval_text
from us_i2v.metrics.diversity import DTI3D_SCALE
from us_i2v.metrics.intervals import Interval, mean_interval

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from us_i2v.evaluation.results import Part
    from us_i2v.reproduction.table1 import RowResult, Table1

FORMAT_VERSION = 1

PAPER = {
    "cinn": {"fvd": 58.98, "dtfvd": 0.62, "lpips": 0.33, "div": 2.23},
    "lddm-paper": {"fvd": 53.82, "dtfvd": 0.58, "lpips": 0.32, "div": 1.07},
}
"""Chen et al. 2024, Table 1 (BUSV; which split, how many videos and which DIV it does not say)."""


_PAIRED = {"lpips": "LPIPS", "ssim": "SSIM", "psnr": "PSNR, dB", "l1": "L1, gray levels"}

Columns = dict[str, list[str]]
"""Cells by column title, a row each."""

MODEL = "lddm-base"
"""The method whose paired differences from every other row are printed."""


def markdown(table: Table1) -> str:
    """Return the table by source, the paired differences and what was left out, as Markdown."""
    first = next(iter(table.rows.values()))
    lines = []
    for part in first.comparison.parts:
        lines += [f"### {part}", "", *_by_source(table, part), ""]
    lines += _paper()
    lines += ["", *(f"- left out: {text}" for text in table.left_out)]
    return "\n".join(lines).rstrip() + "\n"


def write_table1(out: Path, table: Table1, settings: dict[str, Any], *, plot: bool) -> None:
    """Write table1.md, table1.json and, if asked, table1.png; raises `OutputError`."""
    write_bytes(out / "table1.md", markdown(table).encode())
    write_bytes(out / "table1.json", (json.dumps(document(table, settings), indent=1, allow_nan=False) + "\n").encode())
    if plot:
        write_plot(out / "table1.png", table)


def document(table: Table1, settings: dict[str, Any]) -> dict[str, Any]:
    """Return what the JSON file holds."""
    rows = {}
    for key, row in table.rows.items():
        parts = {name: dataclasses.asdict(part) for name, part in row.comparison.parts.items()}
        several, minus = {}, {}
        for name in parts:
            energy, diversity = _energy(row, name), _diversity(row, name)
            minus[name] = {
                network: dataclasses.asdict(value)
                for network in row.comparison.parts[name].distances
                if (value := _distance_minus(table, key, name, network)) is not None
            }
            several[name] = {
                "energy": {k: dataclasses.asdict(v) for k, v in energy.items()},
                "energy_base_minus_this": {k: dataclasses.asdict(v) for k, v in _base_minus(table, key, name).items()},
                "diversity": {k: dataclasses.asdict(v) for k, v in diversity.items()},
            }
        rows[key] = {
            "title": row.title,
            "parts": parts,
            "frechet_base_minus_this": minus,
            "several": several,
            "paper": PAPER.get(key),
        }
    found: dict[str, Any] = finite(
        {
            "format_version": FORMAT_VERSION,
            "package_version": __version__,
            "settings": settings,
            "windows": table.windows,
            "stills": table.stills,
            "left_out": list(table.left_out),
            "rows": rows,
        }
    )
    return found


def write_plot(path: Path, table: Table1) -> None:
    """Draw each row's Frechet distances, energy scores and decorrelation; raises `ConfigError`, `OutputError`."""
    check_plot()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    name = _widest(table)
    figure = Figure(figsize=(15, 5), layout="constrained")
    FigureCanvasAgg(figure)
    left, middle, right = figure.subplots(1, 3)
    titles = [row.title for row in table.rows.values()]
    parts = [row.comparison.parts[name] for row in table.rows.values()]
    key = next(iter(parts[0].distances), None)
    if key is not None and parts[0].distances[key].frechet:
        distances = [part.distances[key] for part in parts]
        _bars(left, titles, [d.frechet["fake"] for d in distances])
        left.axvline(distances[0].frechet["floor"].mean, color="black", lw=1, ls="--", label="real/real floor")
        left.set_xlabel(distances[0].name.split(" (")[0] + f", n={distances[0].n}")
        left.legend(fontsize=8)
    energies = [_energy(row, name) for row in table.rows.values()]
    distance = next((d for d in ("lpips", "motion") if all(d in energy for energy in energies)), None)
    if distance is not None:
        _bars(middle, titles, [energy[distance] for energy in energies])
        middle.set_xlabel(f"energy score, {distance} ({table.stills} stills)")
    for title, part in zip(titles, parts, strict=True):
        if part.decorrelation is not None:
            right.plot(part.decorrelation.fake.mean, label=title, lw=1)
    if parts[0].decorrelation is not None:
        real = parts[0].decorrelation.real
        right.plot(real.mean, color="black", lw=2, label="real")
        right.fill_between(range(len(real.mean)), real.low, real.high, color="black", alpha=0.2, lw=0)
    right.set_xlabel("frame")
    right.set_ylabel("correlation of speckle with frame 0")
    right.legend(fontsize=7)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110, metadata={"Software": None})
    write_bytes(path, content.getvalue())


def _bars(axis: Any, titles: Sequence[str], values: Sequence[Interval]) -> None:
    for y, value in enumerate(values):
        axis.plot([value.low, value.high], [y, y], color="#2c3e50", lw=2)
        axis.plot(value.mean, y, "o", color="#c0392b")
    axis.set_yticks(range(len(titles)), titles)
    axis.invert_yaxis()
    axis.set_xlim(left=0)


def _by_source(table: Table1, name: str) -> list[str]:
    parts = {key: row.comparison.parts[name] for key, row in table.rows.items()}
    one = next(iter(parts.values()))
    lines = [f"{one.n_real} held-out windows of {one.groups} groups; [95 % intervals over groups].", ""]
    distances: Columns = {}
    for network, found in one.distances.items():
        lines += [f"- {found.name}: {_floor(found.frechet, claim=found.claim)}"]
        lines += [f"  - {warning}" for warning in found.warnings]
        label = found.name.split(" (")[0]
        cells = [_distances(part, network) for part in parts.values()]
        what = (label, f"{label}: closed", f"{label}: kernel x 1000", f"{label}: critic AUC")
        distances |= {title: list(column) for title, column in zip(what, zip(*cells, strict=True), strict=True)}
        less = [_distance_minus(table, key, name, network) for key in parts]
        if any(less):
            distances[f"{label}: base minus this"] = [interval_text(value) for value in less]
    paired: Columns = {}
    for number, label in _PAIRED.items():
        if number in one.paired:
            paired[label] = [interval_text(part.paired.get(number, {}).get("fake")) for part in parts.values()]
    several: Columns = {}
    for distance in _energy(next(iter(table.rows.values())), name):
        several[f"energy score, {distance}"] = [
            interval_text(_energy(row, name).get(distance)) for row in table.rows.values()
        ]
        several[f"base minus this, {distance}"] = [
            interval_text(_base_minus(table, key, name).get(distance)) for key in parts
        ]
    for network in _diversity(next(iter(table.rows.values())), name):
        label = one.distances[network].name.split(" (")[0].removeprefix("FVD-")
        factor, unit = diversity_unit(network)
        several[f"DIV on {label}{unit}"] = [
            interval_text(_diversity(row, name).get(network), factor) for row in table.rows.values()
        ]
    titles = [row.title for row in table.rows.values()]
    for columns in (distances, paired, several):
        if columns:
            lines += ["", *_grid(titles, columns)]
    return [*lines, "", *_distributions(table, parts)]


def _grid(titles: Sequence[str], columns: Columns) -> list[str]:
    """Return a Markdown table with a row a title."""
    lines = [f"| row | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    rows = zip(titles, zip(*columns.values(), strict=True), strict=True)
    return lines + [f"| {title} | {' | '.join(cells)} |" for title, cells in rows]


def _distributions(table: Table1, parts: dict[str, Part]) -> list[str]:
    one = next(iter(parts.values()))
    if not one.distributions:
        return []
    names = list(one.distributions)
    lines = ["Medians over clips (mean difference from the real partner):", ""]
    lines += [f"| row | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    real = [found.real for found in one.distributions.values()]
    lines.append("| real | " + " | ".join("-" if s is None else f"{s.median:.3g}" for s in real) + " |")
    for key, part in parts.items():
        cells = []
        for name in names:
            found = part.distributions[name]
            shown = "-" if found.fake is None else f"{found.fake.median:.3g}"
            cells.append(shown if found.difference is None else f"{shown} ({found.difference.mean:+.3g})")
        lines.append(f"| {table.rows[key].title} | {' | '.join(cells)} |")
    return lines


def _distances(part: Part, network: str) -> list[str]:
    found = part.distances[network]
    if not found.claim:
        return [f"no claim (n={found.n})", "-", _kernel(found.kernel), interval_text(found.critic.get("fake"))]
    closed = found.frechet.get("closed")
    return [
        interval_text(found.frechet["fake"]),
        interval_text(closed),
        _kernel(found.kernel),
        interval_text(found.critic.get("fake")),
    ]


def _kernel(lines: dict[str, Interval]) -> str:
    return interval_text(lines.get("fake"), 1000)


def _floor(frechet: dict[str, Interval], *, claim: bool) -> str:
    if not claim or "floor" not in frechet:
        return "no claim"
    return f"real/real floor {interval_text(frechet['floor'])}, frame 0 repeated {interval_text(frechet.get('repeat'))}"


def _energy(row: RowResult, name: str) -> dict[str, Interval]:
    if row.several is None or (name != ALL and name not in row.several.energy.sources):
        return {}
    return row.several.energy.intervals(None if name == ALL else name)


def _base_minus(table: Table1, key: str, name: str) -> dict[str, Interval]:
    base, other = table.rows.get(MODEL), table.rows[key]
    if key == MODEL or base is None or base.several is None or other.several is None or not _energy(other, name):
        return {}
    return base.several.energy.less(other.several.energy, None if name == ALL else name)


def _distance_minus(table: Table1, key: str, name: str, network: str) -> Interval | None:
    """Return base's Frechet distance minus a row's, on the same divisions; None without a claim."""
    base = table.rows.get(MODEL)
    if key == MODEL or base is None:
        return None
    ours, theirs = (row.comparison.parts[name].distances[network] for row in (base, table.rows[key]))
    if not (ours.claim and theirs.claim):
        return None
    return paired_difference(ours.frechet["fake"], theirs.frechet["fake"], ours.samples, theirs.samples)


def _diversity(row: RowResult, name: str) -> dict[str, Interval]:
    if row.several is None:
        return {}
    energy = row.several.energy
    chosen = [k for k, source in enumerate(energy.sources) if name in (ALL, source)]
    groups = [energy.groups[k] for k in chosen]
    return {key: mean_interval(v[chosen], groups) for key, v in row.several.diversity.items() if chosen}


def diversity_unit(network: str) -> tuple[float, str]:
    """Return what DIV is multiplied by in the table, and how the title says so.

    cINN's evaluation (Dorkenwald 2021) scales DIV on pooled features, not that on I3D's logits.
    """
    return (1.0, "") if network == "fvd" else (DTI3D_SCALE, f" x {DTI3D_SCALE:.0f}")


def _widest(table: Table1) -> str:
    """Return the part with all sources, or the only one."""
    parts = next(iter(table.rows.values())).comparison.parts
    return ALL if ALL in parts else next(iter(parts))


def _paper() -> list[str]:
    lines = ["The paper's own Table 1 (BUSV; another data set, number of clips not stated):", ""]
    lines += ["| method | FVD | DTFVD | LPIPS | DIV |", "|---|---|---|---|---|"]
    titles = {"cinn": "cINN", "lddm-paper": "LDDM"}
    lines += [f"| {titles[key]} | {' | '.join(str(v) for v in values.values())} |" for key, values in PAPER.items()]
    return lines
