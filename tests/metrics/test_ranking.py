"""Copies of clips that are wrong in a known way must rank as they should."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from us_i2v.data.clips import open_clip
from us_i2v.metrics.critic import critic_auc
from us_i2v.metrics.energy_score import energy_score, motion_vector
from us_i2v.metrics.frechet import frechet_distance
from us_i2v.metrics.kernel import kernel_distance
from us_i2v.metrics.motion import motion_energy
from us_i2v.metrics.speckle import decorrelation, flicker, local_deviation
from us_i2v.metrics.x3d import X3DXS, x3d_features

from .synthetic import moving_clip


def wrong_copies(clip: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Frozen, shuffled and noisy; frame 0 is kept, as a generator keeps its still."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=clip.shape)
    noise[0] = 0
    noise = noise if clip.ndim == 3 else noise[..., :1]
    order = np.concatenate([[0], 1 + rng.permutation(len(clip) - 1)])
    return {
        "frozen": np.repeat(clip[:1], len(clip), axis=0),
        "shuffled": clip[order],
        "little noise": np.clip(clip + 5 * noise, 0, 255).astype(np.uint8),
        "much noise": np.clip(clip + 20 * noise, 0, 255).astype(np.uint8),
    }


@pytest.fixture(scope="module")
def clips() -> list[np.ndarray]:
    """Textures of many speeds that decorrelate slowly."""
    rng = np.random.default_rng(0)
    return [moving_clip(seed, tuple(rng.normal(0, 0.25, 2)), rho=0.98) for seed in range(6)]


def test_motion_energy_and_flicker(clips: list[np.ndarray]) -> None:
    for measure in (motion_energy, flicker):
        values = {name: [] for name in ("real", "frozen", "shuffled", "much noise")}
        for seed, clip in enumerate(clips):
            for name, frames in ({"real": clip} | wrong_copies(clip, seed)).items():
                if name in values:
                    values[name].append(measure(frames))
        mean = {name: np.mean(found) for name, found in values.items()}
        assert mean["frozen"] == 0
        assert 0 < mean["real"] < mean["shuffled"]
        assert mean["real"] < mean["much noise"]


def test_decorrelation_and_local_deviation(clips: list[np.ndarray]) -> None:
    for seed, clip in enumerate(clips[:3]):
        real = decorrelation(clip)
        wrong = {name: decorrelation(frames) for name, frames in wrong_copies(clip, seed).items()}
        np.testing.assert_array_equal(wrong["frozen"], 1)
        assert 1 > real[1:].mean() > wrong["little noise"][1:].mean() > wrong["much noise"][1:].mean()
        # Shuffling keeps the values and loses their order.
        assert np.diff(real).max() < 0.05 < np.diff(wrong["shuffled"]).max()
        noisy = [local_deviation(wrong_copies(clip, seed)[name]) for name in ("little noise", "much noise")]
        assert local_deviation(clip) < noisy[0] < noisy[1]


def test_energy_score_of_motion(clips: list[np.ndarray]) -> None:
    """Four draws from the true motions beat one of them repeated, frozen, shuffled and noisy ones."""
    rng = np.random.default_rng(1)
    kinds: dict[str, list[np.ndarray]] = {"real": [motion_vector(clip) for clip in clips]}
    for seed, clip in enumerate(clips):
        for name, frames in wrong_copies(clip, seed).items():
            kinds.setdefault(name, []).append(motion_vector(frames))
    scores: dict[str, list[float]] = {name: [] for name in [*kinds, "one repeated"]}
    for k, real in enumerate(kinds["real"]):
        others = rng.permutation(np.delete(np.arange(len(clips)), k))[:4]
        answers = {name: np.stack([vectors[i] for i in others]) for name, vectors in kinds.items()}
        answers["one repeated"] = np.repeat(answers["real"][:1], 4, axis=0)
        for name, drawn in answers.items():
            between = np.linalg.norm(drawn[:, None] - drawn[None], axis=2)
            scores[name].append(energy_score(np.linalg.norm(drawn - real, axis=1), between))
    mean = {name: float(np.mean(found)) for name, found in scores.items()}
    assert mean.pop("real") < min(mean.values())


def test_features_of_real_clips(shared_data: Path) -> None:
    """X3D features of probes' clips: distances grow from little to much harm; the critic finds what is harmed."""
    folder = shared_data / "data" / "videos" / "lung_pocus" / "regular"
    paths = [path for k in (1, 3, 4) for path in sorted(folder.glob(f"Reg_pat{k}*.mpeg"))[:2]]
    patients = [path.stem.partition("Image")[0] for path in paths]
    assert len(paths) == 6
    real = [open_clip(path).read(range(16)) for path in paths]
    network = X3DXS.load(shared_data / "weights")
    features = {"real": x3d_features(network, real)}
    copies = [wrong_copies(clip, seed) for seed, clip in enumerate(real)]
    for name in ("frozen", "little noise", "much noise"):
        features[name] = x3d_features(network, [copy[name] for copy in copies])
    for distance in (frechet_distance, lambda a, b: kernel_distance(a, b, patients, patients)):
        little, much = (distance(features["real"], features[name]) for name in ("little noise", "much noise"))
        assert little < much
        assert distance(features["real"], features["frozen"]) > distance(features["real"], features["real"])
    auc = critic_auc(features["real"], features["much noise"], patients, patients, folds=3)[0]
    assert auc > 0.8
