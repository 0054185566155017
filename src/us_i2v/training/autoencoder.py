"""Training of stage 1: the video auto-encoder.

    L = w_l1 |x - m| + w_nll (|x - m| / b + ln 2b)  [m detached]  + w_kl KL(q(z|x) || N(0, I))
        + w_flow |flow - known flow|  + w_matched |flow - matched flow|  + w_smooth |grad flow|
        + w_perceptual LPIPS(x, m)  + w_persistence L_persistence  + w_texture L_texture(s, x)
        + w_changes L_changes(s, x)  + adversarial terms

see `persistence`, `sample_statistics` and `adversarial`. m are the mean frames, s frames with drawn speckle (see
`drawn_speckle`; drawn only where a term looks at them), and b = gate * scale / sqrt(2) the residual's local Laplace
scale. The scale's likelihood does not reach the mean: otherwise places of large residual would stop being explained by
motion. Simulated clips know their flow; that of real ones is matched, see `matched_flow`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator
from torch import Tensor, nn

from us_i2v import __version__
from us_i2v.config import Config
from us_i2v.data.training_clips import ClipSampler, ClipsConfig, StoredClip, batch_seed
from us_i2v.devices import choose_device
from us_i2v.errors import ConfigError
from us_i2v.hub import local_weights
from us_i2v.metrics.lpips import LPIPS
from us_i2v.models.autoencoder import Autoencoder, AutoencoderConfig
from us_i2v.models.motion import deterministic_frames
from us_i2v.models.speckle_config import SpeckleConfig
from us_i2v.seeding import derive_seed
from us_i2v.training.adversarial import Adversarial, AdversarialLoss
from us_i2v.training.drawn_speckle import draw_innovations, drawn_frames
from us_i2v.training.flow_terms import flow_error, flow_gradient, matched_windows
from us_i2v.training.loop import OptimiserConfig, fingerprint, first_rank_alone, train
from us_i2v.training.persistence import persistence_loss
from us_i2v.training.runs import gather_clips, stack_windows, start_run
from us_i2v.training.sample_statistics import change_distance, texture_distance
from us_i2v.training.strips import write_strip
from us_i2v.weights import Header, load_weights, save_weights

if TYPE_CHECKING:
    from collections.abc import Sequence

    from us_i2v.training.report import Reporter


class AutoencoderLoss(Config):
    """Weights of the terms, see the module's head."""

    l1: float = Field(10.0, ge=0, description="Mean absolute error of the mean frames.")
    nll: float = Field(0.1, ge=0, description="Likelihood of the residual's scale.")
    kl: float = Field(1e-4, ge=0, description="KL to N(0, I), nats a latent number.")
    flow: float = Field(0.05, ge=0, description="Error of the flow where it is known, model pixels.")
    matched: float = Field(0.0, ge=0, description="Error of the flow where block matching finds it, model pixels.")
    smooth: float = Field(0.01, ge=0, description="Absolute gradient of the flow, cells a cell.")
    perceptual: float = Field(0.0, ge=0, description="LPIPS; needs `lpips`, a weights file.")
    lpips_backbone: Literal["alex", "squeeze", "vgg"] = Field("squeeze", description="Network of LPIPS.")
    lpips: str = Field("", description="Path of LPIPS weights (safetensors), if perceptual > 0.")
    lpips_frames: int = Field(2, ge=1, le=16, description="Random frames a clip that LPIPS looks at.")
    persistence: float = Field(0.3, ge=0, description="Likelihood of the speckle's correlation, if it is predicted.")

    texture: float = Field(
        0.0, ge=0, description="Moments of LPIPS's features, drawn frames against real ones; needs `lpips`."
    )
    changes: float = Field(
        0.0, ge=0, description="Energy of changes over 1 and 4 frames, drawn clips against real ones."
    )

    later: ClassVar[tuple[str, ...]] = ("matched", "persistence", "texture", "changes")


class AutoencoderTraining(Config):
    """Everything that `us-i2v train-ae` can be told."""

    model: AutoencoderConfig = AutoencoderConfig()
    clips: ClipsConfig = ClipsConfig()
    optimiser: OptimiserConfig = OptimiserConfig()
    loss: AutoencoderLoss = AutoencoderLoss()
    adversarial: AdversarialLoss = AdversarialLoss()
    source_weights: dict[str, float] = Field({}, description="Relative share by data folder's name.")
    init: str = Field(
        "", description="Weights file, run folder or ORG/NAME on the hub to start from; empty: random weights."
    )
    freeze_encoder: bool = Field(False, description="Train the decoder only, so that latents stay what they are.")
    notes: str = Field("", description="Kept in the weights: data, licences.")

    @model_validator(mode="after")
    def _check_samples(self) -> Self:
        if self.draws and not (self.model.residual and self.loss.nll > 0):
            raise ValueError(
                "adversarial.samples, loss.texture and loss.changes draw speckle: "
                "model.residual = true and loss.nll above 0 are needed"
            )
        return self

    @property
    def draws(self) -> bool:
        """True if a term looks at frames with drawn speckle."""
        return self.loss.texture > 0 or self.loss.changes > 0 or (self.adversarial.on and self.adversarial.samples)

    @model_serializer(mode="wrap")
    def _leave_out_untouched(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # A run without discriminators is identified as it was before they existed, so that it can be resumed.
        values: dict[str, Any] = handler(self)
        if self.adversarial == AdversarialLoss():
            values.pop("adversarial", None)
        return values


class _Step(nn.Module):
    """Loss of one batch, as one module, so that DistributedDataParallel sees a single forward."""

    def __init__(self, config: AutoencoderTraining) -> None:
        super().__init__()
        self.config = config
        self.autoencoder = Autoencoder(config.model)
        if config.init:
            self.autoencoder.load_state_dict(initial_state(config, self.autoencoder))
        if config.freeze_encoder:
            self.autoencoder.encoder.requires_grad_(False)
        # In a tuple, so that the frozen network is no part of this module's state.
        self.lpips: tuple[LPIPS] | None = None
        if config.loss.perceptual > 0 or config.loss.texture > 0:
            self.lpips = (LPIPS.load(config.loss.lpips_backbone, Path(config.loss.lpips)),)
        # No module either: the discriminators are trained and kept apart, see `training.loop.Companion`.
        self.adversarial = Adversarial(config.adversarial, config.optimiser.seed) if config.adversarial.on else None

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """batch: video (B, 1, T, S, S), noise (B, *latent), flow, matched (B, 2, T, s, s) NaN where unknown."""
        weights = self.config.loss
        video = batch["video"]
        still = video[:, :, 0]
        posterior = self.autoencoder.encode(video)
        motion = self.autoencoder.decode(posterior.sample(batch["noise"]), still)
        with torch.autocast(video.device.type, enabled=False):
            size = video.shape[-2:]
            full = motion.in_float32().at_size((int(size[0]), int(size[1])))
            mean = deterministic_frames(still, full)
            error = (video - mean).abs()[:, :, 1:]
            b = (full.gate * full.scale)[:, :, 1:] / 2**0.5 + 1e-3
            terms = {
                "l1": error.mean(),
                "nll": (error.detach() / b + torch.log(2 * b)).mean(),
                "kl": posterior.kl().mean(),
                "flow": flow_error(motion, batch["flow"], int(size[0])),
                "smooth": flow_gradient(motion),
            }
            if "matched" in batch:
                terms["matched"] = flow_error(motion, batch["matched"], int(size[0]))
            persistence = self.autoencoder.persistence(still)
            if persistence is not None:
                deviation = full.gate * full.scale + 1e-3
                terms["persistence"] = persistence_loss(persistence, video - mean, deviation, full.flow)
            shown = mean
            if "innovations" in batch:
                alike = SpeckleConfig().at(persistence)
                shown = drawn_frames(still, motion.in_float32(), alike, batch["innovations"])
                if weights.changes > 0:
                    terms["changes"] = change_distance(shown, video)
            if "pick" in batch:
                terms |= self._perceptual(video, mean, shown, batch["pick"])
            loss = sum((getattr(weights, name) * value for name, value in terms.items()), torch.zeros(()))
            if self.adversarial is not None:
                against, judged = self.adversarial.generator_loss(
                    video, shown if self.config.adversarial.samples else mean, batch
                )
                loss, terms = loss + against, terms | judged
        return loss, {name: value.detach() for name, value in terms.items()}

    def _perceptual(self, video: Tensor, mean: Tensor, shown: Tensor, pick: Tensor) -> dict[str, Tensor]:
        rows = torch.arange(video.shape[0], device=video.device)[:, None]
        real, made, drawn = (x.transpose(1, 2)[rows, pick].flatten(0, 1) for x in (video, mean, shown))
        if self.lpips is None:
            raise ConfigError("The perceptual loss has no network.", "Set loss.lpips to a weights file.")
        terms = {}
        network = self.lpips[0].to(video.device)
        if self.config.loss.perceptual > 0:
            terms["perceptual"] = network(made, real).mean()
        if self.config.loss.texture > 0:
            terms["texture"] = texture_distance(network, drawn, real)
        return terms


def initial_state(config: AutoencoderTraining, fresh: Autoencoder) -> dict[str, Tensor]:
    """Load the weights that a run starts from; a map of the speckle's correlation may be added to what had none.

    Raises:
        ConfigError: The auto-encoder that they belong to is of another shape.
    """
    weights = load_weights(local_weights(config.init))
    known = weights.header.autoencoder
    if known not in (config.model, config.model.model_copy(update={"speckle_map": False})):
        raise ConfigError(f"'{config.init}' holds an auto-encoder of another shape.", "Use the settings that it had.")
    loaded: dict[str, Tensor] = {**fresh.state_dict(), **weights.autoencoder().state_dict()}
    return loaded


class AutoencoderTask:
    """Stage 1 as a `training.loop.Task`."""

    def __init__(
        self,
        config: AutoencoderTraining,
        train_clips: Sequence[StoredClip],
        held: Sequence[StoredClip],
        out: Path,
    ) -> None:
        self.config, self.out = config, out
        optimiser, length = config.optimiser, config.model.n_frames
        torch.manual_seed(derive_seed(optimiser.seed, "initial weights"))
        step = _Step(config)
        self.module: nn.Module = step
        self.adversarial = step.adversarial
        self.sampler = ClipSampler(
            train_clips, config.clips, length=length, seed=optimiser.seed, weights=config.source_weights
        )
        self.train_clips = list(train_clips)
        measured = held or train_clips
        self.held = ClipSampler(measured, config.clips, length=length, seed=optimiser.seed, augment=False)
        self.speckle = SpeckleConfig()

    def batch(self, step: int, rank: int, world: int) -> tuple[dict[str, Tensor], list[str]]:
        """See `Task.batch`."""
        optimiser = self.config.optimiser
        total = optimiser.batch_size
        mine = range(rank, total, world)
        windows = [self.sampler.draw(step, position) for position in mine]
        generator = torch.Generator().manual_seed(batch_seed(optimiser.seed, step))
        noise = torch.randn((total, *self.config.model.latent_shape), generator=generator)
        batch = stack_windows(windows, self.config.model.size)
        batch["noise"] = noise[list(mine)]
        if self.config.loss.matched > 0:
            batch["matched"] = matched_windows(windows, batch["flow"])
        if self.config.loss.perceptual > 0 or self.config.loss.texture > 0:
            frames = self.config.loss.lpips_frames
            pick = torch.randint(1, self.config.model.n_frames, (total, frames), generator=generator)
            batch["pick"] = pick[list(mine)]
        if self.adversarial is not None:
            frames_seen = self.adversarial.draw(step, total, self.config.model.n_frames)
            batch |= {name: frames[list(mine)] for name, frames in frames_seen.items()}
        if self.config.draws:
            drawn = draw_innovations(optimiser.seed, step, total, self.config.model.n_frames, self.config.model.size)
            batch["innovations"] = drawn[list(mine)]
        return batch, [window.name for window in windows]

    @torch.no_grad()
    def validate(self, module: nn.Module, step: int) -> dict[str, float]:
        """Reconstruct held-out windows: L1 in gray levels beside repeat-frame-0's, residual statistics."""
        autoencoder: Autoencoder = module.autoencoder  # type: ignore[assignment]
        device = next(module.parameters()).device
        rows = self.held.grid(per_clip=2)
        rows = rows[:: max(1, len(rows) // 48)]
        sums: dict[str, list[float]] = {}
        correlations = []
        for first in range(0, len(rows), 4):
            windows = [self.held.load(*row) for row in rows[first : first + 4]]
            video = stack_windows(windows, self.config.model.size)["video"].to(device)
            with torch.autocast(device.type, torch.bfloat16, enabled=self.config.optimiser.precision == "bf16"):
                posterior = autoencoder.encode(video)
                motion = autoencoder.decode(posterior.mean, video[:, :, 0])
            full = motion.in_float32().at_size((video.shape[-2], video.shape[-1]))
            mean = deterministic_frames(video[:, :, 0], full)
            residual, sd = (video - mean)[:, :, 1:], (full.gate * full.scale)[:, :, 1:]
            repeat = (video - video[:, :, :1])[:, :, 1:]
            standard = residual / (sd + 1e-3)
            a, b = standard[:, :, :-1], standard[:, :, 1:]
            correlations.append(float((a * b).sum() / (a.square().sum() * b.square().sum()).sqrt()))
            for key, value in (
                ("l1", 255 * residual.abs().mean()),
                ("l1_repeat", 255 * repeat.abs().mean()),
                ("kl", posterior.kl().mean()),
                ("standardised_residual", standard.square().mean().sqrt()),
                ("flow_px", full.flow.square().sum(dim=1).sqrt().mean()),
            ):
                sums.setdefault(key, []).append(float(value))
            if first == 0:
                path = self.out / "samples" / f"step_{step:06d}.png"
                write_strip(path, [video[0, 0], mean[0, 0], sd[0, 0] * 4])
        measured = {key: float(np.mean(values)) for key, values in sums.items()}
        correlation = float(np.clip(np.mean(correlations), 0, 0.99))
        # Without its likelihood the scale is not trained: what it says must not be drawn.
        factor = float(np.clip(measured["standardised_residual"], 0.1, 3)) if self.config.loss.nll > 0 else 0.0
        self.speckle = SpeckleConfig(correlation=correlation, factor=factor)
        return {
            **measured,
            "l1_ratio": measured["l1"] / max(measured["l1_repeat"], 1e-6),
            "correlation": correlation,
        }

    def export(self, module: nn.Module) -> None:
        """Write weights.safetensors."""
        autoencoder: Autoencoder = module.autoencoder  # type: ignore[assignment]
        header = Header(
            kind="autoencoder",
            package_version=__version__,
            autoencoder=self.config.model,
            speckle=self.speckle,
            fit=self.config.clips.fit,
            frame_interval_s=self.sampler.typical_interval(),
            interval_range_s=self.sampler.interval_range(),
            labels=tuple(sorted({c.label for c in self.train_clips if c.label})),
            training_groups=tuple(sorted({c.group for c in self.train_clips})),
            clip_sha256=tuple(sorted({c.sha256 for c in self.train_clips})),
            notes=self.config.notes,
        )
        tensors = {f"autoencoder.{k}": v for k, v in autoencoder.state_dict().items()}
        save_weights(self.out / "weights.safetensors", header, tensors)


def train_autoencoder(
    data: Sequence[Path],
    out: Path,
    config: AutoencoderTraining,
    *,
    resume: bool = False,
    reporter: Reporter,
    device: str = "auto",
) -> None:
    """Train stage 1 on the clips of some folders.

    Args:
        data: Data folders (any known layout).
        out: Run folder: config.json, checkpoint, metrics.jsonl, samples/, weights.safetensors.
        config: Settings.
        resume: Go on with the run in `out`.
        reporter: Receives progress.
        device: "auto", "cpu", "cuda", ...

    Raises:
        DataError: No clips, or a group on both sides of the split.
        TrainingError: The loss is not finite.
    """
    where = choose_device(device)
    with first_rank_alone():
        start_run(out, config, resume=resume)
        train_clips, held = gather_clips(
            data, out / "cache", config.model.size, config.clips, config.optimiser.seed, reporter
        )
    task = AutoencoderTask(config, train_clips, held, out)
    identity = json.dumps([c.sha256 for c in train_clips])
    train(
        task,
        out,
        config.optimiser,
        fingerprint=fingerprint(config.dump(), identity),
        resume=resume,
        reporter=reporter,
        device=where,
        name="auto-encoder",
        companion=task.adversarial,
    )
