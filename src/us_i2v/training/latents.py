"""Latents of training windows: what both second stages, `denoiser` and `cinn`, learn from.

z ~ q(z | clip) comes from the frozen auto-encoder of stage 1 and is standardised by training statistics.
Latents of many windows are encoded once and kept in files; a step of the second stage then costs that stage only.
"""

from __future__ import annotations

import json
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pydantic import Field

from us_i2v import __version__
from us_i2v.config import Config
from us_i2v.data.training_clips import ClipSampler, ClipsConfig, StoredClip
from us_i2v.devices import choose_device
from us_i2v.errors import ConfigError, TrainingError
from us_i2v.models.motion import deterministic_frames
from us_i2v.models.speckle_config import SpeckleConfig
from us_i2v.seeding import derive_seed
from us_i2v.training.calibration import calibrated_speckle, reconstruction
from us_i2v.training.latent_bank import LatentBank, control_medians, encode_windows, latent_statistics
from us_i2v.training.loop import OptimiserConfig, fingerprint, first_rank_alone, train
from us_i2v.training.runs import gather_clips, stack_windows, start_run
from us_i2v.training.strips import write_strip
from us_i2v.weights import Header, Weights, save_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from us_i2v.data.training_clips import Window
    from us_i2v.training.loop import Task
    from us_i2v.training.report import Reporter

_CALIBRATED_ON = 24
_BLANK = 0.02
"""Mean gray level (0..1) below which a window's first frame shows nothing."""


def windows_to_calibrate(
    windows: Iterable[Window], size: int, device: torch.device
) -> tuple[list[Tensor], list[float]]:
    """Prepare windows that speckle is calibrated on; blank ones are left out.

    Returns:
        The windows, each (1, 1, T, size, size) in 0..1, and the seconds between the frames of each.
    """
    shown = [window for window in windows if window.frames[0].mean() > _BLANK]
    return [stack_windows([w], size)["video"].to(device) for w in shown], [w.interval for w in shown]


class LatentTraining(Config):
    """What every second stage can be told."""

    clips: ClipsConfig = ClipsConfig()
    optimiser: OptimiserConfig = OptimiserConfig()
    windows: int = Field(4096, ge=16, description="Windows that are encoded for training.")
    source_weights: dict[str, float] = Field({}, description="Relative share by data folder's name.")
    notes: str = Field("", description="Kept in the weights: data, licences.")


class Latents:
    """Encoded training and held-out windows, and what a second stage does with them whatever it models.

    Args:
        config: Settings of the second stage.
        weights: Weights of stage 1; a second stage in them is left aside.
        train_clips: Clips to learn from.
        held: Clips to measure on; may be empty.
        out: Run folder.
        device: Where to encode and decode.
        reporter: Receives progress.
        labels: Class names by number.
        measured: Measure pressure and slide of every window.

    Raises:
        TrainingError: A latent channel is constant, or what shall be measured cannot be.
    """

    def __init__(
        self,
        config: LatentTraining,
        weights: Weights,
        train_clips: Sequence[StoredClip],
        held: Sequence[StoredClip],
        out: Path,
        device: torch.device,
        reporter: Reporter,
        labels: Sequence[str] = (),
        *,
        measured: bool = False,
    ) -> None:
        self.out, self.weights, self.device = out, weights, device
        self.config, self.train_clips, self.labels = config, list(train_clips), tuple(labels)
        self.autoencoder = weights.autoencoder().to(device)
        self.shape = weights.header.autoencoder.latent_shape
        length, seed = weights.header.autoencoder.n_frames, config.optimiser.seed
        bf16 = config.optimiser.precision == "bf16"
        self.sampler = ClipSampler(
            train_clips,
            config.clips,
            length=length,
            seed=derive_seed(seed, "latents"),
            weights=config.source_weights,
        )
        self.held_sampler = ClipSampler(
            held or train_clips, config.clips, length=length, seed=derive_seed(seed, "held"), augment=False
        )

        def bank(sampler: ClipSampler, count: int, name: str) -> LatentBank:
            folder = out / "latents" / name
            return encode_windows(
                self.autoencoder,
                sampler,
                count,
                folder,
                self.labels,
                device,
                reporter,
                bf16=bf16,
                measured=measured,
            )

        self.bank = bank(self.sampler, config.windows, "train")
        self.held = bank(self.held_sampler, max(16, min(256, config.windows // 8)), "held")
        self.mean, self.sd = latent_statistics(self.bank)
        if not bool((self.sd > 1e-4).all()):
            raise TrainingError("Some latent channels are constant.", "Lower the auto-encoder's loss.kl and retrain.")
        self.motion_median = max(float(np.median(self.bank.scalars[:, 0])), 1e-3)
        self.control_medians = None if self.bank.controls is None else control_medians(self.bank.controls)

    def controls(self, bank: LatentBank, rows: Sequence[int]) -> Tensor:
        """Pressure and slide of some windows in training medians, (len(rows), 2); NaN where not known or measured."""
        if bank.controls is None or self.control_medians is None:
            return torch.full((len(rows), 2), torch.nan)
        return torch.from_numpy(bank.controls[list(rows)].copy()) / self.control_medians

    def standardise(self, z: Tensor) -> Tensor:
        """Latents in the auto-encoder's units -> mean 0, standard deviation 1 by channel, on the CPU."""
        return (z - self.mean) / self.sd

    def choose(self, generator: torch.Generator) -> list[int]:
        """Windows of one joint batch."""
        shape = (self.config.optimiser.batch_size,)
        rows: list[int] = torch.randint(len(self.bank.names), shape, generator=generator).tolist()
        return rows

    def decode(self, z: Tensor, stills: Tensor) -> tuple[Tensor, Tensor]:
        """Standardised latents -> mean frames (B, 1, T, S, S) and their flow (B, 2, T, S, S) in pixels."""
        latent = z * self.sd.to(self.device) + self.mean.to(self.device)
        motion = self.autoencoder.decode(latent, stills)
        full = motion.in_float32().at_size((stills.shape[-2], stills.shape[-1]))
        return deterministic_frames(stills, full), full.flow

    @cached_property
    def speckle(self) -> SpeckleConfig:
        """Stage 1's speckle, calibrated on held-out clips, see `calibration`."""
        known = self.weights.header.speckle
        if known.factor == 0:
            return known
        windows = (self.held_sampler.draw(k, 0) for k in range(_CALIBRATED_ON))
        videos, intervals = windows_to_calibrate(windows, self.weights.header.autoencoder.size, self.device)
        if not videos:
            return known
        persistence_of = self.autoencoder.persistence
        return calibrated_speckle(reconstruction(self.autoencoder), videos, known, persistence_of, intervals)

    def show(self, step: int, frames: Tensor) -> None:
        """Write a strip of up to four clips, (B, 1, T, S, S)."""
        write_strip(self.out / "samples" / f"step_{step:06d}.png", list(frames[:4, 0]))

    def export(self, prefix: str, state: Mapping[str, Tensor], changes: dict[str, Any]) -> None:
        """Write weights.safetensors: stage 1 and a second stage, ready for `us-i2v generate`.

        Args:
            prefix: Name of the second stage's tensors.
            state: Its tensors.
            changes: Fields of the header that only this stage sets.
        """
        old = self.weights.header
        empty = {"denoiser": None, "process": None, "cinn": None}
        common = {
            "package_version": __version__,
            "speckle": self.speckle,
            "labels": self.labels,
            "motion_median_px": self.motion_median,
            "strength_condition": self.autoencoder.config.decoder != "adain",
            "pressure_median": None if self.control_medians is None else float(self.control_medians[0]),
            "slide_median": None if self.control_medians is None else float(self.control_medians[1]),
            "frame_interval_s": self.sampler.typical_interval(),
            "interval_range_s": self.sampler.interval_range(),
            "training_groups": tuple(sorted({*old.training_groups, *(c.group for c in self.train_clips)})),
            "clip_sha256": tuple(sorted({*old.clip_sha256, *(c.sha256 for c in self.train_clips)})),
            "notes": self.config.notes or old.notes,
        }
        header = Header.model_validate({**dict(old), **empty, **common, **changes})
        tensors = {k: v for k, v in self.weights.tensors.items() if k.startswith("autoencoder.")}
        tensors |= {f"{prefix}.{k}": v for k, v in state.items()}
        tensors |= {"latent.mean": self.mean.flatten(), "latent.sd": self.sd.flatten()}
        save_weights(self.out / "weights.safetensors", header, tensors)


def train_second_stage(
    data: Sequence[Path],
    autoencoder: Path,
    weights: Weights,
    out: Path,
    config: LatentTraining,
    make_task: Callable[[Weights, list[StoredClip], list[StoredClip], Path, torch.device, Reporter], Task],
    *,
    resume: bool,
    reporter: Reporter,
    device: str,
    name: str,
) -> None:
    """Train a second stage on the clips of some folders, over a trained auto-encoder.

    Args:
        data: Data folders (any known layout).
        autoencoder: Run folder or weights file of stage 1.
        weights: What it holds.
        out: Run folder: config.json, checkpoint, metrics.jsonl, samples/, weights.safetensors (both stages).
        config: Settings.
        make_task: Builds the task out of weights, training clips, held-out clips, run folder, device and reporter.
        resume: Go on with the run in `out`.
        reporter: Receives progress.
        device: "auto", "cpu", "cuda", ...
        name: Shown to the reporter.

    Raises:
        ConfigError: The clips are fitted otherwise than in stage 1.
        DataError: No clips.
        TrainingError: The loss is not finite.
    """
    where = choose_device(device)
    if weights.header.fit != config.clips.fit:
        raise ConfigError(
            f"The auto-encoder was trained with fit '{weights.header.fit}', clips.fit is '{config.clips.fit}'.",
            f"Use --fit {weights.header.fit}.",
        )
    with first_rank_alone():
        start_run(out, config, resume=resume)
        size = weights.header.autoencoder.size
        # A stage-1 run folder has the decoded clips already.
        cache = (autoencoder if (autoencoder / "cache").is_dir() else out) / "cache"
        train_clips, held = gather_clips(data, cache, size, config.clips, config.optimiser.seed, reporter)
        task = make_task(weights, train_clips, held, out, where, reporter)
    identity = json.dumps([weights.sha256, *(c.sha256 for c in train_clips)])
    train(
        task,
        out,
        config.optimiser,
        fingerprint=fingerprint(config.dump(), identity),
        resume=resume,
        reporter=reporter,
        device=where,
        name=name,
    )
