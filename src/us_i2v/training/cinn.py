"""Training of stage 2 as in cINN: a normalising flow of standardised latents, given the still.

    L = - log p(z | still) / n  +  w_reconstruction |still - still'|        (Dorkenwald et al. 2021, Eq. 5)

z ~ q(z | clip), see `latents`; n is the number of latent numbers. The condition is the bottleneck of a frame
auto-encoder. cINN trains that one beforehand; here it is trained along with the flow, so that there is one command
and one run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from us_i2v.data.training_clips import StoredClip, batch_seed
from us_i2v.models.cinn import CINNConfig, ConditionalFlow, latent_numbers
from us_i2v.models.conditioner import StillDecoder, reduced
from us_i2v.seeding import derive_seed, per_sample_noise
from us_i2v.training.latent_bank import LatentBank
from us_i2v.training.latents import Latents, LatentTraining, train_second_stage
from us_i2v.training.loop import OptimiserConfig
from us_i2v.weights import Weights, load_weights

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from us_i2v.training.report import Reporter

_FIRST_WINDOWS = 512
"""ActNorm starts from the statistics of this many windows."""
_SHOWN = 8
"""Held-out stills that samples are drawn for."""
_SAMPLES = 4
"""Samples a still, for their spread."""


class CINNTraining(LatentTraining):
    """Everything that `us-i2v train-cinn` can be told."""

    model: CINNConfig = CINNConfig()
    optimiser: OptimiserConfig = OptimiserConfig(batch_size=50, learning_rate=5e-4)
    reconstruction: float = Field(1.0, ge=0, description="Weight of painting the still again, mean absolute error.")


class _Step(nn.Module):
    """Loss of one batch of standardised latents."""

    def __init__(self, config: CINNTraining, latent_shape: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.config = config
        self.cinn = ConditionalFlow(config.model, latent_shape)
        self.still_decoder = StillDecoder(config.model.conditioner)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """batch: z (B, *latent), still (B, 1, S, S), interval (B,), NaN where hidden."""
        still = batch["still"]
        code = self.cinn.still(still)
        painted = self.still_decoder(code)
        # A flow must undo itself: no half precision in it.
        with torch.autocast(still.device.type, enabled=False):
            nll = self.cinn.nll(batch["z"], self.cinn.condition(code.float(), batch["interval"])).mean()
            error = (painted.float() - reduced(still, painted.shape[-1])).abs().mean()
        loss = nll + self.config.reconstruction * error
        return loss, {"nll": nll.detach(), "still_l1": 255 * error.detach()}


class CINNTask:
    """The flow as a `training.loop.Task`."""

    def __init__(
        self,
        config: CINNTraining,
        weights: Weights,
        train_clips: Sequence[StoredClip],
        held: Sequence[StoredClip],
        out: Path,
        device: torch.device,
        reporter: Reporter,
    ) -> None:
        self.config, self.device = config, device
        self.latents = Latents(config, weights, train_clips, held, out, device, reporter)
        seed = config.optimiser.seed
        torch.manual_seed(derive_seed(seed, "initial weights"))
        step = _Step(config, self.latents.shape)
        self.module: nn.Module = step
        # Not in the first step: every process must start alike, and the weight average from the same numbers.
        generator = torch.Generator().manual_seed(derive_seed(seed, "activation statistics"))
        rows = range(min(_FIRST_WINDOWS, len(self.latents.bank.names)))
        first = self._items(self.latents.bank, rows, generator)
        with torch.no_grad():
            condition = step.cinn.condition(step.cinn.still(first["still"]), first["interval"])
            step.cinn.flow.set_from(first["z"].flatten(1), condition)

    def _items(self, bank: LatentBank, index: Sequence[int], generator: torch.Generator) -> dict[str, Tensor]:
        z = self.latents.standardise(bank.draw(index, generator))
        hide = torch.rand(len(index), generator=generator) < self.config.model.hide_interval
        interval = bank.known(index)[:, 1]
        return {"z": z, "still": bank.stills(index), "interval": torch.where(hide, torch.nan, interval)}

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
        """Likelihood of held-out latents, spread of samples, their motion, and a strip of mean frames.

        Returns:
            nll: Nats a number of the standardised latent; 1.419 is what N(0, I) gives to itself.
            still_l1: Error of the stills painted again, gray levels.
            latent_sd: Standard deviation of sampled latents over stills and samples; 1 in the training set.
            spread: The part of it that samples of one still differ by.
            change, change_real: Mean |frame - still| of samples and of reconstructions, gray levels.
        """
        cinn: ConditionalFlow = module.cinn  # type: ignore[assignment]
        generator = torch.Generator().manual_seed(batch_seed(self.config.optimiser.seed, -1))
        held, size = self.latents.held, self.config.optimiser.batch_size
        values: dict[str, list[float]] = {"nll": [], "still_l1": []}
        for first in range(0, len(held.names), size):
            batch = self._items(held, range(first, min(first + size, len(held.names))), generator)
            measured = module({k: v.to(self.device) for k, v in batch.items()})[1]
            for name, row in values.items():
                row += [float(measured[name])] * len(batch["z"])
        rows = np.linspace(0, len(held.names) - 1, min(_SHOWN, len(held.names))).round().astype(int).tolist()
        batch = {k: v.to(self.device) for k, v in self._items(held, rows, generator).items()}
        still = batch["still"]
        condition = cinn.condition(cinn.still(still), batch["interval"])
        noise = per_sample_noise(range(_SAMPLES * len(rows)), self.latents.shape, "latent").to(self.device)
        z = cinn.inverse(noise, condition.repeat(_SAMPLES, 1))
        frames, _ = self.latents.decode(z[: len(rows)], still)
        real, _ = self.latents.decode(batch["z"], still)
        self.latents.show(step, frames)
        return {
            **{name: float(np.mean(row)) for name, row in values.items()},
            "latent_sd": float(z.std()),
            "spread": float(z.reshape(_SAMPLES, len(rows), -1).std(dim=0).square().mean().sqrt()),
            "change": 255 * float((frames - still[:, :, None]).abs().mean()),
            "change_real": 255 * float((real - still[:, :, None]).abs().mean()),
        }

    def export(self, module: nn.Module) -> None:
        """Write weights.safetensors: both stages, ready for `us-i2v generate`."""
        cinn: ConditionalFlow = module.cinn  # type: ignore[assignment]
        self.latents.export("cinn", cinn.state_dict(), {"kind": "cinn", "cinn": self.config.model})


def train_cinn(
    data: Sequence[Path],
    autoencoder: Path,
    out: Path,
    config: CINNTraining,
    *,
    resume: bool = False,
    reporter: Reporter,
    device: str = "auto",
) -> None:
    """Train the flow on the clips of some folders, over a trained auto-encoder.

    Args:
        data: Data folders (any known layout).
        autoencoder: Run folder or weights file that holds stage 1, with a latent of at most 4096 numbers.
        out: Run folder: config.json, checkpoint, metrics.jsonl, samples/, weights.safetensors (both stages).
        config: Settings.
        resume: Go on with the run in `out`.
        reporter: Receives progress.
        device: "auto", "cpu", "cuda", ...

    Raises:
        WeightsError: The auto-encoder cannot be read.
        ConfigError: Its latent is too large.
        DataError: No clips.
        TrainingError: The loss is not finite.
    """
    weights = load_weights(autoencoder)
    latent_numbers(weights.header.autoencoder.latent_shape)
    train_second_stage(
        data,
        autoencoder,
        weights,
        out,
        config,
        lambda *found: CINNTask(config, *found),
        resume=resume,
        reporter=reporter,
        device=device,
        name="cINN",
    )
