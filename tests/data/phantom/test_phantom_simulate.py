"""Whole phantom clips: exactness, truth against the frames, and what tells the classes apart."""

import numpy as np
import pytest
from pydantic import ValidationError
from scipy import ndimage

from us_i2v.data.phantom import PhantomClip, PhantomConfig, Scanner, simulate
from us_i2v.data.phantom.anatomy import FAT, GLAND, MUSCLE, SKIN, draw_anatomy
from us_i2v.data.phantom.lesion import draw_lesion
from us_i2v.data.phantom.simulate import simulate_at_noise
from us_i2v.errors import ConfigError

SMALL = {"size": (64, 64), "depth_mm": 20.0, "n_frames": 3}


@pytest.fixture(scope="module")
def clip() -> PhantomClip:
    """Strong motion, little drift: its flow must explain its frames."""
    return simulate(PhantomConfig(displacement=(0.04, 0.04), drift_mm=(0.05, 0.05), n_frames=8), 11)


def test_shapes_types_and_start(clip):
    assert clip.frames.shape == clip.masks.shape == clip.envelope.shape == (8, 128, 128)
    assert (clip.frames.dtype, clip.masks.dtype) == (np.uint8, np.bool_)
    assert clip.envelope.dtype == clip.flow.dtype == np.float32
    assert clip.flow.shape == (8, 2, 128, 128)
    np.testing.assert_array_equal(clip.flow[0], 0)
    assert clip.drift_mm[0] == 0
    assert (clip.fps, clip.label) == (20.0, "benign")
    assert 40 < clip.frames.mean() < 170
    assert 0.01 < clip.masks.mean() < 0.4


def test_same_seed_same_clip():
    config = PhantomConfig(**SMALL)
    first, second, other = simulate(config, 5), simulate(config, 5), simulate(config, 6)
    for name in ("frames", "flow", "masks", "envelope"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    assert not np.array_equal(first.frames, other.frames)


def test_levels_of_noise_together_are_those_one_by_one():
    levels = (-28.0, 14.0)
    config = PhantomConfig(**SMALL)
    together = simulate_at_noise(config, 5, levels)
    for level, clip in zip(levels, together, strict=True):
        alone = simulate(config.model_copy(update={"scanner": Scanner(noise_db=level)}), 5)
        for name in ("frames", "flow", "masks", "envelope"):
            np.testing.assert_array_equal(getattr(clip, name), getattr(alone, name))
    difference = together[1].envelope.astype(float) - together[0].envelope
    assert difference[:, -8:].mean() > 0.5


def test_first_frames_do_not_depend_on_the_number_of_pixels():
    """The breast, its motion and its lesion are the same at another resolution."""
    coarse = simulate(PhantomConfig(**SMALL), 5)
    fine = simulate(PhantomConfig(**SMALL | {"size": (128, 128)}), 5)
    np.testing.assert_allclose(fine.flow[2][:, ::2, ::2] / 2, coarse.flow[2], atol=0.1)
    assert np.mean(fine.masks[0][::2, ::2] != coarse.masks[0]) < 0.02


def warp(picture: np.ndarray, flow: np.ndarray) -> np.ndarray:
    rows, columns = np.indices(picture.shape)
    return ndimage.map_coordinates(picture, [rows + flow[1], columns + flow[0]], order=3, mode="nearest")


def test_flow_explains_the_frames(clip):
    inner = (slice(8, -8), slice(8, -8))
    first = clip.frames[0].astype(float)
    for t in range(2, 8):
        frame = clip.frames[t].astype(float)
        if np.abs(clip.flow[t]).max() < 1.0:
            continue
        moved = np.abs(warp(first, clip.flow[t]) - frame)[inner].mean()
        still = np.abs(first - frame)[inner].mean()
        assert moved < 0.75 * still
    assert np.abs(clip.flow).max() > 2.0


def test_tracked_motion_agrees_with_the_flow(clip):
    """Block matching on the envelope, which knows nothing of the flow, finds it to half a pixel."""
    t = int(np.argmax(np.abs(clip.flow).max(axis=(1, 2, 3))))
    before, after = np.sqrt(clip.envelope[0]), np.sqrt(clip.envelope[t])
    half, search, errors = 6, 8, []
    for row in range(24, 104, 16):
        for column in range(24, 104, 16):
            block = after[row - half : row + half + 1, column - half : column + half + 1]
            best, score = (0, 0), -2.0
            for dy in range(-search, search + 1):
                for dx in range(-search, search + 1):
                    r, c = row + dy, column + dx
                    other = before[r - half : r + half + 1, c - half : c + half + 1]
                    value = np.corrcoef(block.ravel(), other.ravel())[0, 1]
                    if value > score:
                        best, score = (dx, dy), value
            errors.append(np.array(best) - clip.flow[t][:, row, column])
    assert np.median(np.abs(errors)) < 0.5
    assert np.mean(np.abs(errors) < 1.0) > 0.85


def test_drift_alone_decorrelates_speckle():
    quiet = {"displacement": (1e-6, 1e-6), "scanner": Scanner(noise_db=-90, looks=1), "fps": 2.0} | SMALL
    near = simulate(PhantomConfig(drift_mm=(0.02, 0.02), **quiet), 3)
    far = simulate(PhantomConfig(drift_mm=(3.0, 3.0), **quiet), 3)
    similarity = [np.corrcoef(c.envelope[0].ravel(), c.envelope[2].ravel())[0, 1] for c in (near, far)]
    assert similarity[0] > 0.98
    assert similarity[1] < similarity[0] - 0.1


def test_motion_only_classes_look_alike_and_move_apart():
    for seed in (0, 1):
        pair = [
            simulate(PhantomConfig(label=label, motion_only=True, displacement=(0.06, 0.06), **SMALL), seed)
            for label in ("benign", "malignant")
        ]
        np.testing.assert_array_equal(pair[0].masks[0], pair[1].masks[0])
        np.testing.assert_allclose(pair[0].envelope[0], pair[1].envelope[0], rtol=2e-3, atol=1e-3)
        assert np.abs(pair[0].flow[2] - pair[1].flow[2]).max() > 0.02
        assert pair[1].anatomy.lesion_stiffness > 1.2 * pair[0].anatomy.lesion_stiffness


def test_normal_breast_has_no_lesion():
    clip = simulate(PhantomConfig(label="normal", **SMALL | {"n_frames": 1}), 0)
    assert clip.anatomy.lesion is None
    assert not clip.masks.any()


def behind(clip: PhantomClip) -> float:
    """Level below the lesion over that beside it, dB."""
    mask = clip.masks[0]
    rows, columns = np.nonzero(mask)
    below = slice(rows.max() + 4, rows.max() + 24)
    middle = slice(round(columns.mean()) - 5, round(columns.mean()) + 6)
    power = clip.envelope[0].astype(float) ** 2
    free = np.ones(mask.shape[1], bool)
    free[columns.min() - 3 : columns.max() + 4] = False
    return float(10 * np.log10(np.median(power[below, middle]) / np.median(power[below][:, free])))


def test_benign_enhances_and_malignant_shadows():
    settings = {"n_frames": 1, "size": (96, 96), "scanner": Scanner(scatterers_per_mm3=8)}
    levels = {
        label: [behind(simulate(PhantomConfig(label=label, **settings), seed)) for seed in range(5)]
        for label in ("benign", "malignant")
    }
    assert np.median(levels["benign"]) > 1.0
    assert np.median(levels["malignant"]) < -4.0


def test_lesion_shapes_follow_their_style():
    rng = np.random.default_rng(0)
    x, y = np.meshgrid(np.linspace(0, 36, 361), np.linspace(0, 36, 361))
    ratios, roughness = {"oval": [], "irregular": []}, {"oval": [], "irregular": []}
    for style, found in ratios.items():
        for _ in range(12):
            lesion = draw_lesion(style, 36.0, (8.0, 24.0), rng)
            inside = lesion.inside(x, y)
            found.append(np.ptp(np.nonzero(inside)[1]) / np.ptp(np.nonzero(inside)[0]))
            roughness[style].append(np.abs(np.diff(lesion.radius, 2)).mean())
            assert lesion.inside(x, y, 0.9 * lesion.half_thickness).sum() < 0.5 * inside.sum()
            assert not lesion.inside(x, y, 1.1 * lesion.half_thickness).any()
    assert min(ratios["oval"]) > 1.0
    assert np.median(ratios["irregular"]) < 1.0
    assert np.median(roughness["irregular"]) > 5 * np.median(roughness["oval"])


def test_layers_echo_and_moduli():
    config = PhantomConfig(label="normal")
    anatomy = draw_anatomy(config, np.random.default_rng(0), np.random.default_rng(1))
    column = anatomy.tissue(np.full(100, 18.0), np.linspace(0, 36, 100))
    assert (np.diff(column) >= 0).all()
    assert {SKIN, FAT, GLAND, MUSCLE} <= set(column.tolist())
    x, z = np.random.default_rng(2).uniform(0, 36, (2, 4000))
    y = np.random.default_rng(3).uniform(0, 36, 4000)
    tissue, echo = anatomy.tissue(x, y, 0 * z), anatomy.echo(x, y, 0 * z)
    assert np.median(echo[tissue == FAT]) < 0.5 * np.median(echo[tissue == GLAND])
    assert np.median(echo[tissue == SKIN]) > np.median(echo[tissue == GLAND])
    stiffness = anatomy.stiffness(x, y)
    np.testing.assert_array_equal(stiffness[tissue == FAT], stiffness[tissue == GLAND][0])
    for label, low, high in (("benign", 1.6, 2.4), ("malignant", 3.0, 13.0)):
        rng = np.random.default_rng(4)
        drawn = draw_anatomy(PhantomConfig(label=label), np.random.default_rng(0), rng)
        assert low <= drawn.lesion_stiffness <= high
        inside = drawn.lesion.inside(x, y)
        np.testing.assert_array_equal(drawn.stiffness(x, y)[inside], drawn.lesion_stiffness)


def test_bad_settings_are_refused():
    with pytest.raises(ConfigError, match="size"):
        PhantomConfig.parse({"size": [8, 64]})
    with pytest.raises(ConfigError, match="drift_mm"):
        PhantomConfig.parse({"drift_mm": [1.0, 0.5]})
    with pytest.raises(ValidationError):
        PhantomConfig(label="cyst")
