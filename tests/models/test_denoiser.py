"""Denoiser: shapes, conditions and their "unknown" values."""

from __future__ import annotations

import pytest
import torch

from tests.factories import SMALL_AUTOENCODER, SMALL_DENOISER
from us_i2v.errors import ConfigError
from us_i2v.models.denoiser import UNKNOWN_LABEL, Conditions, Denoiser

SHAPE = SMALL_AUTOENCODER.latent_shape


def build() -> Denoiser:
    torch.manual_seed(0)
    model = Denoiser(SMALL_DENOISER.model_copy(update={"n_labels": 2}), SHAPE).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if not bool(parameter.any()):
                parameter.normal_(0, 0.3)
    return model


def inputs(batch: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(batch, *SHAPE, generator=generator)
    return z, torch.rand(batch, generator=generator), torch.rand(batch, 1, 32, 32, generator=generator)


@torch.no_grad()
def test_every_condition_changes_the_output():
    model = build()
    z, t, still = inputs()
    plain = model(z, t, Conditions(still))
    assert plain.shape == z.shape
    variants = [
        Conditions(1 - still),
        Conditions(still, label=torch.tensor([0, 1, 0])),
        Conditions(still, motion=torch.tensor([0.5, 1.0, 2.0])),
        Conditions(still, interval=torch.tensor([0.05, 0.1, 0.1])),
    ]
    for conditions in variants:
        assert not torch.allclose(model(z, t, conditions), plain, atol=1e-4)
    assert not torch.allclose(model(z, t * 0.5, Conditions(still)), plain, atol=1e-4)


@torch.no_grad()
def test_hidden_conditions_equal_none():
    model = build()
    z, t, still = inputs()
    known = Conditions(still, torch.tensor([0, 1, 1]), torch.ones(3), torch.full((3,), 0.1))
    hidden = known.drop(torch.ones(3, 3, dtype=torch.bool))
    assert hidden.label is not None
    assert bool((hidden.label == UNKNOWN_LABEL).all())
    assert torch.allclose(model(z, t, hidden), model(z, t, Conditions(still)), atol=1e-6)
    kept = known.drop(torch.zeros(3, 3, dtype=torch.bool))
    assert torch.equal(model(z, t, kept), model(z, t, known))


@torch.no_grad()
def test_samples_do_not_depend_on_their_neighbours():
    model = build()
    z, t, still = inputs()
    together = model(z, t, Conditions(still))
    for k in range(3):
        alone = model(z[k : k + 1], t[k : k + 1], Conditions(still[k : k + 1]))
        assert torch.allclose(together[k], alone[0], atol=1e-5)


@torch.no_grad()
def test_precomputed_still_features_change_nothing():
    model = build()
    z, t, still = inputs()
    features = model.embed_still(still)
    assert torch.equal(model(z, t, Conditions(still), features), model(z, t, Conditions(still)))


@torch.no_grad()
def test_a_step_size_starts_as_no_change_and_zero_stays_none():
    torch.manual_seed(0)
    plain = Denoiser(SMALL_DENOISER, SHAPE).eval()
    torch.manual_seed(0)
    knowing = Denoiser(SMALL_DENOISER.model_copy(update={"step_size": True}), SHAPE).eval()
    assert knowing.step_size is not None
    z, t, still = inputs()
    for model in (plain, knowing):
        for name, parameter in model.named_parameters():
            if not bool(parameter.any()) and not name.startswith("step_size."):
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name))))
    without = plain(z, t, Conditions(still))
    assert float(without.std()) > 0.01
    size = torch.tensor([1.0, 0.25, 0.0])
    assert torch.equal(without, knowing(z, t, Conditions(still)))
    assert torch.equal(without, knowing(z, t, Conditions(still), step_size=size))
    for parameter in knowing.step_size.parameters():
        parameter.copy_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
    trained = knowing(z, t, Conditions(still), step_size=size)
    assert torch.equal(without[2], trained[2])
    assert not torch.allclose(without[:2], trained[:2], atol=1e-3)
    other = knowing(z, t, Conditions(still), step_size=torch.full((3,), 0.5))
    assert not torch.allclose(trained[:2], other[:2], atol=1e-3)
    with pytest.raises(ConfigError, match="does not know the step's size"):
        plain(z, t, Conditions(still), step_size=size)
