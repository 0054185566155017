from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from us_i2v.errors import ConfigError, InputError
from us_i2v.metrics.block_matching import block_motion

RNG = np.random.default_rng(0)


def speckle(height: int = 96, width: int = 96, seed: int = 0) -> np.ndarray:
    """A rough picture in gray levels, grain about 1.5 px."""
    rough = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(height, width)), 1.5)
    return 128 + 40 * rough / rough.std()


def shifted(picture: np.ndarray, dx: float, dy: float) -> np.ndarray:
    """picture(p + (dx, dy)): the backward flow is (dx, dy)."""
    return ndimage.shift(picture, (-dy, -dx), order=3, mode="nearest")


@pytest.mark.parametrize(("dx", "dy"), [(0, 0), (3, 0), (0, -4), (-2, 4), (4, 4), (8, -8)])
def test_whole_pixel_shift_is_found_exactly(dx: int, dy: int) -> None:
    big = np.round(speckle(128, 112)).astype(np.uint8)
    frames = np.stack([big[16:-16, 16:-16], big[16 + dy : 112 + dy, 16 + dx : 96 + dx]])
    motion = block_motion(frames)
    assert motion.flow.shape == (1, 2, 10, 8)
    assert motion.left.sum() == 0
    assert motion.share == (1.0 if dx or dy else 0.0)
    # Flow and ring see half a block more than the block; at the largest shift that lies outside the frame
    # for the blocks next to the margin.
    inner = motion.flow[0] if max(abs(dx), abs(dy)) <= 4 else motion.flow[0, :, 1:-1, 1:-1]
    assert np.all(inner[0] == dx)
    assert np.all(inner[1] == dy)
    if inner.shape == motion.flow[0].shape:
        assert motion.held_out_share == motion.share


@pytest.mark.parametrize(("dx", "dy"), [(0.5, 0.0), (1.3, -2.6), (-0.25, 3.75)])
def test_fraction_of_a_pixel(dx: float, dy: float) -> None:
    picture = speckle()
    flow = block_motion(np.stack([picture, shifted(picture, dx, dy)])).flow[0]
    assert np.median(flow[0]) == pytest.approx(dx, abs=0.1)
    assert np.median(flow[1]) == pytest.approx(dy, abs=0.1)
    assert np.abs(flow[0] - dx).max() < 0.35
    assert np.abs(flow[1] - dy).max() < 0.35


def test_each_block_moves_by_itself() -> None:
    left, right = speckle(96, 160, 1), speckle(96, 160, 2)
    frames = np.stack(
        [
            np.concatenate([left[:, 10:74], right[:, 10:74]], axis=1),
            np.concatenate([left[:, 13:77], right[:, 5:69]], axis=1),
        ]
    )
    flow = block_motion(frames).flow[0, 0]
    # The windows of the blocks beside the seam see both motions.
    assert np.all(flow[:, :6] == 3)
    assert np.all(flow[:, 9:] == -5)


def test_noise_is_not_explained() -> None:
    white = RNG.uniform(0, 255, (4, 128, 128))
    motion = block_motion(white)
    assert motion.held_out_share == pytest.approx(0, abs=0.02)
    assert motion.share > 0.3  # Choosing the best place fits noise; hence the held-out share.
    # Noise over a rough still: the still itself tells that nothing moved.
    still = speckle(128, 128)
    noisy = np.concatenate([still[None], still + RNG.normal(scale=8, size=(4, 128, 128))])
    motion = block_motion(noisy)
    assert motion.share == pytest.approx(0, abs=0.02)
    assert motion.held_out_share == pytest.approx(0, abs=0.02)
    assert np.abs(motion.flow).max() < 0.5


def test_motion_and_noise_share_the_change() -> None:
    big = speckle(128, 144)
    moved = np.stack([big[8:-8, 8 + t : 120 + t] for t in (0, 3, 4, 5)])
    noisy = moved.copy()
    noisy[1:] += RNG.normal(scale=40, size=noisy[1:].shape)
    clean, mixed = block_motion(moved), block_motion(noisy)
    assert clean.held_out_share > 0.99
    # Here noise adds variance 1600 to a change of about 2 x 1600: about 2/3 remains explained.
    expected = clean.change.sum() / mixed.change.sum()
    assert 0.6 < expected < 0.72
    assert mixed.held_out_share == pytest.approx(expected, abs=0.04)


def test_pasted_differences_are_told_from_motion() -> None:
    big, other = speckle(128, 144, 5), speckle(128, 144, 6)
    moved = np.stack([big[8:-8, 8 + t : 120 + t] for t in range(5)])
    elsewhere = np.stack([other[8:-8, 8 + t : 120 + t] for t in range(5)])
    pasted = moved[0] + elsewhere - elsewhere[0]
    assert block_motion(moved).held_out_share > 0.99
    assert block_motion(pasted).held_out_share < 0.1


def test_reference_frame() -> None:
    big = speckle(96, 128)
    frames = np.stack([big[:, 8 + 2 * t : 104 + 2 * t] for t in range(4)])
    from_first = block_motion(frames).flow[:, 0]
    from_previous = block_motion(frames, reference="previous").flow[:, 0]
    assert [float(np.median(flow)) for flow in from_first] == [2, 4, 6]
    assert [float(np.median(flow)) for flow in from_previous] == [2, 2, 2]


def test_flat_and_static_clips_stand_still() -> None:
    flat = block_motion(np.full((3, 64, 64), 90, np.uint8))
    assert np.all(flat.flow == 0)
    assert flat.share == flat.held_out_share == 0
    assert np.all(flat.texture == 0)
    static = block_motion(np.repeat(speckle(64, 64)[None], 3, axis=0))
    assert np.all(static.flow == 0)
    assert static.share == 0
    assert static.texture.min() > 10


def test_colour_is_its_luma() -> None:
    frames = np.round(np.stack([speckle(64, 64), speckle(64, 64, 1)])).astype(np.uint8)
    gray, colour = block_motion(frames), block_motion(np.repeat(frames[..., None], 3, axis=3))
    assert colour.share == pytest.approx(gray.share, abs=1e-4)


@pytest.mark.parametrize("block", [4, 8, 16])
def test_block_size_and_uneven_frames(block: int) -> None:
    big = np.round(speckle(120, 130)).astype(np.uint8)
    frames = np.stack([big[10:107, 10:113], big[12:109, 7:110]])
    motion = block_motion(frames, block=block, search=6)
    margin = -(-6 // block)
    assert motion.change.shape == (1, 97 // block - 2 * margin, 103 // block - 2 * margin)
    assert np.all(motion.flow[0, 0] == -3)
    assert np.all(motion.flow[0, 1] == 2)


def test_costs_by_hand() -> None:
    frames = RNG.integers(0, 256, (2, 24, 24)).astype(np.float32)
    motion = block_motion(frames, block=8, search=2)
    now, before = frames[1, 8:16, 8:16], frames[0]
    costs = {
        (dx, dy): float(((now - before[8 + dy : 16 + dy, 8 + dx : 16 + dx]) ** 2).sum())
        for dx in range(-2, 3)
        for dy in range(-2, 3)
    }
    assert motion.change[0, 0, 0] == pytest.approx(costs[0, 0])
    assert motion.left[0, 0, 0] == pytest.approx(min(costs.values()))
    assert motion.texture[0, 0, 0] == pytest.approx(before[8:16, 8:16].std(), rel=1e-5)


def test_errors() -> None:
    frames = np.zeros((2, 64, 64), np.uint8)
    for block, search in ((7, 8), (0, 8), (8, 0)):
        with pytest.raises(ConfigError):
            block_motion(frames, block=block, search=search)
    with pytest.raises(InputError, match="16 x 64 are too small"):
        block_motion(frames[:, :16], block=8)
    with pytest.raises(InputError, match="has 1 frames, 2 are needed"):
        block_motion(frames[:1])
    with pytest.raises(InputError, match="no video"):
        block_motion(frames[0])
    with pytest.raises(InputError, match="NaN"):
        block_motion(np.full((2, 64, 64), np.nan))
