from __future__ import annotations

import math

import torch

from us_i2v.models.siamese import SiameseConfig, SiameseNetwork, contrastive_loss


def test_brightness_and_contrast_do_not_count() -> None:
    torch.manual_seed(0)
    network = SiameseNetwork(SiameseConfig(size=32, widths=(8, 8, 8, 8), embedding=16))
    picture = 0.2 + 0.5 * torch.rand(2, 1, 48, 48)
    one, other = network(picture), network(0.2 + 0.7 * picture)
    assert one.shape == (2, 16)
    assert torch.corrcoef(torch.cat([one[:1], other[:1]]))[0, 1] > 0.999


def test_loss_of_unrelated_and_of_perfect_pairs() -> None:
    eye = torch.eye(4)
    loss, recall = contrastive_loss(eye, eye, torch.arange(4), 0.01)
    assert loss < 1e-6
    assert recall == 1
    same = torch.ones(4, 4).cumsum(1)
    loss, _ = contrastive_loss(same, same, torch.arange(4), 0.1)
    assert math.isclose(float(loss), math.log(4), rel_tol=1e-5)


def test_pairs_of_one_group_are_no_strangers() -> None:
    same = torch.ones(4, 4).cumsum(1)
    loss, _ = contrastive_loss(same, same, torch.tensor([0, 0, 1, 1]), 0.1)
    assert math.isclose(float(loss), math.log(3), rel_tol=1e-5)
