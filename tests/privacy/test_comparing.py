"""Blank pictures are alike whatever they belong to, so they are compared with nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.factories import textured_still
from us_i2v.metrics.copies import pearson
from us_i2v.models.siamese import SiameseConfig, SiameseNetwork
from us_i2v.privacy import FRAMES, Comparer, Views

SIDE = 96


def views(pictures: list[list[np.ndarray]]) -> Views:
    stacked = torch.from_numpy(np.array(pictures, np.uint8))
    names = tuple(f"c{k}" for k in range(len(pictures)))
    return Views(stacked, torch.zeros(len(pictures), 8), torch.zeros(len(pictures), dtype=torch.bool), names, names)


def textures(seed: int, count: int) -> list[np.ndarray]:
    return [textured_still(SIDE, SIDE, seed=100 * seed + k) for k in range(count)]


@pytest.fixture(scope="module")
def network() -> SiameseNetwork:
    torch.manual_seed(0)
    return SiameseNetwork(SiameseConfig(size=32, widths=(8, 8, 8, 8), embedding=16)).eval()


@pytest.mark.parametrize("level", [0, 1, 40], ids=["black", "nearly", "gray"])
def test_black_starts_on_both_sides_are_no_likeness(network: SiameseNetwork, level: int) -> None:
    black = np.full((SIDE, SIDE), level, np.uint8)
    black[: level % 2] += 1
    ours, theirs = textures(1, FRAMES - 1), textures(2, FRAMES - 1)
    comparer = Comparer(network, torch.zeros(8), views([[black, *theirs]]), torch.device("cpu"))
    found = comparer.nearest(views([[black, *ours]]))
    with torch.no_grad():
        first, second = (network(torch.from_numpy(np.stack(x))[:, None].float() / 255) for x in (ours, theirs))
    assert found["siamese"].similarity[0] == pytest.approx(float(pearson(first, second).max()), abs=1e-5)
    assert found["correlation"].similarity[0] < 0.5
    # The same pictures behind a black one are still found.
    same = comparer.nearest(views([[black, theirs[1], ours[0]]]))
    assert same["siamese"].similarity[0] == pytest.approx(1, abs=1e-5)
    assert same["correlation"].similarity[0] == pytest.approx(1, abs=1e-5)


def test_wholly_black_windows_are_neither_found_nor_compared(network: SiameseNetwork) -> None:
    black = [np.zeros((SIDE, SIDE), np.uint8)] * FRAMES
    comparer = Comparer(network, torch.zeros(8), views([black, textures(3, FRAMES)]), torch.device("cpu"))
    found = comparer.nearest(views([black, textures(4, FRAMES)]))
    for measure in ("siamese", "correlation"):
        assert np.isnan(found[measure].similarity[0])
        assert np.isfinite(found[measure].similarity[1])
        assert found[measure].place[1] == 1
    assert np.isnan(found["latent"].similarity).all()
