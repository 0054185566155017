from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from us_i2v.errors import InputError
from us_i2v.metrics.frechet import frechet_distance
from us_i2v.metrics.x3d import FEATURES, X3DXS, prepare, x3d_features

from .real import lung_clips

SIZE = 3_800_000


def untrained() -> X3DXS:
    torch.manual_seed(0)
    return X3DXS()


def test_architecture() -> None:
    network = untrained()
    assert sum(parameter.numel() for parameter in network.parameters()) == pytest.approx(SIZE, rel=0.02)
    x = torch.zeros(2, 3, 5, 32, 48)
    assert network.pool432(x).shape == (2, FEATURES)
    assert network(x).shape == (2, 400)


def test_preparation_by_hand() -> None:
    # 224 -> 112 with half-pixel centres averages two by two.
    rng = np.random.default_rng(0)
    clip = rng.integers(0, 256, (3, 224, 224), dtype=np.uint8)
    mean = clip.reshape(3, 112, 2, 112, 2).mean((2, 4))
    expected = torch.from_numpy((mean / 255 - 0.45) / 0.225).float()
    found = prepare(clip)
    assert found.shape == (1, 3, 3, 112, 112)
    for channel in range(3):
        torch.testing.assert_close(found[0, channel], expected, rtol=0, atol=1e-5)


def test_gray_equals_its_rgb_and_channels_keep_their_order() -> None:
    rng = np.random.default_rng(1)
    clip = rng.integers(0, 256, (2, 40, 30), dtype=np.uint8)
    assert torch.equal(prepare(clip), prepare(np.repeat(clip[..., None], 3, axis=3)))
    colour = np.zeros((2, 112, 112, 3), dtype=np.uint8)
    colour[..., 2] = 255
    assert prepare(colour).amax((0, 2, 3, 4)).tolist() == pytest.approx([-2, -2, 0.55 / 0.225])


def test_features_do_not_depend_on_neighbours() -> None:
    network = untrained()
    rng = np.random.default_rng(2)
    clips = [rng.integers(0, 256, (4, 32, 32 + 8 * k), dtype=np.uint8) for k in range(3)]
    together = x3d_features(network, clips)
    assert together.shape == (3, FEATURES)
    assert together.dtype == np.float64
    np.testing.assert_array_equal(together[1:2], x3d_features(network, clips[1:2]))
    assert x3d_features(network, []).shape == (0, FEATURES)


def test_batches_of_equal_clips_keep_the_features_and_their_order() -> None:
    network = untrained()
    rng = np.random.default_rng(3)
    clips = [rng.integers(0, 256, (frames, 40, 40), dtype=np.uint8) for frames in (4, 4, 4, 6, 6, 4)]
    alone = np.concatenate([x3d_features(network, [clip]) for clip in clips])
    assert np.ptp(alone, axis=0).max() > 1e-4
    np.testing.assert_array_equal(x3d_features(network, clips), alone)
    np.testing.assert_array_equal(x3d_features(network, clips[::-1]), alone[::-1])
    for batch in (2, 5):
        np.testing.assert_allclose(x3d_features(network, clips, batch=batch), alone, rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    "clip",
    [
        np.zeros((4, 32, 32)),
        np.zeros((32, 32), np.uint8),
        np.zeros((4, 32, 32, 2), np.uint8),
        np.zeros((0, 8, 8), np.uint8),
    ],
)
def test_bad_clip(clip: np.ndarray) -> None:
    with pytest.raises(InputError, match="FVD-X3D got a clip"):
        prepare(clip)


def test_real_clips_rank_as_they_should(shared_data: Path) -> None:
    """FVD-X3D against the same real clips: reversed < shuffled < static, little noise < much noise."""
    clips = lung_clips(shared_data, 12)
    network = X3DXS.load(shared_data / "weights")
    rng = np.random.default_rng(0)
    noise = [rng.normal(size=clip.shape) for clip in clips]
    real = x3d_features(network, clips)

    def distance(changed: list[np.ndarray]) -> float:
        return frechet_distance(real, x3d_features(network, changed))

    def noisy(scale: float) -> list[np.ndarray]:
        pairs = zip(clips, noise, strict=True)
        return [np.clip(clip + scale * n, 0, 255).astype(np.uint8) for clip, n in pairs]

    backwards = distance([clip[::-1] for clip in clips])
    shuffled = distance([clip[rng.permutation(16)] for clip in clips])
    static = distance([np.repeat(clip[:1], 16, axis=0) for clip in clips])
    little, much = distance(noisy(10)), distance(noisy(40))
    assert backwards < shuffled < static
    assert 0 < little < much
    assert frechet_distance(real, real) == pytest.approx(0, abs=1e-9)
