"""Seeds: the same everywhere and for ever, and independent of one another."""

from __future__ import annotations

import numpy as np
import torch

from us_i2v.seeding import MAX_SEED, derive_seed, numpy_generator, per_sample_noise


def test_derived_seeds_never_change() -> None:
    """Clips made with an older version must be reproducible: these numbers are part of the interface."""
    assert derive_seed(0) == 7393586934137057515
    assert derive_seed(7, "latent") == 5032942478016636445


def test_every_part_its_type_and_the_order_count() -> None:
    parts = [(1, 2), (2, 1), (12,), ("1", "2"), (1, "2"), (1, 2, ""), ("1\x1fint:2",), (-1, 2), ()]
    assert len({derive_seed(*part) for part in parts}) == len(parts)


def test_seeds_fit_torch_and_fill_their_range() -> None:
    seeds = [derive_seed("range", k) for k in range(2000)]
    assert all(0 <= seed <= MAX_SEED for seed in seeds)
    assert len(set(seeds)) == 2000
    assert abs(np.mean(seeds) / MAX_SEED - 0.5) < 4 / np.sqrt(12 * 2000)
    torch.Generator().manual_seed(MAX_SEED)


def test_numpy_generators_repeat_and_differ() -> None:
    first = numpy_generator(3, "a").standard_normal(5)
    assert np.array_equal(first, numpy_generator(3, "a").standard_normal(5))
    assert not np.array_equal(first, numpy_generator(3, "b").standard_normal(5))


def test_a_samples_noise_does_not_depend_on_its_neighbours() -> None:
    batch = per_sample_noise([4, 9, 4], (2, 3), "latent")
    assert (batch.shape, batch.dtype) == ((3, 2, 3), torch.float32)
    assert torch.equal(batch[1], per_sample_noise([9], (2, 3), "latent")[0])
    assert torch.equal(batch[0], batch[2])
    assert not torch.equal(batch[0], batch[1])
    assert not torch.equal(batch, per_sample_noise([4, 9, 4], (2, 3), "sampler"))


def test_noise_is_standard_normal_and_leaves_the_global_state_alone() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    noise = per_sample_noise(range(8), (5000,))
    assert torch.equal(before, torch.get_rng_state())
    n = noise.numel()
    assert abs(float(noise.mean())) < 4 / n**0.5
    assert abs(float(noise.var()) - 1) < 4 * (2 / n) ** 0.5
