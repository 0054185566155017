"""Discriminators: shapes, what a logit can see, spectral norm."""

from __future__ import annotations

import pytest
import torch

from us_i2v.models.discriminators import PatchDiscriminator, TemporalDiscriminator


def test_patch_logits_and_features_by_stage():
    network = PatchDiscriminator((8, 16, 24), spectral=False)
    logits, features = network(torch.rand(3, 1, 64, 48))
    assert logits.shape == (3, 1, 8, 6)
    assert [tuple(f.shape[1:]) for f in features] == [(8, 32, 24), (16, 16, 12), (24, 8, 6)]


@pytest.mark.parametrize("stages", [1, 2, 3])
def test_a_patch_logit_sees_as_much_as_stated(stages):
    network = PatchDiscriminator((8, 8, 8)[:stages], spectral=False).double()
    for stage in network.stages:
        stage[1] = torch.nn.Identity()  # the norm looks at the whole picture
    picture = torch.rand(1, 1, 96, 96, dtype=torch.float64, requires_grad=True)
    logits = network(picture)[0]
    (gradient,) = torch.autograd.grad(logits[0, 0, logits.shape[2] // 2, logits.shape[3] // 2], picture)
    seen = gradient[0, 0].abs().amax(dim=1) > 0
    assert int(seen.sum()) == 5 * 2**stages - 2


def test_temporal_logit_a_clip_and_features_by_stage():
    network = TemporalDiscriminator((8, 16, 24), spectral=False)
    logits, features = network(torch.rand(2, 1, 12, 32, 32))
    assert logits.shape == (2, 1)
    assert [tuple(f.shape[1:]) for f in features] == [(8, 12, 16, 16), (16, 6, 8, 8), (24, 3, 4, 4)]


def test_temporal_logit_depends_on_the_order_of_frames():
    torch.manual_seed(0)
    network = TemporalDiscriminator((8, 16), spectral=False)
    clip = torch.rand(1, 1, 8, 32, 32)
    shuffled = clip[:, :, [3, 0, 6, 1, 7, 2, 5, 4]]
    assert not torch.allclose(network(clip)[0], network(shuffled)[0], atol=1e-5)
    assert torch.equal(network(clip)[0], network(clip)[0])


@pytest.mark.parametrize("kind", [PatchDiscriminator, TemporalDiscriminator])
def test_samples_are_judged_one_by_one(kind):
    torch.manual_seed(0)
    network = kind((8, 16), spectral=True).eval()
    batch = torch.rand(3, 1, *([8] if kind is TemporalDiscriminator else []), 32, 32)
    alone = torch.cat([network(batch[k : k + 1])[0] for k in range(3)])
    assert torch.allclose(network(batch)[0], alone, atol=1e-5)


@pytest.mark.parametrize("kind", [PatchDiscriminator, TemporalDiscriminator])
def test_spectral_norm_makes_every_largest_singular_value_one(kind):
    torch.manual_seed(0)
    network = kind((8, 16), spectral=True)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(3)
    clip = torch.rand(2, 1, *([8] if kind is TemporalDiscriminator else []), 32, 32)
    for _ in range(60):  # one power iteration each
        network(clip)
    layers = [m for m in network.modules() if hasattr(m, "parametrizations")]
    assert len(layers) == (3 if kind is PatchDiscriminator else 5)
    for layer in layers:
        largest = torch.linalg.matrix_norm(layer.weight.flatten(1), 2)
        assert largest.item() == pytest.approx(1, abs=0.02)
    assert not [m for m in kind((8, 16), spectral=False).modules() if hasattr(m, "parametrizations")]
