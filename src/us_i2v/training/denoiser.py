"""Training of stage 2: the conditional denoiser over standardised latents.

    L = || target - f(alpha z + sigma eps, t, still, conditions) ||^2        (LDDM, Eq. 3, for eps)

The latents come from `latents`.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from us_i2v.data.training_clips import StoredClip, batch_seed
from us_i2v.diffusion.loss import denoising_loss
from us_i2v.diffusion.sampling import sample
from us_i2v.diffusion.shortcut import Shortcut, shortcut_loss
from us_i2v.errors import ConfigError
from us_i2v.hub import local_weights
from us_i2v.models.denoiser import Conditions, Denoiser, DenoiserConfig, build_denoiser
from us_i2v.options import GenerateOptions, SamplingPlan, choose_sampler
from us_i2v.seeding import derive_seed, per_sample_noise
from us_i2v.training.latent_bank import LatentBank
from us_i2v.training.latents import Latents, LatentTraining, train_second_stage
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
    init: str = Field(
        "", description="Weights file, run folder or ORG/NAME whose denoiser is trained on; empty: random weights."
    )

    later: ClassVar[tuple[str, ...]] = (*LatentTraining.later, "init")

    @model_validator(mode="after")
    def _batch_has_both(self) -> Self:
        if self.process.shortcut is not None and self.optimiser.batch_size < 2:
            raise ValueError("process.shortcut divides the batch, optimiser.batch_size must be at least 2")
        return self


def _conditions(batch: dict[str, Tensor]) -> Conditions:
    """Take still (B, 1, S, S), label, motion, interval and, if measured, pressure and slide (B,) out of a batch."""
    return Conditions(
        batch["still"],
        batch["label"],
        batch["motion"],
        batch["interval"],
        batch.get("pressure"),
        batch.get("slide"),
    )


class _Step(nn.Module):
    """Loss of one batch of standardised latents."""

    def __init__(self, config: DenoiserTraining, latent_shape: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.config = config
        self.denoiser = build_denoiser(config.model, latent_shape)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """batch: z, eps (B, *latent), t (B,), hide (B, 3 or 5), and what `_conditions` takes."""
        conditions = _conditions(batch).drop(batch["hide"])
        process = self.config.process
        if process.shortcut is not None:
            return self._with_shortcuts(process.shortcut, batch, conditions)
        losses = denoising_loss(
            lambda z, t: self.denoiser(z, t, conditions),
            process.schedule,
            process.prediction,
            batch["z"],
            batch["eps"],
            batch["t"],
            min_snr=process.min_snr,
        )
        return losses.mean(), _means(losses, {"loss_noisy_half": batch["t"] > 0.5})

    def _with_shortcuts(
        self, shortcut: Shortcut, batch: dict[str, Tensor], conditions: Conditions
    ) -> tuple[Tensor, dict[str, Tensor]]:
        features = self.denoiser.embed_still(conditions.still)

        def network(x: Tensor, t: Tensor, size: Tensor, rows: Tensor) -> Tensor:
            out: Tensor = self.denoiser(x, t, _of_rows(conditions, rows), features[rows], size)
            return out

        size = batch["step_size"]
        losses = shortcut_loss(network, shortcut, batch["z"], batch["eps"], batch["t"], size)
        return losses.mean(), _means(losses, {"loss_flow_matching": size == 0, "loss_shortcut": size > 0})


def _descended(weights: Weights, start: Weights) -> Weights:
    """Stage 1's weights, their header naming what the second stage's start has seen as well."""
    seen = {
        name: tuple(sorted({*getattr(weights.header, name), *getattr(start.header, name)}))
        for name in ("training_groups", "clip_sha256")
    }
    return Weights(weights.header.model_copy(update=seen), weights.sha256, weights.tensors, weights.source)


def relabelled(table: Tensor, known: Sequence[str], wanted: Sequence[str]) -> Tensor:
    """Rows of the class embedding, (1 + known, C) -> (1 + wanted, C): a new class starts as the unknown one, row 0."""
    return table[[0, *(known.index(name) + 1 if name in known else 0 for name in wanted)]]


def _of_rows(conditions: Conditions, rows: Tensor) -> Conditions:
    known = {field.name: getattr(conditions, field.name) for field in fields(conditions)}
    return replace(conditions, **{name: value[rows] for name, value in known.items() if value is not None})


def _means(losses: Tensor, where: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: losses[rows].mean().detach() for name, rows in where.items() if bool(rows.any())}


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
        shape = {"n_labels": len(labels), "step_size": config.process.shortcut is not None}
        model = config.model.model_copy(update=shape)
        self.config = config = config.model_copy(update={"model": model})
        self.device = device
        start = load_weights(local_weights(config.init)) if config.init else None
        if start is not None:
            weights = _descended(weights, start)
        self.measured = model.pressure or model.slide
        self.latents = Latents(
            config, weights, train_clips, held, out, device, reporter, labels, measured=self.measured
        )
        torch.manual_seed(derive_seed(config.optimiser.seed, "initial weights"))
        step = _Step(config, self.latents.shape)
        self.module: nn.Module = step
        if start is not None:
            self._start_from(start, step.denoiser)

    def _start_from(self, start: Weights, denoiser: Denoiser) -> None:
        """Copy a trained denoiser, and with it the units of its latents if it was trained over the same encoder.

        Only the step's size may be new as a condition: it starts as "no change". Classes are matched by name.

        Raises:
            ConfigError: The denoiser has another shape.
            WeightsError: There is none.
        """
        trained = start.denoiser().state_dict()
        trained["label.weight"] = relabelled(trained["label.weight"], start.header.labels, self.latents.labels)
        given = {name: value.shape for name, value in trained.items()}
        own = {name: value.shape for name, value in denoiser.state_dict().items()}
        if given != {name: shape for name, shape in own.items() if name in given or not name.startswith("step_size.")}:
            raise ConfigError(f"'{self.config.init}' holds a denoiser of another shape.", "Use the settings it had.")
        denoiser.load_state_dict(trained, strict=False)
        latents, header = self.latents, start.header
        if header.autoencoder.latent_shape != latents.weights.header.autoencoder.latent_shape:
            return
        ours, theirs = (weights.autoencoder().encoder.state_dict() for weights in (latents.weights, start))
        if ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours):
            latents.mean, latents.sd = start.latent_statistics()
            latents.motion_median = header.motion_median_px
            if header.pressure_median is not None and header.slide_median is not None:
                latents.control_medians = torch.tensor([header.pressure_median, header.slide_median])

    def _items(self, bank: LatentBank, index: Sequence[int], generator: torch.Generator) -> dict[str, Tensor]:
        z = bank.draw(index, generator)
        scalars = bank.known(index)
        items = {
            "z": self.latents.standardise(z),
            "eps": torch.randn(z.shape, generator=generator),
            "t": self.config.process.schedule.training_times(torch.rand(len(index), generator=generator)),
            "still": bank.stills(index),
            "label": scalars[:, 2].long(),
            "motion": scalars[:, 0] / self.latents.motion_median,
            "interval": scalars[:, 1],
            "hide": torch.rand((len(index), 5 if self.measured else 3), generator=generator)
            < self.config.model.dropout,
        }
        shortcut = self.config.process.shortcut
        if shortcut is not None:
            # Drawn last, so that the other numbers are those of a run without shortcuts.
            count = shortcut.rows(len(index))
            items["step_size"] = torch.zeros(len(index))
            items["t"][:count], items["step_size"][:count] = shortcut.draw(torch.rand((2, count), generator=generator))
        if self.measured:
            items["pressure"], items["slide"] = self.latents.controls(bank, index).unbind(dim=1)
        return items

    def batch(self, step: int, rank: int, world: int) -> tuple[dict[str, Tensor], list[str]]:
        """See `Task.batch`."""
        generator = torch.Generator().manual_seed(batch_seed(self.config.optimiser.seed, step))
        bank = self.latents.bank
        index = self.latents.choose(generator)
        items = self._items(bank, index, generator)
        mine = list(range(rank, len(index), world))
        return {key: value[mine] for key, value in items.items()}, [bank.names[index[k]] for k in mine]

    def _draw(self, denoiser: Denoiser, batch: dict[str, Tensor], plan: SamplingPlan) -> Tensor:
        """Latents of a batch's conditions, each from noise of its own that is the same every time."""
        conditions = _conditions(batch)
        features = denoiser.embed_still(conditions.still)
        noise = per_sample_noise(range(len(batch["z"])), tuple(batch["z"].shape[1:]), "latent").to(self.device)
        process = self.config.process
        return sample(
            lambda x, t: denoiser(x, t, conditions, features, plan.stated(x)),
            process.schedule,
            process.prediction,
            plan.sampler,
            noise,
            plan.steps,
            spacing=plan.spacing,
        )

    @torch.no_grad()
    def validate(self, module: nn.Module, step: int) -> dict[str, float]:
        """Loss on held-out latents at fixed noise, spread of samples, and a strip of mean frames.

        With shortcuts also how far their samples are from those of many steps of Heun: root mean square difference.
        """
        denoiser: Denoiser = module.denoiser  # type: ignore[assignment]
        generator = torch.Generator().manual_seed(batch_seed(self.config.optimiser.seed, -1))
        losses = []
        held = self.latents.held
        size = self.config.optimiser.batch_size
        for first in range(0, len(held.names), size):
            batch = self._items(held, range(first, min(first + size, len(held.names))), generator)
            losses.append(float(module({k: v.to(self.device) for k, v in batch.items()})[0]))
        batch = {k: v.to(self.device) for k, v in self._items(held, range(min(8, size)), generator).items()}
        process = self.config.process
        plan = choose_sampler(GenerateOptions(), process)
        if process.shortcut is None:
            plan = plan._replace(steps=self.config.sample_steps)
        z = self._draw(denoiser, batch, plan)
        off = {}
        if process.shortcut is not None:
            exact = choose_sampler(GenerateOptions(sampler="heun"), process)._replace(steps=self.config.sample_steps)
            off = {"few_steps_off": float((z - self._draw(denoiser, batch, exact)).square().mean().sqrt())}
        frames, flow = self.latents.decode(z, batch["still"])
        self.latents.show(step, frames)
        return {
            "loss": float(np.mean(losses)),
            "latent_sd": float(z.std()),
            "flow_px": float(flow.square().sum(1).sqrt().mean()),
            "flow_px_real": float(np.mean(held.scalars[:, 0])),
            **off,
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
