"""The training loop, shared by all stages: one function that reads top-down.

Whatever is random in step n is derived from (seed, n), so a resumed run replays it: on a CPU, 10 + 10 steps
equal 20 bitwise. Under torchrun every rank takes its share of the joint batch and gradients are averaged by
DistributedDataParallel.
"""

from __future__ import annotations

import atexit
import gc
import hashlib
import json
import math
import os
import signal
import threading
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer
from torch import nn

from us_i2v.config import Config
from us_i2v.data.atomic import write_bytes
from us_i2v.errors import ConfigError, OutputError, TrainingError
from us_i2v.training.ema import EMA
from us_i2v.training.state import load_checkpoint, save_checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from torch import Tensor

    from us_i2v.training.report import Reporter

CHECKPOINT = "checkpoint.safetensors"
_MOST_SKIPPED = 10


class OptimiserConfig(Config):
    """Steps, batch, learning rate and the like."""

    steps: int = Field(5000, ge=1, description="Optimiser steps in all.")
    batch_size: int = Field(4, ge=1, description="Clips a step, over all ranks together.")
    learning_rate: float = Field(2e-4, gt=0, description="Peak learning rate of Adam.")
    warmup: int = Field(200, ge=0, description="Steps of linear warm-up.")
    decay: Literal["cosine", "none"] = Field("cosine", description="Learning-rate decay to zero, or none.")
    betas: tuple[float, float] = Field((0.9, 0.99), description="Adam's betas.")
    weight_decay: float = Field(0.0, ge=0, description="Decoupled weight decay (AdamW).")
    amsgrad: bool = Field(False, description="Adam's variant that keeps the largest second moment.")
    clip_norm: float = Field(1.0, gt=0, description="Gradient norm is clipped to this.")
    ema: float = Field(0.999, ge=0, lt=1, description="Decay of the weight average.")
    precision: Literal["bf16", "fp32"] = Field("bf16", description="Autocast precision, on CPU and GPU.")
    seed: int = Field(0, ge=0, description="Seed of everything random.")
    validate_every: int = Field(500, ge=1, description="Steps an epoch: validation, sample strip, checkpoint.")

    @model_serializer(mode="wrap")
    def _leave_out_untouched(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # A run without AMSGrad is identified as it was before it could be chosen, so that it can be resumed.
        values: dict[str, Any] = handler(self)
        if not self.amsgrad:
            values.pop("amsgrad", None)
        return values

    def rate(self, step: int) -> float:
        """Learning rate of step `step` (0-based)."""
        warm = min(1.0, (step + 1) / max(1, self.warmup))
        if self.decay == "none":
            return self.learning_rate * warm
        return self.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * step / self.steps))


class Task(Protocol):
    """What a stage brings to the loop."""

    module: nn.Module
    """Called as module(batch) -> (loss scalar, {name: float tensor}); its parameters are trained."""

    def batch(self, step: int, rank: int, world: int) -> tuple[dict[str, Tensor], list[str]]:
        """This rank's part of the batch of a step, and the names of its files."""

    def validate(self, module: nn.Module, step: int) -> dict[str, float]:
        """Measure the averaged weights on held-out clips; may write a sample strip."""

    def export(self, module: nn.Module) -> None:
        """Write the weights file from the averaged weights."""


class Companion(Protocol):
    """What is trained beside a task's module by an optimiser of its own, for example discriminators."""

    def to(self, device: torch.device) -> None:
        """Move to the device."""

    def after_step(self, step: int) -> dict[str, float]:
        """Train after the module's step (0-based), alike on all ranks; returns values to report."""

    def state(self) -> dict[str, Tensor]:
        """Everything that a resumed run needs."""

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `state` gave."""


def train(
    task: Task,
    out: Path,
    config: OptimiserConfig,
    *,
    fingerprint: str,
    resume: bool,
    reporter: Reporter,
    device: torch.device,
    name: str,
    companion: Companion | None = None,
) -> None:
    """Run a task to its last step, checkpointing every epoch and on Ctrl-C.

    Args:
        task: The stage.
        out: Run folder; holds the checkpoint, metrics.jsonl and the exported weights.
        config: See `OptimiserConfig`.
        fingerprint: Hash of settings and data; a checkpoint of another is refused.
        resume: Go on from the folder's checkpoint; without it a folder with one is refused.
        reporter: Receives progress.
        device: Where to train.
        name: Shown to the reporter.
        companion: Trained beside the task, and kept in its checkpoints.

    Raises:
        TrainingError: The loss is not finite; names the files of the batch, the last checkpoint stays.
        ConfigError: The batch does not divide over the ranks.
    """
    rank, world = _ranks()
    if config.batch_size % world:
        raise ConfigError(f"Batch size {config.batch_size} does not divide over {world} ranks.", "Change batch_size.")
    checkpoint = out / CHECKPOINT
    if checkpoint.exists() and not resume:
        raise OutputError(f"'{out}' already holds a run.", "Use --resume to go on, or another folder.")
    task.module.to(device).train()
    optimiser = torch.optim.AdamW(
        task.module.parameters(),
        lr=config.learning_rate,
        betas=config.betas,
        weight_decay=config.weight_decay,
        amsgrad=config.amsgrad,
    )
    if companion is not None:
        companion.to(device)
    ema = EMA(task.module, config.ema)
    done = 0
    if checkpoint.exists():
        done = load_checkpoint(checkpoint, fingerprint, task.module, ema, optimiser, companion)
    parallel = _parallel(task.module, device) if world > 1 else task.module
    in_a_row = 0
    if rank == 0:
        _forget_after(out / "metrics.jsonl", done)
        reporter.start(name, config.steps, done)
    try:
        with _interruptible() as interrupted:
            for step in range(done, config.steps):
                for group in optimiser.param_groups:
                    group["lr"] = config.rate(step)
                loss, values = _step(task, parallel, optimiser, config, step, (rank, world), device)
                in_a_row = in_a_row + 1 if values["skipped"] else 0
                if in_a_row > _MOST_SKIPPED:
                    raise TrainingError(
                        f"{in_a_row} gradients in a row were not finite, up to step {step + 1}.",
                        "Lower the learning rate; the last checkpoint is kept.",
                    )
                ema.update(task.module, step + 1)
                if companion is not None:
                    values |= companion.after_step(step)
                stop = _any_rank(interrupted.is_set(), world, device)
                last = step + 1 == config.steps
                if rank == 0:
                    reporter.step(step + 1, loss, values)
                    due = last or (step + 1) % config.validate_every == 0
                    if due and (last or not stop):
                        _epoch(task, ema, out, step + 1, loss, values, reporter)
                    # Last: an epoch that was killed half-way is done again, from the checkpoint before.
                    if due or stop:
                        save_checkpoint(checkpoint, step + 1, fingerprint, task.module, ema, optimiser, companion)
                if stop:
                    raise KeyboardInterrupt
    finally:
        if rank == 0:
            reporter.stop()


def _step(
    task: Task,
    module: nn.Module,
    optimiser: torch.optim.Optimizer,
    config: OptimiserConfig,
    step: int,
    place: tuple[int, int],
    device: torch.device,
) -> tuple[float, dict[str, float]]:
    batch, names = task.batch(step, *place)
    batch = {key: value.to(device) for key, value in batch.items()}
    with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
        loss, values = module(batch)
    value = float(loss.detach())
    if not math.isfinite(value):
        raise TrainingError(
            f"Loss is {value} at step {step + 1}; files of the batch: {', '.join(names)}.",
            "Look at these files, or lower the learning rate; the last checkpoint is kept.",
        )
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    norm = float(nn.utils.clip_grad_norm_(module.parameters(), config.clip_norm))
    # Half precision overflows now and then: such a gradient is thrown away, as loss scalers do.
    skipped = not math.isfinite(norm)
    if not skipped:
        optimiser.step()
    out = {key: float(x) for key, x in values.items()}
    return value, {**out, "gradient_norm": norm, "learning_rate": config.rate(step), "skipped": float(skipped)}


def _epoch(
    task: Task, ema: EMA, out: Path, step: int, loss: float, values: dict[str, float], reporter: Reporter
) -> None:
    measured = task.validate(ema.module, step)
    row = {"step": step, "loss": loss, **values, **{f"val_{k}": v for k, v in measured.items()}}
    task.export(ema.module)
    # After the weights, so that a step in the log is in the weights as well, whenever a run is killed.
    with (out / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    text = ", ".join(f"{k} {v:.4g}" for k, v in measured.items())
    reporter.message(f"step {step}: {text}" if text else f"step {step}: saved")


def _forget_after(log: Path, step: int) -> None:
    """Drop the lines of steps that a killed run made and a resumed one makes again."""
    if not log.exists():
        return
    lines = log.read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if line.endswith(b"\n") and json.loads(line)["step"] <= step]
    if kept != lines:
        write_bytes(log, b"".join(kept))


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """Turn Ctrl-C and SIGTERM into a flag that is looked at between steps (main thread only)."""
    flag = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    signals = (signal.SIGINT, signal.SIGTERM)
    previous = [signal.signal(s, lambda *_: flag.set()) for s in signals]
    try:
        yield flag
    finally:
        for s, handler in zip(signals, previous, strict=True):
            signal.signal(s, handler)


def _ranks() -> tuple[int, int]:
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world > 1 and not torch.distributed.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        # The first rank may decode and encode for hours before the others are let in.
        backend = "nccl" if torch.cuda.is_available() else "gloo"
        torch.distributed.init_process_group(backend, timeout=timedelta(hours=24))
        atexit.register(_leave)
    return int(os.environ.get("RANK", "0")), world


def _leave() -> None:
    """Take the process group down: threads that outlive the interpreter would abort a run that has finished."""
    gc.collect()  # DistributedDataParallel is part of a cycle, and holds the group.
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    gc.collect()


def _any_rank(flag: bool, world: int, device: torch.device) -> bool:
    """True on every rank if it is on one: all must leave the loop after the same step."""
    if world == 1:
        return flag
    shared = torch.tensor(float(flag), device=device)
    torch.distributed.all_reduce(shared, torch.distributed.ReduceOp.MAX)
    return bool(shared)


@contextmanager
def first_rank_alone() -> Iterator[None]:
    """Under torchrun the first rank runs the body before the others do, so that files are written once."""
    rank, world = _ranks()
    if world > 1 and rank:
        torch.distributed.barrier()
    yield
    if world > 1 and not rank:
        torch.distributed.barrier()


def _parallel(module: nn.Module, device: torch.device) -> nn.Module:
    ids = [device.index or 0] if device.type == "cuda" else None
    return nn.parallel.DistributedDataParallel(module, device_ids=ids)


def fingerprint(*parts: str) -> str:
    """Hash of settings and data of a run."""
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()
