"""Denoiser: shapes, conditions and their "unknown" values."""

from __future__ import annotations

import torch

from tests.factories import SMALL_AUTOENCODER, SMALL_DENOISER
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
