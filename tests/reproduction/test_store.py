import numpy as np
import pytest

from us_i2v.evaluation.energy import EnergyScores
from us_i2v.evaluation.measure import Measured, Network
from us_i2v.reproduction.several import Several
from us_i2v.reproduction.store import load_measured, load_several, row_key, save_measured, save_several


@pytest.fixture
def measured():
    rng = np.random.default_rng(0)
    return Measured(
        names=("a", "b"),
        groups=("p", "q"),
        sources=("s", "s"),
        networks={"fvd-x3d": Network("FVD-X3D", "X3D", 3)},
        features={"fvd-x3d": rng.standard_normal((2, 3))},
        scalars={"flow": np.array([1.0, np.nan])},
        curves={"decorrelation": rng.random((2, 4))},
        paired={"lpips": rng.random(2)},
        partners=("a", ""),
        paired_label="LPIPS-alex v0.1",
    )


def test_measurements_come_back_as_they_were(measured, tmp_path):
    path = tmp_path / "rows" / "x.npz"
    save_measured(path, measured, "key")
    again = load_measured(path, "key")
    assert (again.names, again.groups, again.sources, again.partners) == (
        measured.names,
        measured.groups,
        measured.sources,
        measured.partners,
    )
    assert again.networks == measured.networks
    assert again.paired_label == measured.paired_label
    for table in ("features", "scalars", "curves", "paired"):
        ours, theirs = getattr(measured, table), getattr(again, table)
        assert ours.keys() == theirs.keys()
        for name in ours:
            np.testing.assert_array_equal(ours[name], theirs[name])


def test_another_key_or_a_damaged_file_is_measured_anew(measured, tmp_path):
    path = tmp_path / "x.npz"
    assert load_measured(path, "key") is None
    save_measured(path, measured, "key")
    assert load_measured(path, "other") is None
    path.write_bytes(path.read_bytes()[:200])
    assert load_measured(path, "key") is None


def test_several_answers_come_back_as_they_were(tmp_path):
    scores = EnergyScores(("a",), ("p",), ("s",), 8, {"motion": np.array([0.5])})
    save_several(tmp_path / "x.npz", Several(scores, {"fvd-x3d": np.array([0.1])}), "key")
    again = load_several(tmp_path / "x.npz", "key")
    assert (again.energy.names, again.energy.samples) == (("a",), 8)
    assert again.energy.scores["motion"] == pytest.approx([0.5])
    assert again.diversity["fvd-x3d"] == pytest.approx([0.1])
    assert load_several(tmp_path / "x.npz", "other") is None


def test_keys_tell_apart_what_they_are_made_of():
    keys = {row_key("a", 1), row_key("a", 2), row_key("b", 1), row_key("a", [1]), row_key("a1")}
    assert len(keys) == 5
    assert row_key("a", {"x": 1, "y": 2}) == row_key("a", {"y": 2, "x": 1})
