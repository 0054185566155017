"""Seeds: every random number comes from a named seed, never from global state."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

MAX_SEED = 2**63 - 1


@dataclass(frozen=True)
class SeedBlend:
    """A place on the way from one seed to another; wherever noise is drawn, it is drawn for both and blended.

    Attributes:
        first: Seed at share 0.
        second: Seed at share 1.
        share: 0..1.
    """

    first: int
    second: int
    share: float


Seed = int | SeedBlend
"""What noise is drawn from."""


def blends(first: int, second: int, count: int) -> list[SeedBlend]:
    """Places at even steps from one seed to another, both ends included; one place is the first seed."""
    return [SeedBlend(first, second, k / max(1, count - 1)) for k in range(count)]


def derive_seed(*parts: int | str) -> int:
    """Return a seed in 0 .. 2**63 - 1 that depends on all parts and their order.

    The same parts give the same seed on every machine and in every version of Python.
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") & MAX_SEED


def derived(seed: Seed, *parts: int | str) -> Seed:
    """Derive a seed from a seed, see `derive_seed`; both ends of a blend alike."""
    if isinstance(seed, SeedBlend):
        return SeedBlend(derive_seed(seed.first, *parts), derive_seed(seed.second, *parts), seed.share)
    return derive_seed(seed, *parts)


def numpy_generator(*parts: int | str) -> np.random.Generator:
    """Return a numpy generator for `derive_seed(*parts)`."""
    return np.random.Generator(np.random.PCG64(derive_seed(*parts)))


def per_sample_noise(
    seeds: Sequence[Seed], shape: tuple[int, ...], *stream: int | str, device: torch.device | None = None
) -> torch.Tensor:
    """Draw standard normal noise, one independent stream a sample.

    Args:
        seeds: One seed a sample; a sample's noise does not depend on its neighbours. The noise of a blend is the
            spherical interpolation of its two seeds' noise, and exactly a seed's own at either end.
        shape: Shape of one sample, without the batch axis.
        stream: Names of the use (for example "latent"), so that uses do not share numbers.
        device: Where to draw. Each kind of device has numbers of its own; None, the CPU, is for all that shall be the
            same wherever it is computed.

    Returns:
        float32 tensor (len(seeds), *shape), on that device.
    """
    import torch

    def draw(seed: int) -> torch.Tensor:
        generator = torch.Generator(device or "cpu").manual_seed(derive_seed(seed, *stream))
        return torch.randn(shape, generator=generator, device=device)

    def blended(seed: SeedBlend) -> torch.Tensor:
        if seed.share in (0.0, 1.0):
            return draw(seed.first if seed.share == 0.0 else seed.second)
        return spherical(draw(seed.first), draw(seed.second), seed.share)

    drawn = [blended(seed) if isinstance(seed, SeedBlend) else draw(seed) for seed in seeds]
    return drawn[0][None] if len(drawn) == 1 else torch.stack(drawn)


def spherical(a: torch.Tensor, b: torch.Tensor, share: float) -> torch.Tensor:
    """Interpolate along the arc between two tensors of one shape; share 0 gives `a`, 1 gives `b`.

        (sin((1 - share) w) a + sin(share w) b) / sin w,   w the angle between a and b

    Keeps the length of Gaussian noise, which the straight line would shorten by up to 1/sqrt(2). Straight where
    the angle is too small to tell. Source: Shoemake 1985, section 3.3.
    """
    x, y = a.double().flatten(), b.double().flatten()
    lengths = float(x.norm() * y.norm())
    angle = math.acos(max(-1.0, min(1.0, float(x @ y) / lengths))) if lengths > 0 else 0.0
    if math.sin(angle) < 1e-6:
        first, second = 1.0 - share, share
    else:
        first, second = (math.sin(part * angle) / math.sin(angle) for part in (1.0 - share, share))
    return (first * a.double() + second * b.double()).to(a.dtype)
