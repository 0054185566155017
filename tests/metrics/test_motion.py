from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.nn import functional

from us_i2v.errors import InputError
from us_i2v.metrics.block_matching import block_motion
from us_i2v.metrics.gray import gray_levels
from us_i2v.metrics.motion import (
    change_from_first,
    default_motion,
    flow_statistics,
    highpass_ratio,
    motion_energy,
    motion_statistics,
    steady_flow,
)

from .real import lung_clips


def test_energy_by_hand() -> None:
    frames = np.zeros((3, 1, 2), np.uint8)
    frames[1] = [10, 200]
    frames[2] = [0, 250]
    assert motion_energy(frames) == (10 + 200 + 10 + 50) / 4
    np.testing.assert_array_equal(change_from_first(frames), [105, 125])
    assert motion_energy(frames[::-1]) == motion_energy(frames)
    assert motion_energy(frames[:1].repeat(2, axis=0)) == 0


def test_energy_grows_from_static_to_shuffled_to_noise() -> None:
    t = np.linspace(0, 3, 16)[:, None, None]
    x = np.arange(32)[None, None, :]
    smooth = 128 + 50 * np.sin(x / 4 + t + 0 * np.arange(32)[None, :, None])
    rng = np.random.default_rng(0)
    shuffled = smooth[rng.permutation(16)]
    noisy = smooth + rng.normal(scale=60, size=smooth.shape)
    values = [motion_energy(clip) for clip in (np.repeat(smooth[:1], 16, 0), smooth, shuffled, noisy)]
    assert values[0] == 0
    assert values == sorted(values)
    assert len(set(values)) == 4


def test_gray_levels() -> None:
    colour = np.zeros((1, 1, 1, 3), np.uint8)
    colour[..., 1] = 100
    assert gray_levels(colour).item() == pytest.approx(58.7)
    with pytest.raises(InputError, match="no video"):
        gray_levels(np.zeros((2, 3, 4, 5)))


def test_highpass_ratio() -> None:
    rng = np.random.default_rng(1)
    still = 100 + 20 * ndimage.gaussian_filter(rng.normal(size=(96, 96)), 1)
    assert highpass_ratio(np.stack([still, still])) == 1
    assert highpass_ratio(np.stack([still, still + 17])) == pytest.approx(1, rel=1e-4)
    assert highpass_ratio(np.stack([still, 2 * still])) == pytest.approx(2, rel=1e-5)
    assert highpass_ratio(np.stack([still, ndimage.gaussian_filter(still, 2)])) < 0.6
    # An independent picture of the same roughness laid over it: variances add up.
    other = 20 * ndimage.gaussian_filter(rng.normal(size=(96, 96)), 1)
    assert highpass_ratio(np.stack([still, still + other])) == pytest.approx(math.sqrt(2), rel=0.05)
    # Only the last frame counts, and slow shading does not.
    ramp = np.linspace(0, 60, 96)[None, :]
    assert highpass_ratio(np.stack([still, 9 * still, still + ramp])) == pytest.approx(1, abs=0.01)
    assert math.isnan(highpass_ratio(np.stack([np.zeros((32, 32)), still[:32, :32]])))


def test_flow_statistics_by_hand() -> None:
    flow = np.zeros((1, 2, 2, 2), np.float32)
    flow[0, :, 0, 0] = [3, 4]
    flow[0, :, 1, 1] = [0, -1]
    found = flow_statistics(flow)
    assert found.mean == 6 / 4
    assert found.median == 0.5
    assert found.moving == 0.5
    assert found.p95 == pytest.approx(1 + 0.85 * 4)
    where = np.array([[[True, False], [False, False]]])
    assert flow_statistics(flow, where).mean == 5
    assert flow_statistics(flow, ~np.ones_like(where)).mean == 0
    with pytest.raises(InputError, match="channel axis of two"):
        flow_statistics(flow[:, :1])


def test_motion_statistics_ignore_flat_blocks() -> None:
    rng = np.random.default_rng(2)
    big = 100 + 30 * ndimage.gaussian_filter(rng.normal(size=(64, 140)), 1)
    frames = np.stack([big[:, 4:132], big[:, 7:135]])
    frames[:, :, 64:] = 5
    motion = block_motion(frames)
    assert motion_statistics(motion).median == 3
    assert flow_statistics(motion.flow).mean < 2


def test_steady_flow_keeps_motion_and_drops_chance_matches() -> None:
    rng = np.random.default_rng(3)
    big = 100 + 30 * ndimage.gaussian_filter(rng.normal(size=(136, 136)), 1)
    other = 100 + 30 * ndimage.gaussian_filter(rng.normal(size=(128, 128)), 1)
    moved = steady_flow(default_motion(np.stack([big[4:132, 4:132], big[6:134, 1:129]])))
    assert moved.shape == (1, 2, 14, 14)
    np.testing.assert_allclose(moved[0, 0], -3, atol=0.1)
    np.testing.assert_allclose(moved[0, 1], 2, atol=0.1)
    unrelated = default_motion(np.stack([big[4:132, 4:132], other]))
    assert np.abs(steady_flow(unrelated)).mean() < 0.45 * np.abs(unrelated.flow).mean()


def test_default_motion_takes_only_its_own_grid() -> None:
    frames = np.random.default_rng(4).integers(0, 256, (3, 64, 48), dtype=np.uint8)
    motion = default_motion(frames)
    assert default_motion(frames, motion) is motion
    np.testing.assert_array_equal(motion.flow, block_motion(frames, block=8, search=8).flow)
    for other in (block_motion(frames[:2]), block_motion(frames, block=4, search=8)):
        with pytest.raises(InputError, match=r"the clip needs \(2, 6, 4\)"):
            default_motion(frames, other)


def test_real_clips_give_the_reference_values(shared_data: Path) -> None:
    """Sixteen patients at 128 px: about 45 % of the change is block motion, texture keeps its contrast."""
    shares, held_out, ratios = [], [], []
    for clip in lung_clips(shared_data, 16):
        video = torch.from_numpy(gray_levels(clip))[:, None]
        small = functional.interpolate(video, (128, 128), mode="area")[:, 0].numpy()
        motion = block_motion(small)
        shares.append(motion.share)
        held_out.append(motion.held_out_share)
        ratios.append(highpass_ratio(small))
    assert 0.35 < np.mean(shares) < 0.6
    assert 0.08 < np.mean(held_out) < 0.35
    assert 0.95 < np.median(ratios) < 1.05
