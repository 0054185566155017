"""Contract of the denoisers, kind by kind: shapes, conditions and their "unknown" values, their start, files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from tests.factories import SMALL_AUTOENCODER, SMALL_DENOISER, small_weights, textured_still
from us_i2v.errors import ConfigError
from us_i2v.models.denoiser import UNKNOWN_LABEL, Conditions, Denoiser, DenoiserConfig, build_denoiser
from us_i2v.models.transformer import SpaceTimeTransformer
from us_i2v.models.unet import UNet
from us_i2v.pipeline import GenerateOptions, ImageToVideo
from us_i2v.weights import load_weights

SHAPE = SMALL_AUTOENCODER.latent_shape
KINDS = {"unet": UNet, "transformer": SpaceTimeTransformer}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def config_of(kind: str, **changes: object) -> DenoiserConfig:
    return SMALL_DENOISER.model_copy(update={"kind": kind, "depth": 2, **changes})


def moved(model: Denoiser, names: str = "") -> Denoiser:
    """Give every parameter that starts at zero random values, by its name alone; those whose name begins so only."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith(names) and not bool(parameter.any()):
                generator = torch.Generator().manual_seed(sum(name.encode()))
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


def build(kind: str, **changes: object) -> Denoiser:
    torch.manual_seed(0)
    return moved(build_denoiser(config_of(kind, n_labels=2, **changes), SHAPE).eval())


def inputs(batch: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(batch, *SHAPE, generator=generator)
    return z, torch.rand(batch, generator=generator), torch.rand(batch, 1, 32, 32, generator=generator)


@torch.no_grad()
def test_every_condition_changes_the_output(kind):
    model = build(kind, pressure=True, slide=True)
    z, t, still = inputs()
    plain = model(z, t, Conditions(still))
    assert plain.shape == z.shape
    variants = [
        Conditions(1 - still),
        Conditions(still, label=torch.tensor([0, 1, 0])),
        Conditions(still, motion=torch.tensor([0.5, 1.0, 2.0])),
        Conditions(still, interval=torch.tensor([0.05, 0.1, 0.1])),
        Conditions(still, pressure=torch.tensor([-1.0, 0.5, 1.0])),
        Conditions(still, slide=torch.tensor([-1.0, 0.5, 1.0])),
    ]
    for conditions in variants:
        assert not torch.allclose(model(z, t, conditions), plain, atol=1e-4)
    assert not torch.allclose(model(z, t * 0.5, Conditions(still)), plain, atol=1e-4)


@torch.no_grad()
def test_hidden_conditions_equal_none(kind):
    model = build(kind, pressure=True, slide=True)
    z, t, still = inputs()
    ones = torch.ones(3)
    known = Conditions(still, torch.tensor([0, 1, 1]), ones, torch.full((3,), 0.1), ones, -ones)
    hidden = known.drop(torch.ones(3, 5, dtype=torch.bool))
    assert hidden.label is not None
    assert bool((hidden.label == UNKNOWN_LABEL).all())
    assert torch.allclose(model(z, t, hidden), model(z, t, Conditions(still)), atol=1e-6)
    kept = known.drop(torch.zeros(3, 5, dtype=torch.bool))
    assert torch.equal(model(z, t, kept), model(z, t, known))


@torch.no_grad()
def test_the_output_starts_at_zero_and_learns(kind):
    torch.manual_seed(0)
    model = build_denoiser(config_of(kind), SHAPE)
    z, t, still = inputs()
    assert not bool(model(z, t, Conditions(still)).any())
    target = torch.randn(z.shape, generator=torch.Generator().manual_seed(5))
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    with torch.enable_grad():
        for _ in range(150):
            loss = (model(z, t, Conditions(still)) - target).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    assert float(loss) < 0.5 * float(target.square().mean())
    # After a few steps no layer is left out of the gradient's way; label and scalars were never given.
    unused = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert {name.split(".")[0] for name in unused} <= {"motion", "interval", "label"}


@torch.no_grad()
def test_samples_do_not_depend_on_their_neighbours(kind):
    model = build(kind)
    z, t, still = inputs()
    together = model(z, t, Conditions(still))
    for k in range(3):
        alone = model(z[k : k + 1], t[k : k + 1], Conditions(still[k : k + 1]))
        assert torch.allclose(together[k], alone[0], atol=1e-5)


@torch.no_grad()
def test_precomputed_still_features_change_nothing(kind):
    model = build(kind)
    z, t, still = inputs()
    features = model.embed_still(still)
    assert torch.equal(model(z, t, Conditions(still), features), model(z, t, Conditions(still)))


@torch.no_grad()
def test_a_part_of_the_still_acts_where_it_lies(kind):
    """Change the still's upper left corner: the output changes most where the latent's cells show it."""
    model = build(kind)
    z, t, still = inputs()
    other = still.clone()
    other[:, :, :8, :8] = 1 - other[:, :, :8, :8]
    change = (model(z, t, Conditions(other)) - model(z, t, Conditions(still))).abs().mean(dim=(0, 1, 2))
    side = change.shape[-1] // 4
    assert float(change[:side, :side].mean()) > 1.5 * float(change[-side:, -side:].mean())


@torch.no_grad()
@pytest.mark.parametrize("shape", [(4, 1, 8, 8), (8, 4, 4, 4), (16, 2, 2, 2)])
def test_latents_of_other_shapes(kind, shape):
    torch.manual_seed(0)
    model = moved(build_denoiser(config_of(kind), shape))
    _, t, still = inputs()
    for frames in {1, shape[1]}:
        z = torch.randn(3, shape[0], frames, *shape[2:], generator=torch.Generator().manual_seed(2))
        out = model(z, t, Conditions(still))
        assert out.shape == z.shape
        assert bool(out.any())


@torch.no_grad()
def test_a_transformer_takes_any_number_of_frames_and_knows_their_order():
    model = build("transformer")
    _, t, still = inputs()
    frame = torch.randn(3, SHAPE[0], 1, *SHAPE[2:], generator=torch.Generator().manual_seed(2))
    out = model(frame.expand(-1, -1, 9, -1, -1), t, Conditions(still))
    assert out.shape == (3, SHAPE[0], 9, *SHAPE[2:])
    assert all(not torch.allclose(out[:, :, k], out[:, :, 0], atol=1e-3) for k in range(1, 9))


@torch.no_grad()
def test_a_transformer_attends_in_space_and_in_time():
    model = build("transformer")
    z, t, still = inputs()
    plain = model(z, t, Conditions(still))
    changed = z.clone()
    changed[:, :, 0, 0, 0] += 3
    change = (model(changed, t, Conditions(still)) - plain).abs().mean(dim=(0, 1))
    assert float(change[0, -1, -1]) > 1e-5, "within the frame"
    assert float(change[-1, 0, 0]) > 1e-5, "to the last frame, same place"
    assert float(change[-1, -1, -1]) > 1e-5, "to another place of another frame, by two blocks"


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="patches of 3 x 3"):
        build_denoiser(config_of("transformer", patch=3), SHAPE)
    with pytest.raises(ConfigError, match="cannot be halved 1 times"):
        build_denoiser(config_of("unet"), (64, 1, 1, 1))
    assert build_denoiser(config_of("unet", multipliers=(1,)), (64, 1, 1, 1))
    assert build_denoiser(config_of("transformer", patch=1), (64, 1, 1, 1))
    with pytest.raises(ValidationError, match="5 heads do not divide the width 16"):
        DenoiserConfig(kind="transformer", width=16, heads=5)


def test_files_written_before_there_were_kinds_hold_a_unet():
    assert {"kind", "depth", "patch"}.isdisjoint(DenoiserConfig().model_dump())
    before = json.loads(SMALL_DENOISER.dump())
    assert isinstance(build_denoiser(DenoiserConfig.parse(before), SHAPE), UNet)
    after = json.loads(config_of("transformer").dump())
    assert after["kind"] == "transformer"
    assert DenoiserConfig.parse(after) == config_of("transformer")


def test_weights_of_either_kind_generate_clips_of_any_length(kind: str, tmp_path: Path) -> None:
    path = small_weights(tmp_path / "w.safetensors", denoiser={"kind": kind})
    network = load_weights(path).denoiser()
    assert isinstance(network, KINDS[kind])
    model = ImageToVideo.from_pretrained(path, device="cpu", threads=1)
    for frames in (16, 24):
        options = GenerateOptions(steps=2, frames=frames)
        clip, again = (model(textured_still(40, 48), seed=3, options=options)[0] for _ in range(2))
        assert clip.frames.shape == (frames, 40, 48)
        assert bool(clip.flow.any())
        assert (clip.frames == again.frames).all()


@torch.no_grad()
def test_a_step_size_starts_as_no_change_and_zero_stays_none(kind):
    torch.manual_seed(0)
    plain = build_denoiser(config_of(kind), SHAPE).eval()
    torch.manual_seed(0)
    knowing = build_denoiser(config_of(kind, step_size=True), SHAPE).eval()
    assert knowing.step_size is not None
    z, t, still = inputs()
    step_size, knowing.step_size = knowing.step_size, None
    moved(plain)
    moved(knowing)
    knowing.step_size = step_size
    without = plain(z, t, Conditions(still))
    assert float(without.std()) > 0.01
    size = torch.tensor([1.0, 0.25, 0.0])
    assert torch.equal(without, knowing(z, t, Conditions(still)))
    assert torch.equal(without, knowing(z, t, Conditions(still), step_size=size))
    moved(knowing, "step_size.")
    trained = knowing(z, t, Conditions(still), step_size=size)
    assert torch.equal(without[2], trained[2])
    assert not torch.allclose(without[:2], trained[:2], atol=1e-3)
    other = knowing(z, t, Conditions(still), step_size=torch.full((3,), 0.5))
    assert not torch.allclose(trained[:2], other[:2], atol=1e-3)
    with pytest.raises(ConfigError, match="does not know the step's size"):
        plain(z, t, Conditions(still), step_size=size)
