import numpy as np
import pytest
from scipy import ndimage

from us_i2v.errors import DataError
from us_i2v.reproduction.baselines import LEVELS, AddedDifferences, FittedNoise, RandomAffine


def smooth(rng, shape, sigma):
    field = ndimage.gaussian_filter(rng.standard_normal(shape), sigma)
    return field / field.std()


@pytest.fixture
def still(rng):
    return np.clip(120 + 40 * smooth(rng, (64, 80), 2), 0, 255).astype(np.uint8)


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def noisy_windows(rng, *, sd, correlation, blur, count=6, length=16, side=64):
    for _ in range(count):
        base = np.full((side, side), 0.5)
        frames, noise = [base], None
        for _ in range(length - 1):
            new = ndimage.gaussian_filter(rng.standard_normal((side, side)), blur)
            new /= new.std()
            noise = new if noise is None else correlation * noise + np.sqrt(1 - correlation**2) * new
            frames.append(base + sd / 255 * noise)
        yield np.stack(frames)


class OneWindow:
    def __init__(self, frames):
        self.window = type("Window", (), {"frames": frames})()
        self.asked = []

    def draw(self, step, position):
        self.asked.append((step, position))
        return self.window


def test_added_differences_are_the_training_windows_own(still):
    frames = np.full((3, 32, 40), 0.5)
    frames[1] += 10 / 255
    frames[2] -= 20 / 255
    maker = AddedDifferences(OneWindow(frames))
    clip = maker(still, seed=7)
    assert maker.windows.asked == [(7, 0)]
    np.testing.assert_array_equal(clip[0], still)
    np.testing.assert_array_equal(clip[1], np.clip(still.astype(int) + 10, 0, 255))
    np.testing.assert_array_equal(clip[2], np.clip(still.astype(int) - 20, 0, 255))


def test_fitted_noise_recovers_what_made_the_windows(rng):
    fitted = FittedNoise.fit(noisy_windows(rng, sd=6.0, correlation=0.7, blur=1.5))
    # One bin has pixels; the others take its value.
    np.testing.assert_allclose(fitted.deviation, np.full(LEVELS, 6.0), rtol=0.03)
    assert fitted.correlation == pytest.approx(0.7, abs=0.03)
    assert fitted.blur * 64 == pytest.approx(1.5, rel=0.08)
    assert fitted.length == 16


def test_fitted_noise_makes_clips_of_the_fitted_kind(rng):
    fitted = FittedNoise(np.full(LEVELS, 5.0), 0.6, 1.5 / 64, 16)
    still = np.full((64, 64), 128, np.uint8)
    clip = fitted(still, 3)
    np.testing.assert_array_equal(clip[0], still)
    change = clip[1:].astype(float) - 128
    assert change.std() == pytest.approx(5.0, rel=0.1)
    assert (change[1:] * change[:-1]).mean() / change.var() == pytest.approx(0.6, abs=0.06)
    np.testing.assert_array_equal(clip, fitted(still, 3))
    assert (clip != fitted(still, 4)).any()


def test_fitted_noise_is_larger_where_it_was_larger(rng):
    window = np.full((16, 64, 64), 0.1)
    window[:, :, 32:] = 0.9
    window[1:, :, :32] += rng.standard_normal((15, 64, 32)) * 2 / 255
    window[1:, :, 32:] += rng.standard_normal((15, 64, 32)) * 9 / 255
    fitted = FittedNoise.fit([window])
    assert fitted.deviation[0] == pytest.approx(2, rel=0.05)
    assert fitted.deviation[-1] == pytest.approx(9, rel=0.05)


def test_random_affine_starts_at_the_still_and_moves_by_what_was_fitted(still):
    maker = RandomAffine(0.05, 16)
    clip = maker(still, 1)
    assert clip.dtype == np.uint8
    assert clip.shape == (16, *still.shape)
    np.testing.assert_array_equal(clip[0], still)
    steps = [np.abs(clip[t].astype(float) - still).mean() for t in (1, 15)]
    assert 0 < steps[0] < steps[1]


def test_random_affine_moves_as_far_as_was_fitted(rng):
    still = np.clip(128 + 40 * smooth(rng, (128, 128), 2), 0, 255).astype(np.uint8)
    maker = RandomAffine(0.02, 16)
    lengths = [RandomAffine.fit([maker(still, seed) / 255]).shift for seed in range(24)]
    # Blocks move by angle and zoom too, and long displacements leave the search range: about 0.02, not exactly.
    assert 0.016 < np.mean(lengths) < 0.028


def test_random_affine_of_no_motion_is_the_still_repeated(still):
    clip = RandomAffine(0.0, 4)(still, 1)
    assert np.abs(clip.astype(int) - still).max() <= 1


def test_random_affine_takes_the_windows_displacement(rng):
    texture = smooth(rng, (128, 160), 1.5)
    shifted = np.stack([texture[:, t : t + 128] for t in range(4)]) * 0.12 + 0.5
    fitted = RandomAffine.fit([np.clip(shifted, 0, 1)])
    assert fitted.shift * 128 == pytest.approx(2.0, abs=0.1)  # Frames 1, 2, 3 lie 1, 2, 3 px off.


@pytest.mark.parametrize("fit", [FittedNoise.fit, RandomAffine.fit])
def test_nothing_to_fit_on_is_an_error(fit):
    with pytest.raises(DataError, match="No training windows"):
        fit([])
