"""Pressure and slide as conditions: measured on encoded windows, scaled by medians, kept in the weights."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from tests.factories import SMALL_AUTOENCODER, textured_still
from tests.training.conftest import CLIPS, autoencoder_config, denoiser_config
from us_i2v.data.training_clips import FLOW_STRIDE, ClipSampler
from us_i2v.errors import TrainingError, WeightsError
from us_i2v.models.autoencoder import Autoencoder
from us_i2v.models.controls import measure_controls
from us_i2v.pipeline import GenerateOptions, ImageToVideo
from us_i2v.training.autoencoder import train_autoencoder
from us_i2v.training.denoiser import DenoiserTask, train_denoiser
from us_i2v.training.latent_bank import control_medians, encode_windows
from us_i2v.training.report import Silent
from us_i2v.training.runs import gather_clips, stack_windows
from us_i2v.weights import load_weights

CPU = torch.device("cpu")


def config(**changes):
    made = denoiser_config(steps=2)
    return made.model_copy(update={"model": made.model.model_copy(update=changes)})


@pytest.fixture
def clips(clips_folder, tmp_path):
    train, _ = gather_clips([clips_folder], tmp_path / "cache", 32, CLIPS, 0, Silent())
    return train


def encode(clips, folder, decoder: str, *, measured: bool = True):
    torch.manual_seed(0)
    model = Autoencoder(SMALL_AUTOENCODER.model_copy(update={"decoder": decoder})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    sampler = ClipSampler(clips, CLIPS, length=16, seed=0)
    bank = encode_windows(model, sampler, 16, folder, (), CPU, Silent(), bf16=False, measured=measured)
    return model, sampler, bank


@torch.no_grad()
def test_windows_are_measured_by_their_decoded_flow(clips, tmp_path):
    model, sampler, bank = encode(clips, tmp_path / "bank", "warp")
    for row in (0, 5):
        video = stack_windows([sampler.draw(row, 0)], 32)["video"]
        flow = model.decode(model.encode(video).mean, video[:, :, 0]).flow
        np.testing.assert_allclose(bank.controls[row], measure_controls(flow)[0].numpy(), atol=1e-5)
    assert np.abs(bank.controls).min() > 0
    _, _, without = encode(clips, tmp_path / "without", "warp", measured=False)
    assert without.controls is None
    np.testing.assert_array_equal(without.mean, bank.mean)
    np.testing.assert_array_equal(without.scalars, bank.scalars)
    with pytest.raises(WeightsError, match="another run"):
        encode(clips, tmp_path / "without", "warp")


def test_windows_of_a_painting_decoder_by_their_known_flow(clips, tmp_path):
    _, sampler, bank = encode(clips, tmp_path / "bank", "adain")
    known = 0
    for row in range(16):
        window = sampler.draw(row, 0)
        if window.flow is None:
            assert np.isnan(bank.controls[row]).all()
            continue
        known += 1
        flow = torch.from_numpy(window.flow.swapaxes(0, 1))[None] / FLOW_STRIDE
        np.testing.assert_allclose(bank.controls[row], measure_controls(flow)[0].numpy(), atol=1e-6)
    assert 0 < known < 16


def test_medians_are_of_absolute_values_where_known():
    values = np.array([[-0.1, 0.02], [0.3, -0.04], [np.nan, np.nan], [0.2, 0.0]], np.float32)
    assert control_medians(values).tolist() == pytest.approx([0.2, 0.02])
    assert control_medians(np.zeros((3, 2), np.float32)).tolist() == pytest.approx([1e-4, 1e-4])
    with pytest.raises(TrainingError, match="cannot be measured"):
        control_medians(np.full((2, 2), np.nan, np.float32))


def test_trained_conditions_are_in_the_weights_and_can_be_asked_for(clips_folder, tmp_path):
    train_autoencoder([clips_folder], tmp_path / "ae", autoencoder_config(steps=2), reporter=Silent(), device="cpu")
    run = tmp_path / "ldm"
    chosen = config(pressure=True, slide=True)
    train_denoiser([clips_folder], tmp_path / "ae", run, chosen, reporter=Silent(), device="cpu")
    header = load_weights(run).header
    controls = np.load(run / "latents" / "train" / "controls.npy")
    assert header.controls == ("strength", "pressure", "slide")
    expected = np.maximum(np.median(np.abs(controls), axis=0), 1e-4)
    assert [header.pressure_median, header.slide_median] == pytest.approx(expected.tolist())
    model = ImageToVideo.from_pretrained(run, "cpu", 1)
    options = GenerateOptions(steps=1, strength=1.0, pressure=2.0, slide=-1.0, guidance=2.0)
    assert model(textured_still(), options=options)[0].frames.shape[0] == 16


def test_items_are_in_medians_and_nothing_changes_without(clips, clips_folder, tmp_path):
    train_autoencoder([clips_folder], tmp_path / "ae", autoencoder_config(steps=2), reporter=Silent(), device="cpu")
    weights = load_weights(tmp_path / "ae")
    with_controls = DenoiserTask(config(pressure=True), weights, clips, [], tmp_path / "a", CPU, Silent())
    without = DenoiserTask(config(), weights, clips, [], tmp_path / "b", CPU, Silent())
    batch, plain = with_controls.batch(0, 0, 1)[0], without.batch(0, 0, 1)[0]
    assert batch["hide"].shape[1] == 5
    assert plain["hide"].shape[1] == 3
    assert "pressure" not in plain
    bank, medians = with_controls.latents.bank, with_controls.latents.control_medians
    rows = [
        int(np.flatnonzero([np.array_equal(still, bank.still[k]) for k in range(len(bank.still))])[0])
        for still in (batch["still"][:, 0] * 255).round().numpy().astype(np.uint8)
    ]
    assert batch["pressure"].tolist() == pytest.approx((bank.controls[rows, 0] / float(medians[0])).tolist())
    assert batch["slide"].tolist() == pytest.approx((bank.controls[rows, 1] / float(medians[1])).tolist())
    for key in ("z", "eps", "t", "still", "motion", "interval"):
        assert torch.equal(batch[key], plain[key])


def test_settings_without_the_conditions_say_nothing_of_them():
    dumped = json.loads(denoiser_config().dump())
    assert not {"pressure", "slide"} & set(dumped["model"])
    assert json.loads(config(slide=True).dump())["model"]["slide"] is True
