"""Scores of clips against ranges that are known, and the reference's file."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.evaluation.sets import drifting, noisy
from us_i2v.data.transforms import resize
from us_i2v.errors import ConfigError, WeightsError
from us_i2v.metrics.critic import LinearCritic, fit_critic
from us_i2v.quality import (
    LEAST_SCORE,
    MEASURED,
    METADATA_KEY,
    CriticHeader,
    QualityHeader,
    QualityReference,
    Range,
    load_reference,
    measure,
    same_interval,
    save_reference,
    score,
)
from us_i2v.still import resize_longer
from us_i2v.types import Frames
from us_i2v.weights import write_tensors

FRAMES = 4


def reference_for(values: dict[str, float], margin: float = 0.1, **changes: tuple[float, float]) -> QualityReference:
    """Ranges around measured values, some of them others."""
    ranges = {name: (value - margin, value + margin) for name, value in values.items()} | changes
    header = QualityHeader(
        package_version="0",
        name="test clips",
        frames=FRAMES,
        interval_s=0.05,
        quantiles=(0.025, 0.975),
        windows=30,
        groups=10,
        ranges={name: Range(low=low, high=high) for name, (low, high) in ranges.items()},
    )
    return QualityReference(header, None, "cd" * 32)


@pytest.fixture(scope="module")
def clip() -> Frames:
    return drifting(3, frames=FRAMES)


@pytest.fixture(scope="module")
def values(clip: Frames) -> dict[str, float]:
    return measure(clip)


def test_clip_inside_all_ranges_scores_one(clip: Frames, values: dict[str, float]) -> None:
    found = score(clip, clip[0], reference_for(values))
    assert found.value == 1
    assert "(inside)" in found.worst
    assert found.parts == {"frame0": 0.0} | {name: round(value, 6) for name, value in values.items()}


def test_the_part_furthest_outside_decides(clip: Frames, values: dict[str, float]) -> None:
    flow = values["flow"]
    reference = reference_for(values, flow=(flow + 1, flow + 3), flicker=(values["flicker"] + 1, 1e6))
    found = score(clip, clip[0], reference)
    assert found.value == pytest.approx(1 / (1 + 1 / 2), abs=1e-5)
    assert found.worst.startswith("flow ")


def test_longer_clips_are_judged_by_their_first_frames(clip: Frames, values: dict[str, float]) -> None:
    longer = np.concatenate([clip, clip[::-1]])
    assert score(longer, clip[0], reference_for(values)) == score(clip, clip[0], reference_for(values))
    with pytest.raises(ConfigError, match="A clip of 3 frames"):
        score(clip[:3], clip[0], reference_for(values))


def test_another_first_frame_costs(clip: Frames, values: dict[str, float]) -> None:
    still = (clip[0].astype(int) - 6).clip(0, 255).astype(np.uint8)
    found = score(clip, still, reference_for(values))
    assert found.worst.startswith("frame0 ")
    assert found.value == pytest.approx(1 / (1 + (found.parts["frame0"] - 2) / 2), abs=1e-5)
    assert found.value < 0.4


@pytest.mark.parametrize("what", ["it does not move", "frame 2 shows nothing", "frame 1 is washed out"])
def test_failures_score_nothing(clip: Frames, values: dict[str, float], what: str) -> None:
    broken = clip.copy()
    if what.startswith("it"):
        broken[:] = clip[0]
    elif what.startswith("frame 2"):
        broken[2] = 0
    else:
        broken[1, :40] = 255
    found = score(broken, clip[0], reference_for(values))
    assert (found.value, found.worst) == (0, what)


@pytest.mark.parametrize("side", [48, 64, 300])
def test_a_clip_of_another_size_than_its_still_loses_nothing_by_it(side: int) -> None:
    large = drifting(3, side=256, frames=FRAMES)
    clip = np.stack([resize(frame, (side, side)) for frame in large])
    reference = reference_for(measure(clip))
    for still in (large[0], np.stack([large[0]] * 3, -1)):
        found = score(clip, still, reference)
        assert found.parts["frame0"] == pytest.approx(0, abs=0.01)
        assert found.value == 1
    other = score(clip, np.roll(large[0], 20, axis=0), reference)
    assert other.parts["frame0"] > 5, "another still is told in any size"


@pytest.mark.parametrize("side", [64, 200, 400])
def test_the_size_that_clips_are_asked_for_costs_nothing(side: int) -> None:
    large = drifting(3, side=256, frames=FRAMES)
    clip = np.stack([resize_longer(frame, None, side)[0] for frame in large])  # As `--size` does.
    found = score(clip, large[0], reference_for(measure(clip)))
    assert found.parts["frame0"] < 0.5
    assert found.value == 1


def constant_critic(probability: float) -> LinearCritic:
    """A critic that gives the same to all clips."""
    n = len(MEASURED)
    return LinearCritic(np.zeros(n), np.ones(n), np.zeros(n), math.log(probability / (1 - probability)))


def test_critic_multiplies_its_probability(clip: Frames, values: dict[str, float]) -> None:
    flow = values["flow"]
    reference = reference_for(values, flow=(flow + 1, flow + 3))  # 1 / (1 + 1 / 2)
    found = score(clip, clip[0], replace(reference, critic=constant_critic(0.75)))
    assert found.value == pytest.approx(0.5, abs=1e-5)
    assert found.parts["critic"] == pytest.approx(0.75, abs=1e-6)
    assert found.worst.startswith("flow "), "its share is the smaller factor"


def test_critic_is_named_where_it_decides(clip: Frames, values: dict[str, float]) -> None:
    found = score(clip, clip[0], replace(reference_for(values), critic=constant_critic(0.02)))
    assert found.value == pytest.approx(0.02, abs=1e-6)
    assert found.worst == "critic 0.02, its probability of being real"
    assert "critic" not in score(clip, clip[0], reference_for(values)).parts


@pytest.mark.parametrize("probability", [1e-7, 1e-15])
def test_a_clip_that_the_critic_detests_is_no_failure(
    clip: Frames, values: dict[str, float], probability: float
) -> None:
    found = score(clip, clip[0], replace(reference_for(values), critic=constant_critic(probability)))
    assert found.value == LEAST_SCORE == found.parts["critic"] == 1e-6
    assert found.worst.startswith("critic ")


def test_a_clip_far_outside_is_no_failure(clip: Frames, values: dict[str, float]) -> None:
    found = score(clip, clip[0], reference_for(values, flow=(1e9, 1e9 + 1)))
    assert found.value == LEAST_SCORE
    assert found.worst.startswith("flow ")


def test_critic_without_an_answer_lets_nothing_pass(clip: Frames, values: dict[str, float]) -> None:
    n = len(MEASURED)
    row = np.array([score(clip, clip[0], reference_for(values)).parts[name] for name in MEASURED])
    broken = LinearCritic(row, np.ones(n), np.full(n, np.nan), 0.0)
    assert score(clip, clip[0], replace(reference_for(values), critic=broken)).value == LEAST_SCORE


def test_critic_prefers_what_it_learnt_as_real(clip: Frames, values: dict[str, float]) -> None:
    """Fitted on one kind of clip as real and another as made, it likes the first; fitted the other way round, not."""
    kinds = {
        "smooth": [drifting(k, frames=FRAMES) for k in range(6)],
        "noisy": [noisy(12)(drifting(k, frames=FRAMES), k) for k in range(6)],
    }
    rows = {name: np.array([list(measure(clip).values()) for clip in clips]) for name, clips in kinds.items()}
    for real, made in (("smooth", "noisy"), ("noisy", "smooth")):
        critic = fit_critic(np.concatenate([rows[real], rows[made]]), np.arange(12) < 6)
        reference = replace(reference_for(values, margin=1e6), critic=critic)
        given = {name: [score(x, x[0], reference).value for x in clips] for name, clips in kinds.items()}
        assert min(given[real]) > 0.7 > 0.3 > max(given[made])


def test_still_without_texture_leaves_its_speckle_out() -> None:
    smooth = np.linspace(60, 120, 64)[None, :] * np.ones((64, 1))
    frames = np.stack([smooth + t for t in range(FRAMES)]).astype(np.uint8)
    found = measure(frames)
    assert math.isnan(found["decorrelation"])
    known = {name: value if math.isfinite(value) else 0.5 for name, value in found.items()}
    result = score(frames, frames[0], reference_for(known))
    assert "decorrelation" not in result.parts
    assert result.value == 1


def test_reference_is_read_back(tmp_path: Path, values: dict[str, float]) -> None:
    reference = reference_for(values)
    path = tmp_path / "q.safetensors"
    save_reference(path, reference.header, None)
    assert load_reference(path).header == reference.header
    about = CriticHeader(auc=0.8, generated=30, weights_sha256="ab" * 32)
    critic = LinearCritic(np.arange(7.0), np.ones(7), np.full(7, 0.5), -0.25)
    save_reference(path, reference.header.model_copy(update={"critic": about}), critic)
    found = load_reference(path)
    assert found.critic is not None
    assert found.critic.scores(np.full((1, 7), 2.0)) == pytest.approx(0.5 * sum(2 - k for k in range(7)) - 0.25)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(WeightsError):
        load_reference(path)


@pytest.mark.parametrize(
    ("low", "high", "why"),
    [
        (2.0, 1.0, r"the range 2\.\.1 of flicker; low <= high is needed"),
        (math.nan, 1.0, "damaged header"),
        (0.0, math.inf, "damaged header"),
    ],
)
def test_ranges_that_are_none_are_refused(
    tmp_path: Path, values: dict[str, float], low: float, high: float, why: str
) -> None:
    header = reference_for(values).header.model_dump()
    header["ranges"]["flicker"] = {"low": low, "high": high}
    path = tmp_path / "q.safetensors"
    write_tensors(path, {}, {METADATA_KEY: json.dumps(header)})
    with pytest.raises(WeightsError, match=why) as error:
        load_reference(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("what", "value", "why"),
    [
        ("scale", 0.0, "a critic whose scale of decorrelation_1 is 0; above 0 is needed"),
        ("scale", -1.0, "a critic whose scale of decorrelation_1 is -1; above 0 is needed"),
        ("scale", math.nan, "holds NaN or infinity"),
        ("weight", math.inf, "holds NaN or infinity"),
    ],
)
def test_critic_that_can_judge_nothing_is_refused(
    tmp_path: Path, values: dict[str, float], what: str, value: float, why: str
) -> None:
    about = CriticHeader(auc=0.8, generated=30, weights_sha256="ab" * 32)
    header = reference_for(values).header.model_copy(update={"critic": about})
    parts = {"mean": np.zeros(7), "scale": np.ones(7), "weight": np.ones(7)}
    parts[what][3] = value
    path = tmp_path / "q.safetensors"
    save_reference(path, header, LinearCritic(**parts, bias=0.0))
    with pytest.raises(WeightsError, match=why):
        load_reference(path)


def test_critic_of_other_weights_is_refused(values: dict[str, float]) -> None:
    reference = reference_for(values)
    about = CriticHeader(auc=0.8, generated=30, weights_sha256="ab" * 32)
    with_critic = replace(reference, header=reference.header.model_copy(update={"critic": about}))
    with_critic.check(FRAMES, 20.0, "ab" * 32)
    with_critic.check(FRAMES, 20.0)
    reference.check(FRAMES, 20.0, "cd" * 32)
    with pytest.raises(ConfigError, match="critic knows clips of weights abababababab; these are of cdcdcdcdcdcd"):
        with_critic.check(FRAMES, 20.0, "cd" * 32)


def test_same_interval() -> None:
    assert same_interval(0.1, 0.1)
    assert same_interval(0.15, 0.1)
    assert same_interval(0.1, 0.15)
    assert not same_interval(0.151, 0.1)
    assert not same_interval(0.1, 0.151)


def test_built_in_reference_fits_the_bundled_weights() -> None:
    reference = load_reference()
    assert reference.built_in
    assert reference.critic is None
    assert set(reference.header.ranges) == set(MEASURED)
    assert all(limits.low < limits.high for limits in reference.header.ranges.values())
    reference.check(16, 1 / reference.header.interval_s)
    with pytest.raises(ConfigError, match="15 frames"):
        reference.check(15, 1 / reference.header.interval_s)
    with pytest.raises(ConfigError, match="--dt"):
        reference.check(16, 4 / reference.header.interval_s)
