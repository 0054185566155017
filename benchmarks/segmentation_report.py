"""Results of `segmentation.py` as JSON, Markdown and a plot, made of the trainings' result.json alone."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from segmentation_pictures import ARMS, EXPLORED

from us_i2v import __version__
from us_i2v.data.atomic import write_bytes
from us_i2v.errors import DataError
from us_i2v.evaluation.report import finite, interval_text
from us_i2v.metrics.intervals import Interval, mean_interval, paired_interval

Result = dict[str, Any]

OURS = "generated"
NAMES = {
    "static": "stills alone",
    "affine": "affine variants",
    "elastic": "elastic variants",
    "generated": "**generated clips**",
    "moved": "generated clips, affine changes of their frames (not fixed beforehand)",
}
COLOURS = {"static": "#7f8c8d", "affine": "#2980b9", "elastic": "#2c3e50", "generated": "#c0392b", "moved": "#e67e22"}


@dataclasses.dataclass(frozen=True)
class Row:
    """An arm at one size, over the seeds that all of its arms have.

    Attributes:
        arm: Its name.
        stills: Training stills.
        seeds: Those that were averaged.
        values: By "last" or "best" and measure, (N,) one a test still, mean over seeds.
        by_seed: Mean Dice of each seed.
        groups: Of the test stills with a lesion, and of those without.
    """

    arm: str
    stills: int
    seeds: tuple[int, ...]
    values: dict[str, dict[str, np.ndarray]]
    by_seed: tuple[float, ...]
    groups: dict[str, list[str]]

    def interval(self, name: str, weights: str = "last") -> Interval | None:
        """Mean of a measure with its interval over groups; None without such stills."""
        values = self.values[weights][name]
        return mean_interval(values, self._groups(name)) if len(values) else None

    def minus(self, other: Row, name: str = "dice", weights: str = "last") -> Interval:
        """This arm minus another, paired by still."""
        return paired_interval(self.values[weights][name], other.values[weights][name], self._groups(name))

    def _groups(self, name: str) -> list[str]:
        return self.groups["normal" if name in ("marked", "any") else "lesion"]


def rows_of(results: Sequence[Result]) -> dict[int, list[Row]]:
    """Rows by size; seeds count that every arm of the size has finished, so that all are averaged alike."""
    found: dict[int, list[Row]] = {}
    for size in sorted({r["size"] for r in results}, key=lambda n: n or float("inf")):
        own = {(r["arm"], r["seed"]): r for r in results if r["size"] == size}
        seeds = [s for s in sorted({s for _, s in own}) if all((arm, s) in own for arm in ARMS)]
        if seeds:
            arms = [*ARMS, *(arm for arm in EXPLORED if all((arm, s) in own for s in seeds))]
            _check_paired([own[arm, seed] for arm in arms for seed in seeds])
            found[size] = [_row(arm, [own[arm, seed] for seed in seeds]) for arm in arms]
    return found


def _check_paired(some: Sequence[Result]) -> None:
    """Raise `DataError` unless all results are of the same test stills in the same order: they are paired by place."""
    first = some[0]
    for other in some[1:]:
        if any(other[side] != first[side] for side in ("lesion", "normal")):
            one, two = (f"{r['arm']}-{r['size'] or 'all'}-{r['seed']}" for r in (first, other))
            raise DataError(f"Runs {one} and {two} were tested on other stills.", "Remove one of them and run again.")


def _row(arm: str, some: Sequence[Result]) -> Row:
    first = some[0]
    values = {}
    for weights in ("last", "best"):
        values[weights] = {name: np.mean([r[weights][name] for r in some], axis=0) for name in first[weights]}
        values[weights]["any"] = np.mean([np.array(r[weights]["marked"]) > 0 for r in some], axis=0)
    by_seed = tuple(float(np.mean(r["last"]["dice"])) for r in some)
    groups = {name: first[name]["groups"] for name in ("lesion", "normal")}
    return Row(arm, first["stills"], tuple(r["seed"] for r in some), values, by_seed, groups)


def helps(rows: Sequence[Row]) -> bool:
    """Whether generated clips are better than every other arm, by the rule that was fixed beforehand."""
    ours = next(row for row in rows if row.arm == OURS)
    return all(ours.minus(row).low > 0 for row in rows if row is not ours and row.arm in ARMS)


def write_report(out: Path, results: Sequence[Result], settings: dict[str, Any]) -> None:
    """Write segmentation.json, segmentation.md and segmentation.png; raises `OutputError`."""
    rows = rows_of(results)
    write_bytes(out / "segmentation.json", (json.dumps(document(rows, settings), indent=1) + "\n").encode())
    write_bytes(out / "segmentation.md", markdown(rows, settings, len(results)).encode())
    write_bytes(out / "segmentation.png", picture(rows))


def document(rows: dict[int, list[Row]], settings: dict[str, Any]) -> dict[str, Any]:
    """What the JSON file holds; unknown limits are null."""
    sizes = []
    for size, some in rows.items():
        ours = next(row for row in some if row.arm == OURS)
        arms = {}
        for row in some:
            found = {weights: {n: row.interval(n, weights) for n in row.values[weights]} for weights in row.values}
            differences = {} if row is ours else {weights: ours.minus(row, "dice", weights) for weights in row.values}
            arms[row.arm] = {
                key: {n: _plain(v) for n, v in entry.items()} if key in row.values else entry
                for key, entry in found.items()
            }
            arms[row.arm] |= {
                "dice_by_seed": row.by_seed,
                "generated_minus": {weights: _plain(value) for weights, value in differences.items()},
            }
        sizes.append({"size": size, "stills": ours.stills, "seeds": ours.seeds, "helps": helps(some), "arms": arms})
    found = finite({"package_version": __version__, "settings": settings, "sizes": sizes})
    return dict(found)


def _plain(found: Interval | dict[str, Any] | None) -> Any:
    return dataclasses.asdict(found) if isinstance(found, Interval) else found


def markdown(rows: dict[int, list[Row]], settings: dict[str, Any], finished: int) -> str:
    """The tables."""
    lines = [
        "# Segmentation with generated clips",
        "",
        f"U-Net of width {settings['width']} on {settings['side']}x{settings['side']} pictures, {settings['steps']} "
        f"steps of {settings['batch']}; {settings['pictures']} pictures of each training still in every arm, "
        f"{settings['pictures'] - 1} of them in `generated` from {settings['clips']} clips. {finished} trainings are "
        "finished.",
    ]
    if not rows:
        return "\n".join([*lines, "", "No seed is finished in all arms yet."]) + "\n"
    first = next(iter(rows.values()))[0]
    lesion, normal = first.groups["lesion"], first.groups["normal"]
    lines += [
        f"Test: {len(lesion)} stills with a lesion of {len(set(lesion))} groups, {len(normal)} without one of "
        f"{len(set(normal))}. Values are averaged over seeds for each still first; [95 % intervals over groups of the "
        "test stills]: they do not contain how much another choice of training stills matters; the seeds show that.",
    ]
    for some in rows.values():
        ours = next(row for row in some if row.arm == OURS)
        lines += [
            "",
            f"## {ours.stills} training stills, seeds {', '.join(map(str, ours.seeds))}",
            "",
            "| arm | **Dice** | generated minus it | by seed | Dice, best on validation | generated minus it | IoU "
            "| HD95, share of side | no lesion: marked at all | marked area |",
            "|---" * 10 + "|",
        ]
        for row in some:
            differences = ["-" if row is ours else interval_text(ours.minus(row, "dice", w)) for w in ("last", "best")]
            cells = [
                NAMES[row.arm],
                interval_text(row.interval("dice")),
                differences[0],
                ", ".join(f"{value:.3f}" for value in row.by_seed),
                interval_text(row.interval("dice", "best")),
                differences[1],
                *(interval_text(row.interval(name)) for name in ("iou", "hd95", "any", "marked")),
            ]
            lines.append(f"| {' | '.join(cells)} |")
        verdict = "better than each of the other arms" if helps(some) else "not better than every other arm"
        lines += ["", f"By the rule that was fixed beforehand, generated clips are **{verdict}** at this size."]
    return "\n".join(lines) + "\n"


def picture(rows: dict[int, list[Row]]) -> bytes:
    """Draw Dice of each arm by size, and generated minus the others."""
    figure = Figure(figsize=(12, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for x, some in enumerate(rows.values()):
        ours = next(row for row in some if row.arm == OURS)
        for k, row in enumerate(some):
            place, label = x + 0.12 * (k - 1.5), NAMES[row.arm].replace("**", "") if x == 0 else None
            _bar(left, place, row.interval("dice"), COLOURS[row.arm], label)
            left.plot([place] * len(row.by_seed), row.by_seed, "_", color=COLOURS[row.arm], ms=9)
            if row is not ours:
                _bar(right, place, ours.minus(row), COLOURS[row.arm], label and f"minus {label}")
    names = [f"{some[0].stills} stills" for some in rows.values()]
    for axis, label in ((left, "Dice (dashes: seeds)"), (right, "Dice, generated clips minus other arm")):
        axis.set_xticks(range(len(names)), names)
        axis.set_ylabel(label)
        if names:
            axis.legend(fontsize=8, loc="upper left")
    right.axhline(0.0, color="black", lw=1)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110, metadata={"Software": None})
    return content.getvalue()


def _bar(axis: Any, x: float, value: Interval | None, colour: str, label: str | None) -> None:
    if value is not None:
        axis.plot([x, x], [value.low, value.high], color=colour, lw=2)
        axis.plot(x, value.mean, "o", color=colour, label=label)
