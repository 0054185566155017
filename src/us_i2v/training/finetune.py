"""Fitting trained weights to one's own scanner: both stages, in a given time.

Stage 1 and then stage 2 are trained on from the weights' own networks, at a lower rate than from scratch. How many
steps fit into a stage's time is measured on this machine before it starts, and kept in `plan.json`: an interrupted run
goes on with the same plan. At the end the speckle is calibrated on clips that the fitted weights make of windows' first
frames. The weights that come out name the groups and files of both trainings.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from pydantic import Field

from us_i2v.config import Config, read_mapping
from us_i2v.data.atomic import write_bytes
from us_i2v.data.training_clips import ClipSampler, ClipsConfig
from us_i2v.devices import choose_device
from us_i2v.errors import ConfigError, OutputError, WeightsError
from us_i2v.metrics.pretrained import find_metric_weights
from us_i2v.seeding import numpy_generator
from us_i2v.training.autoencoder import AutoencoderLoss, AutoencoderTask, AutoencoderTraining, train_autoencoder
from us_i2v.training.calibration import calibrated_on_generated
from us_i2v.training.denoiser import DenoiserTask, DenoiserTraining, train_denoiser
from us_i2v.training.latents import windows_to_calibrate
from us_i2v.training.loop import CHECKPOINT, OptimiserConfig
from us_i2v.training.runs import gather_clips
from us_i2v.weights import Weights, bundled_path, load_weights, save_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from us_i2v.training.loop import Task
    from us_i2v.training.report import Reporter

PLAN = "plan.json"
FEWEST_STEPS = 20
"""Steps a stage gets at least, however little time there is."""

Stage = TypeVar("Stage", AutoencoderTraining, DenoiserTraining)

_CALIBRATED_ON = 48
"""Windows whose first frames are answered to calibrate the speckle."""

_OVERHEAD = 0.85
"""Share of the time that goes into steps; the rest is validation and encoding."""


class FinetuneConfig(Config):
    """How weights are fitted to new clips."""

    minutes: float = Field(60.0, gt=0, description="Time for both stages together.")
    first_share: float = Field(0.5, gt=0, lt=1, description="Share of the time for stage 1.")
    first_rate: float = Field(1e-4, gt=0, description="Learning rate of stage 1.")
    second_rate: float = Field(1e-4, gt=0, description="Learning rate of stage 2.")
    batch_size: int = Field(4, ge=1, description="Clips a step of stage 1; stage 2 takes four times as many.")
    windows: int = Field(1024, ge=16, description="Windows that are encoded for stage 2.")
    matched: float = Field(0.05, ge=0, description="Weight in stage 1 of the flow that block matching finds.")
    freeze_encoder: bool = Field(True, description="Stage 1 fits the decoder only, so that latents stay the same.")
    perceptual: float = Field(0.8, ge=0, description="Weight of LPIPS in stage 1, where its weights are found.")
    stride: int | None = Field(None, ge=1, description="Frame stride; empty: by time, as the weights were trained.")
    validation: float = Field(0.2, ge=0, lt=1, description="Share of groups held out, if no split is given.")
    seed: int = Field(0, ge=0, description="Seed of everything random.")


def finetune(
    data: Sequence[Path],
    weights: Path | None,
    out: Path,
    config: FinetuneConfig,
    *,
    metric_weights: Path | None = None,
    resume: bool = False,
    reporter: Reporter,
    device: str = "auto",
) -> Path:
    """Fit both stages of trained weights to new clips.

    Args:
        data: Data folders (any known layout).
        weights: LDDM weights to start from; None takes the bundled ones.
        out: Run folder: plan.json, autoencoder/, denoiser/ and weights.safetensors, ready for `us-i2v generate`.
        config: See `FinetuneConfig`.
        metric_weights: Where LPIPS weights are looked for; without them stage 1 fits pixels only, and says so.
        resume: Go on with the run in `out`.
        reporter: Receives progress.
        device: "auto", "cpu", "cuda", ...

    Returns:
        The path of the fitted weights.

    Raises:
        WeightsError: The weights cannot be read or are no LDDM.
        DataError: No clips.
        ConfigError: `out` holds a run of other settings.
        TrainingError: A loss is not finite.
    """
    start = bundled_path() if weights is None else weights
    known = load_weights(start)
    if known.header.denoiser is None:
        raise WeightsError(
            f"'{start}' holds {known.header.kind} weights; fine-tuning needs an auto-encoder and a denoiser.",
            "Give weights of `us-i2v train-ldm`, or none for the bundled ones.",
        )
    where = choose_device(device)
    first, second = stage_settings(known, start, config, metric_weights, reporter)
    plan, path = _Plan.open(out / PLAN, config, resume=resume), out / "weights.safetensors"
    if path.exists():
        return path  # Written last: the run is finished.
    folders, size = (out / "autoencoder", out / "denoiser"), known.header.autoencoder.size

    if "autoencoder" not in plan.steps:
        clips = gather_clips(data, folders[0] / "cache", size, first.clips, config.seed, reporter)
        plan.add("autoencoder", AutoencoderTask(first, *clips, folders[0]), config.first_share, first.optimiser, where)
    first = plan.applied(first, "autoencoder")
    train_autoencoder(data, folders[0], first, resume=_begun(folders[0], resume), reporter=reporter, device=device)

    if "denoiser" not in plan.steps:
        fitted = load_weights(folders[0])
        clips = gather_clips(
            data, folders[0] / "cache", fitted.header.autoencoder.size, second.clips, config.seed, reporter
        )
        task = DenoiserTask(second, fitted, *clips, folders[1], where, reporter)
        plan.add("denoiser", task, 1 - config.first_share, second.optimiser, where)
    second = plan.applied(second, "denoiser")
    resumed = _begun(folders[1], resume)
    train_denoiser(data, folders[0], folders[1], second, resume=resumed, reporter=reporter, device=device)

    fitted = load_weights(folders[1])
    train, held = gather_clips(data, folders[0] / "cache", size, second.clips, config.seed, reporter)
    # A few held-out groups may move less or more than most; two numbers are not learned by heart from all.
    sampler = ClipSampler(
        [*train, *held], second.clips, length=fitted.header.autoencoder.n_frames, seed=config.seed, augment=False
    )
    rows = sampler.grid(per_clip=1)
    order = numpy_generator(config.seed, "speckle").permutation(len(rows))[:_CALIBRATED_ON]
    videos, intervals = windows_to_calibrate((sampler.load(*rows[k]) for k in order), size, where)
    speckle = calibrated_on_generated(fitted, videos, where, intervals)
    save_weights(path, fitted.header.model_copy(update={"speckle": speckle}), fitted.tensors)
    return path


class _Plan:
    """Steps by stage, in a file: what a resumed run must not measure again."""

    def __init__(self, path: Path, config: FinetuneConfig, steps: dict[str, int]) -> None:
        self.path, self.config, self.steps = path, config, steps

    @classmethod
    def open(cls, path: Path, config: FinetuneConfig, *, resume: bool) -> _Plan:
        """Read the plan of a resumed run, or begin one; raises `ConfigError`, `OutputError`."""
        if not path.exists():
            return cls(path, config, {})
        if not resume:
            raise OutputError(f"'{path.parent}' already holds a run.", "Use --resume to go on, or another folder.")
        plan = read_mapping(path)
        if plan["config"] != config.model_dump(mode="json"):
            raise ConfigError(f"'{path.parent}' was started with other settings.", "Use the same, or another folder.")
        return cls(path, config, dict(plan["steps"]))

    def add(self, stage: str, task: Task, share: float, optimiser: OptimiserConfig, device: torch.device) -> None:
        """Measure a stage's step and write how many fit into its share of the time."""
        seconds = seconds_per_step(task, device, bf16=optimiser.precision == "bf16")
        self.steps[stage] = max(FEWEST_STEPS, int(_OVERHEAD * 60 * self.config.minutes * share / seconds))
        text = json.dumps({"config": self.config.model_dump(mode="json"), "steps": self.steps}, indent=1)
        write_bytes(self.path, f"{text}\n".encode())

    def applied(self, settings: Stage, stage: str) -> Stage:
        """Return a stage's settings with its steps; it is validated about four times."""
        steps = self.steps[stage]
        changes = {"steps": steps, "validate_every": max(1, -(-steps // 4))}
        optimiser = settings.optimiser.model_copy(update=changes)
        return settings.model_copy(update={"optimiser": optimiser})


def _begun(folder: Path, resume: bool) -> bool:
    return resume and (folder / CHECKPOINT).exists()


def stage_settings(
    known: Weights, start: Path, config: FinetuneConfig, metric_weights: Path | None, reporter: Reporter
) -> tuple[AutoencoderTraining, DenoiserTraining]:
    """Return both stages' settings, the number of steps still open."""
    header = known.header
    low, high = header.interval_range_s
    clips = ClipsConfig(
        fit=header.fit, stride=config.stride, dt_ms=(1000 * low, 1000 * high), validation=config.validation
    )
    file = find_metric_weights("lpips-squeeze", metric_weights) if config.perceptual > 0 else None
    if config.perceptual > 0 and file is None:
        reporter.message("no LPIPS weights: stage 1 is fitted by pixels alone, and mean frames may lose texture")
    loss: dict[str, Any] = {"flow": 0.2, "kl": 5e-4, "matched": config.matched}
    if file is not None:
        loss |= {"perceptual": config.perceptual, "lpips": str(file)}
    common = {"seed": config.seed, "warmup": 20, "ema": 0.99}
    first = AutoencoderTraining(
        model=header.autoencoder,
        clips=clips,
        optimiser=OptimiserConfig(batch_size=config.batch_size, learning_rate=config.first_rate, **common),
        loss=AutoencoderLoss(**loss),
        freeze_encoder=config.freeze_encoder,
        init=str(start),
    )
    second = DenoiserTraining.model_validate(
        {
            "model": header.denoiser,
            "process": header.process,
            "clips": clips,
            "labels": bool(header.labels),
            "windows": config.windows,
            "optimiser": OptimiserConfig(batch_size=4 * config.batch_size, learning_rate=config.second_rate, **common),
            "init": str(start),
        }
    )
    return first, second


def seconds_per_step(
    task: Task,
    device: torch.device,
    *,
    bf16: bool,
    repeats: int = 2,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Measure one training step, forward and backward, after one to warm up; `clock` tells seconds."""
    task.module.to(device).train()
    taken = []
    for step in range(1 + repeats):
        before = clock()
        batch, _ = task.batch(step, 0, 1)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            loss, _ = task.module({key: value.to(device) for key, value in batch.items()})
        loss.backward()
        float(loss.detach())
        taken.append(clock() - before)
    task.module.zero_grad(set_to_none=True)
    return min(taken[1:])
