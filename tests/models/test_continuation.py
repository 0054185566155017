"""Segments and windows joined: every frame told relative to the first still."""

from __future__ import annotations

from dataclasses import replace

import torch

from us_i2v.models.continuation import continued, eased, joined, last_frame
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


def moving(seed: int) -> Motion:
    """Displacements only."""
    rest = segment(seed).map(torch.zeros_like)
    return replace(rest, flow=smooth(seed, 2, 0.8))


def still() -> torch.Tensor:
    coarse = torch.rand((1, 1, 6, 6), generator=torch.Generator().manual_seed(9))
    return torch.nn.functional.interpolate(coarse, (32, 32), mode="bicubic")


def test_joined_displacements_render_what_two_steps_render():
    first, second = moving(10), moving(20)
    start = deterministic_frames(still(), first)[:, :, -1]
    expected = deterministic_frames(start, second)[:, :, 1:]
    joined = continued(last_frame(first), second, painted=False)
    assert joined.n_frames == 2
    frames = deterministic_frames(still(), joined)
    inside = (frames - expected)[..., 3:-3, 3:-3].abs()  # beyond the edge, the edge is repeated earlier or later
    assert float(inside.max()) < 0.03  # one interpolation instead of two
    assert float(inside.mean()) < 0.004
    assert float((frames - start[:, :, None]).abs().mean()) > 0.02


def test_painted_frames_follow_on_exactly():
    """Without flow, "painted minus start" of both segments is "painted minus still"."""
    paint = torch.rand((1, 1, 3, 32, 32), generator=torch.Generator().manual_seed(1))
    zero = torch.zeros_like(paint)

    def painting(start: torch.Tensor, frames: torch.Tensor) -> Motion:
        return Motion(zero.repeat(1, 2, 1, 1, 1), zero, zero + 1, frames - start[:, :, None], zero).anchored()

    first = painting(still(), paint)
    start = deterministic_frames(still(), first)[:, :, -1]
    joined = continued(last_frame(first), painting(start, paint.flip(3)), painted=True)
    assert torch.allclose(deterministic_frames(still(), joined), paint.flip(3)[:, :, 1:], atol=1e-6)


def test_displacements_add_along_the_path():
    first, second = segment(10), segment(20)
    joined = continued(last_frame(first), second, painted=False)
    for t in (0, 1):
        step = second.flow[:, :, t + 1 : t + 2]
        assert torch.allclose(joined.flow[:, :, t : t + 1], step + warp(first.flow[:, :, -1], step), atol=1e-6)


def test_a_still_segment_stays_where_the_last_one_ended_and_its_changes_pass():
    first = segment(10)
    rest = segment(20).map(torch.zeros_like)
    joined = continued(last_frame(first), rest, painted=False)
    end = last_frame(first)
    assert not 0 <= joined.anchor < joined.n_frames
    assert torch.allclose(joined.flow, end.flow.expand_as(joined.flow), atol=1e-6)
    for name in ("gain", "mean"):  # halfway, then gone
        assert torch.allclose(getattr(joined, name)[:, :, 0], getattr(end, name)[:, :, 0] / 2, atol=1e-6)
        assert not getattr(joined, name)[:, :, 1].any()
    assert torch.allclose(joined.scale[:, :, 0].square(), end.scale[:, :, 0].square() / 2, atol=1e-6)


def test_nothing_but_displacement_grows_with_the_number_of_segments():
    end = last_frame(segment(10))
    for k in range(20):
        end = last_frame(continued(end, segment(30 + 10 * k), painted=False))
    last = last_frame(segment(220))
    for name in ("gain", "mean", "scale"):
        assert torch.allclose(getattr(end, name), getattr(last, name), atol=1e-6)


def path(n_frames: int, seed: int = 50) -> Motion:
    """A motion of smooth random fields that begins at rest, gate folded in."""
    generator = torch.Generator().manual_seed(seed)

    def field(channels: int) -> torch.Tensor:
        out = torch.randn((1, channels, n_frames, 4, 4), generator=generator).cumsum(2)
        out[:, :, 0] = 0
        return out

    return Motion(field(2), field(1), torch.ones(1, 1, n_frames, 4, 4), field(1), field(1).abs())


def close(a: Motion, b: Motion) -> bool:
    names = ("flow", "gain", "gate", "mean", "scale")
    return all(torch.allclose(getattr(a, name), getattr(b, name), atol=1e-5) for name in names)


def test_windows_that_agree_join_to_the_path_that_they_were_cut_from():
    whole = path(40)
    windows = [whole.frames(start, start + 16) for start in (0, 8, 16, 24)]
    assert close(joined(windows, 8, 40), whole)
    assert close(joined(windows, 8, 35), whole.first(35))
    assert joined(windows, 8, 40).anchor == 0


def test_a_loops_last_window_runs_backwards_from_the_still():
    whole = path(33)
    around = replace(whole.map(lambda x: x[:, :, :32]), anchor=0)
    backwards = whole.map(lambda x: torch.cat([x[:, :, :1] * 0, x[:, :, 17:32].flip(2)], dim=2))
    windows = [around.frames(start, start + 16) for start in (0, 8, 16)]
    assert close(joined([*windows, backwards], 8, 32, loop=True), around)
    assert not close(joined([*windows, whole.first(16)], 8, 32, loop=True), around)


def test_where_windows_disagree_one_passes_into_the_other():
    rest, far = path(16).map(torch.zeros_like), path(16).map(torch.zeros_like)
    ones = replace(rest, flow=rest.flow + 1, gate=rest.gate + 1, scale=rest.scale + 1)
    both = joined([replace(far, gate=far.gate + 1), ones], 8, 24)
    flow = both.flow[0, 0, :, 0, 0]
    assert torch.equal(flow[:9], torch.zeros(9))
    assert torch.equal(flow[16:], torch.ones(8))
    assert bool((flow[9:17].diff() > 0).all())
    assert torch.allclose(both.scale[0, 0, :, 0, 0].square(), flow, atol=1e-6)


def test_easing_keeps_rest_and_steady_motion_and_spreads_steps():
    zero = path(24).map(torch.zeros_like)
    steady = replace(zero, flow=torch.arange(24.0)[:, None, None].expand_as(zero.flow).clone())
    out = eased(steady)
    assert torch.allclose(out.flow[:, :, :21], steady.flow[:, :, :21], atol=1e-5)
    assert not out.flow[:, :, 0].any()
    stepped = replace(zero, flow=(steady.flow >= 12).float())
    steps = eased(stepped).flow[0, 0, :, 0, 0].diff()
    assert float(steps.max()) < 0.17
    assert torch.isclose(steps.sum(), torch.tensor(1.0))


def test_easing_a_loop_does_not_care_which_way_it_runs():
    def backwards(motion: Motion) -> Motion:
        return motion.map(lambda x: torch.cat([x[:, :, :1], x[:, :, 1:].flip(2)], dim=2))

    whole = path(24)
    assert close(eased(backwards(whole), loop=True), backwards(eased(whole, loop=True)))
    assert not eased(whole, loop=True).flow[:, :, 0].any()
    assert not close(eased(backwards(whole)), backwards(eased(whole)))
