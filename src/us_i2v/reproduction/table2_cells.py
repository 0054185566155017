"""The cells of Table 2: pieces of work that are done once, in any order that their needs allow, by any process.

    train/SPLIT/METHOD                          a generator on the split's training videos
    make/SPLIT/SOURCE                           clips of all stills (of the training videos: `reconstructed`)
    judge/SPLIT/SOURCE                          these clips' quality by the split's training videos
    classify/SPLIT/MODEL/DIET[-SOURCE[-MIX]]/sN a classifier, trained with seed N and tested

SPLIT is "7-3", with folds "7-3.f0"; "all" for what no split concerns.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from us_i2v.augmentation.planning import Shard
from us_i2v.errors import ConfigError
from us_i2v.models.classifiers import NAMES
from us_i2v.reproduction.methods import METHODS
from us_i2v.reproduction.table2_settings import CONTROLS, DIETS, MIX, UNJUDGED, best_share

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from us_i2v.reproduction.table2_settings import Diet, Table2Settings

Stage = Literal["train", "make", "judge", "classify"]
STAGES: tuple[Stage, ...] = get_args(Stage)
SHARED = frozenset({"bundled"})
"""Sources that do not depend on the split."""


@dataclass(frozen=True)
class Cell:
    """One piece of work; what does not apply to its stage is empty.

    Attributes:
        stage: What is done.
        split: "7:3"; empty for what no split concerns.
        fold: Number of the fold; None without folds.
        source: Generator or control.
        model: Classifier.
        diet: What it is trained on.
        mix: How many synthetic clips go with real ones.
        seed: Of the classifier.
    """

    stage: Stage
    split: str = ""
    fold: int | None = None
    source: str = ""
    model: str = ""
    diet: Diet | None = None
    mix: str = ""
    seed: int | None = None

    @property
    def place(self) -> str:
        """The split and fold, as in names of folders."""
        return place_name(self.split, self.fold)

    @property
    def id(self) -> str:
        """Unique name; also the path of its folder below RUN/cells."""
        if self.stage != "classify":
            return f"{self.stage}/{self.place}/{self.source}"
        eaten = "-".join(part for part in (self.diet, self.source, self.mix) if part)
        return f"classify/{self.place}/{self.model}/{eaten}/s{self.seed}"


def place_name(split: str, fold: int | None) -> str:
    """Return "7-3", "7-3.f0", or "all" for an empty split."""
    name = split.replace(":", "-") or "all"
    return name if fold is None else f"{name}.f{fold}"


def all_cells(settings: Table2Settings) -> list[Cell]:
    """Return all cells, needs before what needs them."""
    folds = [None] if settings.folds == 1 else list(range(settings.folds))
    places = [(split, fold) for split in settings.splits for fold in folds]
    wanted = [diet for diet in settings.diets if diet != "real"]
    train = [Cell("train", *place, source) for source in settings.generators for place in places]
    make = []
    for source in settings.sources:
        make += [Cell("make", source=source)] if source in SHARED else [Cell("make", *p, source) for p in places]
    if not wanted:
        train, make = [], []
    judged = [source for source in settings.sources if source not in UNJUDGED]
    choosy = "both" in wanted and any(best_share(mix) is not None for mix in settings.mixes)
    judge = [Cell("judge", *place, source) for source in judged for place in places] if choosy else []
    eaten: list[tuple[Diet, str, str]] = [("real", "", "")] if "real" in settings.diets else []
    for source in settings.sources:
        mixes = [mix for mix in settings.mixes if source in judged or best_share(mix) is None]
        for diet in wanted:
            eaten += [(diet, source, mix) for mix in (mixes if diet == "both" else ("",))]
    test = [
        Cell("classify", *place, source, model, diet, mix, seed)
        for seed in settings.seeds
        for place in places
        for model in settings.models
        for diet, source, mix in eaten
    ]
    return [*train, *make, *judge, *test]


def needs(cell: Cell, settings: Table2Settings) -> tuple[Cell, ...]:
    """Return the cells that must be done before a cell."""
    if cell.stage == "classify" and best_share(cell.mix) is not None:
        return (Cell("judge", cell.split, cell.fold, cell.source),)
    if cell.stage in ("judge", "classify") and cell.source:
        place = ("", None) if cell.source in SHARED else (cell.split, cell.fold)
        return (Cell("make", *place, cell.source),)
    if cell.stage == "make":
        method = settings.lddm if cell.source in ("class-blind", "reconstructed") else cell.source
        if method in METHODS:
            return (Cell("train", cell.split, cell.fold, str(method)),)
    return ()


def with_needs(chosen: Iterable[Cell], settings: Table2Settings) -> list[Cell]:
    """Return some cells and all that they need, in the order of `all_cells`."""
    found: set[Cell] = set()
    waiting = list(chosen)
    while waiting:
        cell = waiting.pop()
        if cell not in found:
            found.add(cell)
            waiting += needs(cell, settings)
    return [cell for cell in all_cells(settings) if cell in found]


def select(text: str | None, settings: Table2Settings) -> list[Cell]:
    """Return the cells that a text chooses, without what they need; all for None.

    The text has parts with a semicolon between them, all of which must hold; a part is a list with commas, of which
    one must hold. A part names stages (train, make, judge, classify), splits (7:3), folds (f0, f0-2), sources,
    classifiers, diets, mixes (all, balance, x2, best0.5) or seeds (0, 0-2); or it is i/n, the i-th of n shares of what
    the other parts leave. A cell that a part does not apply to is not chosen, except that real-only classifiers go with
    every source and mix.

    Raises:
        ConfigError: A word is unknown, or no cell has it; a part mixes kinds, or a kind comes twice.
    """
    cells = all_cells(settings)
    if text is None:
        return cells
    share = Shard()
    seen: set[str] = set()
    for part in text.split(";"):
        words = [word.strip() for word in part.split(",")]
        if len(words) == 1 and "/" in words[0]:
            kind, share = "share", Shard.parse(words[0])
        else:
            read = [_read(word) for word in words]
            kind = read[0][0]
            odd = next((word for word, (other, _) in zip(words, read, strict=True) if other != kind), None)
            if odd is not None:
                raise ConfigError(
                    f"--cells '{part}' mixes a {kind} with a {_read(odd)[0]}.", "Put a semicolon between kinds."
                )
            _check_known(words, read, settings)
            values = {value for _, several in read for value in several}
            cells = [cell for cell in cells if _has(cell, kind, values)]
        if kind in seen:
            raise ConfigError(f"--cells '{text}' names a {kind} in two parts.", "Join them with a comma.")
        seen.add(kind)
    if not cells:
        raise ConfigError(f"--cells '{text}' leaves no cell.", "See --list-cells.")
    return cells[share.index - 1 :: share.count]


_Value = str | int


def _read(word: str) -> tuple[str, list[_Value]]:
    """Return what kind of word it is and the values that it stands for."""
    tables: dict[str, Sequence[str]] = {
        "stage": STAGES,
        "diet": DIETS,
        "model": NAMES,
        "source": [*METHODS, *CONTROLS],
    }
    for kind, known in tables.items():
        if word in known:
            return kind, [word]
    if re.fullmatch(r"\d+:\d+", word):
        return "split", [word]
    if MIX.fullmatch(word):
        return "mix", [word]
    numbers = re.fullmatch(r"(f?)(\d{1,9})(?:-(\d{1,9}))?", word)
    if numbers and int(numbers[2]) <= int(numbers[3] or numbers[2]) < int(numbers[2]) + 10_000:
        return "fold" if numbers[1] else "seed", list(range(int(numbers[2]), int(numbers[3] or numbers[2]) + 1))
    raise ConfigError(
        f"--cells knows no '{word}'.",
        "Name stages, splits (7:3), folds (f0), sources, classifiers, diets, mixes, seeds (0-2) or a share (1/4).",
    )


def _check_known(words: Sequence[str], read: Sequence[tuple[str, list[_Value]]], settings: Table2Settings) -> None:
    every = all_cells(settings)
    for word, (kind, values) in zip(words, read, strict=True):
        for value in values:
            if not any(getattr(cell, kind) == value for cell in every):
                raise ConfigError(f"--cells '{word}': no cell of this run has {kind} {value}.", "See --list-cells.")


def _has(cell: Cell, kind: str, values: set[_Value]) -> bool:
    if cell.diet == "real" and kind in ("source", "mix"):
        return True
    return getattr(cell, kind) in values
