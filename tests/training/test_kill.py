"""Trainings that die as by kill -9 and are resumed: bit for bit what an undisturbed run gives, in every file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.fakes import tree
from tests.training.conftest import autoencoder_config, denoiser_config, make_clips_folder
from us_i2v.training import autoencoder, loop, state
from us_i2v.training.autoencoder import train_autoencoder
from us_i2v.training.denoiser import train_denoiser
from us_i2v.training.loop import CHECKPOINT, _forget_after
from us_i2v.training.report import Silent
from us_i2v.weights import read_tensors

ROOT = Path(__file__).parents[2]

MOMENTS = {
    "a step": (1, "the second epoch's first step"),
    "half a checkpoint": (1, "the second checkpoint, half written"),
    "before the checkpoint": (1, "the second epoch is measured and exported, its checkpoint is not there"),
    "before the first checkpoint": (0, "the same in the first epoch"),
    "the end": (2, "the last checkpoint is there"),
}
"""Where a run dies -> how many checkpoints there are, and in words."""

CASES = [("ae", "a step"), ("ae", "half a checkpoint"), ("ae", "before the first checkpoint"), ("ae", "the end")]
CASES += [("ldm", "before the checkpoint")]


def run(stage: str, data: Path, folder: Path, out: Path, *, resume: bool = False) -> None:
    """Two epochs of a stage."""
    given = {"resume": resume, "reporter": Silent(), "device": "cpu"}
    if stage == "ae":
        train_autoencoder([data], out, autoencoder_config(steps=6), **given)
    else:
        train_denoiser([data], folder / "ae", out, denoiser_config(steps=4), **given)


def die(*_args: object, **_kwargs: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def on_call(number: int, function: Callable, instead: Callable) -> Callable:
    """Return a function that does something else on call `number`, counted from 1."""
    calls: list[None] = []

    def counted(*args: object, **kwargs: object) -> object:
        calls.append(None)
        return (instead if len(calls) == number else function)(*args, **kwargs)

    return counted


def arm(moment: str) -> None:
    """Have this process die at a moment of its training."""

    def half(path: Path, *_args: object) -> None:
        path.with_name(f".{path.stem}.half.part.safetensors").write_bytes(b"half of a checkpoint")
        die()

    if moment == "a step":
        task = autoencoder.AutoencoderTask
        task.batch = on_call(autoencoder_config().optimiser.validate_every + 1, task.batch, die)
    elif moment == "half a checkpoint":
        state.write_tensors = on_call(2, state.write_tensors, half)
    elif moment == "before the checkpoint":
        loop.save_checkpoint = on_call(2, loop.save_checkpoint, die)
    elif moment == "before the first checkpoint":
        loop.save_checkpoint = die
    else:
        save = loop.save_checkpoint
        loop.save_checkpoint = on_call(2, save, lambda *args: (save(*args), die()))


def killed_runs(data: Path, folder: Path) -> None:
    """Fork a child for each case and let it die; this process never computes, so that forks are safe."""
    for stage, moment in CASES:
        child = os.fork()
        if child == 0:
            try:
                torch.set_num_threads(1)
                arm(moment)
                run(stage, data, folder, folder / f"{stage}, {moment}")
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        print(stage, moment, os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, sep=", ")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Undisturbed runs `ae` and `ldm`, and the killed ones."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("kill")
    data = make_clips_folder(root)
    for stage in ("ae", "ldm"):
        run(stage, data, root, root / stage)
    code = "import sys; from pathlib import Path; from tests.training.test_kill import killed_runs\n"
    code += "killed_runs(Path(sys.argv[1]), Path(sys.argv[2]))"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, data, root], env=environment, cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert done.stdout.splitlines() == [f"{stage}, {moment}, True" for stage, moment in CASES], done.stderr
    yield root
    torch.set_num_threads(before)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.parametrize(("stage", "moment"), CASES)
def test_killed_and_resumed_equals_undisturbed(folder: Path, stage: str, moment: str) -> None:
    killed, whole = folder / f"{stage}, {moment}", tree(folder / stage)
    epochs = MOMENTS[moment][0]
    assert (killed / CHECKPOINT).exists() == (epochs > 0)
    if epochs:
        read_tensors(killed / CHECKPOINT)  # Whole, whatever the moment.
    run(stage, folder / "clips", folder, killed, resume=True)
    left = tree(killed)
    if moment == "half a checkpoint":
        left = {name: content for name, content in left.items() if not name.endswith(".part.safetensors")}
    assert left.keys() == whole.keys()
    assert [name for name in whole if left[name] != whole[name]] == []


def test_lines_of_steps_that_are_made_again_are_dropped(tmp_path: Path) -> None:
    log = tmp_path / "metrics.jsonl"
    _forget_after(log, 3)
    assert not log.exists()
    whole = b'{"step": 3}\n{"step": 6}\n'
    log.write_bytes(whole + b'{"step": 9, "lo')
    _forget_after(log, 9)
    assert log.read_bytes() == whole
    _forget_after(log, 3)
    assert log.read_bytes() == b'{"step": 3}\n'
