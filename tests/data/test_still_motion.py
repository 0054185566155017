"""Stills in motion: exact first frame, flow that explains the frames, speckle that decorrelates as stated."""

import dataclasses

import numpy as np
import pytest
from scipy import ndimage

from us_i2v.data.still_motion import StillMotionConfig, animate_still, apply_motion, draw_motion
from us_i2v.data.still_texture import texture_path
from us_i2v.errors import ConfigError, InputError


@pytest.fixture(scope="module")
def still() -> np.ndarray:
    """Synthetic log-compressed speckle with a dark disc, (96, 80)."""
    rng = np.random.default_rng(7)
    field = rng.standard_normal((2, 96, 80))
    field = ndimage.gaussian_filter(field, (0, 0.8, 1.2))
    envelope = np.hypot(*field)
    envelope /= envelope.mean()
    envelope[disc((96, 80))] *= 0.15
    return np.clip(0.6 + 20 * np.log10(envelope + 1e-6) / 60, 0, 1).astype(np.float32)


def disc(shape):
    y, x = np.indices(shape)
    return (y - 50) ** 2 + (x - 40) ** 2 < 14**2


def fine(picture):
    return picture - ndimage.gaussian_filter(picture, 2.0)


def plain(seed=0, **changes):
    """A draw of pure pressure without drift, strain-dependent change or noise, unless changed."""
    values = {"amplitudes": (0.05, 0, 0, 0, 0), "drift": 0.0, "strain_drift": 0.0, "noise": 0.0} | changes
    return dataclasses.replace(draw_motion(np.random.default_rng(seed)), **values)


def test_frame_zero_is_the_still_and_types(still):
    result = animate_still(still, disc(still.shape), np.random.default_rng(0), n_frames=5, dt=0.08)
    assert result.frames.shape == (5, 96, 80)
    assert result.frames.dtype == np.float32
    assert result.flow.shape == (5, 2, 96, 80)
    assert result.flow.dtype == np.float32
    np.testing.assert_array_equal(result.frames[0], still)
    np.testing.assert_array_equal(result.flow[0], 0)
    assert result.frames.min() >= 0
    assert result.frames.max() <= 1
    assert np.abs(result.frames[4] - still).mean() > 1e-3


def test_same_generator_same_clip_and_replay(still):
    first = animate_still(still, None, np.random.default_rng(3), n_frames=4)
    second = animate_still(still, None, np.random.default_rng(3), n_frames=4)
    np.testing.assert_array_equal(first.frames, second.frames)
    replay = apply_motion(still, None, first.draw, n_frames=4)
    np.testing.assert_array_equal(first.frames, replay.frames)
    other = animate_still(still, None, np.random.default_rng(4), n_frames=4)
    assert not np.array_equal(first.frames, other.frames)


def test_draw_does_not_depend_on_the_mask_and_ranges_hold():
    config = StillMotionConfig(lesion_stiffness=(2.0, 4.0), displacement=(0.02, 0.03), quiet_share=0, still_share=0)
    draws = [draw_motion(np.random.default_rng(seed), config) for seed in range(50)]
    stiffness = np.array([draw.lesion_stiffness for draw in draws])
    assert stiffness.min() >= 2
    assert stiffness.max() <= 4
    assert stiffness.std() > 0.3
    peaks = np.array([np.abs(draw.amplitudes).max() for draw in draws])
    assert peaks.min() >= 0.02 - 1e-12
    assert peaks.max() <= 0.03 + 1e-12


def test_without_speckle_change_frames_are_the_warped_still(still):
    result = apply_motion(still, None, plain(), n_frames=6)
    rows, columns = np.indices(still.shape)
    where = np.stack([rows + result.flow[5, 1], columns + result.flow[5, 0]])
    warped = ndimage.map_coordinates(still, where, order=3, mode="mirror")
    np.testing.assert_allclose(result.frames[5], np.clip(warped, 0, 1), atol=2e-3)
    assert np.abs(result.flow[5]).max() > 0.5


def test_skidding_is_a_pure_translation(still):
    draw = plain(amplitudes=(0, 0, 0, 0.05, 0))
    result = apply_motion(still, disc(still.shape), draw, n_frames=6)
    np.testing.assert_allclose(result.flow[:, 1], 0, atol=1e-5)
    for frame in result.flow[:, 0]:
        np.testing.assert_allclose(frame, frame[0, 0], atol=1e-4)
    assert np.abs(result.flow[:, 0]).max() > 0.5


def test_stiff_lesion_strains_less_than_a_soft_one(still):
    strains = {}
    core = ndimage.binary_erosion(disc(still.shape), iterations=4)
    for stiffness in (0.5, 10.0):
        flow = apply_motion(still, disc(still.shape), plain(lesion_stiffness=stiffness), n_frames=6).flow[5, 1]
        strains[stiffness] = np.abs(np.gradient(flow, axis=0)[core]).mean()
    assert strains[10.0] < 0.4 * strains[0.5]


def test_probe_edge_stays_under_pressure(still):
    flow = apply_motion(still, None, plain(), n_frames=6).flow[5]
    assert np.abs(flow[:, 0]).max() < 0.1 * np.abs(flow).max()


@pytest.mark.parametrize("distance", [0.5, 1.0, 2.0])
def test_texture_correlation_follows_the_stated_law(distance):
    """Pure speckle: correlation exp(-D^2 / 2) with the start and between two later times."""
    rng = np.random.default_rng(5)
    field = ndimage.gaussian_filter(rng.standard_normal((192, 192)), 0.9)
    still = np.clip(0.5 + 0.06 * field / field.std(), 0, 1).astype(np.float32)
    steps = np.array([0.0, distance, 2 * distance, 4.0], dtype=np.float32)
    moved = steps[:, None, None] * np.ones_like(still)
    paths = [texture_path(still, moved, np.random.default_rng(seed)) for seed in range(20)]
    path = paths[0]
    np.testing.assert_allclose(path[0], still, atol=1e-5)
    base = np.mean([other[3] for other in paths], axis=0)  # what the drift leaves alone
    for a, b in ((0, 1), (1, 2)):
        found = np.corrcoef((path[a] - base).ravel(), (path[b] - base).ravel())[0, 1]
        assert found == pytest.approx(np.exp(-0.5 * distance**2), abs=0.08)


@pytest.mark.parametrize("drift", [0.5, 3.0])
def test_texture_keeps_its_contrast(still, drift):
    draw = plain(amplitudes=(0.0,) * 5, drift=drift)
    frames = apply_motion(still, None, draw, n_frames=16).frames
    contrast = fine(frames[-1]).std() / fine(frames[0]).std()
    assert contrast == pytest.approx(1.0, abs=0.06)


def test_drift_and_strain_each_change_the_texture(still):
    quiet = apply_motion(still, None, plain(amplitudes=(0.0,) * 5), n_frames=8)
    np.testing.assert_allclose(quiet.frames[7], still, atol=2e-3)
    np.testing.assert_allclose(quiet.correlation, 1.0, atol=1e-6)
    drifting = apply_motion(still, None, plain(amplitudes=(0.0,) * 5, drift=1.0), n_frames=8)
    assert drifting.correlation[1:].min() < 0.95
    strained = apply_motion(still, None, plain(strain_drift=20.0), n_frames=8)
    assert strained.correlation[1:].min() < 0.95


def test_held_pixels_stay_and_do_not_bleed(still):
    picture = still.copy()
    hold = np.zeros(still.shape, dtype=bool)
    hold[:, :20] = True
    picture[:, :20] = 1.0
    draw = plain(amplitudes=(0, 0, 0, 0.1, 0), drift=1.0)
    result = apply_motion(picture, None, draw, n_frames=8, hold=hold)
    np.testing.assert_array_equal(result.frames[:, hold], np.broadcast_to(picture[hold], (8, hold.sum())))
    np.testing.assert_array_equal(result.flow[:, :, hold], 0)
    assert result.frames[:, :, 20:].max() < 0.99
    everywhere = apply_motion(picture, None, draw, n_frames=3, hold=np.ones_like(hold))
    np.testing.assert_array_equal(everywhere.frames[2], picture)


def test_single_frame_and_flat_still():
    flat = np.full((20, 33), 0.25, dtype=np.float32)
    result = animate_still(flat, None, np.random.default_rng(0), n_frames=3, config=StillMotionConfig(noise=(0, 0)))
    np.testing.assert_allclose(result.frames, 0.25, atol=1e-4)
    assert animate_still(flat, None, np.random.default_rng(0), n_frames=1).frames.shape == (1, 20, 33)


def test_bad_input_is_refused(still):
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match="shape"):
        animate_still(still[:8], None, rng)
    with pytest.raises(InputError, match=r"0\.\.1"):
        animate_still(still * 255, None, rng)
    with pytest.raises(InputError, match="mask"):
        animate_still(still, np.zeros((5, 5), bool), rng)
    with pytest.raises(InputError, match="hold"):
        animate_still(still, None, rng, hold=np.zeros((5, 5), bool))
    with pytest.raises(ConfigError, match="frames"):
        animate_still(still, None, rng, n_frames=0)
    with pytest.raises(ConfigError, match="low"):
        animate_still(still, None, rng, config=StillMotionConfig(displacement=(0.0, 0.1)))
