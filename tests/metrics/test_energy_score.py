from __future__ import annotations

import math

import numpy as np
import pytest

from us_i2v.data.phantom import PhantomConfig, simulate
from us_i2v.errors import DataError, InputError
from us_i2v.metrics.block_matching import block_motion
from us_i2v.metrics.energy_score import CELLS, energy_score, motion_distance, motion_vector

from .synthetic import ar1_clip, moving_clip


def score(samples: np.ndarray, real: np.ndarray) -> float:
    """Energy score of (K, D) samples with the Euclidean distance."""
    between = np.linalg.norm(samples[:, None] - samples[None], axis=2)
    return energy_score(np.linalg.norm(samples - real, axis=1), between)


def test_by_hand() -> None:
    between = [[0, 1, 2], [1, 0, 3], [2, 3, 0]]
    assert energy_score([4, 5, 9], between) == 6 - 0.5 * 2
    # The diagonal does not count.
    assert energy_score([4, 5], [[7, 2], [2, 7]]) == 4.5 - 1


def test_closed_form_in_one_dimension() -> None:
    # X, y ~ N(0, 1): E|X - y| = E|X - X'| = 2 / sqrt(pi), so the expected score is 1 / sqrt(pi).
    rng = np.random.default_rng(0)
    values = [score(rng.normal(size=(8, 1)), rng.normal(size=1)) for _ in range(4000)]
    assert np.mean(values) == pytest.approx(1 / math.sqrt(math.pi), abs=4 * np.std(values) / math.sqrt(4000))


def test_the_truth_scores_best_in_expectation() -> None:
    """Truth N(0, I) in two dimensions against shifted, too narrow, too wide, and one answer repeated."""
    rng = np.random.default_rng(1)
    scores: dict[str, list[float]] = {name: [] for name in ("true", "shifted", "narrow", "wide", "mean", "one")}
    for _ in range(3000):
        real, draw = rng.normal(size=2), rng.normal(size=(8, 2))
        answers = {
            "true": draw,
            "shifted": draw + np.array([0.5, 0]),
            "narrow": 0.5 * draw,
            "wide": 1.6 * draw,
            "mean": 1e-9 * draw,
            "one": np.repeat(draw[:1], 8, axis=0),
        }
        for name, samples in answers.items():
            scores[name].append(score(samples, real))
    best = np.array(scores["true"])
    for name, values in scores.items():
        if name != "true":
            excess = np.array(values) - best
            assert excess.mean() > 4 * excess.std() / math.sqrt(3000), name


def test_fair_expectation_does_not_depend_on_the_number_of_samples() -> None:
    rng = np.random.default_rng(2)
    few = [score(rng.normal(size=(2, 2)), rng.normal(size=2)) for _ in range(6000)]
    many = [score(rng.normal(size=(16, 2)), rng.normal(size=2)) for _ in range(2000)]
    error = math.hypot(np.std(few) / math.sqrt(6000), np.std(many) / math.sqrt(2000))
    assert abs(np.mean(few) - np.mean(many)) < 4 * error


def test_score_errors() -> None:
    good = np.zeros((2, 2))
    with pytest.raises(DataError, match="no energy score"):
        energy_score([1.0], [[0.0]])
    with pytest.raises(DataError, match="no energy score"):
        energy_score([1.0, 2.0, 3.0], good)
    with pytest.raises(DataError, match="NaN"):
        energy_score([1.0, math.nan], good)
    with pytest.raises(DataError, match="negative"):
        energy_score([1.0, -1.0], good)
    with pytest.raises(DataError, match="not symmetric"):
        energy_score([1.0, 1.0], [[0, 1], [2, 0]])


def test_motion_distance_is_a_euclidean_distance() -> None:
    clips = [moving_clip(seed, speed) for seed, speed in ((0, (0.4, 0)), (1, (0, 0.4)), (2, (-0.3, 0.3)))]
    clips.append(np.repeat(clips[0][:1], 12, axis=0))
    vectors = np.stack([motion_vector(clip) for clip in clips])
    assert vectors.shape == (4, 11 * (2 * CELLS**2 + 1))
    apart = np.array([[motion_distance(a, b) for b in clips] for a in clips])
    np.testing.assert_array_equal(np.diag(apart), 0)
    np.testing.assert_array_equal(apart, apart.T)
    assert apart[~np.eye(4, dtype=bool)].min() > 0.1
    np.testing.assert_allclose(apart, np.linalg.norm(vectors[:, None] - vectors[None], axis=2))
    # Negative type: sum of w_i w_j d_ij <= 0 for weights that sum to 0.
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(200, 4))
    weights -= weights.mean(1, keepdims=True)
    assert np.einsum("ni,ij,nj->n", weights, apart, weights).max() <= 1e-9


def test_units_of_the_motion_vector() -> None:
    """Rigid motion reads in px; a frozen clip has no flow and the floor's energy."""
    speed = (0.5, -0.25)
    clip = moving_clip(3, speed)
    steps = 11
    vector = motion_vector(clip)
    flow = vector[:-steps].reshape(steps, 2, CELLS, CELLS) * np.sqrt(steps * CELLS**2)
    t = np.arange(1, 12)
    # frame_t(p) = frame_0(p + d) with d = -speed t; x is channel 0. Sub-pixel matching costs a little.
    np.testing.assert_allclose(flow[:, 0].mean((1, 2)), -speed[1] * t, atol=0.3)
    np.testing.assert_allclose(flow[:, 1].mean((1, 2)), -speed[0] * t, atol=0.3)
    energy = vector[-steps:] * np.sqrt(steps)
    change = np.abs(np.diff(clip.astype(float), axis=0)).mean((1, 2))
    np.testing.assert_allclose(energy, np.log(0.5 + change), rtol=1e-5)
    frozen = motion_vector(np.repeat(clip[:1], 12, axis=0))
    np.testing.assert_array_equal(frozen[:-steps], 0)
    np.testing.assert_allclose(frozen[-steps:] * np.sqrt(steps), np.log(0.5))


def test_speckle_that_changes_without_moving_has_no_flow() -> None:
    clip = ar1_clip(0.0, seed=1, frames=6)
    vector = motion_vector(clip)
    flow = vector[:-5].reshape(5, 2, CELLS, CELLS) * np.sqrt(5 * CELLS**2)
    assert np.abs(block_motion(clip).flow).mean() > 1.5
    assert np.abs(flow).mean() < 0.25


def test_phantoms_flow_is_read() -> None:
    clip = simulate(PhantomConfig(n_frames=5, fps=8, displacement=(0.04, 0.041), drift_mm=(1e-3, 1.1e-3)), seed=1)
    flow = motion_vector(clip.frames)[:-4].reshape(4, 2, CELLS, CELLS) * np.sqrt(4 * CELLS**2)
    inner = clip.flow[1:, :, 8:120, 8:120].reshape(4, 2, CELLS, 28, CELLS, 28).mean((3, 5))
    assert np.abs(inner).max() > 1
    assert np.corrcoef(flow.ravel(), inner.ravel())[0, 1] > 0.9


def test_given_block_motion_is_used() -> None:
    clip = moving_clip(4)
    np.testing.assert_array_equal(motion_vector(clip, block_motion(clip)), motion_vector(clip))
    with pytest.raises(InputError, match="the clip needs"):
        motion_vector(clip, block_motion(clip, block=4, search=4))


def test_motion_errors() -> None:
    clip = moving_clip(5, frames=3)
    with pytest.raises(InputError, match="cannot be compared"):
        motion_distance(clip, clip[:2])
    with pytest.raises(InputError, match="too small"):
        motion_vector(clip[:, :16, :16])
    assert motion_distance(clip, np.repeat(clip[..., None], 3, axis=3)) == pytest.approx(0, abs=1e-3)
