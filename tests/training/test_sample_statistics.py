"""Statistics of drawn clips against real ones: closed forms, where they are least, and a whole run with them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import torch
from torch.nn import functional

from tests.training.conftest import autoencoder_config
from tests.training.test_adversarial import BOTH, task
from tests.training.test_training_runs import StopAfter, equal, tensors
from us_i2v.errors import ConfigError
from us_i2v.metrics.lpips import LPIPS
from us_i2v.training.adversarial import Adversarial, AdversarialLoss
from us_i2v.training.autoencoder import AutoencoderLoss, AutoencoderTraining, train_autoencoder
from us_i2v.training.report import Silent
from us_i2v.training.sample_statistics import change_distance, feature_distance, moments, texture_distance

if TYPE_CHECKING:
    from pathlib import Path

SAMPLES = BOTH.model_copy(update={"samples": True, "start_step": 1})


def speckle(seed: int, scale: float = 1.0, frames: int = 16, size: int = 64) -> torch.Tensor:
    """Independent noise around 1/2 by frame, (2, 1, T, S, S)."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn((2, 1, frames, size, size), generator=generator)
    return (0.5 + 0.1 * scale * noise).clamp(0, 1)


def network() -> LPIPS:
    """The real network with random weights."""
    torch.manual_seed(0)
    net = LPIPS("squeeze")
    for weight in net.parameters():
        if weight.ndim == 4:
            torch.nn.init.kaiming_normal_(weight)
    for index in range(7):
        net.get_parameter(f"lin{index}.model.1.weight").abs_()
    return net


def best(distance) -> float:
    """Scale of the drawn speckle, of 0.4 .. 1.6 times the real one's, at which the distance is least, over 4 draws."""
    scales = [0.4, 0.6, 0.8, 0.9, 1.0, 1.1, 1.2, 1.4, 1.6]
    real = speckle(0)
    sums = [sum(float(distance(speckle(seed, scale), real)) for seed in range(1, 5)) for scale in scales]
    return scales[min(range(len(scales)), key=sums.__getitem__)]


def test_moments_in_closed_form():
    x = torch.zeros(1, 2, 16, 16)
    x[:, 0, :8, :8] = 3.0
    x[:, 1, ::2] = 2.0
    mean, deviation = moments(x)
    assert mean.shape == (1, 2, 2, 2)
    assert mean[0, 0].tolist() == [[3, 0], [0, 0]]
    assert torch.allclose(deviation[0, 0], torch.tensor(1e-3))
    assert torch.allclose(mean[0, 1], torch.tensor(1.0))
    assert torch.allclose(deviation[0, 1], torch.tensor(1.0))
    clip = torch.stack([x, x + 2], dim=2)
    mean, deviation = moments(clip)
    assert mean[0, 0].tolist() == [[4, 1], [1, 1]]
    assert torch.allclose(deviation[0, 1], torch.tensor(2.0**0.5))


def test_changes_in_closed_form():
    real = torch.zeros(1, 1, 16, 32, 32)
    real[:, :, ::2] = 0.5
    made = real.clone()
    made[:, :, 1::2] = 0.25
    # Over one frame half the change, a quarter of the energy; over four frames none on either side.
    expected = torch.log(torch.tensor((0.25 + 6e-5) / (0.0625 + 6e-5))) / 2
    assert float(change_distance(made, real)) == pytest.approx(float(expected), rel=1e-4)
    assert float(change_distance(real, real)) == 0


def test_moments_are_least_apart_at_the_true_scale_and_pairs_are_not():
    net = network()

    def frames(clip: torch.Tensor) -> torch.Tensor:
        return clip[:, :, 1]

    def paired(made: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        return net(frames(made), frames(real)).mean()

    with torch.no_grad():
        assert best(lambda a, b: texture_distance(net, frames(a), frames(b))) == pytest.approx(1, abs=0.11)
        assert best(change_distance) == 1.0
        assert best(functional.mse_loss) == 0.4
        assert best(paired) < 0.85


def test_discriminators_features_are_least_apart_at_the_true_scale():
    net = Adversarial(AdversarialLoss(temporal=1.0, patch=1.0), seed=0).networks.eval()
    with torch.no_grad():
        for name in ("patch", "temporal"):

            def features(clip: torch.Tensor, name: str = name) -> list[torch.Tensor]:
                return net[name](clip[:, :, 1] if name == "patch" else clip)[1]

            assert best(lambda a, b, f=features: feature_distance(f(a), f(b))) == pytest.approx(1, abs=0.11)


def test_samples_match_statistics_and_mean_frames_match_features():
    video, other = speckle(0, size=32), speckle(1, size=32)
    found = []
    for config in (SAMPLES, BOTH):
        adversarial = Adversarial(config, seed=3)
        found.append(float(adversarial.generator_loss(video, other, adversarial.draw(1, 2, 16))[1]["feature_matching"]))
    assert 0 < found[0] < 0.3 * found[1]


@pytest.mark.parametrize("changes", [{"loss": {"changes": 1, "nll": 0}}, {"model": {"residual": False}}])
def test_samples_without_a_trained_scale_are_refused(changes):
    with pytest.raises(ConfigError, match=r"loss\.nll above 0"):
        AutoencoderTraining.parse({"adversarial": {"patch": 1, "samples": True}, **changes})


def test_off_is_nothing(clips_folder, tmp_path):
    assert AutoencoderLoss().dump() == AutoencoderLoss(texture=0.0, changes=0.0).dump()
    assert "texture" not in AutoencoderLoss().dump()
    assert "changes" not in AutoencoderLoss().dump()
    assert "samples" not in BOTH.dump()
    assert "samples" in SAMPLES.dump()
    off, on = (task(clips_folder, tmp_path, config) for config in (BOTH, SAMPLES))
    assert equal(off.module.state_dict(), on.module.state_dict())
    a, b = off.batch(1, 0, 1)[0], on.batch(1, 0, 1)[0]
    assert b.keys() - a.keys() == {"innovations"}
    assert all(torch.equal(a[k].nan_to_num(), b[k].nan_to_num()) for k in a)
    shares = [on.batch(1, rank, 2)[0]["innovations"] for rank in (0, 1)]
    assert torch.equal(torch.cat(shares), b["innovations"])


def test_interrupted_and_resumed_equals_undisturbed_bitwise(clips_folder, tmp_path):
    base = autoencoder_config(steps=4)
    model = base.model.model_copy(update={"speckle_map": True})
    config = base.model_copy(update={"adversarial": SAMPLES, "loss": AutoencoderLoss(changes=0.5), "model": model})
    train_autoencoder([clips_folder], tmp_path / "whole", config, reporter=Silent(), device="cpu")
    with pytest.raises(KeyboardInterrupt):
        train_autoencoder([clips_folder], tmp_path / "parts", config, reporter=StopAfter(2), device="cpu")
    train_autoencoder([clips_folder], tmp_path / "parts", config, resume=True, reporter=Silent(), device="cpu")
    assert equal(tensors(tmp_path / "whole"), tensors(tmp_path / "parts"))
    rows = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert {"changes", "patch", "temporal", "feature_matching", "persistence"} <= rows[-1].keys()


def test_texture_is_measured_on_drawn_frames(clips_folder, tmp_path: Path):
    base = autoencoder_config()
    on = task(clips_folder, tmp_path, SAMPLES)
    step = on.module
    step.config = base.model_copy(update={"loss": AutoencoderLoss(texture=2.0), "adversarial": SAMPLES})
    step.lpips = (network(),)
    on.config = step.config
    batch, _ = on.batch(0, 0, 1)
    assert {"pick", "innovations"} <= batch.keys()
    loss, terms = step(batch)
    assert "perceptual" not in terms
    assert float(terms["texture"]) > 0
    loss.backward()
    assert bool(step.autoencoder.decoder.look_head.weight.grad[3].any())
