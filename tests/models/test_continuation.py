"""Segments joined: every frame told relative to the first still."""

from __future__ import annotations

import torch

from us_i2v.models.continuation import continued, last_frame
from us_i2v.models.motion import Motion, deterministic_frames, warp


def smooth(seed: int, channels: int, size: float) -> torch.Tensor:
    """Smooth random fields over three frames of a 32 x 32 grid, at rest in the first."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn((1, channels * 3, 4, 4), generator=generator) * size
    fields = torch.nn.functional.interpolate(coarse, (32, 32), mode="bicubic").reshape(1, channels, 3, 32, 32)
    fields[:, :, 0] = 0
    return fields


def segment(seed: int) -> Motion:
    return Motion(
        flow=smooth(seed, 2, 0.8),
        gain=smooth(seed + 1, 1, 0.05),
        gate=smooth(seed + 2, 1, 0.2).abs().clamp(0, 1),
        mean=smooth(seed + 3, 1, 0.1),
        scale=smooth(seed + 4, 1, 0.1).abs(),
    )


def test_joined_motion_renders_what_two_steps_render():
    still = torch.nn.functional.interpolate(
        torch.rand((1, 1, 6, 6), generator=torch.Generator().manual_seed(9)), (32, 32), mode="bicubic"
    )
    first, second = segment(10), segment(20)
    start = deterministic_frames(still, first)[:, :, -1]
    expected = deterministic_frames(start, second)[:, :, 1:]
    joined = continued(last_frame(first), second)
    assert joined.n_frames == 2
    frames = deterministic_frames(still, joined)
    assert float((frames - expected).abs().max()) < 0.02  # one interpolation instead of two
    assert float((frames - start[:, :, None]).abs().mean()) > 0.02


def test_a_segment_at_rest_stays_on_the_last_frame():
    first = segment(10)
    rest = segment(20).map(torch.zeros_like)
    joined = continued(last_frame(first), rest)
    end = last_frame(first)
    for name in ("flow", "gain", "mean", "scale"):
        field = getattr(joined, name)
        assert torch.allclose(field, getattr(end, name).expand_as(field), atol=1e-6)


def test_displacements_add_along_the_path():
    first, second = segment(10), segment(20)
    joined = continued(last_frame(first), second)
    for t in (0, 1):
        step = second.flow[:, :, t + 1 : t + 2]
        assert torch.allclose(joined.flow[:, :, t : t + 1], step + warp(first.flow[:, :, -1], step), atol=1e-6)


def test_drawn_change_levels_off_and_the_anchor_is_left_behind():
    end = last_frame(segment(10))
    for k in range(20):
        joined = continued(end, segment(30 + 10 * k))
        assert not 0 <= joined.anchor < joined.n_frames
        end = last_frame(joined)
    largest = max(float((segment(s).gate * segment(s).scale).max()) for s in (10, *range(30, 230, 10)))
    assert float(end.scale.max()) <= largest + 1e-6
