"""Auto-encoder: shapes, identities of an untrained decoder, and that motion can be learnt."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from tests.factories import SMALL_AUTOENCODER, textured_still
from us_i2v.models.autoencoder import Autoencoder, AutoencoderConfig, Posterior
from us_i2v.models.blocks import Conv3d
from us_i2v.models.encoder import BlockSearch
from us_i2v.models.motion import deterministic_frames, warp


def build(**changes) -> Autoencoder:
    torch.manual_seed(0)
    return Autoencoder(AutoencoderConfig(**{**SMALL_AUTOENCODER.model_dump(), **changes}))


@pytest.mark.parametrize("decoder", ["warp", "adain"])
@pytest.mark.parametrize("mode", ["map", "vector"])
@pytest.mark.parametrize("radius", [0, 2])
def test_shapes(decoder, mode, radius):
    model = build(decoder=decoder, latent_mode=mode, correlation_radius=radius)
    video = torch.rand(2, 1, 16, 32, 32)
    posterior = model.encode(video)
    assert posterior.mean.shape == (2, *model.config.latent_shape)
    motion = model.decode(posterior.mean, video[:, :, 0])
    assert motion.n_frames == 16
    assert motion.grid == ((16, 16) if decoder == "warp" else (32, 32))
    assert bool((motion.scale >= 0).all())


def test_base_latent_is_two_by_sixteen_by_sixteen_by_eight():
    assert AutoencoderConfig().latent_shape == (8, 2, 16, 16)


def test_untrained_warp_decoder_repeats_the_still_exactly():
    model = build()
    still = torch.rand(2, 1, 32, 32)
    motion = model.decode(torch.randn(2, *model.config.latent_shape), still)
    full = motion.resample((0, 0, *motion.grid), (32, 32))
    assert torch.equal(deterministic_frames(still, full), still[:, :, None].expand(-1, -1, 16, -1, -1))


def test_without_a_residual_frames_are_the_still_moved_and_scaled():
    torch.manual_seed(0)
    model = build(residual=False)
    for parameter in model.decoder.parameters():
        if not bool(parameter.any()):
            torch.nn.init.normal_(parameter, std=0.2)
    still = torch.rand(2, 1, 32, 32)
    motion = model.decode(torch.randn(2, *model.config.latent_shape), still)
    assert bool(motion.flow[:, :, 1:].any())
    assert bool(motion.gain[:, :, 1:].any())
    assert not any(bool(x.any()) for x in (motion.gate, motion.mean, motion.scale))
    full = motion.at_size((32, 32))
    moved = (1 + full.gain) * warp(still, full.flow)
    assert torch.equal(deterministic_frames(still, full), moved)
    with_one = build()
    assert sum(p.numel() for p in with_one.parameters()) > sum(p.numel() for p in model.parameters())
    assert "residual" not in AutoencoderConfig().model_dump()
    with pytest.raises(ValidationError, match="residual = false needs"):
        build(residual=False, decoder="adain")


def test_adain_frames_are_painted_through_the_same_interface():
    model = build(decoder="adain")
    still = torch.rand(1, 1, 32, 32)
    motion = model.decode(torch.randn(1, *model.config.latent_shape), still)
    frames = deterministic_frames(still, motion)
    assert bool((frames >= -1e-6).all())
    assert bool((frames <= 1 + 1e-6).all())
    assert not torch.allclose(frames[:, :, 3], still, atol=1e-2)


def test_kl_of_a_standard_normal_is_zero_and_grows():
    zero = torch.zeros(2, 4, 2, 4, 4)
    assert torch.equal(Posterior(zero, zero).kl(), torch.zeros(2))
    assert float(Posterior(zero + 2, zero).kl()[0]) == pytest.approx(2.0)


def test_black_clips_have_finite_gradients():
    model = build()
    posterior = model.encode(torch.zeros(1, 1, 16, 32, 32))
    posterior.mean.square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.encoder.parameters() if p.grad is not None)


@pytest.mark.parametrize("frames", [2, 4, 8])
@pytest.mark.parametrize("stride", [(1, 1, 1), (2, 1, 1), (2, 2, 2), (1, 2, 2)])
def test_convolution_under_autocast_equals_the_exact_one(frames, stride):
    torch.manual_seed(0)
    layer = Conv3d(4, 6, 3, stride=stride, padding=1)
    x = torch.randn(2, 4, frames, 8, 8)
    exact = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        half = layer(x)
    assert half.shape == exact.shape
    assert torch.allclose(exact, half.float(), atol=0.03)
    half.float().square().sum().backward()
    weight, bias = layer.weight.grad.clone(), layer.bias.grad.clone()
    layer.zero_grad()
    exact.square().sum().backward()
    assert torch.allclose(weight, layer.weight.grad, rtol=0.05, atol=0.02 * float(layer.weight.grad.abs().max()))
    assert torch.allclose(bias, layer.bias.grad, rtol=0.05, atol=0.02 * float(layer.bias.grad.abs().max()))


@pytest.mark.parametrize(
    "bad", [{"temporal_strides": (1, 1, 1, 1)}, {"size": 40, "spatial_strides": (2, 2, 2, 2)}, {"size": 33}]
)
def test_impossible_strides_are_refused(bad):
    with pytest.raises(ValidationError):
        AutoencoderConfig(**bad)


def test_a_translation_can_be_learnt():
    """A few steps on one shifting texture beat repeating the still by half."""
    torch.manual_seed(0)
    model = build(correlation_radius=2)
    base = torch.nn.functional.avg_pool2d(torch.rand(1, 1, 52, 52), 5, 1, 2)[:, :, 2:-2, 2:-2]
    video = torch.stack([base[:, :, 8:40, 8 - t // 4 : 40 - t // 4] for t in range(16)], dim=2)
    video = (video - video.mean()) / video.std() * 0.2 + 0.5
    optimiser = torch.optim.Adam(model.parameters(), 5e-3)
    still = video[:, :, 0]
    for _ in range(60):
        motion = model.decode(model.encode(video).mean, still)
        full = motion.resample((0, 0, *motion.grid), (32, 32))
        loss = (deterministic_frames(still, full) - video).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    repeat = (video - still[:, :, None]).abs().mean()
    assert float(loss.detach()) < 0.5 * float(repeat)


@pytest.mark.parametrize("decoder", ["warp", "adain"])
def test_a_vector_latent_can_tell_places_and_times_apart(decoder):
    torch.manual_seed(0)
    config = AutoencoderConfig(size=32, decoder=decoder, latent_mode="vector", latent_channels=4, correlation_radius=0)
    seed = Autoencoder(config).decoder.seed
    cells = seed(torch.randn(3, 4, 1, 1, 1))
    assert cells.shape == (3, 4, 2, 4, 4)
    # Every cell is a map of its own, and the latent reaches all of them.
    assert torch.unique(cells[0, 0].round(decimals=5)).numel() == 32
    assert ((cells[0] - cells[1]).abs() > 1e-5).all()


def test_block_search_reads_off_a_moved_picture():
    """Frame t shows at p what frame 0 has at p + (2 t, -t); noise is explained less."""
    big = torch.from_numpy(textured_still(160, 160, seed=2)).float() / 255
    frames = [big[16 - t : 16 - t + 128, 16 + 2 * t : 16 + 2 * t + 128] for t in range(4)]
    found = BlockSearch()(torch.stack(frames)[None, None])
    assert found.shape == (1, 3, 4, 32, 32)
    assert (found[:, :, 0] == 0).all()
    inside = found[0, :, 1:, 4:-4, 4:-4].flatten(2).median(dim=-1).values
    torch.testing.assert_close(8 * inside[0], torch.tensor([2.0, 4.0, 6.0]), atol=0.3, rtol=0)
    torch.testing.assert_close(8 * inside[1], torch.tensor([-1.0, -2.0, -3.0]), atol=0.6, rtol=0)
    assert (inside[2] > 0.5).all()
    noise = torch.rand(1, 1, 4, 128, 128, generator=torch.Generator().manual_seed(0))
    assert BlockSearch()(noise)[:, 2, 1:].mean() < 0.4


def test_block_search_of_blank_frames_is_finite_and_at_rest():
    found = BlockSearch()(torch.zeros(1, 1, 3, 32, 32))
    torch.testing.assert_close(found[:, :2], torch.zeros(1, 2, 3, 8, 8), atol=1e-6, rtol=0)
    assert torch.isfinite(found).all()


def test_an_encoder_with_block_search_sees_it_and_keeps_the_parameters_small():
    plain, told = build(correlation_radius=0), build(correlation_radius=0, block_search=True)
    more = sum(p.numel() for p in told.parameters()) - sum(p.numel() for p in plain.parameters())
    assert 0 < more < 200 * 32
    video = torch.rand(1, 1, 16, 32, 32, generator=torch.Generator().manual_seed(1))
    assert told.encode(video).mean.shape == plain.encode(video).mean.shape
    assert "block_search" not in AutoencoderConfig().model_dump()


def test_learned_time_upsampling_starts_as_repetition_and_can_tell_every_frame_apart():
    torch.manual_seed(0)
    repeated, learned = build(), build(time_upsampling="learned")
    missing, unexpected = learned.load_state_dict(repeated.state_dict(), strict=False)
    assert not unexpected
    assert {key.split(".")[1] for key in missing} == {"spread1", "spread2"}
    for decoder in (repeated.decoder, learned.decoder):
        torch.nn.init.normal_(decoder.flow_head.weight, std=0.1, generator=torch.Generator().manual_seed(1))
    z, still = torch.randn(1, *repeated.config.latent_shape), torch.rand(1, 1, 32, 32)
    torch.testing.assert_close(learned.decode(z, still).flow, repeated.decode(z, still).flow)
    # Frames 9 and 10 are copies of one step with alike neighbours until the maps differ.
    between = repeated.decode(z, still).flow.detach().diff(dim=2).abs().amax(dim=(0, 1, 3, 4))
    assert float(between[9]) == pytest.approx(0, abs=1e-6)
    torch.nn.init.normal_(learned.decoder.spread2.maps.weight, std=0.2, generator=torch.Generator().manual_seed(2))
    assert (learned.decode(z, still).flow.diff(dim=2).abs().amax(dim=(0, 1, 3, 4)) > 1e-3).all()


def test_learned_time_upsampling_is_the_warp_decoders_and_leaves_old_files_alone():
    with pytest.raises(ValidationError, match="warp"):
        AutoencoderConfig(decoder="adain", time_upsampling="learned")
    assert "time_upsampling" not in AutoencoderConfig().model_dump()
    assert AutoencoderConfig(time_upsampling="learned").model_dump()["time_upsampling"] == "learned"
