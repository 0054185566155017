"""Training runs: exact resume, interruption, NaN, several processes, and that the result can be used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.factories import textured_still
from tests.training.conftest import autoencoder_config, denoiser_config
from us_i2v.errors import ConfigError, OutputError, TrainingError, WeightsError
from us_i2v.pipeline import GenerateOptions, ImageToVideo
from us_i2v.training.autoencoder import train_autoencoder
from us_i2v.training.denoiser import train_denoiser
from us_i2v.training.loop import CHECKPOINT, OptimiserConfig
from us_i2v.training.report import Silent
from us_i2v.weights import load_weights


class StopAfter(Silent):
    """Sends this process a Ctrl-C after some steps."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def step(self, step: int, loss: float, values: dict[str, float]) -> None:
        if step == self.steps:
            os.kill(os.getpid(), 2)


def tensors(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / CHECKPOINT)


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_interrupted_and_resumed_equals_undisturbed_bitwise(clips_folder, tmp_path):
    config = autoencoder_config(steps=6)
    train_autoencoder([clips_folder], tmp_path / "whole", config, reporter=Silent(), device="cpu")
    with pytest.raises(KeyboardInterrupt):
        train_autoencoder([clips_folder], tmp_path / "parts", config, reporter=StopAfter(2), device="cpu")
    assert (tmp_path / "parts" / CHECKPOINT).exists()
    train_autoencoder([clips_folder], tmp_path / "parts", config, resume=True, reporter=Silent(), device="cpu")
    assert equal(tensors(tmp_path / "whole"), tensors(tmp_path / "parts"))
    assert not equal(tensors(tmp_path / "whole"), {k: v + 1 for k, v in tensors(tmp_path / "whole").items()})


def test_run_folder_holds_config_metrics_strip_and_weights(clips_folder, tmp_path):
    run = tmp_path / "run"
    train_autoencoder([clips_folder], run, autoencoder_config(), reporter=Silent(), device="cpu")
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [3, 6]
    assert {"loss", "l1", "val_l1", "val_l1_repeat", "learning_rate"} <= rows[0].keys()
    assert (run / "samples" / "step_000006.png").stat().st_size > 500
    assert json.loads((run / "config.json").read_text())["optimiser"]["steps"] == 6
    header = load_weights(run).header
    assert header.kind == "autoencoder"
    assert header.training_groups == ("g0", "g2")
    assert len(header.clip_sha256) == 4
    assert header.frame_interval_s == pytest.approx(0.1)


def test_both_stages_make_weights_that_generate(clips_folder, tmp_path):
    ae, ldm = tmp_path / "ae", tmp_path / "ldm"
    train_autoencoder([clips_folder], ae, autoencoder_config(), reporter=Silent(), device="cpu")
    config = denoiser_config(labels=True)
    train_denoiser([clips_folder], ae, ldm, config, reporter=Silent(), device="cpu")
    assert not (ldm / "cache").exists()  # stage 1 had decoded the clips already
    weights = load_weights(ldm)
    assert weights.header.labels == ("benign", "malignant")
    mean, sd = weights.latent_statistics()
    assert bool((sd > 0).all())
    assert mean.shape == sd.shape
    still = textured_still(50, 40)
    clip = ImageToVideo.from_pretrained(ldm, device="cpu")(still, options=GenerateOptions(label="benign"))[0]
    assert clip.frames.shape == (16, 50, 40)
    assert np.array_equal(clip.frames[0], still)
    rows = [json.loads(line) for line in (ldm / "metrics.jsonl").read_text().splitlines()]
    assert {"val_loss", "val_flow_px", "val_latent_sd"} <= rows[-1].keys()


def test_denoiser_resume_is_bitwise(clips_folder, tmp_path):
    ae = tmp_path / "ae"
    train_autoencoder([clips_folder], ae, autoencoder_config(), reporter=Silent(), device="cpu")
    config = denoiser_config()
    train_denoiser([clips_folder], ae, tmp_path / "a", config, reporter=Silent(), device="cpu")
    with pytest.raises(KeyboardInterrupt):
        train_denoiser([clips_folder], ae, tmp_path / "b", config, reporter=StopAfter(1), device="cpu")
    train_denoiser([clips_folder], ae, tmp_path / "b", config, resume=True, reporter=Silent(), device="cpu")
    assert equal(tensors(tmp_path / "a"), tensors(tmp_path / "b"))


def test_a_used_folder_is_refused_without_resume(clips_folder, tmp_path):
    run = tmp_path / "run"
    train_autoencoder([clips_folder], run, autoencoder_config(), reporter=Silent(), device="cpu")
    before = (run / CHECKPOINT).read_bytes()
    with pytest.raises(OutputError, match="--resume"):
        train_autoencoder([clips_folder], run, autoencoder_config(), reporter=Silent(), device="cpu")
    other = autoencoder_config(steps=9)
    with pytest.raises(ConfigError, match=r"optimiser\.steps"):
        train_autoencoder([clips_folder], run, other, resume=True, reporter=Silent(), device="cpu")
    assert (run / CHECKPOINT).read_bytes() == before


def test_nan_stops_with_the_files_named_and_keeps_the_checkpoint(clips_folder, tmp_path, monkeypatch):
    from us_i2v.training import autoencoder

    original = autoencoder.AutoencoderTask.batch

    def poisoned(self, step, rank, world):
        batch, names = original(self, step, rank, world)
        if step == 4:
            batch["video"][:] = torch.nan
        return batch, names

    monkeypatch.setattr(autoencoder.AutoencoderTask, "batch", poisoned)
    run = tmp_path / "run"
    with pytest.raises(TrainingError, match=r"clip\d\.npz"):
        train_autoencoder([clips_folder], run, autoencoder_config(), reporter=Silent(), device="cpu")
    assert load_file(run / CHECKPOINT)
    assert all(torch.isfinite(x).all() for x in tensors(run).values())


def test_checkpoint_of_other_data_is_refused(clips_folder, tmp_path):
    run = tmp_path / "run"
    train_autoencoder([clips_folder], run, autoencoder_config(), reporter=Silent(), device="cpu")
    (clips_folder / "clip0.npz").write_bytes((clips_folder / "clip2.npz").read_bytes())
    with pytest.raises(WeightsError, match="other settings or data"):
        train_autoencoder([clips_folder], run, autoencoder_config(), resume=True, reporter=Silent(), device="cpu")


def test_decoder_alone_can_be_trained_on(clips_folder, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    train_autoencoder([clips_folder], first, autoencoder_config(), reporter=Silent(), device="cpu")
    config = autoencoder_config(init=str(first), freeze_encoder=True)
    train_autoencoder([clips_folder], second, config, reporter=Silent(), device="cpu")
    before, after = load_weights(first).tensors, load_weights(second).tensors
    changed = {key.split(".")[1] for key in before if not torch.equal(before[key], after[key])}
    assert changed == {"decoder"}
    shape = config.model.model_copy(update={"latent_channels": 2})
    other = config.model_copy(update={"model": shape})
    with pytest.raises(ConfigError, match="another shape"):
        train_autoencoder([clips_folder], tmp_path / "third", other, reporter=Silent(), device="cpu")


def test_stage_two_wants_the_fit_of_stage_one(clips_folder, tmp_path):
    ae = tmp_path / "ae"
    train_autoencoder([clips_folder], ae, autoencoder_config(), reporter=Silent(), device="cpu")
    config = denoiser_config()
    config = config.model_copy(update={"clips": config.clips.model_copy(update={"fit": "letterbox"})})
    with pytest.raises(ConfigError, match="--fit stretch"):
        train_denoiser([clips_folder], ae, tmp_path / "ldm", config, reporter=Silent(), device="cpu")


def test_learning_rate_warms_up_and_decays():
    config = OptimiserConfig(steps=100, warmup=10, learning_rate=1.0)
    assert config.rate(0) == pytest.approx(0.1, rel=1e-3)
    assert config.rate(50) == pytest.approx(0.5)
    assert config.rate(99) < 1e-3
    assert OptimiserConfig(steps=100, warmup=0, learning_rate=1.0, decay="none").rate(99) == 1.0


_RANKS = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from tests.training.conftest import autoencoder_config
from us_i2v.training.autoencoder import train_autoencoder
from us_i2v.training.report import Silent
config = autoencoder_config(steps=1)
optimiser = config.optimiser.model_copy(update={"precision": "fp32", "clip_norm": 1e9, "warmup": 0})
config = config.model_copy(update={"optimiser": optimiser})
train_autoencoder([Path(sys.argv[1])], Path(sys.argv[2]), config, reporter=Silent(), device="cpu")
"""


_STAGE_2 = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from tests.training.conftest import denoiser_config
from us_i2v.training.denoiser import train_denoiser
from us_i2v.training.report import Silent
train_denoiser([Path(sys.argv[1])], Path(sys.argv[2]), Path(sys.argv[3]), denoiser_config(), reporter=Silent())
"""


def test_stage_two_runs_on_two_processes(clips_folder, tmp_path):
    train_autoencoder([clips_folder], tmp_path / "ae", autoencoder_config(), reporter=Silent(), device="cpu")
    script = tmp_path / "stage2.py"
    script.write_text(_STAGE_2, encoding="utf-8")
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [str(script), str(clips_folder), str(tmp_path / "ae"), str(tmp_path / "ldm")]
    done = subprocess.run(command, env=env, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert load_weights(tmp_path / "ldm").header.kind == "lddm"


def test_two_gloo_processes_equal_one_with_the_joint_batch(clips_folder, tmp_path):
    script = tmp_path / "ranks.py"
    script.write_text(_RANKS, encoding="utf-8")
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for start, out in (([], "one"), (launch, "two")):
        command = [sys.executable, *start, str(script), str(clips_folder), str(tmp_path / out)]
        done = subprocess.run(command, env=env, check=False, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
    one, two = tensors(tmp_path / "one"), tensors(tmp_path / "two")
    # After one Adam step from zero, exp_avg is (1 - beta1) times the gradient.
    gradients = [k for k in one if k.endswith("exp_avg")]
    assert len(gradients) > 20
    for key in gradients:
        assert torch.allclose(one[key], two[key], rtol=1e-4, atol=1e-7), key
    assert any(bool(one[key].any()) for key in gradients)
