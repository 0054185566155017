from __future__ import annotations

import numpy as np
import pytest

from us_i2v.errors import InputError
from us_i2v.metrics.perceptual import psnr
from us_i2v.metrics.ssim import ssim

from .real import lung_clips


def noisy_pair() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7)
    a = rng.integers(0, 256, (3, 24, 31), dtype=np.uint8)
    return a, np.clip(a + rng.normal(0, 40, a.shape), 0, 255).astype(np.uint8)


def wave_pair() -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[:40, :33]
    a = np.rint(127 + 100 * np.sin(x / 3) * np.cos(y / 5)).astype(np.uint8)
    return a[None], np.roll(a, 1, axis=1)[None] // 2


def test_stored_values_of_torchmetrics() -> None:
    """Computed once by torchmetrics 1.9.0: SSIM and PSNR with data_range=255."""
    for pair, similarity, decibel in (
        (noisy_pair(), 0.878736794, 16.9213772),
        (wave_pair(), 0.618942440, 11.1640253),
    ):
        assert ssim(*pair) == pytest.approx(similarity, abs=1e-7)
        assert psnr(*pair) == pytest.approx(decibel, abs=1e-5)


def test_centre_pixel_by_plain_loops() -> None:
    a, b = (clip[0].astype(float) for clip in noisy_pair())
    weights = np.array([[np.exp(-((i - 5) ** 2 + (j - 5) ** 2) / 4.5) for j in range(11)] for i in range(11)])
    weights /= weights.sum()
    values = []
    padded_a, padded_b = (np.pad(x, 5, mode="reflect") for x in (a, b))
    for i in range(a.shape[0]):
        for j in range(a.shape[1]):
            u, v = (x[i : i + 11, j : j + 11] for x in (padded_a, padded_b))
            m, n = (weights * u).sum(), (weights * v).sum()
            var_u, var_v = (weights * (u - m) ** 2).sum(), (weights * (v - n) ** 2).sum()
            covariance = (weights * (u - m) * (v - n)).sum()
            luminance = (2 * m * n + 6.5025) / (m * m + n * n + 6.5025)
            values.append(luminance * (2 * covariance + 58.5225) / (var_u + var_v + 58.5225))
    assert ssim(a, b) == pytest.approx(np.mean(values), rel=1e-9)


def test_properties() -> None:
    a, b = noisy_pair()
    assert ssim(a, a) == pytest.approx(1, abs=1e-12)
    assert ssim(b, a) == pytest.approx(ssim(a, b), rel=1e-12)
    assert ssim(a, b) == pytest.approx(np.mean([ssim(x, y) for x, y in zip(a, b, strict=True)]), rel=1e-12)
    assert ssim(a, 255 - a) < 0
    flat = np.full((16, 16), 80, np.uint8)
    assert ssim(flat, flat + np.uint8(20)) == pytest.approx((2 * 80 * 100 + 6.5025) / (80**2 + 100**2 + 6.5025))


def test_colour_counts_each_channel() -> None:
    a, b = noisy_pair()
    colour_a, colour_b = (np.stack([x, x[::-1], x], axis=3) for x in (a, b))
    assert ssim(colour_a, colour_b) == pytest.approx(ssim(a, b), rel=1e-12)


def test_errors() -> None:
    a = np.zeros((12, 12))
    with pytest.raises(InputError, match="cannot be compared"):
        ssim(a, np.zeros((12, 13)))
    with pytest.raises(InputError, match="11 x 11 or more"):
        ssim(a[:10], a[:10])
    with pytest.raises(InputError, match="SSIM got"):
        ssim(a[None, None, None], a[None, None, None])


def test_real_frames_rank_as_they_should(shared_data) -> None:
    rng = np.random.default_rng(0)
    for clip in lung_clips(shared_data, 3):
        frame = clip[0] if clip.ndim == 3 else clip[0, ..., 0]
        noise = rng.normal(size=frame.shape)
        values = [ssim(frame, np.clip(frame + scale * noise, 0, 255)) for scale in (2, 8, 30)]
        assert 1 > values[0] > values[1] > values[2] > 0
