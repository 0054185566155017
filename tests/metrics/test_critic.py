from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize

from us_i2v.errors import ConfigError, DataError
from us_i2v.metrics import critic
from us_i2v.metrics.critic import critic_auc, critic_folds, critic_interval


def patients(count: int, each: int, prefix: str = "p") -> list[str]:
    return [f"{prefix}{i // each}" for i in range(count)]


def test_identical_distributions() -> None:
    rng = np.random.default_rng(0)
    groups = patients(200, 4)
    values = [critic_auc(rng.normal(size=(200, 20)), rng.normal(size=(200, 20)), groups, groups)[0] for _ in range(6)]
    assert 0.45 < np.mean(values) < 0.55


def test_separated_distributions() -> None:
    rng = np.random.default_rng(1)
    groups = patients(60, 3)
    real, fake = rng.normal(size=(60, 8)), rng.normal(size=(60, 8))
    fake[:, 3] += 9
    auc, scores = critic_auc(real, fake, groups, groups)
    assert auc == 1
    assert scores.shape == (120,)
    assert scores[:60].min() > scores[60:].max()
    # Exchanged labels: the critic tells them apart as well.
    assert critic_auc(fake, real, groups, groups)[0] == 1


def test_known_auc() -> None:
    # Two unit Gaussians a distance delta apart: the best AUC is Phi(delta / sqrt(2)) = 0.760 for 1.
    rng = np.random.default_rng(2)
    real, fake = rng.normal(size=(900, 2)), rng.normal(size=(900, 2)) + np.array([1, 0])
    single = [str(i) for i in range(900)]
    assert critic_auc(real, fake, single, single)[0] == pytest.approx(0.760, abs=0.03)


def test_patients_do_not_leak() -> None:
    """Features that tell the patient, and nothing else: by patient no better than chance, by clip perfect."""
    rng = np.random.default_rng(3)
    by_patient, by_clip = [], []
    for _ in range(5):
        real, fake = (
            (4 * np.repeat(rng.normal(size=(25, 30)), 6, axis=0) + 0.1 * rng.normal(size=(150, 30))) for _ in range(2)
        )
        by_patient.append(critic_auc(real, fake, patients(150, 6), patients(150, 6, "q"))[0])
        single = [str(i) for i in range(150)]
        by_clip.append(critic_auc(real, fake, single, [f"f{i}" for i in single], penalty=1e-4)[0])
    assert np.mean(by_clip) > 0.9
    assert 0.35 < np.mean(by_patient) < 0.65


def test_folds_hold_whole_patients_of_both_sides() -> None:
    groups = ["a"] * 7 + ["b"] * 5 + ["c"] * 3 + ["d", "e", "f"]
    folds = critic_folds(groups, 3, seed=0)
    for name in set(groups):
        assert len({int(f) for f, g in zip(folds, groups, strict=True) if g == name}) == 1
    assert sorted(np.bincount(folds).tolist()) == [5, 6, 7]
    assert len(set(critic_folds(["a", "b"], 5, seed=0).tolist())) == 2


def test_standardisation_uses_training_folds_only(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    original = critic._score

    def spy(train: np.ndarray, is_real: np.ndarray, judged: np.ndarray, penalty: float) -> np.ndarray:
        seen.append((len(train), len(judged)))
        wild = original(train, is_real, np.concatenate([judged, judged * 1e6]), penalty)
        plain = original(train, is_real, judged, penalty)
        np.testing.assert_allclose(wild[: len(judged)], plain)  # A clip's score ignores its neighbours.
        return plain

    monkeypatch.setattr(critic, "_score", spy)
    rng = np.random.default_rng(4)
    groups = patients(40, 4)
    critic_auc(rng.normal(size=(40, 3)), rng.normal(size=(40, 3)), groups, groups)
    assert [sum(sizes) for sizes in seen] == [80] * 5


def test_invariances() -> None:
    rng = np.random.default_rng(5)
    real, fake = rng.normal(size=(60, 6)), rng.normal(size=(60, 6)) + 0.5
    groups = patients(60, 3)
    auc, scores = critic_auc(real, fake, groups, groups)
    scale, shift = np.array([1, 10, 0.1, 5, 2, 1e3]), np.array([0, 3, -8, 0, 1e3, 0])
    other, other_scores = critic_auc(real * scale + shift, fake * scale + shift, groups, groups)
    assert other == pytest.approx(auc, abs=1e-9)
    np.testing.assert_allclose(other_scores, scores, atol=1e-4)
    # A feature that never varies says nothing.
    constant = [np.concatenate([x, np.full((60, 1), 7.3)], axis=1) for x in (real, fake)]
    assert critic_auc(constant[0], constant[1], groups, groups)[0] == auc
    # Imbalance does not decide: many more fakes of the same kind.
    many = critic_auc(real, np.concatenate([fake] * 4), groups, groups * 4)[0]
    assert many == pytest.approx(auc, abs=0.05)


def test_optimum_against_another_solver() -> None:
    rng = np.random.default_rng(6)
    x = rng.normal(size=(30, 3))
    x = (x - x.mean(0)) / x.std(0)
    is_real = np.arange(30) < 12
    x[is_real, 0] += 1
    x = (x - x.mean(0)) / x.std(0)

    def loss(p: np.ndarray) -> float:
        margin = np.where(is_real, 1, -1) * (x @ p[:3] + p[3])
        log = np.log1p(np.exp(-margin))
        return 0.5 * log[is_real].mean() + 0.5 * log[~is_real].mean() + 0.05 * (p[:3] @ p[:3])

    best = optimize.minimize(loss, np.zeros(4), method="Nelder-Mead", options={"maxiter": 5000, "xatol": 1e-8}).x
    found = critic._score(x, is_real, x, 0.1)
    np.testing.assert_allclose(found, x @ best[:3] + best[3], atol=1e-4)


def test_interval() -> None:
    rng = np.random.default_rng(7)
    groups = patients(90, 3)
    real, fake = rng.normal(size=(90, 5)), rng.normal(size=(90, 5))
    same = critic_interval(real, fake, groups, groups, repeats=300)
    assert same.low < 0.5 < same.high
    assert same.mean == critic_auc(real, fake, groups, groups)[0]
    assert (same.n, same.groups) == (90, 30)
    apart = critic_interval(real, fake + 1, groups, groups, repeats=300)
    assert 0.8 < apart.low <= apart.mean <= apart.high <= 1


def test_errors() -> None:
    good = np.zeros((4, 2))
    groups = list("pqrs")
    with pytest.raises(DataError, match="do not fit"):
        critic_auc(good, np.zeros((4, 3)), groups, groups)
    with pytest.raises(DataError, match="NaN"):
        critic_auc(good, good + np.nan, groups, groups)
    with pytest.raises(DataError, match="3 groups were given for 4"):
        critic_auc(good, good, groups[:3], groups)
    with pytest.raises(DataError, match="1 group cannot"):
        critic_auc(good, good, ["p"] * 4, ["p"] * 4)
    with pytest.raises(DataError, match="left to train on"):
        critic_auc(good, good, ["p"] * 4, list("qrst"))
    with pytest.raises(ConfigError, match="1 folds"):
        critic_auc(good, good, groups, groups, folds=1)
    with pytest.raises(ConfigError, match="penalty of 0"):
        critic_auc(good, good, groups, groups, penalty=0)
    # Every patient has real or generated clips only, and each fold happens to hold one kind.
    with pytest.raises(DataError, match="No fold holds real and generated"):
        critic_auc(good, good, list("pqrs"), list("tuvw"), folds=8)
