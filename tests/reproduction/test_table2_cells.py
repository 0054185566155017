import pytest

from us_i2v.errors import ConfigError
from us_i2v.reproduction.table2_cells import Cell, all_cells, needs, select, with_needs
from us_i2v.reproduction.table2_paper import PAPER, printed
from us_i2v.reproduction.table2_settings import CONTROLS, Table2Settings, check_settings, classifier_training

ALL = Table2Settings(controls=tuple(CONTROLS), mixes=("all", "x2"))
FOLDS = Table2Settings(folds=4)
BEST = Table2Settings(folds=4, controls=tuple(CONTROLS), mixes=("all", "best0.5"))


@pytest.mark.parametrize("settings", [Table2Settings(), ALL, FOLDS, BEST, Table2Settings(diets=("real",))])
def test_cells_have_ids_of_their_own_and_come_after_their_needs(settings):
    cells = all_cells(settings)
    assert len({cell.id for cell in cells}) == len(cells)
    for place, cell in enumerate(cells):
        assert all(cells.index(need) < place for need in needs(cell, settings))


def test_the_papers_table_has_so_many_cells():
    # 3 ratios x 2 generators, trained and used; 4 classifiers x 3 ratios x 3 seeds x 5 diets.
    stages = [cell.stage for cell in all_cells(Table2Settings())]
    assert (stages.count("train"), stages.count("make"), stages.count("classify")) == (6, 6, 180)
    assert [c.stage for c in all_cells(Table2Settings(diets=("real",)))] == ["classify"] * 36


def test_controls_need_what_they_are_made_with():
    def needed(source, **more):
        return [cell.id for cell in needs(Cell("make", "3:7", None, source, **more), ALL)]

    assert needed("class-blind") == needed("reconstructed") == ["train/3-7/lddm-base"]
    assert needed("static") == needed("affine") == needed("elastic") == []
    both = Cell("classify", "3:7", None, "bundled", "tsm", "both", "x2", 1)
    assert both.id == "classify/3-7/tsm/both-bundled-x2/s1"
    assert [cell.id for cell in needs(both, ALL)] == ["make/all/bundled"]
    assert Cell("classify", "3:7", 2, "", "tsm", "real", "", 1).id == "classify/3-7.f2/tsm/real/s1"


def test_a_selection_keeps_what_all_its_parts_hold_for():
    chosen = select("tsm,c3d;3:7;real,both;0-1", ALL)
    assert {cell.model for cell in chosen} == {"tsm", "c3d"}
    assert {cell.split for cell in chosen} == {"3:7"}
    assert {cell.diet for cell in chosen} == {"real", "both"}
    assert {cell.seed for cell in chosen} == {0, 1}
    # real, and eight sources in two mixes
    assert len(chosen) == 2 * 2 * (1 + 8 * 2)
    assert {cell.stage for cell in select("train", ALL)} == {"train"}
    assert {cell.fold for cell in select("f1-2;classify", FOLDS)} == {1, 2}


def test_real_only_cells_go_with_every_source_and_mix():
    chosen = select("classify;static;x2", ALL)
    assert {(cell.diet, cell.source, cell.mix) for cell in chosen} == {("real", "", ""), ("both", "static", "x2")}


def test_the_best_clips_are_judged_on_every_split_before_a_classifier_gets_them():
    (chosen,) = select("3:7;f1;tsm;both;bundled;best0.5;0", BEST)
    assert chosen.id == "classify/3-7.f1/tsm/both-bundled-best0.5/s0"
    assert [cell.id for cell in with_needs([chosen], BEST)] == ["make/all/bundled", "judge/3-7.f1/bundled", chosen.id]
    # Clips that do not move have no quality.
    sources = {cell.source for cell in all_cells(BEST) if cell.mix == "best0.5"}
    assert sources == {*BEST.sources} - {"static"} == {cell.source for cell in select("judge", BEST)}
    assert not [cell for cell in all_cells(ALL) if cell.stage == "judge"]


def test_shares_divide_what_the_other_parts_leave():
    whole = select("3:7;tsm", ALL)
    parts = [select(f"3:7;tsm;{k}/5", ALL) for k in range(1, 6)]
    assert sorted(cell.id for part in parts for cell in part) == sorted(cell.id for cell in whole)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_needs_are_added_to_a_selection():
    found = [cell.id for cell in with_needs(select("tsm;3:7;both;cinn;0;all", ALL), ALL)]
    real, both = "classify/3-7/tsm/real/s0", "classify/3-7/tsm/both-cinn-all/s0"
    assert found == ["train/3-7/cinn", "make/3-7/cinn", both]
    assert real in [cell.id for cell in select("tsm;3:7;cinn;0", ALL)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("vgg", "--cells knows no 'vgg'"),
        ("", "--cells knows no ''"),
        ("tsm,3:7", "mixes a model with a split"),
        ("tsm;c3d", "names a model in two parts"),
        ("1/2;2/2", "names a share in two parts"),
        ("6:4", "no cell of this run has split 6:4"),
        ("f0", "no cell of this run has fold 0"),
        ("7", "no cell of this run has seed 7"),
        ("3-1", "--cells knows no '3-1'"),
        ("0/4", "Shard '0/4'"),
        ("train;tsm", "leaves no cell"),
    ],
)
def test_a_selection_that_makes_no_sense_is_refused(text, said):
    with pytest.raises(ConfigError, match=said):
        select(text, ALL)


@pytest.mark.parametrize(
    "values",
    [
        {"splits": ["7-3"]},
        {"splits": []},
        {"mixes": ["x0"]},
        {"mixes": ["2"]},
        {"mixes": ["best0"]},
        {"mixes": ["best1.5"]},
        {"seeds": [1, 1]},
        {"preset": "huge"},
        {"changes": {"gan": {}}},
        {"generators": ["cinn"], "controls": ["class-blind"]},
        {"controls": ["class-blind"], "class_condition": False},
        {"generators": []},
    ],
)
def test_settings_that_do_not_fit_are_refused(values):
    with pytest.raises(ConfigError):
        Table2Settings.parse(values)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tsm": {"clips": {"stride": 3}}}, "clips.stride"),
        ({"classifier": {"optimiser": {"stepz": 3}}}, "stepz"),
        ({"cinn": {"denoiser": {}}}, "changes.cinn.denoiser is no stage"),
        ({"lddm-base": {"denoiser": {"windows": 1}}}, "windows"),
    ],
)
def test_settings_of_trainings_are_checked_beforehand(changes, said):
    with pytest.raises(ConfigError, match=said):
        check_settings(Table2Settings(changes=changes))


def test_classifiers_are_set_by_preset_then_all_then_one():
    changes = {"classifier": {"optimiser": {"batch_size": 4}}, "tsm": {"optimiser": {"batch_size": 6}}}
    chosen = Table2Settings(changes=changes, steps=7, width=0.25, size=80, frames=32)
    found = classifier_training(chosen, "tsm", "both", "x2", 5)
    assert (found.optimiser.batch_size, found.optimiser.steps, found.optimiser.seed) == (6, 7, 5)
    assert (found.model.width, found.model.size, found.model.n_frames) == (0.25, 80, 32)
    assert (found.mix.diet, found.mix.ratio) == ("both", 2.0)
    assert classifier_training(chosen, "c3d", "real", "", 0).optimiser.batch_size == 4
    assert classifier_training(chosen, "c3d", "both", "balance", 0).mix.balance
    check_settings(chosen)


def test_the_papers_figures_are_found_where_it_has_them():
    assert len(PAPER) == 12
    assert printed("tdn", "7:3", "both", "lddm-base") == (83.66, 83.93)
    assert printed("c3d", "7:3", "synthetic", "cinn") == (32.89, 44.64)
    assert printed("atm", "3:7", "real", "") == (66.91, 66.92)
    assert printed("tsm", "7:3", "both", "static") is None
    assert printed("tsm", "6:4", "real", "") is None
