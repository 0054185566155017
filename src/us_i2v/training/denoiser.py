"""Training of stage 2: the conditional denoiser over standardised latents.

    L = || target - f(alpha z + sigma eps, t, still, conditions) ||^2        (LDDM, Eq. 3, for eps)

The latents come from `latents`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from us_i2v.data.training_clips import StoredClip, batch_seed
from us_i2v.diffusion.loss import denoising_loss
from us_i2v.diffusion.samplers import DPMSolver
from us_i2v.diffusion.sampling import sample
from us_i2v.models.denoiser import Conditions, Denoiser, DenoiserConfig
from us_i2v.seeding import derive_seed, per_sample_noise
from us_i2v.training.latents import LatentBank, Latents, LatentTraining, train_second_stage
from us_i2v.training.loop import OptimiserConfig
from us_i2v.weights import ProcessConfig, Weights, load_weights

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from us_i2v.training.report import Reporter


class DenoiserTraining(LatentTraining):
    """Everything that `us-i2v train-ldm` can be told."""

    model: DenoiserConfig = DenoiserConfig()
    process: ProcessConfig = ProcessConfig()
    optimiser: OptimiserConfig = OptimiserConfig(batch_size=16, learning_rate=2e-4, ema=0.9995)
    labels: bool = Field(False, description="Give the class label as a condition.")
    sample_steps: int = Field(20, ge=1, description="Steps of the samples shown while training.")


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
        labels = tuple(sorted({c.label for c in train_clips if c.label})) if config.labels else ()
        model = config.model.model_copy(update={"n_labels": len(labels)})
        self.config = config = config.model_copy(update={"model": model})
        self.device = device
        self.latents = Latents(config, weights, train_clips, held, out, device, reporter, labels)
        torch.manual_seed(derive_seed(config.optimiser.seed, "initial weights"))
        self.module: nn.Module = _Step(config, self.latents.shape)

    def _items(self, bank: LatentBank, index: Sequence[int], generator: torch.Generator) -> dict[str, Tensor]:
        z = bank.draw(index, generator)
        scalars = bank.known(index)
        return {
            "z": self.latents.standardise(z),
            "eps": torch.randn(z.shape, generator=generator),
            "t": self.config.process.schedule.training_times(torch.rand(len(index), generator=generator)),
            "still": bank.stills(index),
            "label": scalars[:, 2].long(),
            "motion": scalars[:, 0] / self.latents.motion_median,
            "interval": scalars[:, 1],
            "hide": torch.rand((len(index), 3), generator=generator) < self.config.model.dropout,
        }

    def batch(self, step: int, rank: int, world: int) -> tuple[dict[str, Tensor], list[str]]:
        """See `Task.batch`."""
        generator = torch.Generator().manual_seed(batch_seed(self.config.optimiser.seed, step))
        bank = self.latents.bank
        index = self.latents.choose(generator)
        items = self._items(bank, index, generator)
        mine = list(range(rank, len(index), world))
        return {key: value[mine] for key, value in items.items()}, [bank.names[index[k]] for k in mine]

    @torch.no_grad()
    def validate(self, module: nn.Module, step: int) -> dict[str, float]:
        """Loss on held-out latents at fixed noise, spread of samples, and a strip of mean frames."""
        denoiser: Denoiser = module.denoiser  # type: ignore[assignment]
        generator = torch.Generator().manual_seed(batch_seed(self.config.optimiser.seed, -1))
        losses = []
        held = self.latents.held
        size = self.config.optimiser.batch_size
        for first in range(0, len(held.names), size):
            batch = self._items(held, range(first, min(first + size, len(held.names))), generator)
            losses.append(float(module({k: v.to(self.device) for k, v in batch.items()})[0]))
        batch = {k: v.to(self.device) for k, v in self._items(held, range(min(8, size)), generator).items()}
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
        frames, flow = self.latents.decode(z, batch["still"])
        self.latents.show(step, frames)
        return {
            "loss": float(np.mean(losses)),
            "latent_sd": float(z.std()),
            "flow_px": float(flow.square().sum(1).sqrt().mean()),
            "flow_px_real": float(np.mean(held.scalars[:, 0])),
        }

    def export(self, module: nn.Module) -> None:
        """Write weights.safetensors: both stages, ready for `us-i2v generate`."""
        denoiser: Denoiser = module.denoiser  # type: ignore[assignment]
        changes = {"kind": "lddm", "denoiser": self.config.model, "process": self.config.process}
        self.latents.export("denoiser", denoiser.state_dict(), changes)


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
    train_second_stage(
        data,
        autoencoder,
        load_weights(autoencoder),
        out,
        config,
        lambda *found: DenoiserTask(config, *found),
        resume=resume,
        reporter=reporter,
        device=device,
        name="denoiser",
    )
