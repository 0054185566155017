import json

import pytest
import torch

from tests.factories import small_weights
from us_i2v.errors import ConfigError, OutputError, WeightsError
from us_i2v.pipeline import ImageToVideo
from us_i2v.training.finetune import FEWEST_STEPS, FinetuneConfig, finetune
from us_i2v.training.report import Silent
from us_i2v.weights import load_weights

CONFIG = FinetuneConfig(minutes=0.001, batch_size=2, windows=16, stride=1)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    from tests.training.conftest import make_clips_folder

    root = tmp_path_factory.mktemp("finetune")
    start = small_weights(root / "start.safetensors")
    clips = make_clips_folder(root)
    finetune([clips], start, root / "run", CONFIG, reporter=Silent(), device="cpu")
    return root, clips, start


def changed_tensors(before, after):
    return {name for name, x in after.tensors.items() if not torch.equal(x, before.tensors[name])}


def test_both_stages_are_trained_on_and_named(fitted):
    root, _, start = fitted
    before, after = load_weights(start), load_weights(root / "run")
    assert after.header.kind == "lddm"
    assert after.header.autoencoder == before.header.autoencoder
    # The groups of the first training and of this one.
    assert {"group-1", "g0", "g2"} <= set(after.header.training_groups)
    assert "g1" not in after.header.training_groups  # Held out.
    changed = changed_tensors(before, after)
    assert any(name.startswith("denoiser.") for name in changed)
    assert any(name.startswith("autoencoder.decoder.") for name in changed)
    # The latents stay what they are, their units too.
    assert not any(name.startswith(("autoencoder.encoder.", "latent.")) for name in changed)
    # From its own start, not from random weights: twenty small steps leave it close.
    name = "denoiser." + next(iter(before.denoiser().state_dict()))
    assert (after.tensors[name] - before.tensors[name]).abs().max() < 0.05


def test_the_plan_gives_each_stage_the_fewest_steps_in_no_time(fitted):
    root = fitted[0]
    plan = json.loads((root / "run" / "plan.json").read_text())
    assert plan["steps"] == {"autoencoder": FEWEST_STEPS, "denoiser": FEWEST_STEPS}


def test_fitted_weights_generate(fitted):
    from tests.factories import textured_still

    model = ImageToVideo.from_pretrained(fitted[0] / "run", device="cpu")
    (clip,) = model(textured_still(40, 48), seed=1)
    assert clip.frames.shape == (16, 40, 48)


def test_flow_has_a_target_and_speckle_is_calibrated_on_what_is_generated(fitted, tmp_path, monkeypatch):
    root, clips, start = fitted
    settings = json.loads((root / "run" / "autoencoder" / "config.json").read_text())
    assert settings["loss"]["matched"] == CONFIG.matched > 0
    seen = []

    def chosen(weights, videos, device, intervals):
        seen.append((weights, videos))
        assert len(intervals) == len(videos)
        return weights.header.speckle.model_copy(update={"shift": 1.5})

    monkeypatch.setattr("us_i2v.training.finetune.calibrated_on_generated", chosen)
    free = CONFIG.model_copy(update={"freeze_encoder": False})
    finetune([clips], start, tmp_path / "run", free, reporter=Silent(), device="cpu")
    after = load_weights(tmp_path / "run")
    changed = changed_tensors(load_weights(start), after)
    assert any(name.startswith("autoencoder.encoder.") for name in changed)
    assert {"latent.mean", "latent.sd"} <= changed
    assert after.header.speckle.shift == 1.5
    ((weights, videos),) = seen
    assert all(torch.equal(x, after.tensors[name]) for name, x in weights.tensors.items())
    assert {tuple(video.shape) for video in videos} == {(1, 1, 16, 32, 32)}


def test_a_finished_run_is_refused_resumed_and_kept(fitted):
    root, clips, start = fitted
    with pytest.raises(OutputError, match="already holds a run"):
        finetune([clips], start, root / "run", CONFIG, reporter=Silent(), device="cpu")
    other = CONFIG.model_copy(update={"second_rate": 1e-3})
    with pytest.raises(ConfigError, match="other settings"):
        finetune([clips], start, root / "run", other, resume=True, reporter=Silent(), device="cpu")
    before = (root / "run" / "weights.safetensors").read_bytes()
    finetune([clips], start, root / "run", CONFIG, resume=True, reporter=Silent(), device="cpu")
    assert (root / "run" / "weights.safetensors").read_bytes() == before


def test_an_auto_encoder_alone_is_refused(fitted, tmp_path):
    root, clips, _ = fitted
    with pytest.raises(WeightsError, match="holds autoencoder weights"):
        finetune([clips], root / "run" / "autoencoder", tmp_path / "x", CONFIG, reporter=Silent(), device="cpu")
    assert not (tmp_path / "x").exists()
