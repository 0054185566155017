"""Flow matching, its refinement by shortcuts, min-SNR weighting, and starting from trained weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from tests.factories import SMALL_AUTOENCODER, textured_still
from tests.training.conftest import autoencoder_config, denoiser_config, make_clips_folder
from tests.training.test_training_runs import StopAfter, equal, tensors
from us_i2v.diffusion.schedule import Cosine, Rectified
from us_i2v.diffusion.shortcut import Shortcut
from us_i2v.errors import ConfigError, WeightsError
from us_i2v.pipeline import GenerateOptions, ImageToVideo
from us_i2v.training import latents
from us_i2v.training.autoencoder import train_autoencoder
from us_i2v.training.denoiser import DenoiserTraining, _Step, relabelled, train_denoiser
from us_i2v.training.loop import OptimiserConfig
from us_i2v.training.report import Silent
from us_i2v.weights import ProcessConfig, load_weights

FLOW = ProcessConfig(schedule=Rectified(), prediction="velocity")
SHORT = ProcessConfig(schedule=Rectified(), prediction="velocity", shortcut=Shortcut(steps=8, share=0.5))


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Iterator[Path]:
    """Clips, an auto-encoder, and flow matching of a few steps; the speckle is not calibrated, which takes long."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latents, "calibrated_speckle", lambda _autoencoder, _videos, known, *_rest: known)
        yield prepared(tmp_path_factory.mktemp("flow"))


def prepared(folder: Path) -> Path:
    clips = make_clips_folder(folder)
    train_autoencoder([clips], folder / "ae", autoencoder_config(steps=2), reporter=Silent(), device="cpu")
    run(folder, "plain", denoiser_config(process=FLOW))
    return folder


def run(home: Path, name: str, config: DenoiserTraining, reporter: Silent | None = None, resume: bool = False) -> Path:
    out = home / name
    train_denoiser(
        [home / "clips"], home / "ae", out, config, resume=resume, reporter=reporter or Silent(), device="cpu"
    )
    return out


def last_row(out: Path) -> dict[str, float]:
    return json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])


def test_flow_matching_weights_generate_with_heun(home):
    weights = load_weights(home / "plain")
    assert weights.header.process == FLOW
    assert weights.header.denoiser is not None
    assert not weights.header.denoiser.step_size
    assert {"val_loss", "val_flow_px"} <= last_row(home / "plain").keys()
    model = ImageToVideo.from_pretrained(home / "plain", device="cpu")
    clip = model(textured_still(50, 40), seed=1)[0]
    heun = model(textured_still(50, 40), seed=1, options=GenerateOptions(sampler="heun", steps=6))[0]
    assert np.array_equal(clip.frames, heun.frames)
    with pytest.raises(ConfigError, match="'ddim' does not fit"):
        model(textured_still(50, 40), options=GenerateOptions(sampler="ddim"))


def test_shortcuts_refine_flow_matching(home):
    out = run(home, "short", denoiser_config(process=SHORT, init=str(home / "plain")))
    weights = load_weights(out)
    assert weights.header.process == SHORT
    assert weights.header.denoiser is not None
    assert weights.header.denoiser.step_size
    row = last_row(out)
    assert {"loss_flow_matching", "loss_shortcut", "val_few_steps_off"} <= row.keys()
    assert row["loss_shortcut"] > 0
    assert row["val_few_steps_off"] > 0
    generator = ImageToVideo.from_pretrained(out, device="cpu").generator
    still = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    drawn = {steps: generator.latents(still, [3], GenerateOptions(steps=steps)) for steps in (1, 2, 4, 8)}
    assert torch.equal(drawn[4], generator.latents(still, [3], GenerateOptions()))
    assert all(not torch.equal(drawn[1], drawn[steps]) for steps in (2, 4, 8))
    with pytest.raises(ConfigError, match="1, 2, 4, 8"):
        generator.latents(still, [3], GenerateOptions(steps=5))


def test_init_takes_over_the_network_its_units_and_its_ancestry(home):
    frozen = OptimiserConfig(steps=1, batch_size=4, validate_every=2, warmup=0, seed=9, learning_rate=1e-12)
    config = denoiser_config(process=SHORT, init=str(home / "plain"))
    out = run(home, "frozen", config.model_copy(update={"optimiser": frozen}))
    before, after = load_weights(home / "plain"), load_weights(out)
    for name, value in before.tensors.items():
        assert torch.allclose(after.tensors[name], value, rtol=0, atol=1e-9), name
    assert {k for k in after.tensors if k not in before.tensors} == {
        f"denoiser.step_size.{part}.{kind}" for part in ("hidden", "out") for kind in ("weight", "bias")
    }
    assert after.header.motion_median_px == before.header.motion_median_px
    assert after.header.training_groups == before.header.training_groups
    # It did draw other windows, whose own mean is another one.
    means = [np.load(home / name / "latents" / "train" / "mean.npy").mean() for name in ("plain", "frozen")]
    assert abs(means[0] - means[1]) > 1e-5


def test_init_that_does_not_fit_is_refused(home):
    def start(**changes: object) -> None:
        config = denoiser_config(process=FLOW, init=str(home / "plain")).model_copy(update=changes)
        run(home, f"refused{len(list(home.iterdir()))}", config)

    wide = denoiser_config().model.model_copy(update={"width": 16})
    with pytest.raises(ConfigError, match="another shape"):
        start(model=wide)
    with pytest.raises(WeightsError, match="an auto-encoder only"):
        start(init=str(home / "ae"))


def test_classes_are_matched_by_name():
    table = torch.arange(3.0)[:, None]
    assert relabelled(table, ("benign", "malignant"), ("cyst", "malignant")).flatten().tolist() == [0, 0, 2]
    assert relabelled(table, ("benign", "malignant"), ()).flatten().tolist() == [0]
    assert torch.equal(relabelled(table, ("benign", "malignant"), ("benign", "malignant")), table)


def test_a_resumed_refinement_is_bitwise_the_same(home):
    config = denoiser_config(process=SHORT, init=str(home / "plain"))
    with pytest.raises(KeyboardInterrupt):
        run(home, "parts", config, StopAfter(1))
    assert equal(tensors(home / "short"), tensors(run(home, "parts", config, resume=True)))


def test_min_snr_weighs_each_time_and_leaves_runs_without_it_alone():
    """v of SNR 1/tan^2: the weight min(SNR, gamma) / (SNR + 1) in plain floats."""
    plain, weighted = denoiser_config(), denoiser_config(process=ProcessConfig(min_snr=1.5))
    assert "min_snr" not in plain.dump()
    assert "init" not in json.loads(plain.dump())
    shape = SMALL_AUTOENCODER.latent_shape
    g = torch.Generator().manual_seed(0)
    for t in (0.1, 0.5, 0.9):
        batch = {name: torch.randn(1, *shape, generator=g) for name in ("z", "eps")}
        batch |= {"t": torch.tensor([t]), "still": torch.rand(1, 1, 32, 32), "label": torch.tensor([-1])}
        batch |= {"motion": torch.ones(1), "interval": torch.full((1,), 0.1), "hide": torch.zeros(1, 3).bool()}
        losses = []
        for config in (plain, weighted):
            torch.manual_seed(0)
            losses.append(_Step(config, shape)(batch)[0].item())
        level = Cosine().at(t)
        snr = level.alpha**2 / level.sigma**2
        assert losses[1] / losses[0] == pytest.approx(min(snr, 1.5) / (snr + 1), rel=1e-4)


def test_a_batch_of_one_cannot_learn_both():
    with pytest.raises(ValidationError, match="at least 2"):
        DenoiserTraining(process=SHORT, optimiser=OptimiserConfig(batch_size=1))
