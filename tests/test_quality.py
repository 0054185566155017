"""Scores of clips against ranges that are known, and the reference's file."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.evaluation.sets import drifting
from us_i2v.errors import ConfigError, WeightsError
from us_i2v.metrics.critic import LinearCritic
from us_i2v.quality import (
    MEASURED,
    CriticHeader,
    QualityHeader,
    QualityReference,
    Range,
    load_reference,
    measure,
    save_reference,
    score,
)
from us_i2v.types import Frames

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


def test_critic_multiplies_its_probability(clip: Frames, values: dict[str, float]) -> None:
    row = np.array([values[name] for name in MEASURED])
    weight = np.zeros(len(MEASURED))
    critic = LinearCritic(row, np.ones(len(row)), weight, math.log(3.0))
    found = score(clip, clip[0], replace(reference_for(values), critic=critic))
    assert found.value == pytest.approx(0.75, abs=1e-6)


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
