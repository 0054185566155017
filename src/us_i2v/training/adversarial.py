"""Adversarial losses of stage 1, off by default: hinge loss with a patch and a temporal discriminator D.

    auto-encoder    w_D * -E D(m)  +  w_fm * mean |features of D at m - features of D at x|
    discriminator   E max(0, 1 - D(x)) + E max(0, 1 + D(m))  +  w_gp * E || grad_x D(x) ||^2

x are the clips, m the mean frames made of them, or, with `samples`, frames with drawn speckle (`drawn_speckle`).
Samples are no pairs of the clips, pixel by pixel: feature matching then compares the features' means and standard
deviations over squares of the picture, see `sample_statistics` for the reason. The patch discriminator sees a few
random frames (never the still), the temporal one consecutive frames from a random start.
Weights as in Dorkenwald et al. 2021 (cINN) are patch 1, temporal 1, feature_matching 10, gradient_penalty 10.
Source: hinge loss, Lim & Ye 2017; penalty on real clips, Mescheder et al. 2018 (there with 1/2), where D is the
mean over the map of logits.

All of this is computed in float32: the power iteration of spectral norm and the penalty's second derivative need it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, ClassVar, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from us_i2v.config import Config
from us_i2v.errors import TrainingError
from us_i2v.models.discriminators import PatchDiscriminator, TemporalDiscriminator
from us_i2v.seeding import derive_seed
from us_i2v.training.sample_statistics import feature_distance
from us_i2v.training.state import optimiser_tensors, restore_optimiser

if TYPE_CHECKING:
    from collections.abc import Mapping

_Width = Annotated[int, Field(ge=8, le=1024)]
_Beta = Annotated[float, Field(ge=0, lt=1)]


class AdversarialLoss(Config):
    """Weights and shape of the discriminators, see the module's head; without a patch or temporal weight: off."""

    patch: float = Field(0.0, ge=0, description="Weight of the patch discriminator; 0: there is none.")
    temporal: float = Field(0.0, ge=0, description="Weight of the temporal discriminator; 0: there is none.")
    feature_matching: float = Field(0.0, ge=0, description="L1 between the discriminators' features, or their moments.")
    gradient_penalty: float = Field(0.0, ge=0, description="Discriminators' squared gradient at real clips.")
    start_step: int = Field(0, ge=0, description="Optimiser steps without adversarial losses.")
    learning_rate: float = Field(2e-4, gt=0, description="Discriminators' Adam, constant.")
    betas: tuple[_Beta, _Beta] = Field((0.5, 0.9), description="Betas of the discriminators' Adam.")
    frames: int = Field(4, ge=1, le=15, description="Random frames a clip that the patch discriminator sees.")
    temporal_frames: int = Field(12, ge=4, le=16, description="Frames that the temporal discriminator sees.")
    patch_widths: tuple[_Width, ...] = Field(
        (32, 64, 128), min_length=1, max_length=5, description="Channels, each at half the size of the one before."
    )
    temporal_widths: tuple[_Width, ...] = Field(
        (16, 32, 64, 128), min_length=2, max_length=5, description="Channels, each at half the size of the one before."
    )
    spectral_norm: bool = Field(True, description="Spectral norm in the discriminators.")
    samples: bool = Field(False, description="Show frames with drawn speckle instead of mean frames.")

    later: ClassVar[tuple[str, ...]] = ("samples",)

    @model_validator(mode="after")
    def _check_something_to_match(self) -> Self:
        if not self.on and (self.feature_matching or self.gradient_penalty):
            raise ValueError("feature_matching and gradient_penalty need patch or temporal above 0")
        return self

    @property
    def on(self) -> bool:
        """True if there is a discriminator."""
        return self.patch > 0 or self.temporal > 0


def hinge_loss(real: Tensor, made: Tensor) -> Tensor:
    """Discriminator's loss from its logits, any shapes: E max(0, 1 - real) + E max(0, 1 + made)."""
    return F.relu(1 - real).mean() + F.relu(1 + made).mean()


def gradient_penalty(logits: Tensor, inputs: Tensor) -> Tensor:
    """Mean over samples of || grad of the sample's mean logit ||^2; can be differentiated again."""
    total = logits.flatten(1).mean(dim=1).sum()
    (gradient,) = torch.autograd.grad(total, inputs, create_graph=True)
    return gradient.square().flatten(1).sum(dim=1).mean()


class Adversarial:
    """The discriminators and their Adam: a `training.loop.Companion` of the auto-encoder.

    Args:
        config: Switched on.
        seed: Of the initial weights and of the frames that are looked at; global random state stays as it is.
    """

    def __init__(self, config: AdversarialLoss, seed: int) -> None:
        self.config, self.seed = config, seed
        self.networks = nn.ModuleDict()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "discriminators"))
            if config.patch > 0:
                self.networks["patch"] = PatchDiscriminator(config.patch_widths, spectral=config.spectral_norm)
            if config.temporal > 0:
                self.networks["temporal"] = TemporalDiscriminator(config.temporal_widths, spectral=config.spectral_norm)
        self.optimiser = torch.optim.Adam(self.networks.parameters(), lr=config.learning_rate, betas=config.betas)
        self._shown: dict[str, tuple[Tensor, Tensor]] = {}

    def __deepcopy__(self, memo: dict[int, object]) -> Adversarial:
        """Return itself: an average of the auto-encoder's weights needs no discriminators of its own."""
        return self

    def draw(self, step: int, total: int, n_frames: int) -> dict[str, Tensor]:
        """Which frames a step looks at: frame numbers int64 (total, n) by discriminator; empty before the start."""
        if step < self.config.start_step:
            return {}
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "adversarial", step))
        picks = {}
        if "patch" in self.networks:
            picks["patch_frames"] = torch.randint(1, n_frames, (total, self.config.frames), generator=generator)
        if "temporal" in self.networks:
            length = min(self.config.temporal_frames, n_frames)
            start = torch.randint(0, n_frames - length + 1, (total, 1), generator=generator)
            picks["temporal_frames"] = start + torch.arange(length)
        return picks

    def generator_loss(
        self, video: Tensor, made: Tensor, batch: Mapping[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Auto-encoder's weighted loss and its unweighted terms; remembers what was shown for `after_step`.

        Args:
            video: (B, 1, T, H, W), real.
            made: (B, 1, T, H, W), float32; the loss is differentiated by it.
            batch: Holds what `draw` gave; nothing of it: a loss of zero without terms.
        """
        self._shown = {}
        self.networks.requires_grad_(False)
        loss = torch.zeros((), device=made.device)
        terms: dict[str, Tensor] = {}
        differences = []
        for name, network in self.networks.items():
            if f"{name}_frames" not in batch:
                continue
            frames = batch[f"{name}_frames"]
            real, fake = _view(name, video, frames), _view(name, made, frames)
            logits, features = network(fake)
            terms[name] = -logits.mean()
            loss = loss + getattr(self.config, name) * terms[name]
            if self.config.feature_matching > 0:
                wanted = network(real)[1]
                if self.config.samples:
                    differences.append(feature_distance(features, wanted))
                else:
                    differences += [F.l1_loss(a, b) for a, b in zip(features, wanted, strict=True)]
            self._shown[name] = (real.detach(), fake.detach())
        if differences:
            terms["feature_matching"] = torch.stack(differences).mean()
            loss = loss + self.config.feature_matching * terms["feature_matching"]
        return loss, {name: value.detach() for name, value in terms.items()}

    def after_step(self, step: int) -> dict[str, float]:
        """Update the discriminators with the frames that they were last shown; see `Companion.after_step`.

        Raises:
            TrainingError: The discriminators' gradient is not finite.
        """
        if not self._shown:
            return {}
        self.networks.requires_grad_(True)
        values: dict[str, Tensor] = {}
        loss = torch.zeros((), device=next(self.networks.parameters()).device)
        for name, (real, fake) in self._shown.items():
            network = self.networks[name]
            real.requires_grad_(self.config.gradient_penalty > 0)
            logits = network(real)[0]
            values[f"{name}_hinge"] = hinge_loss(logits, network(fake)[0])
            loss = loss + values[f"{name}_hinge"]
            if self.config.gradient_penalty > 0:
                values[f"{name}_penalty"] = gradient_penalty(logits, real)
                loss = loss + self.config.gradient_penalty * values[f"{name}_penalty"]
        self._shown = {}
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._average_gradients()
        gradients = [p.grad for p in self.networks.parameters() if p.grad is not None]
        if not math.isfinite(float(nn.utils.get_total_norm(gradients))):
            raise TrainingError(
                f"The discriminators' gradient is not finite at step {step + 1}.",
                "Lower adversarial.learning_rate; the last checkpoint is kept.",
            )
        self.optimiser.step()
        return {name: float(value.detach()) for name, value in values.items()}

    def _average_gradients(self) -> None:
        """Under torchrun: the mean over ranks, as DistributedDataParallel does for the auto-encoder."""
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return
        for parameter in self.networks.parameters():
            if parameter.grad is not None:
                torch.distributed.all_reduce(parameter.grad)
                parameter.grad /= torch.distributed.get_world_size()

    def to(self, device: torch.device) -> None:
        """See `Companion.to`."""
        self.networks.to(device).train()

    def state(self) -> dict[str, Tensor]:
        """See `Companion.state`."""
        tensors = {f"model.{k}": v for k, v in self.networks.state_dict().items()}
        return tensors | {f"optimiser.{k}": v for k, v in optimiser_tensors(self.optimiser).items()}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """See `Companion.load_state`."""
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "optimiser": {}}
        for key, value in tensors.items():
            part, name = key.split(".", 1)
            parts[part][name] = value
        self.networks.load_state_dict(parts["model"])
        restore_optimiser(self.optimiser, parts["optimiser"])


def _view(name: str, clip: Tensor, frames: Tensor) -> Tensor:
    """What a discriminator sees of clip (B, 1, T, H, W): (B*n, 1, H, W) for patch, (B, 1, n, H, W) for temporal."""
    rows = torch.arange(clip.shape[0], device=clip.device)[:, None]
    seen = clip.transpose(1, 2)[rows, frames]
    return seen.flatten(0, 1) if name == "patch" else seen.transpose(1, 2)
