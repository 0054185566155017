"""Seeds: every random number comes from a named seed, never from global state."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

MAX_SEED = 2**63 - 1


def derive_seed(*parts: int | str) -> int:
    """Return a seed in 0 .. 2**63 - 1 that depends on all parts and their order.

    The same parts give the same seed on every machine and in every version of Python.
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") & MAX_SEED


def numpy_generator(*parts: int | str) -> np.random.Generator:
    """Return a numpy generator for `derive_seed(*parts)`."""
    return np.random.Generator(np.random.PCG64(derive_seed(*parts)))


def per_sample_noise(seeds: Sequence[int], shape: tuple[int, ...], *stream: int | str) -> torch.Tensor:
    """Draw standard normal noise, one independent stream a sample.

    Args:
        seeds: One seed a sample; a sample's noise does not depend on its neighbours.
        shape: Shape of one sample, without the batch axis.
        stream: Names of the use (for example "latent"), so that uses do not share numbers.

    Returns:
        float32 tensor (len(seeds), *shape), on the CPU (so that every device gets the same).
    """
    import torch

    samples = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(derive_seed(seed, *stream))
        samples.append(torch.randn(shape, generator=generator))
    return torch.stack(samples)
