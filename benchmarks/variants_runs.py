"""What `variants.py` trains: the default, what each variant changes of it, and how long each stage is trained.

Equal compute: every first stage gets the same CPU seconds of one thread, and so does every second stage. One step of a
variant is measured (CPU time, forward and backward, least of four after one to warm up), and as many steps are taken as
fit: a cheap variant takes more of them. Validation and encoding are not counted. The learning rate falls to zero over
the steps that there are.
"""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field

from us_i2v.config import Config, merge, read_mapping
from us_i2v.data.atomic import write_bytes
from us_i2v.data.training_clips import StoredClip
from us_i2v.errors import ConfigError
from us_i2v.metrics.pretrained import find_metric_weights
from us_i2v.presets import preset
from us_i2v.reproduction.methods import finished
from us_i2v.training.autoencoder import AutoencoderTask, AutoencoderTraining, train_autoencoder
from us_i2v.training.denoiser import DenoiserTask, DenoiserTraining, train_denoiser
from us_i2v.training.finetune import seconds_per_step
from us_i2v.training.loop import CHECKPOINT, Task
from us_i2v.training.report import Reporter
from us_i2v.training.runs import gather_clips
from us_i2v.weights import load_weights

NUMBERS = (4096, 1024, 256, 64)
"""Sizes of the latent that are tried: 8 channels x 2 frames x side^2."""

STEPS = (1, 2, 4, 8, 16, 50)
SHORTCUT_STEPS = 16
REFINED_SHARE = 0.5
"""Share of a second stage's time that refining flow matching by shortcuts takes, on top of flow matching's own."""

FEWEST = 4
CPU = torch.device("cpu")


class Settings(Config):
    """What all variants have in common."""

    data: tuple[str, ...] = Field(min_length=1, description="Folders that are trained on.")
    test: tuple[str, ...] = Field((), description="Names of those whose held-out clips are scored; empty: all.")
    metric_weights: str = Field("", description="Folder of the metric networks' weights.")
    preset: Literal["tiny", "base"] = Field("tiny", description="Where settings start from.")
    size: int = Field(64, ge=32, le=512, description="The models' picture size.")
    first_minutes: float = Field(4.0, gt=0, description="CPU minutes of every first stage.")
    second_minutes: float = Field(2.0, gt=0, description="CPU minutes of every second stage.")
    windows: int = Field(1024, ge=16, description="Windows that are encoded for the second stages.")
    stride: int = Field(3, ge=1, description="Every N-th frame.")
    compared: int = Field(128, ge=48, description="Side of the compared frames.")
    test_windows: int = Field(143, ge=4, description="Held-out windows at most, spread over patients.")
    stills: int = Field(24, ge=2, description="Stills for energy scores at most, spread over patients.")
    samples: int = Field(8, ge=2, description="Clips a still for energy scores.")
    checks: int = Field(4, ge=1, description="Validations and checkpoints a training.")
    draws: int = Field(20, ge=1, description="Divisions of the patients.")
    seed: int = Field(0, ge=0, description="Seed of everything random.")
    changes: dict[str, Any] = Field({}, description="Changes of every variant: autoencoder, denoiser -> settings.")


class Second(NamedTuple):
    """A second stage: over which first stage, what it changes, from which other one it starts."""

    first: str
    changes: dict[str, Any]
    init: str = ""


_STRAIGHT: dict[str, Any] = {"process": {"prediction": "velocity", "schedule": {"kind": "rectified"}}}

FIRST: dict[str, dict[str, Any]] = {
    "warp": {},
    "no-residual": {"model": {"residual": False}, "loss": {"nll": 0.0}},
    # It paints: there is no flow to be told, and no scale whose likelihood could be trained. Rate: docs/results.md.
    "adain": {
        "model": {"decoder": "adain", "time_upsampling": "repeat"},
        "loss": {"nll": 0.0, "matched": 0.0},
        "optimiser": {"learning_rate": 2e-3},
    },
}

SECOND: dict[str, Second] = {
    "default": Second("warp", {}),
    "no-residual": Second("no-residual", {}),
    "adain": Second("adain", {}),
    "eps": Second("warp", {"process": {"prediction": "eps"}}),
    "flow": Second("warp", _STRAIGHT),
    "shortcut": Second("warp", merge(_STRAIGHT, {"process": {"shortcut": {"steps": SHORTCUT_STEPS}}}), "flow"),
    "transformer": Second("warp", {"model": {"kind": "transformer"}}),
}


def side_of(numbers: int) -> int:
    """Side of a latent of so many numbers."""
    return math.isqrt(numbers // 16)


def fitting(size: int) -> list[int]:
    """Sizes of the latent that a picture size allows, the default first."""
    return [numbers for numbers in NUMBERS if size // 2 // side_of(numbers) >= 2]


def strides(size: int, side: int) -> list[int]:
    """Spatial strides that make a latent of `side` out of a picture of `size`; the first is 2, for correlation."""
    factor = size // 2 // side
    if factor < 2 or factor & (factor - 1) or size % (2 * side):
        raise ConfigError(f"No strides make {side} cells out of {size} px.", "Use --size 32, 64, 128 or 256.")
    found = [2, 1, 1, 1]
    for k in range(factor.bit_length() - 2):
        found[1 + k % 3] *= 2
    return found


class Clock:
    """A reporter that also takes the CPU time between steps; validations are outliers that the median leaves out."""

    def __init__(self, inner: Reporter) -> None:
        self.inner = inner
        self.taken: list[float] = []
        self._last: float | None = None

    def start(self, name: str, total_steps: int, done_steps: int) -> None:
        """See `Reporter`."""
        self._last = None
        self.inner.start(name, total_steps, done_steps)

    def step(self, step: int, loss: float, values: dict[str, float]) -> None:
        """See `Reporter`."""
        now = time.process_time()
        if self._last is not None:
            self.taken.append(now - self._last)
        self._last = now
        self.inner.step(step, loss, values)

    def message(self, text: str) -> None:
        """See `Reporter`."""
        self.inner.message(text)

    def stop(self) -> None:
        """See `Reporter`."""
        self.inner.stop()


class Workshop:
    """Trains what is asked for, unless it is there.

    Args:
        out: Folder of all runs.
        settings: See `Settings`.
        reporter: Receives progress.
    """

    def __init__(self, out: Path, settings: Settings, reporter: Reporter) -> None:
        self.out, self.settings, self.reporter = out, settings, reporter
        self.data = [Path(folder) for folder in settings.data]
        weights = Path(settings.metric_weights) if settings.metric_weights else None
        self.lpips = find_metric_weights("lpips-squeeze", weights)
        numbers = fitting(settings.size)
        if not numbers:
            raise ConfigError(f"No latent fits a size of {settings.size}.", "Use --size 64.")
        self.default_numbers = numbers[0]
        self.first = FIRST | {f"latent-{n}": self._latent(n) for n in numbers[1:]}
        self.second = SECOND | {f"latent-{n}": Second(f"latent-{n}", {}) for n in numbers[1:]}
        self._clips: tuple[list[StoredClip], list[StoredClip]] | None = None

    def _latent(self, numbers: int) -> dict[str, Any]:
        return {"model": {"spatial_strides": strides(self.settings.size, side_of(numbers))}}

    def _optimiser(self, ema: float) -> dict[str, Any]:
        # Short trainings: a short warm-up, and averaged weights that follow.
        return {"seed": self.settings.seed, "warmup": 20, "ema": ema}

    def first_settings(self, name: str) -> AutoencoderTraining:
        """Settings of a first stage, its steps still open."""
        settings = self.settings
        loss: dict[str, Any] = {"matched": 0.5}
        if self.lpips is not None:
            loss |= {"perceptual": 1.0, "lpips": str(self.lpips)}
        model = {"size": settings.size, "latent_channels": 8, "temporal_strides": [1, 2, 2, 2]}
        model |= {"block_search": True, "time_upsampling": "learned"}
        values = preset(settings.preset, "autoencoder")
        for change in (
            {"model": model, "loss": loss, "optimiser": self._optimiser(0.99), "clips": {"stride": settings.stride}},
            self._latent(self.default_numbers),
            settings.changes.get("autoencoder", {}),
            self.first[name],
        ):
            values = merge(values, change)
        return AutoencoderTraining.parse(values, f"first stage '{name}'")

    def second_settings(self, name: str) -> DenoiserTraining:
        """Settings of a second stage, its steps still open."""
        settings, second = self.settings, self.second[name]
        values = preset(settings.preset, "denoiser")
        own = {"windows": settings.windows, "clips": {"stride": settings.stride}, "optimiser": self._optimiser(0.995)}
        for change in (own, settings.changes.get("denoiser", {}), second.changes):
            values = merge(values, change)
        if second.changes.get("model", {}).get("kind") == "transformer":
            # A step of it, patches of 2, then costs about as much as the U-Net's.
            values = merge(values, {"model": {"width": 2 * values["model"]["width"]}})
        if second.init:
            values["init"] = str(self.out / "second" / second.init)
        return DenoiserTraining.parse(values, f"second stage '{name}'")

    def clips(self) -> tuple[list[StoredClip], list[StoredClip]]:
        """Training and validation clips, decoded once for all runs."""
        if self._clips is None:
            config = self.first_settings("warp").clips
            self._clips = gather_clips(
                self.data, self.out / "cache", self.settings.size, config, self.settings.seed, self.reporter
            )
        return self._clips

    def train_first(self, name: str) -> Path:
        """Train a first stage; return its run folder."""
        run, config = self.out / "first" / name, self.first_settings(name)
        _link(run / "cache", self.out / "cache")
        steps = self._steps(
            run,
            self.settings.first_minutes,
            config.optimiser.precision,
            lambda: AutoencoderTask(config, *self.clips(), run),
        )
        config = config.model_copy(update={"optimiser": config.optimiser.model_copy(update=self._cut(steps))})
        if not finished(run, steps):
            clock = Clock(self.reporter)
            begun = (run / CHECKPOINT).exists()
            train_autoencoder(self.data, run, config, resume=begun, reporter=clock, device="cpu")
            _note(run, steps, clock)
        return run

    def train_second(self, name: str) -> Path:
        """Train a second stage and what it stands on; return its run folder."""
        second = self.second[name]
        below = self.train_first(second.first)
        if second.init:
            self.train_second(second.init)
        run, config = self.out / "second" / name, self.second_settings(name)
        # The same windows of the same first stage are encoded once.
        _link(run / "latents", below / "latents")

        def task() -> Task:
            return DenoiserTask(config, load_weights(below), *self.clips(), run, CPU, self.reporter)

        minutes = self.settings.second_minutes * (REFINED_SHARE if second.init else 1.0)
        steps = self._steps(run, minutes, config.optimiser.precision, task)
        config = config.model_copy(update={"optimiser": config.optimiser.model_copy(update=self._cut(steps))})
        if not finished(run, steps):
            clock = Clock(self.reporter)
            begun = (run / CHECKPOINT).exists()
            train_denoiser(self.data, below, run, config, resume=begun, reporter=clock, device="cpu")
            _note(run, steps, clock)
        return run

    def _cut(self, steps: int) -> dict[str, int]:
        return {"steps": steps, "validate_every": -(-steps // self.settings.checks)}

    def _steps(self, run: Path, minutes: float, precision: str, task: Callable[[], Task]) -> int:
        """Read how many steps a run takes, or measure one and write it, so that a run that goes on has the same."""
        path = run / "plan.json"
        if not path.exists():
            seconds = seconds_per_step(task(), CPU, bf16=precision == "bf16", repeats=4, clock=time.process_time)
            steps = max(FEWEST, int(60 * minutes / seconds))
            write_bytes(path, json.dumps({"steps": steps, "cpu_seconds_a_step": seconds}).encode())
            self.reporter.message(f"{run.parent.name} stage '{run.name}': {steps} steps of {seconds:.3f} CPU seconds")
        return int(read_mapping(path)["steps"])


def spent(run: Path) -> dict[str, float]:
    """Steps of a finished run and its CPU seconds: median of a step times steps."""
    path = run / "trained.json"
    if path.exists():
        return read_mapping(path)
    plan = read_mapping(run / "plan.json")
    return {"steps": plan["steps"], "cpu_seconds": plan["steps"] * plan["cpu_seconds_a_step"]}


def _note(run: Path, steps: int, clock: Clock) -> None:
    if clock.taken:
        seconds = statistics.median(clock.taken) * steps
        write_bytes(run / "trained.json", json.dumps({"steps": steps, "cpu_seconds": seconds}).encode())


def _link(link: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.exists():
        link.symlink_to(target.resolve(), target_is_directory=True)
