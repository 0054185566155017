"""Training of the flow: exact resume, what it is built over, and that the result can be used."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.factories import SMALL_CINN, SMALL_VECTOR, small_cinn_weights, small_weights, textured_still
from tests.training.conftest import CLIPS, autoencoder_config, denoiser_config
from tests.training.test_training_runs import StopAfter, equal, tensors
from us_i2v.errors import ConfigError, WeightsError
from us_i2v.pipeline import GenerateOptions, ImageToVideo
from us_i2v.presets import PRESETS, preset
from us_i2v.training.autoencoder import train_autoencoder
from us_i2v.training.cinn import CINNTask, CINNTraining, train_cinn
from us_i2v.training.denoiser import DenoiserTraining, train_denoiser
from us_i2v.training.loop import CHECKPOINT, OptimiserConfig
from us_i2v.training.report import Silent
from us_i2v.weights import load_weights


def cinn_config(steps: int = 4, **changes) -> CINNTraining:
    optimiser = OptimiserConfig(
        steps=steps, batch_size=4, validate_every=2, warmup=2, seed=1, precision="fp32", amsgrad=True
    )
    return CINNTraining(model=SMALL_CINN, clips=CLIPS, optimiser=optimiser, windows=16, **changes)


def vector_config(**changes):
    return autoencoder_config(steps=3, **changes).model_copy(update={"model": SMALL_VECTOR})


@pytest.fixture
def vector_ae(clips_folder, tmp_path) -> Path:
    train_autoencoder([clips_folder], tmp_path / "ae", vector_config(), reporter=Silent(), device="cpu")
    return tmp_path / "ae"


def test_resume_is_bitwise(clips_folder, vector_ae, tmp_path):
    config = cinn_config()
    train_cinn([clips_folder], vector_ae, tmp_path / "a", config, reporter=Silent(), device="cpu")
    with pytest.raises(KeyboardInterrupt):
        train_cinn([clips_folder], vector_ae, tmp_path / "b", config, reporter=StopAfter(1), device="cpu")
    train_cinn([clips_folder], vector_ae, tmp_path / "b", config, resume=True, reporter=Silent(), device="cpu")
    a = tensors(tmp_path / "a")
    assert equal(a, tensors(tmp_path / "b"))
    assert any(key.endswith("max_exp_avg_sq") for key in a)  # AMSGrad reached the optimiser


def test_the_run_makes_weights_that_generate_and_transfer(clips_folder, vector_ae, tmp_path):
    run = tmp_path / "cinn"
    train_cinn([clips_folder], vector_ae, run, cinn_config(), reporter=Silent(), device="cpu")
    assert not (run / "cache").exists()  # stage 1 had decoded the clips already
    header = load_weights(run).header
    assert (header.kind, header.cinn, header.denoiser, header.process) == ("cinn", SMALL_CINN, None, None)
    assert header.training_groups == ("g0", "g2")
    assert not any("decoder" in name for name in load_file(run / "weights.safetensors") if name.startswith("cinn."))
    model = ImageToVideo.from_pretrained(run, device="cpu")
    still = textured_still(50, 40)
    clip = model(still, seed=4, options=GenerateOptions(fps=12.0))[0]
    assert np.array_equal(clip.frames[0], still)
    latent = model.encode(clip.frames)
    assert latent.shape == (8, 1, 1, 1)
    assert model.animate(still, latent).frames.shape == (16, 50, 40)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert {"nll", "val_nll", "val_spread", "val_latent_sd", "val_change", "val_still_l1"} <= rows[-1].keys()
    assert (run / "samples" / "step_000004.png").stat().st_size > 500


def test_start_has_standard_activations_and_does_not_depend_on_the_run(clips_folder, vector_ae, tmp_path):
    """The likelihood before the first step is near a standard normal's; two tasks begin with equal numbers."""
    from us_i2v.training.runs import gather_clips

    clips, held = gather_clips([clips_folder], vector_ae / "cache", 32, CLIPS, 1, Silent())

    def task(name: str) -> CINNTask:
        weights = load_weights(vector_ae)
        return CINNTask(cinn_config(), weights, clips, held, tmp_path / name, torch.device("cpu"), Silent())

    one, two = task("one"), task("two")
    assert equal(one.module.state_dict(), two.module.state_dict())
    norm = one.module.cinn.flow.blocks[0].norm
    bank = one.latents.bank
    many = one.latents.standardise(bank.draw([*range(16)] * 50, torch.Generator().manual_seed(0))).flatten(1)
    out = norm(many)[0].detach()
    assert float(out.mean(0).abs().max()) < 0.8
    assert 0.5 < float(out.std()) < 1.6


def test_any_file_with_an_auto_encoder_serves_as_stage_one(clips_folder, tmp_path):
    """A latent map of 512 numbers is flattened; the second stage of the file is replaced, both ways."""
    lddm = small_weights(tmp_path / "lddm.safetensors", labels=("a", "b"))
    run = tmp_path / "cinn"
    train_cinn([clips_folder], lddm, run, cinn_config(steps=1), reporter=Silent(), device="cpu")
    weights = load_weights(run)
    assert weights.header.kind == "cinn"
    assert weights.header.labels == ()
    assert not any(name.startswith("denoiser.") for name in weights.tensors)
    with pytest.raises(WeightsError, match="holds a cINN; a denoiser is needed"):
        weights.denoiser()
    again = tmp_path / "ldm"
    train_denoiser([clips_folder], run, again, denoiser_config(steps=1), reporter=Silent(), device="cpu")
    weights = load_weights(again)
    assert (weights.header.kind, weights.header.cinn) == ("lddm", None)
    assert not any(name.startswith("cinn.") for name in weights.tensors)
    with pytest.raises(WeightsError, match="train-cinn"):
        weights.cinn()


def test_too_large_a_latent_is_refused_before_the_run_begins(clips_folder, tmp_path):
    from us_i2v.models.autoencoder import Autoencoder
    from us_i2v.weights import save_weights

    known = load_weights(small_weights(tmp_path / "w.safetensors")).header
    shape = known.autoencoder.model_copy(update={"latent_channels": 64})
    tensors = {f"autoencoder.{k}": v for k, v in Autoencoder(shape).state_dict().items()}
    header = known.model_copy(update={"kind": "autoencoder", "autoencoder": shape, "denoiser": None})
    save_weights(tmp_path / "large.safetensors", header, tensors)
    with pytest.raises(ConfigError, match=r"8192 numbers.*latent_mode=vector"):
        train_cinn([clips_folder], tmp_path / "large.safetensors", tmp_path / "run", cinn_config(), reporter=Silent())
    assert not (tmp_path / "run").exists()


def test_stage_two_wants_the_fit_of_stage_one(clips_folder, tmp_path):
    config = cinn_config()
    config = config.model_copy(update={"clips": config.clips.model_copy(update={"fit": "letterbox"})})
    weights = small_cinn_weights(tmp_path / "w.safetensors")
    with pytest.raises(ConfigError, match="--fit stretch"):
        train_cinn([clips_folder], weights, tmp_path / "run", config, reporter=Silent(), device="cpu")
    assert not (tmp_path / "run" / CHECKPOINT).exists()


@pytest.mark.parametrize("name", PRESETS)
def test_presets_hold_a_flow(name):
    resolved = CINNTraining.parse(preset(name, "cinn"), name)
    assert resolved.clips == DenoiserTraining.parse(preset(name, "denoiser")).clips
    assert resolved.model.blocks == 20


def test_paper_takes_the_stated_numbers_literally():
    config = CINNTraining.parse(preset("paper", "cinn"))
    assert (config.model.blocks, config.model.hidden, config.model.depth, config.model.slope) == (20, 512, 2, 0.9)
    optimiser = config.optimiser
    assert (optimiser.learning_rate, optimiser.batch_size, optimiser.amsgrad) == (1e-5, 50, True)


@pytest.mark.parametrize(
    ("name", "known"), [("paper", "f88c63c9bb5d135c"), ("base", "b722cbb0d5f3138a"), ("tiny", "79716b34d9ef48a5")]
)
def test_denoiser_runs_begun_before_are_still_known(name, known):
    """The settings of a run identify it: a field that is added must not show while it is not used."""
    text = DenoiserTraining.parse(preset(name, "denoiser")).dump()
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == known
