"""Table 2 of the LDDM paper: does it help to train a classifier on synthetic videos as well?

    videos -> splits by patient -> generators on the training videos -> clips of all stills
           -> classifiers on real, synthetic and both -> test videos -> table

The work lies in cells (see `table2_cells`), each done once by whichever process claims it first. RUN/plan.json pins
what all cells depend on, and remembers which cells were ever asked for. Any process can write the table from what is
there.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pydantic import Field

from us_i2v.config import Config, flatten
from us_i2v.data.atomic import write_bytes
from us_i2v.errors import ConfigError, DataError, UsI2VError
from us_i2v.reproduction.claims import alone, claim, is_claimed
from us_i2v.reproduction.store import row_key
from us_i2v.reproduction.table2_cells import Cell, all_cells, needs, with_needs
from us_i2v.reproduction.table2_data import check_copies, divide, read_data, write_splits, write_stills
from us_i2v.reproduction.table2_jobs import Workshop, cell_folder, make_cell, read_result
from us_i2v.reproduction.table2_settings import AXES, Table2Settings, check_settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from us_i2v.reproduction.table2_data import Data
    from us_i2v.reproduction.table2_jobs import Progress

PLAN = "plan.json"
POLL_S = 2.0
"""Seconds between looks at cells that other processes hold."""


class Plan(Config):
    """plan.json."""

    format_version: int = Field(1, ge=1, le=1, description="Layout of this file.")
    settings: dict[str, Any] = Field(description="Everything that finished cells depend on.")
    data: str = Field(description="Hash of names, labels, groups and sizes of videos and stills.")
    axes: dict[str, Any] = Field(description="Which cells were ever asked for.")
    counts: dict[str, int] = Field(description="Videos, their groups, and stills.")
    notes: tuple[str, ...] = Field((), description="What was left out of the data.")

    @property
    def sha256(self) -> str:
        """Hash of what is pinned."""
        return row_key(self.settings, self.data)

    def table_settings(self) -> Table2Settings:
        """Return the settings of all cells that were ever asked for; raises `ConfigError`."""
        return Table2Settings.parse({**self.settings, **self.axes}, PLAN)


def read_plan(out: Path) -> Plan | None:
    """Return RUN's plan, None if it has none; raises `DataError` if it is damaged."""
    path = out / PLAN
    if not path.is_file():
        return None
    try:
        plan = Plan.load(path)
        plan.table_settings()
    except ConfigError as error:
        raise DataError(f"'{path}' is damaged: {error.message}", "Use another folder.") from error
    return plan


def prepare(
    videos: Sequence[Path], images: Sequence[Path], out: Path, settings: Table2Settings, progress: Progress
) -> Plan:
    """Check settings and data, pin them, and write the splits and stills; what is there is left.

    Raises:
        ConfigError: Settings are invalid, or RUN was started with others.
        DataError: The data do not suffice, or are others than RUN was started with.
        OutputError: RUN cannot be written.
    """
    check_settings(settings)
    data = read_data(videos, images, settings)
    settings = settings.model_copy(update={"classes": data.classes})
    parts = divide(data, settings)
    check_copies(data)
    check_plan(read_plan(out), settings, data.identity, out)
    with alone(out / "data", POLL_S), progress("stills") as shown:
        before = read_plan(out)
        check_plan(before, settings, data.identity, out)
        plan = _plan(before, settings, data)
        if plan != before:
            write_bytes(out / PLAN, plan.dump().encode())
        write_splits(data, parts, out)
        write_stills(data, out, shown)
    return plan


def check_plan(plan: Plan | None, settings: Table2Settings, identity: str, out: Path) -> None:
    """Raise `ConfigError` or `DataError` if RUN was started with other settings or data."""
    if plan is None:
        return
    old, new = flatten(plan.settings), flatten(settings.pinned())
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            raise ConfigError(
                f"'{out}' was started with {key} = {old.get(key)!r}, now it is {new.get(key)!r}.",
                "Use the same settings, or another folder.",
            )
    if plan.data != identity:
        raise DataError(f"'{out}' was started with other videos or stills.", "Give the same, or use another folder.")
    first = plan.table_settings().lddm
    if first not in (None, settings.lddm) and {"class-blind", "reconstructed"} & set(settings.controls):
        raise ConfigError(
            f"'{out}' has {first} as its first LDDM; class-blind and reconstructed clips are made with that one, not "
            f"with {settings.lddm}.",
            f"Put {first} first in --generators, or use another folder.",
        )


def run_cells(chosen: Sequence[Cell], shop: Workshop, *, rank: int = 0, world: int = 1, poll: float = POLL_S) -> None:
    """Do some cells and what they need; returns when all of them are done, by this process or others.

    Of the cells whose needs are done, rank r looks first at every `world`-th one from the r-th on. What another process
    holds is waited for.

    Raises:
        UsI2VError: Of a cell's work, with its name; or a result is damaged.
    """
    wanted = with_needs(chosen, shop.settings)
    done: set[Cell] = set()
    with single_process():
        while True:
            done |= {c for c in wanted if c not in done and read_result(shop.out, c, shop.plan) is not None}
            ready = [c for c in wanted if c not in done and done.issuperset(needs(c, shop.settings))]
            if not ready:
                return
            first = ready[rank::world]
            for cell in [*first, *(c for c in ready if c not in first)]:
                if _do(cell, shop, len(done), len(wanted)):
                    break
            else:
                time.sleep(poll)


def _do(cell: Cell, shop: Workshop, done: int, count: int) -> bool:
    """Do a cell unless another process holds it; tell whether it is done now."""
    with claim(shop.folder(cell)) as ours:
        if not ours:
            return False
        if read_result(shop.out, cell, shop.plan) is None:
            shop.reporter.message(f"cell {done + 1} of {count}: {cell.id}")
            try:
                make_cell(cell, shop)
            except UsI2VError as error:
                raise type(error)(f"Cell {cell.id}: {error.message}", error.hint) from error
        return True


def cell_state(out: Path, cell: Cell, plan: str | None) -> str:
    """Return "done", "running", "begun", "open" or "damaged"; a result of other settings is damaged, too."""
    try:
        if read_result(out, cell, plan) is not None:
            return "done"
    except DataError:
        return "damaged"
    folder = cell_folder(out, cell)
    if is_claimed(folder):
        return "running"
    return "begun" if folder.is_dir() else "open"


@contextmanager
def single_process() -> Iterator[None]:
    """Hide RANK and WORLD_SIZE, so that no training is shared; LOCAL_RANK stays, it chooses the GPU."""
    hidden = {name: os.environ.pop(name) for name in ("RANK", "WORLD_SIZE") if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


def _plan(before: Plan | None, settings: Table2Settings, data: Data) -> Plan:
    values = settings.model_dump(mode="json")
    axes = {name: values[name] for name in AXES}
    if before is not None:
        axes = {name: list(dict.fromkeys([*before.axes[name], *axes[name]])) for name in AXES}
    counts = {
        "videos": len(data.videos),
        "groups": len({sample.group for sample in data.videos}),
        "stills": len(data.stills),
    }
    # Through JSON, so that it compares with what is read.
    pinned = json.loads(json.dumps(settings.pinned()))
    return Plan(settings=pinned, data=data.identity, axes=axes, counts=counts, notes=data.notes)


def missing_cells(out: Path, settings: Table2Settings, plan: str) -> list[Cell]:
    """Return the cells without a result."""
    return [cell for cell in all_cells(settings) if read_result(out, cell, plan) is None]
