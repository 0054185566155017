"""Adversarial losses: closed forms, learning, exact resume, ranks, and that off means off."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from tests.training.conftest import autoencoder_config
from tests.training.test_training_runs import StopAfter, equal, tensors
from us_i2v.errors import ConfigError, TrainingError
from us_i2v.training.adversarial import Adversarial, AdversarialLoss, gradient_penalty, hinge_loss
from us_i2v.training.autoencoder import AutoencoderTask, AutoencoderTraining, train_autoencoder
from us_i2v.training.report import Silent

BOTH = AdversarialLoss(
    patch=0.5,
    temporal=0.25,
    feature_matching=2.0,
    gradient_penalty=1.0,
    start_step=1,
    frames=2,
    patch_widths=(8, 8),
    temporal_widths=(8, 8),
)


def test_hinge_loss_in_closed_form():
    real, made = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-3.0, 0.0])
    assert hinge_loss(real, made) == pytest.approx((0 + 0.5 + 2) / 3 + (0 + 1) / 2)
    assert hinge_loss(torch.ones(2, 1, 3, 3), -torch.ones(5)) == 0
    assert hinge_loss(torch.zeros(4), torch.zeros(4)) == 2


def test_gradient_penalty_in_closed_form():
    inputs = torch.tensor([[1.0, 2.0], [3.0, -1.0]], dtype=torch.float64, requires_grad=True)
    scale = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    # D(x) is the mean of scale * x0^2 and scale * x1: gradient (scale * x0, scale / 2)
    penalty = gradient_penalty(scale * torch.stack([inputs[:, 0] ** 2, inputs[:, 1]], dim=1), inputs)
    assert penalty.item() == pytest.approx(9 * ((1 + 0.25) + (9 + 0.25)) / 2)
    penalty.backward()
    assert scale.grad.item() == pytest.approx(2 * 3 * ((1 + 0.25) + (9 + 0.25)) / 2)


def test_generator_terms_are_weighted_and_reach_the_frames_only():
    adversarial = Adversarial(BOTH, seed=3)
    video = torch.rand(2, 1, 16, 32, 32)
    made = torch.rand(2, 1, 16, 32, 32, requires_grad=True)
    loss, terms = adversarial.generator_loss(video, made, adversarial.draw(1, 2, 16))
    assert terms.keys() == {"patch", "temporal", "feature_matching"}
    weighted = 0.5 * terms["patch"] + 0.25 * terms["temporal"] + 2 * terms["feature_matching"]
    assert loss.item() == pytest.approx(weighted.item(), rel=1e-5)
    loss.backward()
    assert bool(made.grad.any())
    assert all(p.grad is None for p in adversarial.networks.parameters())
    values = adversarial.after_step(1)
    assert values.keys() == {"patch_hinge", "patch_penalty", "temporal_hinge", "temporal_penalty"}


def test_frames_equal_to_the_real_ones_have_no_feature_difference():
    config = BOTH.model_copy(update={"spectral_norm": False})
    adversarial = Adversarial(config, seed=3)
    video = torch.rand(2, 1, 16, 32, 32)
    assert adversarial.generator_loss(video, video, adversarial.draw(1, 2, 16))[1]["feature_matching"] == 0


def test_frames_are_drawn_by_seed_and_step_and_only_after_the_start():
    adversarial = Adversarial(BOTH, seed=3)
    assert adversarial.draw(0, 4, 16) == {}
    picks = [adversarial.draw(step, 64, 16) for step in (1, 1, 2)]
    assert equal(picks[0], picks[1])
    assert not equal(picks[0], picks[2])
    assert picks[0]["patch_frames"].shape == (64, 2)
    assert set(picks[0]["patch_frames"].flatten().tolist()) == set(range(1, 16))
    clips = picks[0]["temporal_frames"]
    assert clips.shape == (64, 12)
    assert bool((clips.diff(dim=1) == 1).all())
    assert set(clips[:, 0].tolist()) == {0, 1, 2, 3, 4}
    nothing, terms = adversarial.generator_loss(torch.rand(1, 1, 16, 32, 32), torch.rand(1, 1, 16, 32, 32), {})
    assert float(nothing) == 0
    assert terms == {}
    assert adversarial.after_step(0) == {}


@pytest.mark.parametrize("name", ["patch", "temporal"])
def test_a_discriminator_learns_what_is_easily_told(name):
    widths = {"patch_widths": (8, 8), "temporal_widths": (8, 8)}
    adversarial = Adversarial(AdversarialLoss(**{name: 1.0}, learning_rate=1e-2, spectral_norm=False, **widths), seed=0)
    assert list(adversarial.networks) == [name]
    generator = torch.Generator().manual_seed(0)
    hinge = []
    for step in range(20):
        frames = torch.rand(4, 1, 16, 32, 32, generator=generator)
        still = frames[:, :, :1].expand(-1, -1, 16, -1, -1)
        # Single frames are told by their contrast; the clip that stands still only by what frames have in common.
        made = 0.5 + 0.1 * (frames - 0.5) if name == "patch" else still
        _, terms = adversarial.generator_loss(frames, made, adversarial.draw(step, 4, 16))
        hinge.append(adversarial.after_step(step)[f"{name}_hinge"])
    assert hinge[0] == pytest.approx(2, abs=0.7)
    assert hinge[-1] < 0.3
    assert float(terms[name]) > 0.7  # -E D(m), D(m) -> -1


def test_a_gradient_that_is_not_finite_stops():
    adversarial = Adversarial(BOTH, seed=3)
    video = torch.full((1, 1, 16, 32, 32), torch.nan)
    adversarial.generator_loss(video, torch.rand(1, 1, 16, 32, 32), adversarial.draw(1, 1, 16))
    with pytest.raises(TrainingError, match="step 2"):
        adversarial.after_step(1)


@pytest.mark.parametrize("key", ["patch", "temporal", "feature_matching", "gradient_penalty"])
def test_negative_weights_are_refused(key):
    with pytest.raises(ConfigError, match=key):
        AutoencoderTraining.parse({"adversarial": {key: -0.1}})


@pytest.mark.parametrize("key", ["feature_matching", "gradient_penalty"])
def test_terms_without_a_discriminator_are_refused(key):
    with pytest.raises(ValidationError, match="need patch or temporal"):
        AdversarialLoss(**{key: 1.0})


def test_interrupted_and_resumed_equals_undisturbed_bitwise(clips_folder, tmp_path):
    config = autoencoder_config(steps=4, adversarial=BOTH)
    train_autoencoder([clips_folder], tmp_path / "whole", config, reporter=Silent(), device="cpu")
    with pytest.raises(KeyboardInterrupt):
        train_autoencoder([clips_folder], tmp_path / "parts", config, reporter=StopAfter(2), device="cpu")
    half = tensors(tmp_path / "parts")
    train_autoencoder([clips_folder], tmp_path / "parts", config, resume=True, reporter=Silent(), device="cpu")
    whole = tensors(tmp_path / "whole")
    assert equal(whole, tensors(tmp_path / "parts"))
    trained = [k for k in whole if k.startswith("companion.model.") and k.endswith("original")]
    assert {k.split(".")[2] for k in trained} == {"patch", "temporal"}
    assert not any(torch.equal(whole[k], half[k]) for k in trained)
    assert any(k.startswith("companion.optimiser.") for k in whole)
    rows = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert {"patch", "temporal", "feature_matching", "patch_hinge", "temporal_penalty"} <= rows[-1].keys()
    assert not any("patch" in k or "temporal_" in k for k in load_file(tmp_path / "whole" / "weights.safetensors"))


def test_off_is_nothing(clips_folder, tmp_path):
    config = autoencoder_config(steps=2)
    assert "adversarial" not in config.model_dump()
    assert AutoencoderTraining.parse(config.model_dump()) == config
    assert autoencoder_config(adversarial=BOTH).model_dump()["adversarial"]["patch"] == 0.5
    off, on = (task(clips_folder, tmp_path, adversarial) for adversarial in (AdversarialLoss(), BOTH))
    assert off.adversarial is None
    assert on.adversarial is not None
    assert equal(off.module.state_dict(), on.module.state_dict())
    a, b = off.batch(1, 0, 1)[0], on.batch(1, 0, 1)[0]
    assert b.keys() - a.keys() == {"patch_frames", "temporal_frames"}
    assert all(torch.equal(a[k].nan_to_num(), b[k].nan_to_num()) for k in a)
    train_autoencoder([clips_folder], tmp_path / "run", config, reporter=Silent(), device="cpu")
    assert not any("companion" in k for k in tensors(tmp_path / "run"))


def task(folder: Path, tmp_path: Path, adversarial: AdversarialLoss) -> AutoencoderTask:
    from us_i2v.training.runs import gather_clips

    config = autoencoder_config(adversarial=adversarial)
    train, held = gather_clips([folder], tmp_path / "cache", 32, config.clips, 1, Silent())
    return AutoencoderTask(config, train, held, tmp_path)


def test_the_average_of_weights_shares_the_discriminators():
    adversarial = Adversarial(BOTH, seed=3)
    assert copy.deepcopy(adversarial) is adversarial


def state_after_a_step(rank: int, world: int) -> dict[str, torch.Tensor]:
    """Discriminators and Adam after one update with a rank's share of two clips."""
    adversarial = Adversarial(BOTH, seed=3)
    video, made = torch.rand(2, 2, 1, 16, 32, 32, generator=torch.Generator().manual_seed(0))
    mine = slice(rank, None, world)
    picks = {name: frames[mine] for name, frames in adversarial.draw(1, 2, 16).items()}
    adversarial.generator_loss(video[mine], made[mine], picks)
    adversarial.after_step(1)
    return {k: v.detach().clone().contiguous() for k, v in adversarial.state().items()}


_RANKS = """
import sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from tests.training.test_adversarial import state_after_a_step
torch.set_num_threads(1)
torch.distributed.init_process_group("gloo")
rank = torch.distributed.get_rank()
save_file(state_after_a_step(rank, 2), Path(sys.argv[1]) / f"{rank}.safetensors")
torch.distributed.destroy_process_group()
"""


def test_two_ranks_equal_one_with_the_joint_batch(tmp_path):
    script, out = tmp_path / "ranks.py", tmp_path / "out"
    script.write_text(_RANKS, encoding="utf-8")
    out.mkdir()
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run([*launch, str(script), str(out)], env=env, check=True, capture_output=True, timeout=300)
    one = state_after_a_step(0, 1)
    first, second = (load_file(out / f"{rank}.safetensors") for rank in (0, 1))
    assert equal(first, second)
    # After one Adam step from zero, exp_avg is (1 - beta1) times the gradient.
    gradients = [k for k in one if k.endswith("exp_avg")]
    assert sum(bool(one[key].any()) for key in gradients) > 10
    for key in gradients:
        assert torch.allclose(one[key], first[key], rtol=1e-3, atol=1e-7), key
    half = state_after_a_step(0, 2)
    assert not all(torch.allclose(one[key], half[key], rtol=1e-3, atol=1e-7) for key in gradients)
