"""Rendering: anchor, held contrast, and that the drawn change has the predicted size."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from scipy import ndimage

from tests.factories import textured_still
from us_i2v.models.motion import Motion
from us_i2v.models.render import SpeckleNoise, StillTexture, carried, render
from us_i2v.models.speckle import Grain, SpeckleProcess

SIZE = 160
MODEL = 80
FRAMES = 6


def setup(scale: float, seed: int = 5) -> tuple[torch.Tensor, Motion, StillTexture, SpeckleNoise]:
    gray = torch.from_numpy(textured_still(SIZE, SIZE, seed=1)).float()[None, None] / 255
    small = torch.nn.functional.interpolate(gray, (MODEL, MODEL), mode="bilinear", antialias=True)
    grid = (40, 40)
    zero = torch.zeros(1, 1, FRAMES, *grid)
    motion = Motion(torch.zeros(1, 2, FRAMES, *grid), zero, zero + 1, zero, zero + scale)
    texture = StillTexture.measure(gray, small, grid)
    return gray, motion, texture, SpeckleNoise([seed], texture, MODEL, 0.8)


@pytest.mark.parametrize("mode", ["additive", "stationary", "envelope"])
def test_frame_zero_is_the_still(mode):
    still, motion, texture, noise = setup(0.03)
    frames = render(still, motion, noise, texture, mode=mode)
    assert torch.equal(frames[:, :, 0], still)
    assert (frames[:, :, 1] - still).abs().mean() > 0.005


@pytest.mark.parametrize("mode", ["additive", "stationary", "envelope"])
def test_no_scale_means_no_change(mode):
    still, motion, texture, noise = setup(0.0)
    frames = render(still, motion, noise, texture, mode=mode)
    assert torch.allclose(frames, still[:, :, None].expand_as(frames), atol=2e-6)


def high_pass_sd(picture: torch.Tensor) -> float:
    gray = picture.numpy()
    return float((gray - ndimage.gaussian_filter(gray, 2.0)).std())


@pytest.mark.parametrize("scale", [0.03, 0.06])
def test_stationary_texture_keeps_its_contrast_and_additive_does_not(scale):
    still, motion, texture, noise = setup(scale)
    before = high_pass_sd(still[0, 0])
    kept = render(still, motion, noise, texture, mode="stationary")
    assert 0.9 < high_pass_sd(kept[0, 0, -1]) / before < 1.07
    still, motion, texture, noise = setup(scale)
    added = render(still, motion, noise, texture, mode="additive")
    assert high_pass_sd(added[0, 0, -1]) / before > 1 + scale


@pytest.mark.parametrize("scale", [0.02, 0.05])
@pytest.mark.parametrize(("mode", "least"), [("additive", 0.8), ("stationary", 0.8), ("envelope", 0.7)])
def test_drawn_change_has_the_predicted_size_at_model_size(mode, least, scale):
    """The still's texture is Gaussian; that of an envelope is not, so that it meets the size less well."""
    changes = []
    for seed in range(6):
        still, motion, texture, noise = setup(scale, seed)
        frames = render(still, motion, noise, texture, mode=mode)
        last = (frames[:, :, -1] - still)[:, :, 16:-16, 16:-16]
        small = torch.nn.functional.interpolate(last, (64, 64), mode="bilinear", antialias=True)
        changes.append(small.square().mean())
    measured = float(torch.stack(changes).mean().sqrt())
    assert least * scale < measured < 1.2 * scale


def test_same_seed_same_frames_other_seed_others():
    frames = []
    for seed in (5, 5, 6):
        still, motion, texture, noise = setup(0.05, seed)
        frames.append(render(still, motion, noise, texture))
    assert torch.equal(frames[0], frames[1])
    assert not torch.equal(frames[0], frames[2])


def test_parts_equal_the_whole():
    still, motion, texture, noise = setup(0.05)
    whole = render(still, motion, noise, texture)
    still, motion, texture, noise = setup(0.05)
    first = render(still, motion.frames(0, 2), noise, texture)
    rest = render(still, motion.frames(2, FRAMES), noise, texture)
    assert torch.allclose(torch.cat([first, rest], dim=2), whole, atol=1e-6)


def test_process_has_unit_variance_the_grain_and_the_correlation_asked_for():
    gray = textured_still(200, 200, seed=3).astype("float32") / 255
    grain = Grain.measure(torch.from_numpy(gray - gray.mean()))
    process = SpeckleProcess([1, 2], (200, 200), grain, 0.7, "test")
    noise = process.take(9)
    assert noise.shape == (2, 1, 9, 200, 200)
    assert torch.equal(noise[:, :, 0], torch.zeros_like(noise[:, :, 0]))
    assert float(noise[:, :, 1:].std()) == pytest.approx(1.0, abs=0.05)
    a, b = noise[:, :, 1:-1].flatten(), noise[:, :, 2:].flatten()
    assert float((a * b).mean() / (a.std() * b.std())) == pytest.approx(0.7, abs=0.03)
    # The texture is smoothed by a Gaussian of 1.5 px; its grain must reach the noise.
    field = noise[0, 0, 1]
    lag1 = float((field[:, :-1] * field[:, 1:]).mean() / field.square().mean())
    assert 0.75 < lag1 < 0.97


def test_noise_of_a_sample_does_not_depend_on_its_batch():
    grain = Grain.measure(torch.from_numpy(textured_still(64, 64).astype("float32") / 255 - 0.49))
    together = SpeckleProcess([1, 2], (32, 48), grain, 0.7, "test").take(3)
    alone = SpeckleProcess([2], (32, 48), grain, 0.7, "test").take(3)
    assert torch.equal(together[1], alone[0])


@pytest.mark.parametrize(("correlation", "frames"), [(0.6, 24), (0.6, 64), (0.9, 16), (0.0, 16)])
def test_noise_of_a_loop_repeats_after_a_time_around(correlation, frames):
    grain = Grain.measure(torch.from_numpy(textured_still(64, 64).astype("float32") / 255 - 0.49))
    noise = SpeckleProcess([4], (48, 48), grain, correlation, "test", frames).take(2 * frames + 1)[0, 0]
    assert torch.allclose(noise[1:frames], noise[frames + 1 : 2 * frames], atol=1e-5)
    assert torch.allclose(noise[frames], noise[2 * frames], atol=1e-5)


def test_noise_of_a_loop_is_stationary_on_the_circle():
    grain = Grain.measure(torch.from_numpy(textured_still(64, 64).astype("float32") / 255 - 0.49))
    loop = SpeckleProcess([1, 2, 3], (160, 160), grain, 0.9, "test", 16).take(17)[:, 0, 1:]
    assert torch.allclose(loop.square().mean((0, 2, 3)), torch.ones(16), atol=0.12)
    around = (loop * loop.roll(-1, dims=1)).mean((0, 2, 3)) / loop.square().mean()
    expected = (0.9 + 0.9**15) / (1 + 0.9**16)
    assert torch.allclose(around, torch.full((16,), expected), atol=0.06)
    half = (loop * loop.roll(-8, dims=1)).mean() / loop.square().mean()
    assert float(half) == pytest.approx(2 * 0.9**8 / (1 + 0.9**16), abs=0.06)


def test_noise_is_carried_around_the_edges_and_whole_pixels_keep_every_value():
    noise = torch.randn(2, 1, 3, 8, 10, generator=torch.Generator().manual_seed(0))
    grain = Grain(torch.nn.functional.one_hot(torch.tensor([12]), 25).float(), torch.full((1, 25), 0.2))
    flow = torch.zeros(2, 2, 3, 8, 10)
    assert torch.allclose(carried(noise, flow, grain), noise, atol=1e-4)
    flow[1, 0, 1], flow[1, 1, 1] = 3, -2  # frame 1 shows at p what lies at p + (3, -2)
    moved = carried(noise, flow, grain)
    assert torch.allclose(moved[0], noise[0], atol=1e-4)
    assert torch.allclose(moved[1, 0, 1], noise[1, 0, 1].roll((2, -3), (0, 1)), atol=1e-4)
    assert torch.allclose(moved[1, 0, 2], noise[1, 0, 2], atol=1e-4)


@pytest.mark.parametrize("shift", [0.0, 0.25, 0.5, 3.5])
def test_noise_carried_by_parts_of_a_pixel_keeps_its_variance(shift):
    texture = StillTexture.measure(
        *(torch.from_numpy(textured_still(160, 160)).float()[None, None] / 255,) * 2, (40, 40)
    )
    noise = SpeckleProcess([0], (160, 160), texture.fine_grain, 0.0, "fine").take(6)[:, :, 1:]
    flow = torch.full((1, 2, 5, 160, 160), shift)
    assert carried(noise, flow, texture.fine_grain).var() == pytest.approx(float(noise.var()), rel=0.04)


@pytest.mark.parametrize("mode", ["additive", "stationary", "envelope"])
def test_speckle_travels_with_the_tissue(mode):
    """Between two moved frames, what differs beyond the motion is as small as between two frames at rest."""
    still, motion, texture, _ = setup(0.04)
    shift = 6  # pixels a frame, to the left

    def flicker(pixels: int) -> float:
        flow = torch.zeros_like(motion.flow)
        flow[:, 0] = torch.arange(FRAMES)[:, None, None] * pixels * 40 / SIZE
        frames = render(still, replace(motion, flow=flow), SpeckleNoise([5], texture, MODEL, 0.95), texture, mode=mode)
        now, later = frames[0, 0, 2, :, 40:110], frames[0, 0, 3, :, 40 - pixels : 110 - pixels]
        return float((later - now).abs().mean())

    assert flicker(shift) < 1.3 * flicker(0)
