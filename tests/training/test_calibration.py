import pytest
import torch

from tests.factories import SMALL_AUTOENCODER, textured_still
from us_i2v.models.autoencoder import Autoencoder
from us_i2v.models.render import SpeckleNoise, StillTexture, render
from us_i2v.models.speckle_config import SpeckleConfig
from us_i2v.training.calibration import (
    HIGHEST,
    MOST,
    calibrated_correlation,
    calibrated_profile,
    calibrated_speckle,
    reconstruction,
)


@pytest.fixture(scope="module")
def autoencoder():
    torch.manual_seed(0)
    return Autoencoder(SMALL_AUTOENCODER).eval()


def clip(autoencoder, correlation, seed):
    """A clip that the auto-encoder's own scale would make, its speckle changing with a known correlation."""
    still = torch.from_numpy(textured_still(32, 32, seed=seed)).float()[None, None] / 255
    motion = autoencoder.decode(torch.zeros(1, *SMALL_AUTOENCODER.latent_shape), still).in_float32().anchored()
    texture = StillTexture.measure(still, still, motion.grid)
    return render(still, motion, SpeckleNoise([100 + seed], texture, 32, correlation), texture).detach()


@pytest.mark.parametrize("correlation", [0.2, 0.5, 0.8])
def test_the_correlation_that_made_the_clips_is_found(autoencoder, correlation):
    videos = [clip(autoencoder, correlation, seed) for seed in range(6)]
    assert calibrated_correlation(reconstruction(autoencoder), videos, 1.0) == pytest.approx(correlation, abs=0.06)


def test_clips_out_of_reach_give_the_ends_of_the_range(autoencoder):
    still = torch.from_numpy(textured_still(32, 32)).float()[None, None, None] / 255
    frozen = still.expand(-1, -1, 16, -1, -1)
    assert calibrated_correlation(reconstruction(autoencoder), [frozen], 1.0) == HIGHEST
    noisy = torch.rand(1, 1, 16, 32, 32, generator=torch.Generator().manual_seed(0))
    assert calibrated_correlation(reconstruction(autoencoder), [noisy], 1.0) == 0.0


@pytest.fixture(scope="module")
def larger():
    """An auto-encoder of 64 px, since speckle's correlation needs windows away from the border."""
    torch.manual_seed(0)
    config = SMALL_AUTOENCODER.model_copy(update={"size": 64})
    return Autoencoder(config).eval()


def faded(autoencoder, factors, seed):
    still = torch.from_numpy(textured_still(64, 64, seed=seed)).float()[None, None] / 255
    latent = torch.zeros(1, *autoencoder.config.latent_shape)
    motion = autoencoder.decode(latent, still).in_float32().anchored().scaled(1.0, factors)
    texture = StillTexture.measure(still, still, motion.grid)
    return render(still, motion, SpeckleNoise([100 + seed], texture, 64, 0.5), texture).detach()


def test_the_factors_that_made_the_clips_are_found(larger):
    factors = torch.linspace(0.6, 1.2, 16)
    videos = [faded(larger, factors, seed) for seed in range(6)]
    found = calibrated_profile(reconstruction(larger), videos)
    assert len(found) == 16
    for frame in (1, 2, 4, 8, 15):
        assert found[frame] == pytest.approx(float(factors[frame]), abs=0.15)
    assert found[6] == pytest.approx((found[4] + found[8]) / 2)
    speckle = calibrated_speckle(reconstruction(larger), videos, SpeckleConfig(factor=0.7))
    assert speckle.profile == found
    assert speckle.correlation == pytest.approx(0.5, abs=0.15)


def test_windows_of_other_rates_tell_the_correlation_at_the_median_one(autoencoder):
    """0.6 a tenth of a second: clips made at 0.05, 0.1 and 0.2 s a frame."""
    intervals = [0.05, 0.1, 0.2] * 2
    videos = [clip(autoencoder, 0.6 ** (dt / 0.1), seed) for seed, dt in enumerate(intervals)]
    known = SpeckleConfig(profile=(1.0,))
    found = calibrated_speckle(reconstruction(autoencoder), videos, known, intervals=intervals)
    assert found.interval_s == 0.1
    assert found.correlation == pytest.approx(0.6, abs=0.08)
    assert calibrated_speckle(reconstruction(autoencoder), videos, known).interval_s is None


def test_frozen_and_unrelated_clips_give_the_ends_and_blank_ones_none(larger):
    still = torch.from_numpy(textured_still(64, 64)).float()[None, None, None] / 255
    assert calibrated_profile(reconstruction(larger), [still.expand(-1, -1, 16, -1, -1)]) == (0.0,) * 16
    noise = torch.rand(1, 1, 16, 64, 64, generator=torch.Generator().manual_seed(0))
    assert calibrated_profile(reconstruction(larger), [noise])[15] == MOST
    assert calibrated_profile(reconstruction(larger), [torch.zeros(1, 1, 16, 64, 64)]) is None


def test_factors_of_long_clips_and_loops():
    speckle = SpeckleConfig(factor=0.7, profile=(1.0, 0.5, 0.8))
    assert speckle.factors(5).tolist() == pytest.approx([1.0, 0.5, 0.8, 0.8, 0.8])
    assert speckle.factors(6, loop=True).tolist() == pytest.approx([1.0, 0.5, 0.8, 0.8, 0.8, 0.5])
    assert SpeckleConfig(factor=0.7).factors(2).tolist() == pytest.approx([0.7, 0.7])
    assert "profile" not in SpeckleConfig().dump()
    with pytest.raises(ValueError, match=r"0\.\.4"):
        SpeckleConfig(profile=(5.0,))
