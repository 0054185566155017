import pytest
import torch

from tests.factories import SMALL_AUTOENCODER, textured_still
from us_i2v.models.autoencoder import Autoencoder
from us_i2v.models.render import SpeckleNoise, StillTexture, render
from us_i2v.training.calibration import HIGHEST, calibrated_correlation


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
    assert calibrated_correlation(autoencoder, videos, 1.0) == pytest.approx(correlation, abs=0.06)


def test_clips_out_of_reach_give_the_ends_of_the_range(autoencoder):
    still = torch.from_numpy(textured_still(32, 32)).float()[None, None, None] / 255
    frozen = still.expand(-1, -1, 16, -1, -1)
    assert calibrated_correlation(autoencoder, [frozen], 1.0) == HIGHEST
    noisy = torch.rand(1, 1, 16, 32, 32, generator=torch.Generator().manual_seed(0))
    assert calibrated_correlation(autoencoder, [noisy], 1.0) == 0.0
