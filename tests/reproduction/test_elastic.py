import numpy as np
import pytest

from tests.factories import textured_still
from us_i2v.reproduction.elastic import RandomElastic


def test_frame_0_is_the_still_and_seeds_differ():
    still = textured_still(48, 64)
    maker = RandomElastic(0.04, 16)
    clip = maker(still, 3)
    assert clip.shape == (16, 48, 64)
    assert clip.dtype == np.uint8
    assert np.array_equal(clip[0], still)
    assert np.array_equal(clip, maker(still, 3))
    assert not np.array_equal(clip, maker(still, 4))


def test_deformation_is_as_large_as_fitted_and_grows_smoothly():
    # A still that says where it is: gray level is the column.
    columns = np.tile(np.arange(200, dtype=np.uint8), (200, 1))
    shifts = []
    for seed in range(6):
        clip = RandomElastic(0.02, 16)(columns, seed).astype(np.float64)
        moved = (clip - columns)[1:, 20:-20, 20:-20]
        shifts.append(np.abs(moved).mean())
        size = np.abs(np.diff(clip, axis=0)).mean((1, 2))
        assert size.max() < 3
    # The displacement's length is 4 px on average; its x component's mean size is 2 / pi of that.
    assert np.mean(shifts) == pytest.approx(4 * 2 / np.pi, rel=0.25)


def test_it_is_no_shift_of_the_whole():
    columns = np.tile(np.arange(200, dtype=np.uint8), (200, 1))
    clip = RandomElastic(0.02, 16)(columns, 1).astype(np.float64)
    moved = (clip[-1] - columns)[20:-20, 20:-20]
    assert moved.std() > 2 * abs(moved.mean())


def test_no_motion_leaves_the_still():
    still = textured_still(32, 32)
    assert (RandomElastic(0.0, 4)(still, 0) == still).all()
