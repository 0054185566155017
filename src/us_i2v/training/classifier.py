"""Training of a video classifier on real clips, synthetic clips, or both.

    L = cross-entropy(logits(window), class)          one window a clip and step, drawn anew each time

Validation is on whole real videos: class probabilities averaged over windows. Dropout, too, is a function of (seed,
step), so that a resumed run replays it.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from us_i2v import __version__
from us_i2v.classifier import ClassifierHeader, save_classifier, video_probabilities
from us_i2v.config import Config
from us_i2v.data.mixing import MixConfig
from us_i2v.data.training_clips import ClipSampler, ClipsConfig, batch_seed
from us_i2v.devices import choose_device
from us_i2v.metrics.classification import Predictions, scores
from us_i2v.metrics.hub import fetch, is_hub_location
from us_i2v.metrics.publishers import sha256_of
from us_i2v.models.classifiers import ClassifierConfig, build_classifier, frame_size
from us_i2v.models.classifiers.published import adapt
from us_i2v.seeding import derive_seed
from us_i2v.training.classifier_data import gather_diet
from us_i2v.training.loop import OptimiserConfig, fingerprint, first_rank_alone, train
from us_i2v.training.prefetch import Prefetch
from us_i2v.training.runs import start_run
from us_i2v.weights import read_tensors

if TYPE_CHECKING:
    from pathlib import Path

    from us_i2v.training.classifier_data import Diet, Sources
    from us_i2v.training.report import Reporter

SHOWN = ("macro_f1", "accuracy", "balanced_accuracy", "auc")
"""Scores of the validation videos that are reported while training."""


class ClassifierOptimiser(OptimiserConfig):
    """Steps, batch, learning rate and the like, with a classifier's defaults."""

    steps: int = Field(2000, ge=1, description="Optimiser steps in all.")
    batch_size: int = Field(8, ge=1, description="Windows a step, over all ranks together.")
    learning_rate: float = Field(3e-4, gt=0, description="Peak learning rate of Adam.")
    warmup: int = Field(100, ge=0, description="Steps of linear warm-up.")
    weight_decay: float = Field(1e-2, ge=0, description="Decoupled weight decay (AdamW).")
    ema: float = Field(0.99, ge=0, lt=1, description="Decay of the weight average.")
    validate_every: int = Field(200, ge=1, description="Steps an epoch: validation, weights, checkpoint.")


class ClassifierTraining(Config):
    """Everything that `us-i2v train-classifier` can be told."""

    model: ClassifierConfig = ClassifierConfig()
    clips: ClipsConfig = ClipsConfig()
    mix: MixConfig = MixConfig()
    optimiser: ClassifierOptimiser = ClassifierOptimiser()
    classes: tuple[str, ...] = Field((), description="Classes, in order; the last one is positive. Empty: all labels.")
    crf: int = Field(18, ge=0, le=51, description="Quality of H.264 that all fitted clips go through; 0: none.")
    windows: int = Field(5, ge=1, le=64, description="Windows of a video over which validation averages.")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Share of the target spread over all classes.")
    pretrained: str = Field("", description="Published weights to begin with: a .safetensors file or hf:// location.")
    workers: int = Field(1, ge=0, le=64, description="Threads that make batches ahead; 0: none.")
    notes: str = Field("", description="Free text for the weights' header: data and licences.")


class _Step(nn.Module):
    """Loss of one batch."""

    def __init__(self, config: ClassifierTraining, n_classes: int) -> None:
        super().__init__()
        self.smoothing = config.label_smoothing
        self.classifier = build_classifier(config.model, n_classes)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """batch: video (B, 1, T, S, S) in 0..1, label (B,), seed (1,) of dropout."""
        video = batch["video"]
        devices = [video.device] if video.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(int(batch["seed"]))
            logits = self.classifier(video).float()
        loss = F.cross_entropy(logits, batch["label"], label_smoothing=self.smoothing)
        return loss, {"accuracy": (logits.argmax(1) == batch["label"]).float().mean()}


class ClassifierTask:
    """The classifier as a `training.loop.Task`."""

    def __init__(
        self, config: ClassifierTraining, diet: Diet, out: Path, *, pretrained: Path | None, reporter: Reporter
    ) -> None:
        self.config, self.diet, self.out = config, diet, out
        seed, length = config.optimiser.seed, config.model.n_frames
        self.sampler = ClipSampler(diet.train, config.clips, length=length, seed=seed, weights=diet.weights)
        self.held = ClipSampler(diet.held, config.clips, length=length, seed=seed, augment=False) if diet.held else None
        short = len(diet.train) - len(self.sampler.clips)
        if short:
            reporter.message(f"left out: {short} training clips too short for {length} frames")
        self.class_of = {name: k for k, name in enumerate(diet.classes)}
        torch.manual_seed(derive_seed(seed, "initial weights"))
        step = _Step(config, len(diet.classes))
        self.pretrained = ""
        if pretrained is not None:
            adapted = adapt(step.classifier, read_tensors(pretrained)[1], str(pretrained))
            step.classifier.load_state_dict(step.classifier.state_dict() | adapted.tensors)
            self.pretrained = sha256_of(pretrained)
            reporter.message(f"pretrained weights: {len(adapted.tensors)} tensors, {len(adapted.new)} stay new")
        self.module: nn.Module = step
        self.batches: Prefetch[tuple[dict[str, Tensor], list[str]]] | None = None

    def batch(self, step: int, rank: int, world: int) -> tuple[dict[str, Tensor], list[str]]:
        """See `Task.batch`."""
        if self.batches is None:
            optimiser = self.config.optimiser
            self.batches = Prefetch(lambda k: self._make(k, rank, world), optimiser.steps, self.config.workers)
        return self.batches.take(step)

    def _make(self, step: int, rank: int, world: int) -> tuple[dict[str, Tensor], list[str]]:
        windows = [self.sampler.draw(step, k) for k in range(rank, self.config.optimiser.batch_size, world)]
        batch = {
            "video": torch.from_numpy(np.stack([window.frames for window in windows]))[:, None],
            "label": torch.tensor([self.class_of[str(window.label)] for window in windows]),
            "seed": torch.tensor([derive_seed(batch_seed(self.config.optimiser.seed, step), "dropout", rank)]),
        }
        return batch, [window.name for window in windows]

    def validate(self, module: nn.Module, step: int) -> dict[str, float]:
        """Score held-out videos.

        Returns:
            Scores of `SHOWN` that exist, the mean loss of the videos' probabilities, and "waiting", the share of
            the time since the last validation that the trainer waited for data.
        """
        waiting = 0.0 if self.batches is None else self.batches.share_waited()
        found = {"waiting": waiting} | self._scores(module)
        if self.batches is not None:
            self.batches.restart()
        return found

    def _scores(self, module: nn.Module) -> dict[str, float]:
        if self.held is None:
            return {}
        network: nn.Module = module.classifier  # type: ignore[assignment]
        interval, count = self.sampler.typical_interval(), self.config.windows
        clips = self.held.clips
        rows = np.stack([video_probabilities(network, self.held, clip, interval, count) for clip in clips])
        truth = np.array([self.class_of[str(clip.label)] for clip in clips])
        values = scores(Predictions.of(rows, truth, [clip.group for clip in clips]), repeats=1).values
        right = rows[np.arange(len(truth)), truth]
        shown = {name: values[name] for name in SHOWN if math.isfinite(values[name])}
        return {"loss": float(-np.log(np.clip(right, 1e-12, 1)).mean()), **shown}

    def export(self, module: nn.Module) -> None:
        """Write weights.safetensors."""
        diet = self.diet
        header = ClassifierHeader(
            package_version=__version__,
            model=self.config.model,
            classes=diet.classes,
            clips=self.config.clips,
            crf=self.config.crf,
            frame_interval_s=self.sampler.typical_interval(),
            diet=self.config.mix.diet,
            real_clips=diet.real,
            synthetic_clips=len(diet.train) - diet.real,
            training_groups=tuple(sorted({clip.group for clip in diet.train})),
            clip_sha256=tuple(sorted({clip.sha256 for clip in diet.train} | set(diet.stills))),
            generators=diet.generators,
            behind=diet.behind,
            pretrained=self.pretrained,
            notes=self.config.notes,
        )
        network: nn.Module = module.classifier  # type: ignore[assignment]
        save_classifier(self.out / "weights.safetensors", header, network)


def train_classifier(
    sources: Sources,
    out: Path,
    config: ClassifierTraining,
    *,
    cache: Path | None = None,
    resume: bool = False,
    reporter: Reporter,
    device: str = "auto",
) -> None:
    """Train a classifier.

    Args:
        sources: Where the clips come from.
        out: Run folder: config.json, checkpoint, metrics.jsonl, cache/, weights.safetensors.
        config: Settings.
        cache: Folder of decoded clips, which several runs may share; `out`/cache if None.
        resume: Go on with the run in `out`.
        reporter: Receives progress.
        device: "auto", "cpu", "cuda", ...

    Raises:
        DataError: See `gather_diet`.
        WeightsError: The pretrained weights or a generator's cannot be read or do not fit.
        TrainingError: The loss is not finite.
    """
    where = choose_device(device)
    pretrained = pretrained_file(config.pretrained)
    with first_rank_alone():
        start_run(out, config, resume=resume)
        diet = gather_diet(
            sources,
            out / "cache" if cache is None else cache,
            frame_size(config.model),
            config.clips,
            config.mix,
            crf=config.crf,
            classes=config.classes,
            seed=config.optimiser.seed,
            reporter=reporter,
        )
    reporter.message(
        f"training: {diet.real} real and {len(diet.train) - diet.real} synthetic clips of classes "
        f"{', '.join(diet.classes)}; held out: {len(diet.held)} real clips"
    )
    task = ClassifierTask(config, diet, out, pretrained=pretrained, reporter=reporter)
    identity = json.dumps([diet.classes, [clip.sha256 for clip in diet.train], task.pretrained])
    try:
        train(
            task,
            out,
            config.optimiser,
            fingerprint=fingerprint(config.dump(), identity),
            resume=resume,
            reporter=reporter,
            device=where,
            name=config.model.name,
        )
    finally:
        if task.batches is not None:
            task.batches.close()


def pretrained_file(location: str) -> Path | None:
    """Return the file of a location, fetched from the hub if it lies there; None for an empty one."""
    from pathlib import Path

    if not location:
        return None
    return fetch(location, None) if is_hub_location(location) else Path(location)
