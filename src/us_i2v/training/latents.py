"""Latents of training windows: what both second stages, `denoiser` and `cinn`, learn from.

z ~ q(z | clip) comes from the frozen auto-encoder of stage 1 and is standardised by training statistics.
Latents of many windows are encoded once and kept in files; a step of the second stage then costs that stage only.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pydantic import Field

from us_i2v import __version__
from us_i2v.config import Config
from us_i2v.data.atomic import write_bytes
from us_i2v.data.training_clips import FLOW_STRIDE, ClipSampler, ClipsConfig, StoredClip
from us_i2v.devices import choose_device
from us_i2v.errors import ConfigError, TrainingError, WeightsError
from us_i2v.models.autoencoder import Autoencoder
from us_i2v.models.controls import measure_controls
from us_i2v.models.denoiser import UNKNOWN_LABEL
from us_i2v.models.motion import deterministic_frames
from us_i2v.seeding import derive_seed
from us_i2v.training.calibration import calibrated_correlation
from us_i2v.training.loop import OptimiserConfig, fingerprint, first_rank_alone, train
from us_i2v.training.runs import gather_clips, stack_windows, start_run
from us_i2v.training.strips import write_strip
from us_i2v.weights import Header, SpeckleConfig, Weights, save_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from us_i2v.training.loop import Task
    from us_i2v.training.report import Reporter

_ENCODE_BATCH = 4
_CALIBRATED_ON = 24
_BLANK = 0.02
"""Mean gray level (0..1) below which a window's first frame shows nothing."""


class LatentTraining(Config):
    """What every second stage can be told."""

    clips: ClipsConfig = ClipsConfig()
    optimiser: OptimiserConfig = OptimiserConfig()
    windows: int = Field(4096, ge=16, description="Windows that are encoded for training.")
    source_weights: dict[str, float] = Field({}, description="Relative share by data folder's name.")
    notes: str = Field("", description="Kept in the weights: data, licences.")


@dataclass(frozen=True)
class LatentBank:
    """Encoded windows, memory-mapped: posterior mean and sd, still, strength and spacing.

    Attributes:
        mean: float16 (N, *latent).
        sd: float16 (N, *latent).
        still: uint8 (N, S, S).
        scalars: float32 (N, 3): flow magnitude in model pixels, seconds between frames, class number.
        names: File by window.
        controls: float32 (N, 2): pressure and slide as `models.controls` measures them, NaN where the flow is not
            known; None where they were not asked for.
    """

    mean: np.ndarray[tuple[int, ...], np.dtype[np.float16]]
    sd: np.ndarray[tuple[int, ...], np.dtype[np.float16]]
    still: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
    scalars: np.ndarray[tuple[int, ...], np.dtype[np.float32]]
    names: list[str]
    controls: np.ndarray[tuple[int, ...], np.dtype[np.float32]] | None = None

    def draw(self, rows: Sequence[int], generator: torch.Generator) -> Tensor:
        """Sample the posteriors of some windows: (len(rows), *latent), float32."""
        mean = torch.from_numpy(self.mean[list(rows)].astype(np.float32))
        sd = torch.from_numpy(self.sd[list(rows)].astype(np.float32))
        return mean + sd * torch.randn(mean.shape, generator=generator)

    def stills(self, rows: Sequence[int]) -> Tensor:
        """Frame 0 of some windows: (len(rows), 1, S, S) in 0..1."""
        return torch.from_numpy(self.still[list(rows)].astype(np.float32) / 255)[:, None]

    def known(self, rows: Sequence[int]) -> Tensor:
        """Flow magnitude, interval and class of some windows: (len(rows), 3)."""
        return torch.from_numpy(self.scalars[list(rows)].copy())


@torch.no_grad()
def encode_windows(
    autoencoder: Autoencoder,
    sampler: ClipSampler,
    count: int,
    folder: Path,
    labels: Sequence[str],
    device: torch.device,
    reporter: Reporter,
    *,
    bf16: bool,
    measured: bool = False,
) -> LatentBank:
    """Encode `count` randomly drawn windows into files of `folder`, or reuse them if they are complete.

    With `measured`, pressure and slide of every window are kept too.
    """
    names_file = folder / "names.json"
    shape = autoencoder.config.latent_shape
    size = autoencoder.config.size
    layout: dict[str, tuple[type, tuple[int, ...]]] = {
        "mean": (np.float16, (count, *shape)),
        "sd": (np.float16, (count, *shape)),
        "still": (np.uint8, (count, size, size)),
        "scalars": (np.float32, (count, 3)),
    }
    if measured:
        layout["controls"] = (np.float32, (count, 2))
    if not names_file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        arrays = {
            key: np.lib.format.open_memmap(folder / f"{key}.npy", mode="w+", dtype=dtype, shape=full)
            for key, (dtype, full) in layout.items()
        }
        names: list[str] = []
        for first in range(0, count, _ENCODE_BATCH):
            part = range(first, min(first + _ENCODE_BATCH, count))
            windows = [sampler.draw(k, 0) for k in part]
            stacked = stack_windows(windows, size)
            video = stacked["video"].to(device)
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                posterior = autoencoder.encode(video)
                flow = decoded_flow(autoencoder, posterior.mean, video[:, :, 0])
            rows = slice(first, first + len(part))
            arrays["mean"][rows] = posterior.mean.cpu().numpy()
            arrays["sd"][rows] = (0.5 * posterior.log_variance).exp().cpu().numpy()
            arrays["still"][rows] = (video[:, 0, 0] * 255).round().cpu().numpy()
            arrays["scalars"][rows, 0] = 0.0 if flow is None else flow_magnitude(flow, size).cpu().numpy()
            if measured:
                known = stacked["flow"] / FLOW_STRIDE if flow is None else flow
                arrays["controls"][rows] = measure_controls(known).cpu().numpy()
            arrays["scalars"][rows, 1] = [w.interval for w in windows]
            arrays["scalars"][rows, 2] = [
                labels.index(w.label) if w.label in labels else UNKNOWN_LABEL for w in windows
            ]
            names += [w.name for w in windows]
            if first and (first // _ENCODE_BATCH) % 100 == 0:
                reporter.message(f"encoded {first} of {count} windows")
        for array in arrays.values():
            array.flush()
        write_bytes(names_file, json.dumps(names).encode())
    loaded = {
        key: np.load(folder / f"{key}.npy", mmap_mode="r", allow_pickle=False)
        for key in layout
        if (folder / f"{key}.npy").exists()
    }
    bad = [key for key, (_, full) in layout.items() if key not in loaded or loaded[key].shape != full]
    if bad:
        raise WeightsError(f"'{folder}' holds latents of another run ('{bad[0]}').", "Delete it and start again.")
    return LatentBank(names=json.loads(names_file.read_text(encoding="utf-8")), **loaded)


def decoded_flow(autoencoder: Autoencoder, latent: Tensor, still: Tensor) -> Tensor | None:
    """Flow that a latent stands for, (B, 2, T, h, w) in cells; None, without decoding, where the decoder paints."""
    return None if autoencoder.config.decoder == "adain" else autoencoder.decode(latent, still).flow.float()


def flow_magnitude(flow: Tensor, size: int) -> Tensor:
    """Mean length of a flow (B, 2, T, h, w) in cells, (B,), in pixels of a picture of `size`."""
    return flow.square().sum(1).sqrt().mean((1, 2, 3)) * size / flow.shape[4]


def control_medians(controls: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> Tensor:
    """Units of pressure and slide: the medians of their absolute values, (2,), at least 1e-4.

    Args:
        controls: (N, 2), NaN where not known.

    Raises:
        TrainingError: No window's flow is known.
    """
    known = controls[np.isfinite(controls).all(axis=1)]
    if not len(known):
        raise TrainingError(
            "Pressure and slide cannot be measured: the decoder paints, and no training clip has a known flow.",
            "Use a warp decoder, or set model.pressure=false and model.slide=false.",
        )
    return torch.from_numpy(np.maximum(np.median(np.abs(known), axis=0), 1e-4).astype(np.float32))


def latent_statistics(bank: LatentBank) -> tuple[Tensor, Tensor]:
    """Mean and sd of sampled latents by channel, each (1, C_z, 1, 1, 1): E[z], sqrt(Var[mean] + E[sd^2])."""
    total, square, variance = 0.0, 0.0, 0.0
    count = len(bank.names)
    for first in range(0, count, 256):
        mean = np.asarray(bank.mean[first : first + 256], np.float64)
        total = total + mean.mean(axis=(2, 3, 4)).sum(axis=0)
        square = square + np.square(mean).mean(axis=(2, 3, 4)).sum(axis=0)
        sd = np.asarray(bank.sd[first : first + 256], np.float64)
        variance = variance + np.square(sd).mean(axis=(2, 3, 4)).sum(axis=0)
    center = np.asarray(total) / count
    spread = np.sqrt(np.asarray(square) / count - center**2 + np.asarray(variance) / count)
    reshape = (1, -1, 1, 1, 1)
    return torch.tensor(center).float().reshape(reshape), torch.tensor(spread).float().reshape(reshape)


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
        """Stage 1's speckle, its change from frame to frame calibrated on held-out clips, see `calibration`."""
        known = self.weights.header.speckle
        if known.factor == 0:
            return known
        size = self.weights.header.autoencoder.size
        windows = (self.held_sampler.draw(k, 0) for k in range(_CALIBRATED_ON))
        videos = [stack_windows([w], size)["video"].to(self.device) for w in windows if w.frames[0].mean() > _BLANK]
        if not videos:
            return known
        correlation = calibrated_correlation(self.autoencoder, videos, known.factor)
        return known.model_copy(update={"correlation": correlation})

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
