from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.nn import functional

from us_i2v.data.phantom import PhantomClip, PhantomConfig, Scanner, simulate
from us_i2v.data.phantom.imaging import Imager, Scatterers, compound
from us_i2v.errors import InputError
from us_i2v.metrics.block_matching import block_motion
from us_i2v.metrics.motion import SEARCH
from us_i2v.metrics.speckle import decorrelation, envelope_snr, flicker, local_deviation

from .real import lung_clips
from .synthetic import ar1_clip, moving_clip

FRAMES = 8


def phantom(drift: float) -> PhantomClip:
    """Eight frames, a tenth of a second apart, whose plane drifts by up to `drift` mm."""
    config = PhantomConfig(n_frames=FRAMES, fps=10, drift_mm=(drift, 1.01 * drift), displacement=(0.03, 0.031))
    return simulate(config, seed=1)


@pytest.fixture(scope="module")
def steady() -> PhantomClip:
    return phantom(1e-3)


@pytest.mark.parametrize("rho", [0.97, 0.9, 0.8])
def test_known_decorrelation(rho: float) -> None:
    """Exact in expectation while texture can be followed; below about 0.3 the match is lost and it falls early."""
    curves = np.mean([decorrelation(ar1_clip(rho, seed)) for seed in range(3)], axis=0)
    true = rho ** np.arange(12.0)
    assert curves[0] == 1
    np.testing.assert_allclose(curves[true > 0.5], true[true > 0.5], atol=0.03)
    np.testing.assert_allclose(curves[true > 0.3], true[true > 0.3], atol=0.08)
    assert (curves < true + 0.05).all()


def test_unrelated_frames_do_not_correlate() -> None:
    """Each block's own best match among 289 places correlates by 0.4 or so; the compensation must not use it."""
    curve = decorrelation(ar1_clip(0.0, seed=4, frames=6))
    assert (np.abs(curve[1:]) < 0.12).all()


def test_motion_alone_keeps_the_phantom_near_its_ceiling(steady: PhantomClip) -> None:
    """Receiver noise and deformation set the ceiling; displacements of pixels must not lower it."""
    assert np.hypot(*steady.flow[-1]).max() > 1.5
    curve = decorrelation(steady.frames)
    assert curve[1:].min() > 0.78
    assert curve[1:].max() - curve[1:].min() < 0.12
    # The true flow does no better.
    still = steady.frames[0].astype(np.float64)
    rows, columns = np.mgrid[:128, :128].astype(np.float64)
    pulled = [
        ndimage.map_coordinates(still, [rows + flow[1], columns + flow[0]], order=3, mode="nearest")
        for flow in steady.flow
    ]
    ceiling = [windowed(now.astype(np.float64), back) for now, back in zip(steady.frames, pulled, strict=True)]
    np.testing.assert_allclose(curve[1:], ceiling[1:], atol=0.04)


def windowed(a: np.ndarray, b: np.ndarray) -> float:
    """Mean correlation of high-passed 16 px windows, by plain loops."""
    a, b = (x - ndimage.gaussian_filter(x, 2.0, mode="nearest") for x in (a, b))
    found = []
    for y in range(SEARCH, 128 - SEARCH - 15, 8):
        for x in range(SEARCH, 128 - SEARCH - 15, 8):
            u, v = (part[y : y + 16, x : x + 16] for part in (a, b))
            if v.std() >= 2:
                found.append(np.corrcoef(u.ravel(), v.ravel())[0, 1])
    return float(np.mean(found))


def test_drift_through_the_plane_lowers_the_curve(steady: PhantomClip) -> None:
    drifting = phantom(1.5)
    before, after = decorrelation(steady.frames), decorrelation(drifting.frames)
    # Speckle of planes d apart correlates by exp(-d^2 / (2 s^2)); s is 0.7 mm.
    far = np.abs(drifting.drift_mm - drifting.drift_mm[0]) > 0.4
    assert far.any()
    assert (after[far] < before[far] - 0.08).all()


def test_exchanged_scatterers_fall(steady: PhantomClip) -> None:
    """The same first frame, then another breast's frames."""
    other = simulate(PhantomConfig(n_frames=3, fps=10), seed=2)
    frames = np.concatenate([steady.frames[:1], other.frames])
    assert decorrelation(frames)[1:].max() < 0.25


def test_anatomy_is_not_measured() -> None:
    """Strong fixed shading under speckle that is new in every frame."""
    clip = moving_clip(seed=3, speed=(0, 0), rho=0.0, frames=4)
    whole = [np.corrcoef(clip[0].ravel(), frame.ravel())[0, 1] for frame in clip[1:]]
    assert min(whole) > 0.5
    assert decorrelation(clip)[1:].max() < 0.2


def test_invariances() -> None:
    clip = ar1_clip(0.9, seed=5, frames=4)
    curve = decorrelation(clip)
    np.testing.assert_allclose(decorrelation(clip, block_motion(clip)), curve)
    np.testing.assert_allclose(decorrelation(np.repeat(clip[..., None], 3, axis=3)), curve, atol=1e-4)
    # Each frame's value depends on it and frame 0 only.
    np.testing.assert_allclose(decorrelation(clip[[0, 3, 1]])[1:], curve[[3, 1]], atol=1e-12)
    # Contrast and brightness do not count; 8 bit rounding is what is left.
    np.testing.assert_allclose(decorrelation(0.5 * clip + 20.0), curve, atol=0.01)
    np.testing.assert_array_equal(decorrelation(np.repeat(clip[:1], 4, axis=0)), np.ones(4))


def test_blank_frames_count_as_unrelated() -> None:
    clip = ar1_clip(0.9, seed=6, frames=3)
    clip[2] = 0
    curve = decorrelation(clip)
    assert np.isfinite(curve).all()
    assert curve[2] == 0


def test_windows_without_texture_do_not_count() -> None:
    clip = ar1_clip(0.8, seed=7, frames=5)
    clip[:, :, 48:] = 90
    assert decorrelation(clip)[2] == pytest.approx(0.64, abs=0.06)


def test_decorrelation_errors() -> None:
    clip = ar1_clip(0.9, seed=8, frames=3)
    with pytest.raises(InputError, match="no window with texture"):
        decorrelation(np.concatenate([np.zeros_like(clip[:1]), clip]))
    with pytest.raises(InputError, match="Use 32 x 32 or more"):
        decorrelation(clip[:, :24, :40])
    with pytest.raises(InputError, match="has 1 frames"):
        decorrelation(clip[:1])
    with pytest.raises(InputError, match="the clip needs"):
        decorrelation(clip, block_motion(clip[:2]))


def test_rayleigh_envelope() -> None:
    rng = np.random.default_rng(0)
    speckle = np.abs(rng.normal(size=400_000) + 1j * rng.normal(size=400_000))
    expected = math.sqrt(math.pi / (4 - math.pi))
    assert expected == pytest.approx(1.913, abs=1e-3)
    assert envelope_snr(speckle) == pytest.approx(expected, rel=0.01)
    assert envelope_snr(7 * speckle) == pytest.approx(envelope_snr(speckle), rel=1e-12)
    three = np.abs(rng.normal(size=(3, 200_000)) + 1j * rng.normal(size=(3, 200_000))).mean(0)
    assert envelope_snr(three) == pytest.approx(expected * math.sqrt(3), rel=0.01)
    where = np.zeros(speckle.shape, dtype=bool)
    where[:100_000] = True
    mixed = np.where(where, speckle, 50 + speckle)
    assert envelope_snr(mixed, where) == pytest.approx(expected, rel=0.02)
    assert envelope_snr(np.full(4, 3.0)) == math.inf


@pytest.mark.parametrize("looks", [1, 3])
def test_envelope_of_the_phantoms_scanner(looks: int) -> None:
    """Uniform scatterers in the focal zone: fully developed speckle, calmed by compounding."""
    rng = np.random.default_rng(1)
    scanner = Scanner(looks=looks)
    imager = Imager(scanner, (128, 128), 36.0)
    count = 40 * 40 * 40 * 6
    y = np.sort(rng.uniform(-2, 38, count))
    points = Scatterers(rng.uniform(-2, 38, count), y, rng.uniform(-3, 3, count), rng.choice((-1.0, 1.0), count))
    envelope = compound(imager.field(points[part] for part in points.parts()))
    found = envelope_snr(envelope[30:90, 10:118])
    # Finitely many scatterers in a resolution cell, which all looks share, leave the ratio somewhat low.
    assert found == pytest.approx(1.913 * math.sqrt(looks), rel=0.05 * looks)


def test_envelope_errors() -> None:
    with pytest.raises(InputError, match="got a mask"):
        envelope_snr(np.ones(3), np.ones(4, dtype=bool))
    for bad in (np.ones(1), np.array([1.0, -1.0]), np.array([1.0, np.nan])):
        with pytest.raises(InputError, match="No envelope"):
            envelope_snr(bad)


def test_local_deviation_by_loops() -> None:
    rng = np.random.default_rng(2)
    clip = rng.integers(0, 256, (2, 12, 10), dtype=np.uint8)
    clip[:, :9, :8] = 3  # Some windows are dark.
    found = []
    for frame in clip.astype(float):
        for y in range(12 - 6):
            for x in range(10 - 6):
                window = frame[y : y + 7, x : x + 7]
                if window.mean() >= 5:
                    found.append(window.std())
    assert 0 < len(found) < 2 * 6 * 4
    assert local_deviation(clip) == pytest.approx(np.mean(found), rel=1e-9)


def test_local_deviation_properties() -> None:
    clip = ar1_clip(0.5, seed=9, frames=3)
    value = local_deviation(clip)
    assert 8 < value < 12  # The texture's deviation is 12 over the frame, somewhat less within 7 px.
    assert local_deviation(120 + 2 * (clip - 120.0)) == pytest.approx(2 * value, rel=0.02)
    washed = np.stack([ndimage.gaussian_filter(frame.astype(float), 1.5) for frame in clip])
    assert local_deviation(washed) < 0.6 * value
    assert local_deviation(np.zeros((2, 16, 16))) == 0
    with pytest.raises(InputError, match="too small"):
        local_deviation(clip[:, :6])


def test_log_compressed_speckle_has_the_textbook_deviation() -> None:
    rng = np.random.default_rng(3)
    envelope = np.abs(rng.normal(size=(1, 300, 300)) + 1j * rng.normal(size=(1, 300, 300)))
    gray = 180 + 255 / 60 * 20 * np.log10(envelope)
    assert gray.std() == pytest.approx(5.57 * 255 / 60, rel=0.01)
    assert local_deviation(gray) == pytest.approx(5.57 * 255 / 60, rel=0.03)


def test_flicker_by_hand() -> None:
    clip = np.zeros((4, 16, 32))
    clip[1, :, :16] = 10
    clip[3, :, 16:] = 4
    # Left cell 0, 10, 0, 0: |10 - 0|, |0 - 5|; right cell 0, 0, 0, 4: 0, |0 - 2|.
    assert flicker(clip) == (10 + 5 + 0 + 2) / 4


def test_flicker_properties() -> None:
    t = np.arange(9.0)[:, None, None]
    flat = np.full((1, 32, 40), 100.0)
    assert flicker(flat + 3 * t) == pytest.approx(0, abs=1e-4)
    assert flicker(flat + 5 * (-1) ** t) == pytest.approx(10, rel=1e-5)
    slow, fast = (flicker(flat + 5 * np.sin(t * speed)) for speed in (0.2, 1.5))
    assert slow < 0.1 * fast
    # Texture that moves within a cell changes its mean little.
    assert flicker(moving_clip(seed=1, frames=6)) < 1.5
    with pytest.raises(InputError, match="hold no 16 px cell"):
        flicker(flat.repeat(3, 0)[:, :12])
    with pytest.raises(InputError, match="3 are needed"):
        flicker(flat.repeat(2, 0))


def test_real_clips_give_the_reference_values(shared_data: Path) -> None:
    """A few patients at 128 px: values as in docs/metrics.md."""
    curves = []
    for clip in lung_clips(shared_data, 4):
        gray = torch.from_numpy(np.array(clip if clip.ndim == 3 else clip[..., 0])).float()[:, None]
        curves.append(decorrelation(functional.interpolate(gray, (128, 128), mode="area")[:, 0].numpy()))
    mean = np.mean(curves, axis=0)
    assert 0.45 < mean[1] < 0.8
    assert mean[1] > mean[2] > mean[4]
    assert 0.12 < mean[15] < 0.45
