"""Training of stage 2: the conditional denoiser over standardised latents.

    L = || target - f(alpha z + sigma eps, t, still, conditions) ||^2        (LDDM, Eq. 3, for eps)

z ~ q(z | clip) comes from the frozen auto-encoder of stage 1 and is standardised by training statistics.
Latents of many windows are encoded once and kept in a file; a step then costs the denoiser only.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from us_i2v import __version__
from us_i2v.config import Config
from us_i2v.data.atomic import write_bytes
from us_i2v.data.training_clips import ClipSampler, ClipsConfig, StoredClip, batch_seed
from us_i2v.devices import choose_device
from us_i2v.diffusion.loss import denoising_loss
from us_i2v.diffusion.samplers import DPMSolver
from us_i2v.diffusion.sampling import sample
from us_i2v.errors import ConfigError, TrainingError, WeightsError
from us_i2v.models.autoencoder import Autoencoder
from us_i2v.models.denoiser import UNKNOWN_LABEL, Conditions, Denoiser, DenoiserConfig
from us_i2v.models.motion import deterministic_frames
from us_i2v.seeding import derive_seed, per_sample_noise
from us_i2v.training.loop import OptimiserConfig, fingerprint, first_rank_alone, train
from us_i2v.training.runs import gather_clips, stack_windows, start_run
from us_i2v.training.strips import write_strip
from us_i2v.weights import ProcessConfig, Weights, load_weights, save_weights

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from us_i2v.training.report import Reporter

_ENCODE_BATCH = 4


class DenoiserTraining(Config):
    """Everything that `us-i2v train-ldm` can be told."""

    model: DenoiserConfig = DenoiserConfig()
    process: ProcessConfig = ProcessConfig()
    clips: ClipsConfig = ClipsConfig()
    optimiser: OptimiserConfig = OptimiserConfig(batch_size=16, learning_rate=2e-4, ema=0.9995)
    windows: int = Field(4096, ge=16, description="Windows that are encoded for training.")
    labels: bool = Field(False, description="Give the class label as a condition.")
    sample_steps: int = Field(20, ge=1, description="Steps of the samples shown while training.")
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
    """

    mean: np.ndarray[tuple[int, ...], np.dtype[np.float16]]
    sd: np.ndarray[tuple[int, ...], np.dtype[np.float16]]
    still: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
    scalars: np.ndarray[tuple[int, ...], np.dtype[np.float32]]
    names: list[str]


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
) -> LatentBank:
    """Encode `count` randomly drawn windows into files of `folder`, or reuse them if they are complete."""
    names_file = folder / "names.json"
    shape = autoencoder.config.latent_shape
    size = autoencoder.config.size
    layout: dict[str, tuple[type, tuple[int, ...]]] = {
        "mean": (np.float16, (count, *shape)),
        "sd": (np.float16, (count, *shape)),
        "still": (np.uint8, (count, size, size)),
        "scalars": (np.float32, (count, 3)),
    }
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
            video = stack_windows(windows, size)["video"].to(device)
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                posterior = autoencoder.encode(video)
                motion = autoencoder.decode(posterior.mean, video[:, :, 0])
            magnitude = motion.flow.float().square().sum(1).sqrt().mean((1, 2, 3)) * size / motion.grid[1]
            rows = slice(first, first + len(part))
            arrays["mean"][rows] = posterior.mean.cpu().numpy()
            arrays["sd"][rows] = (0.5 * posterior.log_variance).exp().cpu().numpy()
            arrays["still"][rows] = (video[:, 0, 0] * 255).round().cpu().numpy()
            arrays["scalars"][rows, 0] = magnitude.cpu().numpy()
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
    loaded = {key: np.load(folder / f"{key}.npy", mmap_mode="r", allow_pickle=False) for key in layout}
    bad = [key for key, (_, full) in layout.items() if loaded[key].shape != full]
    if bad:
        raise WeightsError(f"'{folder}' holds latents of another run ('{bad[0]}').", "Delete it and start again.")
    return LatentBank(names=json.loads(names_file.read_text(encoding="utf-8")), **loaded)


class _Step(nn.Module):
    """Loss of one batch of standardised latents."""

    def __init__(self, config: DenoiserTraining, latent_shape: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.config = config
        self.denoiser = Denoiser(config.model, latent_shape)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """batch: z, eps (B, *latent), t (B,), still (B, 1, S, S), label, motion, interval (B,), hide (B, 3)."""
        conditions = Conditions(batch["still"], batch["label"], batch["motion"], batch["interval"])
        conditions = conditions.drop(batch["hide"])
        process = self.config.process
        losses = denoising_loss(
            lambda z, t: self.denoiser(z, t, conditions),
            process.schedule,
            process.prediction,
            batch["z"],
            batch["eps"],
            batch["t"],
        )
        late = batch["t"] > 0.5
        values = {"loss_noisy_half": losses[late].mean()} if bool(late.any()) else {}
        return losses.mean(), {k: v.detach() for k, v in values.items()}


class DenoiserTask:
    """Stage 2 as a `training.loop.Task`."""

    def __init__(
        self,
        config: DenoiserTraining,
        weights: Weights,
        train_clips: Sequence[StoredClip],
        held: Sequence[StoredClip],
        out: Path,
        device: torch.device,
        reporter: Reporter,
    ) -> None:
        self.out, self.weights, self.device = out, weights, device
        self.train_clips = list(train_clips)
        self.labels = tuple(sorted({c.label for c in train_clips if c.label})) if config.labels else ()
        model = config.model.model_copy(update={"n_labels": len(self.labels)})
        self.config = config = config.model_copy(update={"model": model})
        self.autoencoder = weights.autoencoder().to(device)
        length, seed = weights.header.autoencoder.n_frames, config.optimiser.seed
        bf16 = config.optimiser.precision == "bf16"
        self.sampler = ClipSampler(
            train_clips,
            config.clips,
            length=length,
            seed=derive_seed(seed, "latents"),
            weights=config.source_weights,
        )
        held_sampler = ClipSampler(
            held or train_clips, config.clips, length=length, seed=derive_seed(seed, "held"), augment=False
        )

        def bank(sampler: ClipSampler, count: int, name: str) -> LatentBank:
            folder = out / "latents" / name
            return encode_windows(self.autoencoder, sampler, count, folder, self.labels, device, reporter, bf16=bf16)

        self.bank = bank(self.sampler, config.windows, "train")
        self.held = bank(held_sampler, max(16, min(256, config.windows // 8)), "held")
        self.mean, self.sd = latent_statistics(self.bank)
        if not bool((self.sd > 1e-4).all()):
            raise TrainingError("Some latent channels are constant.", "Lower the auto-encoder's loss.kl and retrain.")
        self.motion_median = max(float(np.median(self.bank.scalars[:, 0])), 1e-3)
        torch.manual_seed(derive_seed(seed, "initial weights"))
        self.module: nn.Module = _Step(config, weights.header.autoencoder.latent_shape)

    def _items(self, bank: LatentBank, index: Sequence[int], generator: torch.Generator) -> dict[str, Tensor]:
        rows = list(index)
        mean = torch.from_numpy(bank.mean[rows].astype(np.float32))
        sd = torch.from_numpy(bank.sd[rows].astype(np.float32))
        z = mean + sd * torch.randn(mean.shape, generator=generator)
        scalars = torch.from_numpy(bank.scalars[rows].copy())
        return {
            "z": (z - self.mean) / self.sd,
            "eps": torch.randn(mean.shape, generator=generator),
            "t": self.config.process.schedule.training_times(torch.rand(len(rows), generator=generator)),
            "still": torch.from_numpy(bank.still[rows].astype(np.float32) / 255)[:, None],
            "label": scalars[:, 2].long(),
            "motion": scalars[:, 0] / self.motion_median,
            "interval": scalars[:, 1],
            "hide": torch.rand((len(rows), 3), generator=generator) < self.config.model.dropout,
        }

    def batch(self, step: int, rank: int, world: int) -> tuple[dict[str, Tensor], list[str]]:
        """See `Task.batch`."""
        generator = torch.Generator().manual_seed(batch_seed(self.config.optimiser.seed, step))
        total = self.config.optimiser.batch_size
        index = torch.randint(len(self.bank.names), (total,), generator=generator).tolist()
        items = self._items(self.bank, index, generator)
        mine = list(range(rank, total, world))
        return {key: value[mine] for key, value in items.items()}, [self.bank.names[index[k]] for k in mine]

    @torch.no_grad()
    def validate(self, module: nn.Module, step: int) -> dict[str, float]:
        """Loss on held-out latents at fixed noise, spread of samples, and a strip of mean frames."""
        denoiser: Denoiser = module.denoiser  # type: ignore[assignment]
        generator = torch.Generator().manual_seed(batch_seed(self.config.optimiser.seed, -1))
        losses = []
        size = self.config.optimiser.batch_size
        for first in range(0, len(self.held.names), size):
            batch = self._items(self.held, range(first, min(first + size, len(self.held.names))), generator)
            losses.append(float(module({k: v.to(self.device) for k, v in batch.items()})[0]))
        batch = {k: v.to(self.device) for k, v in self._items(self.held, range(min(8, size)), generator).items()}
        conditions = Conditions(batch["still"], batch["label"], batch["motion"], batch["interval"])
        features = denoiser.embed_still(conditions.still)
        noise = per_sample_noise(range(len(batch["z"])), tuple(batch["z"].shape[1:]), "latent").to(self.device)
        process = self.config.process
        z = sample(
            lambda x, t: denoiser(x, t, conditions, features),
            process.schedule,
            process.prediction,
            DPMSolver(),
            noise,
            self.config.sample_steps,
            spacing="quadratic",
        )
        latent = z * self.sd.to(self.device) + self.mean.to(self.device)
        motion = self.autoencoder.decode(latent, batch["still"])
        full = motion.in_float32().at_size((batch["still"].shape[-2], batch["still"].shape[-1]))
        frames = deterministic_frames(batch["still"], full)
        write_strip(self.out / "samples" / f"step_{step:06d}.png", list(frames[:4, 0]))
        return {
            "loss": float(np.mean(losses)),
            "latent_sd": float(z.std()),
            "flow_px": float(full.flow.square().sum(1).sqrt().mean()),
            "flow_px_real": float(np.mean(self.held.scalars[:, 0])),
        }

    def export(self, module: nn.Module) -> None:
        """Write weights.safetensors: both stages, ready for `us-i2v generate`."""
        denoiser: Denoiser = module.denoiser  # type: ignore[assignment]
        old = self.weights.header
        header = old.model_copy(
            update={
                "kind": "lddm",
                "package_version": __version__,
                "denoiser": self.config.model,
                "process": self.config.process,
                "labels": self.labels,
                "motion_median_px": self.motion_median,
                "frame_interval_s": self.sampler.typical_interval(),
                "interval_range_s": self.sampler.interval_range(),
                "training_groups": tuple(sorted({*old.training_groups, *(c.group for c in self.train_clips)})),
                "clip_sha256": tuple(sorted({*old.clip_sha256, *(c.sha256 for c in self.train_clips)})),
                "notes": self.config.notes or old.notes,
            }
        )
        tensors = {k: v for k, v in self.weights.tensors.items() if k.startswith("autoencoder.")}
        tensors |= {f"denoiser.{k}": v for k, v in denoiser.state_dict().items()}
        tensors |= {"latent.mean": self.mean.flatten(), "latent.sd": self.sd.flatten()}
        save_weights(self.out / "weights.safetensors", header, tensors)


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


def train_denoiser(
    data: Sequence[Path],
    autoencoder: Path,
    out: Path,
    config: DenoiserTraining,
    *,
    resume: bool = False,
    reporter: Reporter,
    device: str = "auto",
) -> None:
    """Train stage 2 on the clips of some folders, over a trained auto-encoder.

    Args:
        data: Data folders (any known layout).
        autoencoder: Run folder or weights file of stage 1.
        out: Run folder: config.json, checkpoint, metrics.jsonl, samples/, weights.safetensors (both stages).
        config: Settings.
        resume: Go on with the run in `out`.
        reporter: Receives progress.
        device: "auto", "cpu", "cuda", ...

    Raises:
        WeightsError: The auto-encoder cannot be read.
        DataError: No clips.
        TrainingError: The loss is not finite.
    """
    where = choose_device(device)
    weights = load_weights(autoencoder)
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
        task = DenoiserTask(config, weights, train_clips, held, out, where, reporter)
    identity = json.dumps([weights.sha256, *(c.sha256 for c in train_clips)])
    train(
        task,
        out,
        config.optimiser,
        fingerprint=fingerprint(config.dump(), identity),
        resume=resume,
        reporter=reporter,
        device=where,
        name="denoiser",
    )
