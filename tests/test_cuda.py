"""What is promised of a GPU: the CPU's motion, and speckle of the same kind. Skipped where there is none."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.factories import small_weights, textured_still
from us_i2v.models.replay import Replay
from us_i2v.models.speckle import Grain, SpeckleProcess
from us_i2v.pipeline import GenerateOptions, ImageToVideo

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")

FAST = GenerateOptions(steps=3)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return small_weights(tmp_path_factory.mktemp("weights") / "w.safetensors", labels=("benign", "malignant"))


@pytest.fixture(scope="module")
def model(weights):
    return ImageToVideo.from_pretrained(weights, device="cuda")


@pytest.mark.parametrize("frames", [16, 40])
@pytest.mark.parametrize("colour", [False, True])
def test_motion_is_that_of_the_cpu(model, weights, frames, colour):
    still, options = textured_still(60, 77, colour=colour), GenerateOptions(steps=3, speckle=0.0, frames=frames)
    mask = np.zeros((60, 77), bool)
    mask[20:40, 20:50] = True
    here = model(still, mask=mask, options=options)[0]
    there = ImageToVideo.from_pretrained(weights, device="cpu")(still, mask=mask, options=options)[0]
    assert np.allclose(here.flow, there.flow, atol=0.02 * np.abs(there.flow).max())
    assert np.abs(here.frames.astype(int) - there.frames).mean() < 0.5
    assert np.mean(here.masks != there.masks) < 0.01
    assert np.array_equal(here.frames[0], still)


@pytest.mark.parametrize("texture", ["additive", "stationary", "envelope"])
def test_same_seed_same_clip_alone_or_among_others(model, texture):
    still, options = textured_still(), FAST.model_copy(update={"texture": texture})
    many = model(still, seed=3, num_clips=3, options=options)
    alone = model(still, seed=5, options=options)[0]
    assert np.abs(many[2].frames.astype(int) - alone.frames).mean() < 1
    assert np.array_equal(alone.frames, model(still, seed=5, options=options)[0].frames)
    assert np.abs(many[0].frames.astype(int) - alone.frames).mean() > 1


def test_speckle_has_unit_variance_the_grain_and_the_correlation_of_the_cpus():
    picture = torch.from_numpy(textured_still(200, 200, seed=3).astype(np.float32) / 255)
    grain = Grain.measure((picture - picture.mean()).cuda())
    assert torch.allclose(grain.rows, Grain.measure(picture - picture.mean()).rows, atol=1e-3)

    def measured(device):
        noise = SpeckleProcess([1, 2], (200, 200), grain, 0.7, "test", device=torch.device(device)).take(9)
        assert noise.device.type == device
        later = noise[:, :, 1:]
        beside = (later[..., :-1] * later[..., 1:]).mean()
        after = (later[:, :, :-1] * later[:, :, 1:]).mean()
        return torch.stack([later.std(), beside, after]).cpu()

    assert torch.allclose(measured("cuda"), measured("cpu"), atol=0.05)


def test_noise_does_not_depend_on_how_many_frames_are_taken_at_once():
    grain = Grain.measure(torch.from_numpy(textured_still(64, 64).astype(np.float32) / 255 - 0.49))

    def process():
        return SpeckleProcess([4], (48, 48), grain, 0.6, "test", loop=16, device=torch.device("cuda"))

    parts = process()
    taken = torch.cat([parts.take(n) for n in (1, 5, 10)], dim=2)
    assert torch.allclose(taken, process().take(16), atol=1e-5)


def test_recorded_kernels_give_what_the_function_gives():
    weight = torch.randn(8, 8, device="cuda")
    replay = Replay(lambda x, y: torch.tanh(x @ weight) + (0 if y is None else y))
    for call in range(40):
        size, alone = (4, 6)[call % 2], call % 4 == 3
        x, y = torch.randn(size, 8, device="cuda"), torch.randn(size, 8, device="cuda")
        given = replay(x, None if alone else y)
        assert torch.allclose(given, torch.tanh(x @ weight) + (0 if alone else y), atol=1e-5)


def test_many_clips_are_those_before_their_kernels_were_recorded(weights):
    model, still = ImageToVideo.from_pretrained(weights, device="cuda"), textured_still()
    first = model(still, seed=1, options=FAST)[0]
    for seed in range(2, 6):
        model(still, seed=seed, options=FAST)
    again = model(still, seed=1, options=FAST)[0]
    assert np.abs(first.frames.astype(int) - again.frames).mean() < 0.1
