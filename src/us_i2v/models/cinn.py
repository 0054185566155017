"""Conditional invertible network: a normalising flow of the latent, given the still.

    log p(z | still) = log N(u; 0, I) + log |det du/dz|,      u = flow(z | condition)

Source: Dorkenwald et al. 2021, "Stochastic Image-to-Video Synthesis using cINNs", section 3.2. Every block is
ActNorm, an invertible leaky ReLU, two affine couplings with the halves exchanged between them, and a fixed
shuffle. All log-determinants are exact; each negative number that passes the leaky ReLU contributes log(slope).

Conventions: `forward` goes from latents to noise (training), `inverse` from noise to latents (sampling). Latents
are standardised by the training set's statistics; likelihoods are of standardised latents.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from pydantic import Field
from torch import nn

from us_i2v.config import Config
from us_i2v.errors import ConfigError
from us_i2v.models.blocks import zero_init
from us_i2v.models.conditioner import ConditionerConfig, StillEncoder
from us_i2v.models.conditioning import ScalarEmbedding
from us_i2v.seeding import derive_seed

if TYPE_CHECKING:
    from torch import Tensor

MOST_NUMBERS = 4096
"""Largest latent that a flow of dense networks is built for."""

_INTERVAL_CHANNELS = 32


class CINNConfig(Config):
    """Shape of the flow and of its conditioner."""

    blocks: int = Field(20, ge=1, le=64, description="Blocks of the flow.")
    hidden: int = Field(128, ge=8, le=2048, description="Width of the networks in the couplings; 512 is cINN's.")
    depth: int = Field(2, ge=1, le=6, description="Hidden layers between their first and last.")
    slope: float = Field(0.9, gt=0, le=1, description="Slope of the invertible leaky ReLU below zero.")
    interval: bool = Field(True, description="Condition on the time between frames as well.")
    hide_interval: float = Field(0.1, ge=0, le=1, description="Probability of hiding it in training.")
    conditioner: ConditionerConfig = ConditionerConfig()
    shuffle_seed: int = Field(0, ge=0, description="Seed of the fixed shuffles.")


class ActNorm(nn.Module):
    """y = exp(log_scale) * (x + shift), one pair a number; set from data once, then learned.

    Source: Kingma & Dhariwal 2018 (Glow), section 3.1.
    """

    def __init__(self, numbers: int) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(numbers))
        self.log_scale = nn.Parameter(torch.zeros(numbers))

    @torch.no_grad()
    def set_from(self, x: Tensor) -> None:
        """Choose both so that `x`, (B, n) with B >= 2, comes out with mean 0 and standard deviation 1."""
        self.shift.copy_(-x.mean(dim=0))
        self.log_scale.copy_(-torch.log(x.std(dim=0, correction=0).clamp_min(1e-4)))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, n) -> the same, and log-determinants (B,)."""
        return torch.exp(self.log_scale) * (x + self.shift), self.log_scale.sum().expand(x.shape[0])

    def inverse(self, y: Tensor) -> Tensor:
        """Undo `forward`."""
        return y * torch.exp(-self.log_scale) - self.shift


class InvertibleLeakyReLU(nn.Module):
    """y = x for x >= 0, slope * x below."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope = slope

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, n) -> the same, and log-determinants (B,)."""
        negative = (x < 0).sum(dim=1).to(x.dtype)
        return torch.where(x < 0, self.slope * x, x), negative * math.log(self.slope)

    def inverse(self, y: Tensor) -> Tensor:
        """Undo `forward`."""
        return torch.where(y < 0, y / self.slope, y)


class Dense(nn.Sequential):
    """Dense network with leaky ReLUs, whose last layer starts at zero."""

    def __init__(self, c_in: int, hidden: int, depth: int, c_out: int) -> None:
        layers: list[nn.Module] = [nn.Linear(c_in, hidden), nn.LeakyReLU()]
        for _ in range(depth):
            layers += [nn.Linear(hidden, hidden), nn.LeakyReLU()]
        super().__init__(*layers, zero_init(nn.Linear(hidden, c_out)))


class AffineCoupling(nn.Module):
    """moving' = moving * exp(s) + t, with s = tanh(S(still, c)) and t = T(still, c).

    Source: Dinh et al. 2017 (RealNVP), Eq. 7; the condition c enters both networks, as in Ardizzone et al. 2019.

    Args:
        resting: Numbers that pass unchanged.
        moving: Numbers that are changed.
        condition: Numbers of the condition.
        config: Width and depth of S and T.
    """

    def __init__(self, resting: int, moving: int, condition: int, config: CINNConfig) -> None:
        super().__init__()
        self.scale = Dense(resting + condition, config.hidden, config.depth, moving)
        self.shift = Dense(resting + condition, config.hidden, config.depth, moving)

    def _terms(self, resting: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        seen = torch.cat([resting, condition], dim=1)
        return torch.tanh(self.scale(seen)), self.shift(seen)

    def forward(self, resting: Tensor, moving: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Return the changed half (B, moving) and log-determinants (B,)."""
        s, t = self._terms(resting, condition)
        return moving * torch.exp(s) + t, s.sum(dim=1)

    def inverse(self, resting: Tensor, moved: Tensor, condition: Tensor) -> Tensor:
        """Undo `forward`."""
        s, t = self._terms(resting, condition)
        return (moved - t) * torch.exp(-s)


class FlowBlock(nn.Module):
    """ActNorm, leaky ReLU, two couplings with exchanged halves, fixed shuffle."""

    order: Tensor
    back: Tensor

    def __init__(self, numbers: int, condition: int, config: CINNConfig, index: int) -> None:
        super().__init__()
        first, second = numbers // 2, numbers - numbers // 2
        self.cut = first
        self.norm = ActNorm(numbers)
        self.activation = InvertibleLeakyReLU(config.slope)
        self.coupling1 = AffineCoupling(first, second, condition, config)
        self.coupling2 = AffineCoupling(second, first, condition, config)
        order = shuffle(numbers, config.shuffle_seed, index)
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("back", torch.argsort(order), persistent=False)

    def forward(self, x: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """(B, n), condition (B, C) -> (B, n) and log-determinants (B,)."""
        x, total = self.norm(x)
        x, log_det = self.activation(x)
        total = total + log_det
        a, b = x[:, : self.cut], x[:, self.cut :]
        b, log_det = self.coupling1(a, b, condition)
        total = total + log_det
        a, log_det = self.coupling2(b, a, condition)
        return torch.cat([a, b], dim=1)[:, self.order], total + log_det

    def inverse(self, y: Tensor, condition: Tensor) -> Tensor:
        """Undo `forward`."""
        y = y[:, self.back]
        a, b = y[:, : self.cut], y[:, self.cut :]
        a = self.coupling2.inverse(b, a, condition)
        b = self.coupling1.inverse(a, b, condition)
        x: Tensor = self.norm.inverse(self.activation.inverse(torch.cat([a, b], dim=1)))
        return x


class Flow(nn.Module):
    """The flow itself: (B, n) and a condition (B, C) to noise (B, n), and back."""

    def __init__(self, numbers: int, condition: int, config: CINNConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(FlowBlock(numbers, condition, config, k) for k in range(config.blocks))

    def _in_order(self) -> list[FlowBlock]:
        return [block for block in self.blocks if isinstance(block, FlowBlock)]

    def forward(self, x: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Return noise (B, n) and log-determinants (B,)."""
        total = x.new_zeros(x.shape[0])
        for block in self._in_order():
            x, log_det = block(x, condition)
            total = total + log_det
        return x, total

    def inverse(self, noise: Tensor, condition: Tensor) -> Tensor:
        """Undo `forward`."""
        for block in reversed(self._in_order()):
            noise = block.inverse(noise, condition)
        return noise

    @torch.no_grad()
    def set_from(self, x: Tensor, condition: Tensor) -> None:
        """Set every ActNorm, first to last, from one batch (B, n), B >= 2."""
        for block in self._in_order():
            block.norm.set_from(x)
            x, _ = block(x, condition)


class ConditionalFlow(nn.Module):
    """Flow of the latents of stage 1, with the encoder of its condition.

    Args:
        config: Its shape.
        latent_shape: (C_z, T_z, H_z, W_z) of stage 1; flattened, at most `MOST_NUMBERS` numbers.

    Raises:
        ConfigError: The latent is too large, or a single number.
    """

    def __init__(self, config: CINNConfig, latent_shape: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.config, self.numbers = config, latent_numbers(latent_shape)
        self.still = StillEncoder(config.conditioner)
        self.interval = ScalarEmbedding(_INTERVAL_CHANNELS, scale=1000.0) if config.interval else None
        extra = _INTERVAL_CHANNELS if config.interval else 0
        self.flow = Flow(self.numbers, config.conditioner.channels + extra, config)

    def condition(self, code: Tensor, interval: Tensor | None) -> Tensor:
        """Join the still's code (B, channels) and seconds between frames (B,), NaN or None = unknown."""
        if self.interval is None:
            return code
        return torch.cat([code, self.interval(interval, code.shape[0]).to(code.dtype)], dim=1)

    def forward(self, z: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Standardised latents (B, *latent) -> noise of the same shape, log-determinants (B,)."""
        noise, log_det = self.flow(z.flatten(1), condition)
        return noise.reshape(z.shape), log_det

    def inverse(self, noise: Tensor, condition: Tensor) -> Tensor:
        """Noise (B, *latent) -> standardised latents of the same shape."""
        return self.flow.inverse(noise.flatten(1), condition).reshape(noise.shape)

    def nll(self, z: Tensor, condition: Tensor) -> Tensor:
        """Negative log-likelihood of standardised latents, nats a number: (B,). N(0, I) scores 1.419 on itself."""
        noise, log_det = self(z, condition)
        energy: Tensor = 0.5 * noise.flatten(1).square().sum(dim=1) - log_det
        return energy / self.numbers + 0.5 * math.log(2 * math.pi)


def latent_numbers(latent_shape: tuple[int, int, int, int]) -> int:
    """Count the numbers of a latent (C_z, T_z, H_z, W_z); raises `ConfigError` if a flow cannot take it."""
    numbers = math.prod(latent_shape)
    if not 2 <= numbers <= MOST_NUMBERS:
        shape = " x ".join(str(side) for side in latent_shape)
        raise ConfigError(
            f"The auto-encoder's latent has {numbers} numbers ({shape}); a cINN takes 2 to {MOST_NUMBERS}.",
            "Train an auto-encoder with --set model.latent_mode=vector --set model.latent_channels=64.",
        )
    return numbers


def shuffle(numbers: int, seed: int, index: int) -> Tensor:
    """A permutation of 0 .. numbers - 1 that is the same on every machine and in every version of torch."""
    return torch.tensor(sorted(range(numbers), key=lambda k: derive_seed(seed, "shuffle", index, k)))
