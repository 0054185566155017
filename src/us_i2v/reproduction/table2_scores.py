"""From the cells' test videos to the rows of Table 2.

A row is a diet of a classifier in one ratio. Of each seed, the folds' test videos are put together (every video tested
once) and scored; a seed of which a fold is missing does not count. Values are means over seeds, with

    spread      standard deviation over seeds (n - 1)
    interval    2.5th and 97.5th percentile, over bootstrap samples of patients, of the mean over seeds; all rows of a
                ratio are resampled alike
    minus real  value minus that of training on real videos only, over the seeds that both have: paired by seed, by
                patient and by bootstrap sample

The mean over classifiers of the last one pools them in the same way. Intervals hold patients as chance, seeds as given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from us_i2v.errors import DataError
from us_i2v.metrics.classification import Predictions, Scores, difference, scores
from us_i2v.metrics.intervals import Interval
from us_i2v.reproduction.table2_cells import all_cells
from us_i2v.reproduction.table2_jobs import read_result
from us_i2v.reproduction.table2_paper import Printed, printed

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from us_i2v.reproduction.table2_cells import Cell
    from us_i2v.reproduction.table2_jobs import CellResult
    from us_i2v.reproduction.table2_settings import Diet, Table2Settings

SHOWN = ("macro_f1", "binary_f1", "accuracy", "auc")
"""Scores that the table gives; binary F1 for two classes only."""

Key = tuple[str, str, str, "Diet", str]
"""(split, model, source, diet, mix) of a row."""


@dataclass(frozen=True)
class Row:
    """One diet of a classifier in one ratio.

    Attributes:
        split: Ratio.
        model: Classifier.
        diet: What it was trained on.
        source: What made the synthetic clips; empty for real ones.
        mix: How many of them beside real ones; empty otherwise.
        seeds: Those that are done.
        wanted: Number of seeds that were asked for.
        values: Mean over seeds with its interval, by score.
        spread: Standard deviation over seeds, by score; NaN for one seed.
        minus_real: By score; empty for real ones, or where one of both is missing.
        paired_seeds: Seeds behind `minus_real`.
        clips: Training clips, mean over seeds and folds.
        paper: The paper's cell.
    """

    split: str
    model: str
    diet: Diet
    source: str
    mix: str
    seeds: tuple[int, ...]
    wanted: int
    values: dict[str, Interval]
    spread: dict[str, float]
    minus_real: dict[str, Interval]
    paired_seeds: int
    clips: float
    paper: Printed | None


@dataclass(frozen=True)
class Pooled:
    """A diet's mean difference from real only over the classifiers that have both."""

    split: str
    diet: Diet
    source: str
    mix: str
    models: tuple[str, ...]
    minus_real: dict[str, Interval]


@dataclass(frozen=True)
class Table2:
    """The table.

    Attributes:
        classes: The last one is positive.
        rows: In the order of the settings.
        pooled: Likewise.
        missing: Ids of cells that are not done.
        cells: Number of all cells.
        notes: What was left out, and what the reader must know.
    """

    classes: tuple[str, ...]
    rows: tuple[Row, ...]
    pooled: tuple[Pooled, ...]
    missing: tuple[str, ...]
    cells: int
    notes: tuple[str, ...]


def collect(out: Path, settings: Table2Settings, plan: str, notes: Sequence[str] = ()) -> Table2:
    """Read all results that there are, and score them; nothing is made.

    Raises:
        DataError: A result is damaged or of other settings, or two cells tested different videos.
    """
    cells = all_cells(settings)
    results = {cell: read_result(out, cell, plan) for cell in cells}
    groups: dict[Key, dict[int, list[CellResult | None]]] = {}
    for cell, result in results.items():
        if cell.stage == "classify" and cell.diet is not None and cell.seed is not None:
            own = groups.setdefault((cell.split, cell.model, cell.source, cell.diet, cell.mix), {})
            own.setdefault(cell.seed, []).append(result)
    _check_tested(results)
    by_seed = {key: _by_seed(folds) for key, folds in groups.items()}
    rows, paired = [], {}
    for split in settings.splits:
        for model in settings.models:
            for key in [key for key in groups if key[:2] == (split, model)]:
                real = by_seed.get((split, model, "", "real", ""), {})
                row, both = _row(key, by_seed[key], real, groups[key])
                rows.append(row)
                if both is not None:
                    paired[key] = both
    return Table2(
        classes=settings.classes,
        rows=tuple(rows),
        pooled=tuple(_pooled(paired, settings)),
        missing=tuple(cell.id for cell, result in results.items() if result is None),
        cells=len(cells),
        notes=(*notes, *_notes(results)),
    )


def mean_scores(several: Sequence[Scores]) -> Scores:
    """Average scores of the same videos and resampling: values, and bootstrap samples one by one.

    Raises:
        DataError: They are not of the same videos.
    """
    first = several[0]
    if any((one.n, one.groups) != (first.n, first.groups) for one in several):
        raise DataError("Scores of different test videos cannot be averaged.", "Remove the cells and make them again.")
    names = [name for name in first.values if all(name in one.values for one in several)]
    return Scores(
        {name: float(np.mean([one.values[name] for one in several])) for name in names},
        {name: np.mean([one.samples[name] for one in several], axis=0) for name in names},
        first.n,
        first.groups,
    )


def _check_tested(results: dict[Cell, CellResult | None]) -> None:
    """Raise `DataError`, naming a cell, if two classifiers of a split and fold were tested on different videos."""
    first: dict[str, tuple[Cell, set[tuple[str, str, str]]]] = {}
    for cell, result in results.items():
        if cell.stage != "classify" or result is None:
            continue
        own = {(video.file, video.group, video.label) for video in result.videos}
        other, known = first.setdefault(cell.place, (cell, own))
        if own != known:
            file = min(own ^ known)[0]
            fewer, more = (cell, other) if len(own) < len(known) else (other, cell)
            raise DataError(
                f"Cells {cell.id} and {other.id} were not tested on the same videos ('{file}').",
                f"Remove folder 'cells/{fewer.id}' in RUN, or that of {more.id}, to make it again.",
            )


def _by_seed(folds: dict[int, list[CellResult | None]]) -> dict[int, Scores]:
    """Score the seeds of which all folds are there."""
    found = {}
    for seed, results in folds.items():
        there = [result for result in results if result is not None]
        if len(there) == len(results):
            classes = list(there[0].classes)
            videos = [video for result in there for video in result.videos]
            p = np.array([video.probabilities for video in videos])
            truth = [classes.index(video.label) for video in videos]
            found[seed] = scores(Predictions.of(p, truth, [video.group for video in videos]))
    return found


def _row(
    key: Key, own: dict[int, Scores], real: dict[int, Scores], folds: dict[int, list[CellResult | None]]
) -> tuple[Row, tuple[Scores, Scores] | None]:
    split, model, source, diet, mix = key
    values: dict[str, Interval] = {}
    spread: dict[str, float] = {}
    if own:
        mean = mean_scores(list(own.values()))
        shown = [name for name in SHOWN if name in mean.values]
        values = {name: mean.interval(name) for name in shown}
        spread = {name: _deviation([one.values[name] for one in own.values()]) for name in shown}
    common = [seed for seed in own if seed in real] if diet != "real" else []
    both = None
    if common:
        both = mean_scores([own[seed] for seed in common]), mean_scores([real[seed] for seed in common])
    clips = [float(one.clips) for seed in own for one in folds[seed] if one is not None]
    row = Row(
        split=split,
        model=model,
        diet=diet,
        source=source,
        mix=mix,
        seeds=tuple(own),
        wanted=len(folds),
        values=values,
        spread=spread,
        minus_real={} if both is None else _minus(*both),
        paired_seeds=len(common),
        clips=float(np.mean(clips)) if clips else 0.0,
        paper=printed(model, split, diet, source),
    )
    return row, both


def _minus(ours: Scores, theirs: Scores) -> dict[str, Interval]:
    return {name: difference(ours, theirs, name) for name in SHOWN if name in ours.values and name in theirs.values}


def _pooled(paired: dict[Key, tuple[Scores, Scores]], settings: Table2Settings) -> Iterable[Pooled]:
    for split in settings.splits:
        kinds = dict.fromkeys((key[3], key[2], key[4]) for key in paired if key[0] == split)
        for diet, source, mix in kinds:
            own = {model: paired.get((split, model, source, diet, mix)) for model in settings.models}
            there = {model: both for model, both in own.items() if both is not None}
            ours, theirs = (mean_scores([both[side] for both in there.values()]) for side in (0, 1))
            yield Pooled(split, diet, source, mix, tuple(there), _minus(ours, theirs))


def _deviation(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")


def _notes(results: dict[Cell, CellResult | None]) -> list[str]:
    notes = []
    for cell, result in results.items():
        if result is None:
            continue
        if cell.stage == "make" and result.left_out:
            notes.append(f"{cell.id}: {len(result.left_out)} stills, which could not be read")
        failed = sum(value == 0 for value in result.quality.values())
        if failed:
            notes.append(f"{cell.id}: {failed} of {result.clips} clips, which failed, where the best ones are taken")
    untested = {
        (cell.place, file): why
        for cell, result in results.items()
        if result is not None and cell.stage == "classify"
        for file, why in result.left_out.items()
    }
    notes += [
        f"split {place}, test video {file} could not be classified: {why}" for (place, file), why in untested.items()
    ]
    return notes
