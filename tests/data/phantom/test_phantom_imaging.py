"""The imaging model against theory, all before the gray map."""

import numpy as np
import pytest

from us_i2v.data.phantom.config import Scanner
from us_i2v.data.phantom.imaging import (
    Imager,
    Scatterers,
    compound,
    elevation_sigma,
    lateral_sigma,
    log_compress,
    look_correlation,
    slice_correlation,
    system_noise,
)

DEPTH = 36.0
MANY = 160.0  # scatterers a mm^3, about 60 a resolution cell: what clumps add to all looks alike is below 0.02
FWHM = 2.0 * np.sqrt(2.0 * np.log(2.0))


@pytest.fixture(scope="module")
def imager() -> Imager:
    return Imager(Scanner(looks=1), (128, 128), DEPTH)


def speckle(imager: Imager, seed: int, thickness: float | None = None) -> Scatterers:
    """Uniform scatterers of amplitude 1 at the scanner's own density."""
    rng = np.random.default_rng(seed)
    z = thickness or imager.reach_mm
    volume = (DEPTH + 6) * (DEPTH + 2) * 2 * z
    count = round(volume * imager.scanner.scatterers_per_mm3)
    y = np.sort(rng.uniform(-1, DEPTH + 1, count))
    return Scatterers(rng.uniform(-3, DEPTH + 3, count), y, rng.uniform(-z, z, count), rng.choice((-1.0, 1.0), count))


def image(imager: Imager, points: Scatterers) -> np.ndarray:
    return imager.field(points[part] for part in points.parts())[0]


def width_at_half(profile: np.ndarray, spacing: float) -> float:
    half = profile.max() / 2
    above = np.flatnonzero(profile >= half)
    first, last = above[0], above[-1]
    left = (profile[first] - half) / (profile[first] - profile[first - 1])
    right = (profile[last] - half) / (profile[last] - profile[last + 1])
    return float((last - first + left + right) * spacing)


def test_envelope_of_developed_speckle(imager):
    ratios, powers = [], []
    for seed in range(5):
        envelope = np.abs(image(imager, speckle(imager, seed)))
        ratios.append(envelope.mean() / envelope.std())
        powers.append((envelope**2).reshape(4, -1).mean(axis=1) / imager.scanner.scatterers_per_mm3)
    assert np.mean(ratios) == pytest.approx(1.91, abs=0.05)  # Rayleigh: sqrt(pi / (4 - pi))
    np.testing.assert_allclose(np.mean(powers, axis=0), 1.0, atol=0.06)  # equally bright at all depths


@pytest.mark.parametrize("looks", [2, 3, 5])
def test_compounding_raises_the_ratio_by_the_root_of_the_looks(looks):
    """Within 6 %: neighbouring looks share up to 0.06 of their intensity, by which the root is missed by 4 %."""
    many = Imager(Scanner(looks=looks, scatterers_per_mm3=MANY), (128, 128), DEPTH)
    gains, powers = [], []
    for seed in range(2):
        points = speckle(many, seed)
        fields = many.field(points[part] for part in points.parts())
        assert fields.shape == (looks, 128, 128)
        single, mean = np.abs(fields), compound(fields)
        ratio = np.mean([envelope.mean() / envelope.std() for envelope in single])
        assert ratio == pytest.approx(1.91, abs=0.1)
        gains.append(mean.mean() / mean.std() / ratio)
        powers.append((single**2).mean(axis=(1, 2)) / many.scanner.scatterers_per_mm3)
    assert np.mean(gains) == pytest.approx(np.sqrt(looks), rel=0.06)
    np.testing.assert_allclose(np.mean(powers, axis=0), 1.0, atol=0.06)  # every look is equally bright


def test_looks_are_nearly_independent_of_each_other():
    scanner = Scanner(lateral_sigma_mm=0.3, focal_zone_mm=1e6, scatterers_per_mm3=MANY)
    many = Imager(scanner, (128, 128), DEPTH)
    found = []
    for seed in range(2):
        points = speckle(many, seed)
        intensity = np.abs(many.field(points[part] for part in points.parts())) ** 2
        found.append(np.corrcoef(intensity.reshape(3, -1))[[0, 1, 0], [1, 2, 2]])
    expected = [float(look_correlation(scanner, apart, 16.0)) for apart in (1, 1, 2)]
    assert expected[0] == pytest.approx(np.exp(-0.5 * 2.5**2))
    np.testing.assert_allclose(np.mean(found, axis=0), expected, atol=0.03)


@pytest.mark.parametrize("shift", [(3.0, 0.0), (0.0, 2.0), (2.0, 1.0)])
def test_every_look_follows_the_tissue(shift):
    """Whole pixels' motion in any direction moves each look's envelope, and so the compounded one."""
    many = Imager(Scanner(focal_zone_mm=1e6, elevation_zone_mm=1e6), (128, 128), DEPTH)
    points = speckle(many, 0)
    pixel = DEPTH / 128
    dx, dy = shift
    moved = Scatterers(points.x + dx * pixel, points.y + dy * pixel, points.z, points.amplitude)
    before, after = (np.abs(many.field([which])) for which in (points, moved))
    rolled = np.roll(before, (int(dy), int(dx)), axis=(1, 2))
    inner = (slice(8, -8), slice(8, -8))
    for one, other in zip(rolled, after, strict=True):
        assert np.corrcoef(one[inner].ravel(), other[inner].ravel())[0, 1] > 0.985


@pytest.mark.parametrize("depth", [4.0, 10.0, 16.0, 24.0, 32.0])
def test_point_spread_widths_by_depth(depth):
    scanner = Scanner(looks=1)
    fine = Imager(scanner, (480, 480), DEPTH)
    spacing = DEPTH / 480
    for offset in (0.0, 0.05, 0.11):
        point = Scatterers(np.array([18.0 + offset]), np.array([depth + offset]), np.zeros(1), np.ones(1))
        envelope = np.abs(image(fine, point))
        row, column = np.unravel_index(envelope.argmax(), envelope.shape)
        assert abs((row + 0.5) * spacing - depth - offset) < spacing
        assert abs((column + 0.5) * spacing - 18.0 - offset) < spacing
        lateral = width_at_half(envelope[row], spacing)
        axial = width_at_half(envelope[:, column], spacing)
        assert lateral == pytest.approx(FWHM * lateral_sigma(scanner, depth), rel=0.1)
        assert axial == pytest.approx(FWHM * scanner.axial_sigma_mm, rel=0.1)


def test_speckle_is_wider_where_the_beam_is(imager):
    """Lateral correlation at two pixels' distance: least at the focus."""
    fields = [image(imager, speckle(imager, seed)) for seed in range(3)]
    rows = {
        name: slice(int(y / DEPTH * 128) - 8, int(y / DEPTH * 128) + 8) for name, y in (("focus", 16.0), ("deep", 33.0))
    }
    found = {}
    for name, part in rows.items():
        pairs = np.concatenate([np.stack([f[part, :-2].ravel(), f[part, 2:].ravel()], 1) for f in fields])
        found[name] = abs(np.vdot(pairs[:, 0], pairs[:, 1])) / np.vdot(pairs[:, 0], pairs[:, 0]).real
    assert found["deep"] > found["focus"] + 0.1


@pytest.mark.parametrize("shift", [0.3, 0.6, 0.9, 1.3])
def test_intensity_correlation_across_the_plane(imager, shift):
    found = []
    for seed in range(4):
        points = speckle(imager, seed, imager.reach_mm + 1.3)
        moved = Scatterers(points.x, points.y, points.z - shift, points.amplitude)
        pair = [np.abs(image(imager, which)).ravel() ** 2 for which in (points, moved)]
        found.append(np.corrcoef(*pair)[0, 1])
    expected = slice_correlation(imager.scanner, shift, imager.rows_mm).mean()
    assert np.mean(found) == pytest.approx(expected, abs=0.03)


def test_rigid_motion_moves_the_envelope(imager):
    points = speckle(imager, 0)
    pixel = DEPTH / 128
    moved = Scatterers(points.x + 3 * pixel, points.y, points.z, points.amplitude)
    still, shifted = np.abs(image(imager, points)), np.abs(image(imager, moved))
    assert np.corrcoef(still[:, 4:-4].ravel(), shifted[:, 7:-1].ravel())[0, 1] > 0.99


def test_parts_do_not_matter(imager):
    points = speckle(imager, 1)[::20]
    whole = imager.field([points])
    parted = imager.field(points[start : start + 1000] for start in range(0, points.x.size, 1000))
    np.testing.assert_allclose(parted, whole, atol=1e-4 * np.abs(whole).max())
    nothing = imager.field([Scatterers(points.x, points.y, points.z + 100.0, points.amplitude)])
    np.testing.assert_array_equal(nothing, 0)


def test_widths_and_correlation_law():
    scanner = Scanner(focus_mm=10, focal_zone_mm=5, elevation_focus_mm=12, elevation_zone_mm=6)
    assert lateral_sigma(scanner, 10.0) == pytest.approx(scanner.lateral_sigma_mm)
    assert lateral_sigma(scanner, 15.0) == pytest.approx(np.sqrt(2) * scanner.lateral_sigma_mm)
    assert elevation_sigma(scanner, 6.0) == pytest.approx(np.sqrt(2) * scanner.elevation_sigma_mm)
    assert slice_correlation(scanner, scanner.elevation_sigma_mm, 12.0) == pytest.approx(np.exp(-0.5))


def test_noise_is_new_each_frame_and_of_unit_power():
    noise = system_noise((3, 64, 64), 0.28, Scanner(), np.random.default_rng(0))
    assert (np.abs(noise) ** 2).mean() == pytest.approx(1.0, rel=1e-4)
    assert abs(np.vdot(noise[0], noise[1])) / 64**2 < 0.05


def test_log_compression_levels():
    envelope = np.array([10.0, 1.0, 0.1, 10 ** (-2.5), 0.0])  # 20, 0, -20, -50 dB
    np.testing.assert_array_equal(log_compress(envelope, 0.0, 50.0), [255, 255, 153, 0, 0])
    np.testing.assert_array_equal(log_compress(envelope, 20.0, 60.0), [255, 170, 85, 0, 0])
