"""The phantom's elastic field: inclusion, incompressibility, and forward against backward."""

import numpy as np
import pytest

from us_i2v.data.phantom.anatomy import draw_anatomy
from us_i2v.data.phantom.config import PhantomConfig
from us_i2v.data.phantom.motion import MotionPlan, TissueMotion, draw_plan
from us_i2v.data.probe_motion import MODES, draw_waves, time_courses

RADIUS = 3.0


class Disc:
    """Stands in for an anatomy: homogeneous tissue with one disc."""

    def __init__(self, ratio: float) -> None:
        self.ratio = ratio

    def stiffness(self, x, y):
        return np.where((x - 18) ** 2 + (y - 16) ** 2 < RADIUS**2, self.ratio, 1.0)


def pressed(ratio: float, config: PhantomConfig) -> TissueMotion:
    courses = np.zeros((2, len(MODES)))
    courses[1, 0] = 0.5
    return TissueMotion(config, Disc(ratio), MotionPlan(courses, np.zeros(2)))


def axial_strain(motion: TissueMotion, x: float, y: float) -> float:
    """Strain over the inner part of the disc, from the displacement that scatterers get."""
    half = 0.5 * RADIUS
    ends = motion.forward(motion.modes_at(np.array([x, x]), np.array([y - half, y + half])), 1)
    return float(ends[1, 1] - ends[1, 0]) / (2 * half)


@pytest.mark.parametrize("ratio", [2.0, 5.0, 10.0])
def test_strain_ratio_of_a_disc(ratio):
    config = PhantomConfig()
    without = axial_strain(pressed(1.0, config), 18, 16)
    within = axial_strain(pressed(ratio, config), 18, 16)
    assert without < 0
    assert within / without == pytest.approx(2 / (1 + ratio), rel=0.05)


def test_divergence_is_small():
    config = PhantomConfig()
    anatomy = draw_anatomy(config, np.random.default_rng(0), np.random.default_rng(1))
    motion = TissueMotion(config, anatomy, draw_plan(config, np.random.default_rng(2)))
    for tensor in motion.strain_modes[[0, 1, 2, 4]]:
        assert np.abs(tensor[0] + tensor[1]).mean() <= 0.02 * np.abs(tensor).sum(axis=0).mean()


def test_backward_undoes_forward_and_starts_at_rest():
    config = PhantomConfig(displacement=(0.05, 0.05))
    anatomy = draw_anatomy(config, np.random.default_rng(3), np.random.default_rng(4))
    motion = TissueMotion(config, anatomy, draw_plan(config, np.random.default_rng(5)))
    rng = np.random.default_rng(6)
    x, y = rng.uniform(4, 32, 500), rng.uniform(1, 32, 500)
    modes = motion.modes_at(x, y)
    np.testing.assert_array_equal(motion.forward(modes, 0), 0)
    moved = motion.forward(modes, 15)
    assert np.abs(moved).max() > 0.2
    back = motion.backward(x + moved[0], y + moved[1], 15)
    # Both tables are linear between nodes 0.6 mm apart; a pixel is 0.28 mm.
    assert np.abs(back + moved).max() < 0.03
    assert np.abs(moved[0]).max() <= motion.reach_mm[0] + 1e-6


def test_motion_of_other_sizes_covers_the_picture():
    config = PhantomConfig(size=(64, 96), depth_mm=20, n_frames=3)
    anatomy = draw_anatomy(config, np.random.default_rng(0), np.random.default_rng(1))
    motion = TissueMotion(config, anatomy, draw_plan(config, np.random.default_rng(2)))
    back = motion.backward(np.linspace(0, config.width_mm, 7)[None], np.linspace(0, 20, 5)[:, None], 2)
    assert back.shape == (2, 5, 7)


def test_time_courses_start_at_zero_and_peak_at_one():
    waves = draw_waves(np.random.default_rng(0), 6)
    times = np.linspace(0, 1.5, 64)
    courses = time_courses(waves, times)
    np.testing.assert_allclose(courses[:, 0], 0, atol=1e-12)
    np.testing.assert_allclose(np.abs(courses).max(axis=1), 1.0, atol=1e-9)
    # Smooth: no step beyond what 4 Hz allows.
    assert np.abs(np.diff(courses, axis=1)).max() < 1.0


def test_plan_is_within_its_ranges():
    config = PhantomConfig(displacement=(0.02, 0.02), drift_mm=(0.5, 0.5), n_frames=31, fps=20)
    for seed in range(10):
        plan = draw_plan(config, np.random.default_rng(seed))
        assert plan.courses.shape == (31, 5)
        np.testing.assert_array_equal(plan.courses[0], 0)
        # 64 points find the peak over 1.5 s; 31 frames see nearly all of it.
        assert np.abs(plan.courses).max() == pytest.approx(0.02 * 36, rel=0.1)
        assert np.abs(plan.drift).max() == pytest.approx(0.5, rel=0.1)
