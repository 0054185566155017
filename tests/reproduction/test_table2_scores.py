import json

import numpy as np
import pytest

from us_i2v.errors import DataError
from us_i2v.metrics.classification import Predictions, scores
from us_i2v.reproduction.table2_cells import all_cells
from us_i2v.reproduction.table2_jobs import RESULT, CellResult, TestedVideo, cell_folder, read_result
from us_i2v.reproduction.table2_report import document, markdown, write_table2
from us_i2v.reproduction.table2_scores import collect, mean_scores
from us_i2v.reproduction.table2_settings import Table2Settings

CLASSES = ("benign", "malignant")
SETTINGS = Table2Settings(
    splits=("3:7",), models=("tsm", "c3d"), generators=("cinn",), seeds=(0, 1), folds=2, classes=CLASSES
)
PLAN = "p" * 64


def videos(fold, wrong):
    """Twelve videos of six patients; the first `wrong` are classified wrongly."""
    found = []
    for number in range(12):
        truth = number % 2
        said = 1 - truth if number < wrong else truth
        p = (0.3, 0.7) if said else (0.6, 0.4)
        found.append(
            TestedVideo(file=f"{fold}-{number}", label=CLASSES[truth], group=f"{fold}-{number // 2}", probabilities=p)
        )
    return tuple(found)


def write(out, cell, wrong=0):
    values = {"weights_sha256": "w"}
    if cell.stage == "classify":
        values = {"classes": CLASSES, "videos": videos(cell.fold, wrong), "clips": 10 if cell.source else 4, "real": 4}
    path = cell_folder(out, cell) / RESULT
    path.parent.mkdir(parents=True)
    path.write_text(CellResult(cell=cell.id, plan=PLAN, seconds=1.0, **values).dump())
    return path


def fill(out, wrong, keep=lambda cell: True):
    """Write a result for every cell; `wrong` maps a cell to its number of wrong videos."""
    for cell in all_cells(SETTINGS):
        if keep(cell):
            write(out, cell, wrong(cell))


def row(table, model, diet):
    (found,) = [row for row in table.rows if (row.model, row.diet) == (model, diet)]
    return found


def test_means_spread_and_paired_differences(tmp_path):
    # Real: 4 and 2 wrong a fold for seeds 0 and 1; both: 2 and 2.
    fill(tmp_path, lambda cell: (4 - 2 * (cell.seed or 0)) if cell.diet == "real" else 2)
    table = collect(tmp_path, SETTINGS, PLAN, ("a note",))
    real, both = row(table, "tsm", "real"), row(table, "tsm", "both")
    assert real.values["accuracy"].mean == pytest.approx((8 / 12 + 10 / 12) / 2)
    assert real.spread["accuracy"] == pytest.approx(np.std([8 / 12, 10 / 12], ddof=1))
    assert both.spread["accuracy"] == 0
    # Folds are tested together.
    assert (real.values["accuracy"].n, real.values["accuracy"].groups) == (24, 12)
    gain = both.minus_real["accuracy"]
    assert gain.mean == pytest.approx(1 / 12)
    assert gain.low <= gain.mean <= gain.high
    # Wrong videos are the first patients' in both, so that the difference varies less than either value.
    assert gain.high - gain.low < both.values["accuracy"].high - both.values["accuracy"].low
    assert not real.minus_real
    assert (real.clips, both.clips) == (4, 10)
    assert (table.missing, table.notes, real.seeds) == ((), ("a note",), (0, 1))
    pooled = {pool.diet: pool for pool in table.pooled}
    assert pooled["both"].models == ("tsm", "c3d")
    assert pooled["both"].minus_real["accuracy"].mean == pytest.approx(1 / 12)
    assert real.paper is not None
    assert real.paper.f1 == 72.96


def test_equal_predictions_differ_by_nothing(tmp_path):
    fill(tmp_path, lambda cell: 3)
    table = collect(tmp_path, SETTINGS, PLAN)
    for found in table.rows:
        for value in found.minus_real.values():
            assert (value.mean, value.low, value.high) == (0, 0, 0)


def test_a_seed_without_all_folds_does_not_count(tmp_path):
    fill(tmp_path, lambda cell: 1, lambda cell: (cell.model, cell.seed, cell.fold) != ("tsm", 1, 0))
    table = collect(tmp_path, SETTINGS, PLAN)
    assert row(table, "tsm", "real").seeds == (0,)
    assert np.isnan(row(table, "tsm", "real").spread["auc"])
    assert row(table, "c3d", "both").seeds == (0, 1)
    assert set(table.missing) == {
        f"classify/3-7.f0/tsm/{eaten}/s1" for eaten in ("real", "synthetic-cinn", "both-cinn-all")
    }
    text = markdown(table, {"folds": 2})
    assert "Missing: 3 of 28 cells: `classify/3-7.f0/tsm/real/s1`" in text
    assert "| TSM | 3:7 | real only | 4 | 1 of 2 |" in text


def test_without_results_everything_is_missing(tmp_path):
    table = collect(tmp_path, SETTINGS, PLAN)
    assert len(table.missing) == table.cells == 28
    text = markdown(table, {"folds": 1})
    assert "| TSM | 3:7 | missing (72.96 / 73.07) | missing (57.30 / 57.30) | missing (71.83 / 72.31) |" in text


def test_files_are_written_without_nan(tmp_path):
    fill(tmp_path / "run", lambda cell: 1, lambda cell: cell.seed in (0, None))
    table = collect(tmp_path / "run", SETTINGS, PLAN)
    write_table2(tmp_path, table, SETTINGS.model_dump(mode="json"), plot=True)
    found = json.loads((tmp_path / "table2.json").read_text())
    assert found == json.loads(json.dumps(document(table, SETTINGS.model_dump(mode="json"))))
    assert found["rows"][0]["spread"]["accuracy"] is None
    assert found["rows"][0]["paper"] == {"f1": 72.96, "accuracy": 73.07}
    assert (tmp_path / "table2.png").read_bytes().startswith(b"\x89PNG")
    assert "2 folds" in (tmp_path / "table2.md").read_text()


def test_cells_that_lost_different_videos_are_named(tmp_path):
    fill(tmp_path, lambda cell: 1)
    ids = ("classify/3-7.f0/tsm/real/s0", "classify/3-7.f0/tsm/both-cinn-all/s0")
    for lost, name in enumerate(ids):
        path = tmp_path / "cells" / name / RESULT
        values = json.loads(path.read_text())
        # Another video of the same patient each: as many videos, and the same patients.
        del values["videos"][lost]
        path.write_text(json.dumps(values))
    with pytest.raises(DataError, match="were not tested on the same videos") as caught:
        collect(tmp_path, SETTINGS, PLAN)
    assert ids[0] in str(caught.value)


def test_scores_of_other_videos_are_not_averaged():
    p = np.array([[0.2, 0.8], [0.6, 0.4]])
    one, other = scores(Predictions.of(p, [1, 0], ["a", "b"])), scores(Predictions.of(p, [1, 0], ["a", "a"]))
    assert mean_scores([one, one]).values == one.values
    with pytest.raises(DataError, match="different test videos"):
        mean_scores([one, other])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text[:40], "is damaged"),
        (lambda text: text.replace('"seconds": 1.0', '"seconds": -1'), "is damaged"),
        (lambda text: text.replace('"format_version": 1', '"format_version": 2'), "is damaged"),
        (lambda text: text.replace(PLAN, "q" * 64), "other settings or data"),
        (lambda text: text.replace("/tsm/", "/c3d/"), "is of cell 'classify/3-7.f0/c3d/real/s0'"),
        (lambda text: json.dumps(json.loads(text) | {"videos": []}), "lacks what its cell found"),
    ],
)
def test_damaged_or_foreign_results_are_refused(tmp_path, change, said):
    (cell,) = [c for c in all_cells(SETTINGS) if c.id == "classify/3-7.f0/tsm/real/s0"]
    path = write(tmp_path, cell)
    assert read_result(tmp_path, cell, PLAN) is not None
    path.write_text(change(path.read_text()))
    with pytest.raises(DataError, match=said) as caught:
        read_result(tmp_path, cell, PLAN)
    assert "Remove folder" in caught.value.hint
