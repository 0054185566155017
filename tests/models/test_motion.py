"""Warp identities: zero flow, pure translation, masks, resampling between grids."""

from __future__ import annotations

import pytest
import torch

from tests.factories import textured_still
from us_i2v.models.motion import Motion, deterministic_frames, interpolation_matrix, warp, warp_mask


def still(height: int = 40, width: int = 56, channels: int = 1) -> torch.Tensor:
    pictures = [torch.from_numpy(textured_still(height, width, seed=k)) for k in range(channels)]
    return torch.stack(pictures)[None].float() / 255


def motion(frames: int = 3, grid: tuple[int, int] = (10, 14), **fields: torch.Tensor) -> Motion:
    zero = torch.zeros(1, 1, frames, *grid)
    base = {"flow": torch.zeros(1, 2, frames, *grid), "gain": zero, "gate": zero, "mean": zero, "scale": zero}
    return Motion(**{**base, **fields})


@pytest.mark.parametrize("mode", ["bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize("size", [(16, 16), (37, 53), (101, 64)])
def test_zero_flow_gives_the_still_exactly(mode, size):
    x = still(*size, channels=3)
    out = warp(x, torch.zeros(1, 2, 4, *size), mode)
    assert torch.equal(out, x[:, :, None].expand(-1, -1, 4, -1, -1))


def test_integer_translation_equals_a_shifted_picture():
    x = still()
    flow = torch.zeros(1, 2, 1, 40, 56)
    flow[:, 0], flow[:, 1] = 3, -2
    out = warp(x, flow)[0, 0, 0]
    assert torch.allclose(out[2:, :-3], x[0, 0, :-2, 3:], atol=1e-5)
    assert not torch.allclose(out[2:, :-3], x[0, 0, 2:, :-3], atol=1e-2)


def test_half_pixel_translation_is_the_mean_of_two_neighbours():
    x = still()
    flow = torch.zeros(1, 2, 1, 40, 56)
    flow[:, 0] = 0.5
    out = warp(x, flow)[0, 0, 0]
    assert torch.allclose(out[:, :-1], (x[0, 0, :, :-1] + x[0, 0, :, 1:]) / 2, atol=1e-5)


def test_mask_and_picture_move_alike():
    mask = torch.zeros(1, 1, 40, 56)
    mask[:, :, 10:20, 15:30] = 1
    flow = torch.zeros(1, 2, 1, 40, 56)
    flow[:, 0], flow[:, 1] = -4, 5
    moved = warp_mask(mask, flow)[0, 0, 0]
    expected = torch.zeros(40, 56, dtype=torch.bool)
    expected[5:15, 19:34] = True
    assert torch.equal(moved, expected)
    # A picture that is the mask itself lands on the same pixels.
    assert torch.equal(warp(mask, flow)[0, 0, 0] > 0.5, moved)


def test_resample_keeps_a_uniform_flow_in_pixels_of_the_new_grid():
    flow = torch.zeros(1, 2, 3, 10, 14)
    flow[:, 0], flow[:, 1] = 1.0, -2.0
    full = motion(flow=flow).resample((0, 0, 10, 14), (40, 28))
    assert torch.allclose(full.flow[:, 0], torch.full((1, 3, 40, 28), 2.0), atol=1e-5)
    assert torch.allclose(full.flow[:, 1], torch.full((1, 3, 40, 28), -8.0), atol=1e-5)


def test_resample_of_a_box_takes_that_part():
    gain = torch.arange(14.0).expand(1, 1, 3, 10, 14)
    full = motion(gain=gain).resample((0, 4, 10, 6), (10, 6))
    assert torch.allclose(full.gain[0, 0, 0, 0], torch.arange(4.0, 10.0), atol=1e-5)


@pytest.mark.parametrize("kind", ["linear", "cubic"])
def test_interpolation_weights_sum_to_one_and_reproduce_lines(kind):
    matrix = interpolation_matrix(12, 50, 0, 12, kind)
    assert torch.allclose(matrix.sum(1), torch.ones(50), atol=1e-6)
    line = matrix @ torch.arange(12.0)
    expected = (torch.arange(50) + 0.5) * 12 / 50 - 0.5
    inside = slice(8, 42)
    assert torch.allclose(line[inside], expected[inside], atol=1e-4)


def test_anchored_motion_renders_the_still_at_frame_zero():
    fields = {k: torch.rand(1, 1, 3, 40, 56) for k in ("gain", "gate", "mean", "scale")}
    moving = motion(grid=(40, 56), flow=torch.rand(1, 2, 3, 40, 56), **fields).anchored()
    x = still()
    frames = deterministic_frames(x, moving)
    assert torch.equal(frames[:, :, 0], x)
    assert not torch.allclose(frames[:, :, 1], x, atol=1e-2)


def test_scaled_by_zero_is_at_rest():
    fields = {k: torch.rand(1, 1, 3, 40, 56) for k in ("gain", "gate", "mean", "scale")}
    moving = motion(grid=(40, 56), flow=torch.rand(1, 2, 3, 40, 56), **fields).scaled(0.0, 0.0)
    x = still()
    assert torch.equal(deterministic_frames(x, moving), x[:, :, None].expand(-1, -1, 3, -1, -1))


def test_frames_cuts_every_field():
    part = motion(frames=5).frames(1, 4)
    assert part.n_frames == 3
    assert part.anchor == -1
    assert part.scale.shape == (1, 1, 3, 10, 14)


def test_another_anchor_is_at_rest():
    flow = torch.ones(1, 2, 3, 10, 14)
    resting = Motion(flow, *(torch.ones(1, 1, 3, 10, 14) for _ in range(4)), anchor=2).anchored()
    assert bool(resting.flow[:, :, :2].all())
    assert not resting.flow[:, :, 2].any()
    assert resting.frames(1, 3).anchor == 1
