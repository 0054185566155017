"""Table 2 from end to end, as small as it goes: made once, then broken and mended in copies."""

from __future__ import annotations

import json
import os
import shutil
import threading
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.classifier_clips import phantom_clips, write_real
from us_i2v.cli.reproduce_table2 import tiny_settings
from us_i2v.config import merge
from us_i2v.data.atomic import write_bytes
from us_i2v.data.datasets import find_samples
from us_i2v.data.manifest import Sample, write_manifest
from us_i2v.data.writers import write_still
from us_i2v.errors import ConfigError, DataError, InputError, TrainingError
from us_i2v.evaluation import classification
from us_i2v.reproduction import table2, table2_quality
from us_i2v.reproduction.claims import claim
from us_i2v.reproduction.table2_cells import all_cells, select
from us_i2v.reproduction.table2_jobs import RESULT, CellResult, Workshop, cell_folder
from us_i2v.reproduction.table2_report import document
from us_i2v.reproduction.table2_scores import collect
from us_i2v.reproduction.table2_settings import Table2Settings
from us_i2v.training import loop
from us_i2v.training.report import Silent

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

VALUES = merge(tiny_settings(), {"controls": ["static"], "steps": 3})
VALUES = merge(VALUES, {"changes": {"classifier": {"optimiser": {"validate_every": 1, "batch_size": 2}}}})
SETTINGS = Table2Settings.parse(VALUES)


class Killed(BaseException):
    """Ends a run as a kill does: nothing catches it."""


class Killer(Silent):
    """Kills a run at the n-th step of its trainings."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def step(self, step: int, loss: float, values: dict[str, float]) -> None:
        self.left -= 1
        if not self.left:
            raise Killed


@contextmanager
def quiet(name: str) -> Iterator:
    yield lambda done, total, name: None


def shop_of(out: Path, plan: table2.Plan, reporter: Silent | None = None) -> Workshop:
    return Workshop(out, plan.table_settings(), plan.sha256, reporter or Silent(), quiet, "cpu", 1)


def run(home: Path, out: Path, reporter: Silent | None = None, settings: Table2Settings = SETTINGS) -> table2.Plan:
    plan = table2.prepare([home / "videos"], [home / "images"], out, settings, quiet)
    table2.run_cells(select(None, settings), shop_of(out, plan, reporter), poll=0.01)
    return plan


def results(out: Path) -> dict:
    plan = table2.read_plan(out)
    assert plan is not None
    settings = plan.table_settings()
    return document(collect(out, settings, plan.sha256), settings.model_dump(mode="json"))


def results_missing(out: Path) -> list[str]:
    return results(out)["missing"]


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """Videos, stills and a finished run of them."""
    root = tmp_path_factory.mktemp("table2")
    write_real(root / "videos")
    rows = []
    for number, (label, frames) in enumerate(phantom_clips()):
        path = root / "images" / f"{label}_{number}.png"
        write_still(path, frames[7][:, ::-1].copy())
        rows.append(Sample(path, "still", label, f"s{number}"))
    write_manifest(root / "images" / "manifest.csv", rows)
    run(root, root / "run")
    return root


@pytest.fixture
def copy(home: Path, tmp_path: Path) -> Path:
    """A copy of the finished run."""
    shutil.copytree(home / "run", tmp_path / "run", symlinks=True)
    return tmp_path / "run"


def test_every_row_has_its_numbers(home: Path) -> None:
    found = results(home / "run")
    assert found["missing"] == []
    assert [(row["diet"], row["source"]) for row in found["rows"]] == [
        ("real", ""),
        ("synthetic", "lddm-base"),
        ("both", "lddm-base"),
        ("synthetic", "static"),
        ("both", "static"),
    ]
    assert [row["clips"] for row in found["rows"]] == [4, 8, 12, 8, 12]
    assert all(row["values"]["accuracy"]["n"] == 4 for row in found["rows"])
    assert [bool(row["minus_real"]) for row in found["rows"]] == [False, True, True, True, True]


def test_finished_classifiers_leave_no_weights_and_tested_patients_are_not_trained_on(home: Path) -> None:
    out = home / "run"
    assert not list((out / "cells" / "classify").rglob("*.safetensors"))
    assert not list(out.rglob("checkpoint.safetensors"))
    cell = json.loads((out / "cells/classify/5-5/tsm/real/s0" / RESULT).read_text())
    control = json.loads((out / "cells/make/5-5/static" / RESULT).read_text())
    tested = {video["group"] for video in cell["videos"]}
    assert tested
    assert not tested & set(control["trained"]["training_groups"])


def test_done_cells_are_not_made_again(home: Path, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table2, "make_cell", lambda cell, shop: pytest.fail(f"{cell.id} was made again"))
    run(home, copy)
    plan = table2.read_plan(copy)
    assert plan is not None
    more = SETTINGS.model_copy(update={"seeds": (3,)})
    with pytest.raises(pytest.fail.Exception, match="classify/5-5/tsm/real/s3 was made again"):
        run(home, copy, settings=more)
    # What was ever asked for stays in the table.
    assert len(results(copy)["missing"]) == 5


@pytest.mark.parametrize(
    "removed",
    [
        ("classify/5-5/tsm/both-static-all/s0", "classify/5-5/tsm/real/s0"),
        ("train/5-5/lddm-base/second", "train/5-5/lddm-base/result.json", "make/5-5/lddm-base"),
    ],
)
def test_a_killed_run_goes_on_to_the_same_table(home: Path, copy: Path, removed: tuple[str, ...]) -> None:
    for name in removed:
        path = copy / "cells" / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    with pytest.raises(Killed):
        run(home, copy, Killer(2))
    assert results_missing(copy)
    run(home, copy)
    assert results(copy) == results(home / "run")


def test_a_run_killed_between_its_last_checkpoint_and_its_weights_is_trained_again(
    home: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy / "cells/classify/5-5/tsm/real/s0"
    shutil.rmtree(folder)
    epoch = loop._epoch

    def killed(*given) -> None:
        if given[3] == SETTINGS.steps:
            raise Killed
        epoch(*given)

    monkeypatch.setattr(loop, "_epoch", killed)
    with pytest.raises(Killed):
        run(home, copy)
    monkeypatch.setattr(loop, "_epoch", epoch)
    assert '"step": 3' not in (folder / "run" / "metrics.jsonl").read_text()
    run(home, copy)
    assert results(copy) == results(home / "run")


def test_other_settings_data_and_damage_are_refused(home: Path, copy: Path) -> None:
    with pytest.raises(ConfigError, match="was started with steps = 3, now it is 4"):
        run(home, copy, settings=SETTINGS.model_copy(update={"steps": 4}))
    with pytest.raises(DataError, match="other videos or stills"):
        table2.prepare([home / "videos"], [home / "images"] * 2, copy, SETTINGS, quiet)
    (copy / "cells/make/5-5/static" / RESULT).write_text("{")
    with pytest.raises(DataError, match=r"make/5-5/static/result\.json' is damaged"):
        run(home, copy)
    (copy / table2.PLAN).write_text("[]")
    with pytest.raises(DataError, match=r"plan\.json' is damaged"):
        run(home, copy)


def test_controls_of_an_lddm_stay_with_the_one_that_came_first(home: Path, copy: Path) -> None:
    plan = table2.read_plan(copy)
    assert plan is not None
    values = {"generators": ("lddm-paper", "lddm-base"), "classes": plan.table_settings().classes}
    other = SETTINGS.model_copy(update=values)
    table2.check_plan(plan, other, plan.data, copy)
    with pytest.raises(ConfigError, match="Put lddm-base first in --generators"):
        table2.check_plan(plan, other.model_copy(update={"controls": ("class-blind",)}), plan.data, copy)


@pytest.mark.parametrize("reason", ["generated", "unreadable"])
def test_a_test_video_that_was_generated_or_cannot_be_read_leaves_no_result(
    home: Path, copy: Path, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    cell = select("classify;real", SETTINGS)[0]
    path = cell_folder(copy, cell) / RESULT
    shutil.rmtree(path.parent)
    asked: list[Path] = []

    def record(file: Path) -> bool:
        asked.append(file)
        if reason == "unreadable" and len(asked) == 2:
            raise InputError(f"'{file}' cannot be read.", "Try again.")
        return reason == "generated"

    # As if a video had changed, or a disk had failed, after the data were checked.
    monkeypatch.setattr(classification, "carries_record", record)
    plan = table2.read_plan(copy)
    assert plan is not None
    said = "was generated" if reason == "generated" else "cannot be read"
    with pytest.raises((DataError, InputError), match=f"Cell {cell.id}: .*{said}"):
        table2.run_cells([cell], shop_of(copy, plan), poll=0.01)
    assert not path.exists()


def test_clips_that_are_too_few_for_a_mix_are_refused_where_they_are_made(home: Path, copy: Path) -> None:
    cell = select("make;static", SETTINGS)[0]
    (cell_folder(copy, cell) / RESULT).unlink()
    plan = table2.read_plan(copy)
    assert plan is not None
    shop = replace(shop_of(copy, plan), settings=plan.table_settings().model_copy(update={"mixes": ("x9",)}))
    with pytest.raises(DataError, match=r"Cell make/5-5/static: 5-5: static give \d+ synthetic clips"):
        table2.run_cells([cell], shop, poll=0.01)
    assert not (cell_folder(copy, cell) / RESULT).exists()


def test_a_classifier_gets_the_best_clips_that_were_judged(
    home: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table2_quality, "LEAST", 4)
    settings = Table2Settings.parse({**VALUES, "controls": ["affine"], "mixes": ["all", "best0.5"]})
    plan = table2.prepare([home / "videos"], [home / "images"], copy, settings, quiet)
    cells = select("both;affine;best0.5", settings)
    assert [cell.id for cell in cells] == ["classify/5-5/tsm/both-affine-best0.5/s0"]
    table2.run_cells(cells, shop_of(copy, plan), poll=0.01)
    judged = CellResult.load(copy / "cells/judge/5-5/affine" / RESULT)
    made = {sample.path.name for sample in find_samples(copy / "cells/make/5-5/affine/clips")}
    assert {name.rpartition("/")[2] for name in judged.quality} == made
    assert all(0 < score <= 1 for score in judged.quality.values())
    # 4 real clips; of 4 synthetic ones of each class half.
    assert CellResult.load(cell_folder(copy, cells[0]) / RESULT).clips == 4 + 2 * 2
    rows = [row for row in results(copy)["rows"] if row["mix"] == "best0.5" and row["minus_real"]]
    assert [row["source"] for row in rows] == ["affine"]


def test_states_of_cells(home: Path, copy: Path) -> None:
    plan = table2.read_plan(copy)
    assert plan is not None
    cell = select("make;static", SETTINGS)[0]
    assert table2.cell_state(copy, cell, plan.sha256) == "done"
    assert table2.cell_state(copy, cell, "other") == "damaged"
    (cell_folder(copy, cell) / RESULT).unlink()
    assert table2.cell_state(copy, cell, plan.sha256) == "begun"
    with claim(cell_folder(copy, cell)):
        assert table2.cell_state(copy, cell, plan.sha256) == "running"
    shutil.rmtree(cell_folder(copy, cell))
    assert table2.cell_state(copy, cell, plan.sha256) == "open"


def fake_cell(made: list[str], lock: threading.Lock):
    """A stand-in for `make_cell` that takes a moment and notes the cell."""

    def make(cell, shop):
        with lock:
            made.append(cell.id)
        threading.Event().wait(0.005)
        values = {"weights_sha256": "w"}
        if cell.stage == "classify":
            video = {"file": "f", "label": "a", "group": "g", "probabilities": (1.0, 0.0)}
            values = {"classes": ("a", "b"), "videos": (video,)}
        result = CellResult(cell=cell.id, plan=shop.plan, seconds=0.0, **values)
        write_bytes(cell_folder(shop.out, cell) / RESULT, result.dump().encode())
        return result

    return make


def test_ranks_share_the_cells_and_none_is_made_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Table2Settings(seeds=(0,), splits=("7:3",), models=("tsm", "c3d"))
    made: list[str] = []
    monkeypatch.setattr(table2, "make_cell", fake_cell(made, threading.Lock()))
    shop = Workshop(tmp_path, settings, "plan", Silent(), quiet, "cpu")
    threads = [
        threading.Thread(
            target=table2.run_cells, args=(all_cells(settings), shop), kwargs={"rank": rank, "world": 3, "poll": 0.005}
        )
        for rank in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(made) == sorted(cell.id for cell in all_cells(settings))
    order = {name: place for place, name in enumerate(made)}
    assert order["train/7-3/cinn"] < order["make/7-3/cinn"] < order["classify/7-3/tsm/both-cinn-all/s0"]


def test_a_rank_begins_with_its_own_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Table2Settings(diets=("real",), seeds=(0,))
    made: list[str] = []
    monkeypatch.setattr(table2, "make_cell", fake_cell(made, threading.Lock()))
    table2.run_cells(all_cells(settings), Workshop(tmp_path, settings, "plan", Silent(), quiet, "cpu"), rank=2, world=4)
    assert made[0] == all_cells(settings)[2].id
    assert len(made) == len(all_cells(settings))


def test_trainings_do_not_see_the_ranks_and_errors_name_their_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    seen = []

    def fail(cell, shop):
        seen.append((os.environ.get("RANK"), os.environ.get("WORLD_SIZE")))
        raise TrainingError("Loss is nan.", "Lower the rate.")

    monkeypatch.setattr(table2, "make_cell", fail)
    shop = Workshop(tmp_path, SETTINGS, "plan", Silent(), quiet, "cpu")
    with pytest.raises(TrainingError, match=r"Cell train/5-5/lddm-base: Loss is nan\. Lower the rate\."):
        table2.run_cells(select("train", SETTINGS), shop)
    assert seen == [(None, None)]
    assert os.environ["WORLD_SIZE"] == "4"
