from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.evaluation.sets import Arrays, Statistics, frozen, noisy, real_set, shuffled
from us_i2v.errors import ConfigError
from us_i2v.evaluation.clips import Repeated
from us_i2v.evaluation.compare import ALL, compare
from us_i2v.evaluation.measure import Measured, measure
from us_i2v.evaluation.results import Comparison, Part

EXTRACTORS = {"stats": Statistics()}


@pytest.fixture(scope="module")
def clips() -> Arrays:
    return real_set(20)


@pytest.fixture(scope="module")
def real(clips: Arrays) -> Measured:
    return measure(clips, EXTRACTORS)


@pytest.fixture(scope="module")
def repeat(clips: Arrays) -> Measured:
    return measure(Repeated(clips), EXTRACTORS, partner=clips, describe=False, curves=False)


@pytest.fixture(scope="module")
def parts(clips: Arrays, real: Measured, repeat: Measured) -> dict[str, Part]:
    changes = {
        "same": lambda clip, index: clip,
        "frozen": frozen,
        "shuffled": shuffled,
        "noisy": noisy(10),
        "noisier": noisy(25),
    }
    found = {}
    for name, change in changes.items():
        made = measure(clips.changed(change), EXTRACTORS, partner=clips)
        found[name] = compare(real, made, repeat=repeat, n=8, draws=4).parts["source0"]
    return found


def fake(part: Part) -> float:
    return part.distances["stats"].frechet["fake"].mean


def test_real_against_itself(parts: dict[str, Part]) -> None:
    part = parts["same"]
    distances = part.distances["stats"]
    assert distances.frechet["fake"] == distances.frechet["floor"]
    assert distances.frechet["closed"].mean == 1
    assert distances.kernel["fake"].mean == pytest.approx(0, abs=1e-12)
    assert distances.critic["fake"].mean == 0.5
    assert all(found.difference is None or found.difference.mean == 0 for found in part.distributions.values())
    assert part.distributions["flow"].fake == part.distributions["flow"].real
    assert part.decorrelation is not None
    assert part.decorrelation.difference is not None
    assert set(part.decorrelation.difference.mean) == {0.0}
    assert (part.n_real, part.n_fake, part.n_paired, part.groups) == (20, 20, 20, 10)


def test_worse_copies_rank_below_better_ones(parts: dict[str, Part]) -> None:
    floor = parts["same"].distances["stats"].frechet["floor"].mean
    assert floor < fake(parts["noisy"]) < fake(parts["noisier"])
    assert min(fake(parts["frozen"]), fake(parts["shuffled"])) > 2 * floor
    for name in ("frozen", "shuffled", "noisy", "noisier"):
        distances = parts[name].distances["stats"]
        assert distances.critic["fake"].mean > 0.8, name
        assert distances.kernel["fake"].mean > distances.kernel["fake"].low > 0, name
        assert parts[name].distances["stats"].frechet["floor"].mean == floor, "the same divisions for every fake"
    noise = [parts[name].paired["l1"]["fake"].mean for name in ("same", "noisy", "noisier")]
    assert noise[0] == 0 < noise[1] < noise[2]
    assert parts["noisier"].paired["ssim"]["fake"].mean < parts["noisy"].paired["ssim"]["fake"].mean < 1


def test_the_frozen_copy_is_the_repeat_line(parts: dict[str, Part]) -> None:
    found = parts["frozen"]
    for table in (found.distances["stats"].frechet, found.distances["stats"].kernel, found.paired["l1"]):
        assert table["fake"].mean == table["repeat"].mean
    assert found.distances["stats"].frechet["closed"].mean == 0


def test_motion_and_texture_see_what_was_done(parts: dict[str, Part]) -> None:
    def median(name: str, scalar: str) -> float:
        summary = parts[name].distributions[scalar].fake
        assert summary is not None
        return summary.median

    assert (
        median("frozen", "motion_energy") == 0 < median("same", "motion_energy") < median("shuffled", "motion_energy")
    )
    assert median("shuffled", "flicker") > median("same", "flicker") > median("frozen", "flicker") == 0
    assert median("noisier", "highpass_ratio") > median("same", "highpass_ratio")
    assert median("noisier", "explained_held_out") < median("same", "explained_held_out")
    difference = parts["noisier"].distributions["motion_energy"].difference
    assert difference is not None
    assert difference.low > 0


def test_decorrelation_is_compared_with_real_clips_and_with_real_pairs(parts: dict[str, Part]) -> None:
    for name, sign in (("frozen", 1), ("noisier", -1)):
        found = parts[name].decorrelation
        assert found is not None
        assert found.difference is not None
        assert found.patients is not None
        assert found.windows is not None
        late = slice(1, 9)  # Later, clips have moved out of the range that is searched.
        assert (sign * np.array(found.difference.mean)[late] > 0).all()
        limits = np.abs([found.patients.low, found.patients.high]).max(0)
        assert (np.abs(found.difference.mean)[late] > limits[late]).all()
        assert found.difference.mean[0] == pytest.approx(0, abs=1e-6)
        assert found.windows.n == 10


def test_order_of_clips_changes_nothing(clips: Arrays, real: Measured, repeat: Measured) -> None:
    made = measure(clips.changed(noisy(10)), EXTRACTORS, partner=clips)
    order = np.random.default_rng(1).permutation(20).tolist()
    straight = compare(real, made, repeat=repeat, n=8, draws=4)
    mixed = compare(real.select(order), made.select(order[::-1]), repeat=repeat.select(order), n=8, draws=4)
    assert mixed == straight


def test_few_clips_make_no_claim(parts: dict[str, Part]) -> None:
    distances = parts["noisy"].distances["stats"]
    assert (distances.claim, distances.n, distances.draws) == (False, 8, 4)
    assert distances.name == "FVD-Test (six statistics, no resize; n=8, mean of 4 draws)"
    assert any("no claim" in warning for warning in distances.warnings)


def many(count: int, groups: int, seed: int, dimensions: int, shift: float = 0.0) -> Measured:
    """Measurements without clips: features alone."""
    values = np.random.default_rng(seed).normal(shift, size=(count, dimensions))
    names = tuple(f"c{k:03d}" for k in range(count))
    network = measure(real_set(1), EXTRACTORS, describe=False, curves=False).networks["stats"]
    labels = tuple(f"g{k % groups}" for k in range(count))
    return Measured(
        names, labels, ("s",) * count, {"stats": dataclasses.replace(network, dimensions=dimensions)},
        {"stats": values}, {}, {}, {}, names,
    )  # fmt: skip


def test_enough_clips_make_a_claim() -> None:
    found = compare(many(210, 30, 0, 3), many(210, 30, 1, 3, 0.5), draws=2).parts["s"].distances["stats"]
    assert (found.claim, found.n, found.warnings) == (True, 100, ())
    assert set(found.frechet) == {"fake", "floor"}


def test_dimension_above_n_is_warned_of() -> None:
    found = compare(many(210, 30, 0, 120), many(210, 30, 1, 120), draws=2).parts["s"].distances["stats"]
    assert found.claim
    assert any("120 dimensions" in warning for warning in found.warnings)


def test_one_patient_gives_no_distance() -> None:
    found = compare(many(30, 1, 0, 3), many(30, 1, 1, 3)).parts["s"].distances["stats"]
    assert (found.frechet, found.kernel, found.critic, found.n, found.claim) == ({}, {}, {}, 0, False)
    assert "1 group" in found.warnings[0]


def test_sources_apart_and_together() -> None:
    clips = real_set(12, sources=2)
    measured = measure(clips, EXTRACTORS, partner=clips, describe=False, curves=False)
    found: Comparison = compare(measured, measured, n=4, draws=2)
    assert list(found.parts) == ["source0", "source1", ALL]
    assert [part.n_real for part in found.parts.values()] == [6, 6, 12]
    alone = compare(measured, measured.select(range(6)), n=4, draws=2)
    assert list(alone.parts) == ["source0", ALL]


@pytest.mark.parametrize("wrong", [{"n": 1}, {"draws": 0}])
def test_wrong_numbers_are_refused(real: Measured, wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        compare(real, real, **wrong)


def test_repeats_of_other_clips_are_refused(real: Measured) -> None:
    with pytest.raises(ConfigError, match="Repeated"):
        compare(real, real, repeat=real.select([0, 1]))
