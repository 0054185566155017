"""Windows of a chain denoised together: which count where, in batches of any size, with any sampler."""

from __future__ import annotations

import math

import pytest
import torch

from us_i2v.diffusion.samplers import DDPM, DPMSolver
from us_i2v.diffusion.sampling import sample
from us_i2v.diffusion.schedule import Cosine
from us_i2v.diffusion.stitching import Stitched, overlapping_windows, shares
from us_i2v.errors import ScheduleError


def test_windows_overlap_by_half():
    assert overlapping_windows(4, 2).tolist() == [[0, 1], [1, 2], [2, 3]]
    assert overlapping_windows(8, 4).tolist() == [[0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 6, 7]]
    assert overlapping_windows(2, 2).tolist() == [[0, 1]]


def test_a_loop_is_closed_by_a_window_that_runs_backwards():
    assert overlapping_windows(4, 2, loop=True).tolist() == [[0, 1], [1, 2], [2, 3], [3, 2]]
    assert overlapping_windows(4, 4, loop=True).tolist() == [[0, 1, 2, 3], [3, 2, 1, 0]]


@pytest.mark.parametrize(("length", "window"), [(5, 1), (4, 3), (1, 2), (7, 4)])
def test_windows_that_do_not_fill_the_chain_are_refused(length, window):
    with pytest.raises(ScheduleError, match=rf"{window} latent frames|windows of {window}"):
        overlapping_windows(length, window)


def test_only_windows_that_begin_at_rest_count_in_their_first_half():
    assert shares(overlapping_windows(4, 2)).tolist() == [[1, 1], [0, 1], [0, 1]]
    assert shares(overlapping_windows(4, 2, loop=True)).tolist() == [[1, 1], [0, 0.5], [0, 0.5], [0.5, 0.5]]


@pytest.mark.parametrize(("length", "window", "loop"), [(2, 2, True), (9, 2, False), (8, 4, False), (10, 4, True)])
def test_shares_of_a_latent_frame_add_up_to_one(length, window, loop):
    windows = overlapping_windows(length, window, loop=loop)
    total = torch.zeros(length).index_add_(0, windows.flatten(), shares(windows).flatten())
    assert torch.allclose(total, torch.ones(length))


def mixing(x: torch.Tensor, t: torch.Tensor, sample_of: torch.Tensor) -> torch.Tensor:
    """Depends on both frames, on their order, on the time and on the sample."""
    scale = t + sample_of.to(x) + 1
    return x * scale[:, None, None, None, None] + 0.3 * x.flip(2) + torch.arange(2.0)[:, None, None]


def test_the_joined_output_by_hand():
    x = torch.randn(1, 3, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    out = Stitched(mixing, overlapping_windows(3, 2))(x, torch.tensor([0.5]))
    a, b, c = x.unbind(2)
    expected = torch.stack([1.5 * a + 0.3 * b, 1.5 * b + 0.3 * a + 1, 1.5 * c + 0.3 * b + 1], dim=2)
    assert torch.allclose(out, expected, atol=1e-6)


@pytest.mark.parametrize("loop", [False, True])
@pytest.mark.parametrize("at_once", [1, 3, 5])
def test_batches_of_any_size_give_the_same(at_once, loop):
    x = torch.randn(3, 2, 6, 4, 4, generator=torch.Generator().manual_seed(1))
    t = torch.tensor([0.2, 0.5, 0.9])
    windows = overlapping_windows(6, 2, loop=loop)
    whole = Stitched(mixing, windows, at_once=1000)(x, t)
    assert torch.allclose(Stitched(mixing, windows, at_once=at_once)(x, t), whole, atol=1e-6)
    alone = torch.cat(
        [Stitched(lambda y, s, n, k=k: mixing(y, s, n + k), windows)(x[k : k + 1], t[k : k + 1]) for k in range(3)]
    )
    assert torch.allclose(alone, whole, atol=1e-6)


def test_no_batch_is_larger_than_allowed():
    seen: list[int] = []

    def model(x: torch.Tensor, t: torch.Tensor, sample_of: torch.Tensor) -> torch.Tensor:
        seen.append(len(x))
        assert len(t) == len(sample_of) == len(x)
        return x

    x = torch.zeros(2, 1, 12, 1, 1)
    Stitched(model, overlapping_windows(12, 2), at_once=4)(x, torch.zeros(2))
    assert max(seen) == 4
    assert sum(seen) == 22


def test_a_chain_of_one_window_is_that_window():
    x = torch.randn(2, 3, 2, 4, 4, generator=torch.Generator().manual_seed(2))
    t = torch.tensor([0.3, 0.6])
    assert torch.equal(Stitched(mixing, overlapping_windows(2, 2))(x, t), mixing(x, t, torch.arange(2)))


@pytest.mark.parametrize(("sampler", "steps"), [(DPMSolver(), 20), (DDPM(), 60)])
def test_a_long_chain_keeps_the_windows_spread_and_neighbours_agree(sampler, steps):
    """Ideal denoiser of pairs N(0, [[1, r], [r, 1]]), r = 0.6.

    In the limit of small steps the chain's spread is 0.89 and its neighbours' correlation 0.33 (own recursion of the
    linear map, 400 steps), everywhere but at its ends.
    """
    schedule, r = Cosine(), 0.6
    covariance = torch.tensor([[1.0, r], [r, 1.0]])

    def model(x: torch.Tensor, t: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        level = schedule.at(float(t[0]))
        gain = level.alpha * covariance @ torch.linalg.inv(level.alpha**2 * covariance + level.sigma**2 * torch.eye(2))
        return torch.einsum("ij,ncjhw->ncihw", gain, x)

    noise = torch.randn(2, 4, 24, 24, 24, generator=torch.Generator().manual_seed(3))
    stitched = Stitched(model, overlapping_windows(24, 2))
    z = sample(stitched, schedule, "x0", sampler, noise, steps, step_noise=[5, 6], spacing="uniform")
    variance = z.square().mean((0, 1, 3, 4))
    assert float(variance[4:20].min()) > 0.7  # ddpm in 60 steps loses a tenth of any spread
    assert float(variance[4:20].max()) < 1.0
    assert math.isclose(float(variance[3:8].mean()), float(variance[16:21].mean()), rel_tol=0.1)  # no drift
    correlation = (z[:, :, 4:19] * z[:, :, 5:20]).mean() / variance[4:20].mean()
    assert 0.2 < float(correlation) < 0.6
