"""How long speckle lasts, by place: its likelihood, the head that learns it, and its calibration."""

import math

import pytest
import torch
from torch.nn import functional

from tests.factories import SMALL_AUTOENCODER, textured_still
from tests.training.conftest import autoencoder_config
from us_i2v.errors import ConfigError
from us_i2v.models.autoencoder import Autoencoder
from us_i2v.models.render import SpeckleNoise, StillTexture, render
from us_i2v.models.speckle import SpeckleProcess
from us_i2v.models.speckle_config import MOST_ALIKE, SpeckleConfig
from us_i2v.training.autoencoder import initial_state
from us_i2v.training.calibration import calibrated_speckle, reconstruction
from us_i2v.training.persistence import persistence_loss

SIZE = 64


def logit(rho: float) -> float:
    return math.log(rho / (1 - rho))


def residual_of(left: float, right: float, seed: int = 0) -> torch.Tensor:
    """Speckle that lasts differently in the left and in the right half, (1, 1, 16, 64, 64)."""
    texture = textured_still(SIZE, SIZE, seed=3)
    still = torch.from_numpy(texture).float()[None, None] / 255
    grain = StillTexture.measure(still, still, (16, 16)).fine_grain
    rho = torch.full((1, SIZE, SIZE), left)
    rho[..., SIZE // 2 :] = right
    return SpeckleProcess([seed], (SIZE, SIZE), grain, rho, "test").take(16)[:, :, :]


def fitted(residual: torch.Tensor, flow: torch.Tensor) -> torch.Tensor:
    """Correlation by half, (2,), that has the least loss."""
    logits = torch.zeros(1, 1, 1, 2, requires_grad=True)
    optimiser = torch.optim.LBFGS([logits], max_iter=30, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        nearest = logits.repeat_interleave(16, dim=-1).expand(1, 1, 32, 32)
        loss = persistence_loss(nearest, residual, torch.ones_like(residual), flow)
        loss.backward()
        return loss

    optimiser.step(closure)
    return torch.sigmoid(logits.detach()).flatten()


@pytest.mark.parametrize(("left", "right"), [(0.3, 0.8), (0.7, 0.5)])
def test_the_correlation_of_each_place_has_the_least_loss(left, right):
    found = fitted(residual_of(left, right), torch.zeros(1, 2, 16, SIZE, SIZE))
    assert found.tolist() == pytest.approx([left, right], abs=0.06)


def test_speckle_is_followed_where_the_tissue_goes():
    """Frame t shows at p what lies at p + flow_t: moved by whole pixels, speckle lasts as long as at rest."""
    at_rest = residual_of(0.8, 0.8)
    flow = torch.zeros(1, 2, 16, SIZE, SIZE)
    flow[:, 0] = 2.0 * torch.arange(16)[:, None, None]
    moved = torch.stack([at_rest[:, :, t].roll(-2 * t, dims=-1) for t in range(16)], dim=2)
    assert fitted(moved, flow).mean() == pytest.approx(0.8, abs=0.06)
    assert fitted(moved, torch.zeros_like(flow)).mean() < 0.6


def test_independent_speckle_costs_one_half():
    residual = residual_of(0.0, 0.0)
    lowest = persistence_loss(
        torch.full((1, 1, 4, 4), -20.0), residual, torch.ones_like(residual), torch.zeros(1, 2, 16, 64, 64)
    )
    assert float(lowest) == pytest.approx(0.5, abs=0.02)


def mapped(**changes) -> Autoencoder:
    torch.manual_seed(0)
    return Autoencoder(SMALL_AUTOENCODER.model_copy(update={"speckle_map": True, **changes})).eval()


def test_only_the_head_learns_from_the_likelihood():
    autoencoder = mapped()
    still = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    logits = autoencoder.persistence(still)
    assert logits.shape == (2, 1, 16, 16)
    assert torch.allclose(torch.sigmoid(logits), torch.full_like(logits, 0.7))
    logits.square().sum().backward()
    learns = {name for name, value in autoencoder.named_parameters() if value.grad is not None}
    assert learns
    assert all(name.startswith("decoder.persistence_head.") for name in learns)


def test_without_a_map_nothing_is_predicted_and_no_weights_are_made():
    plain = Autoencoder(SMALL_AUTOENCODER)
    assert plain.persistence(torch.zeros(1, 1, 32, 32)) is None
    assert not any("persistence" in name for name in plain.state_dict())
    assert "speckle_map" not in SMALL_AUTOENCODER.dump()


@pytest.mark.parametrize("changes", [{"decoder": "adain"}, {"residual": False}])
def test_a_map_without_drawn_speckle_is_refused(changes):
    with pytest.raises(ValueError, match="speckle"):
        type(SMALL_AUTOENCODER).model_validate({**SMALL_AUTOENCODER.model_dump(), "speckle_map": True, **changes})


def test_correlation_by_place_is_shifted_and_bounded():
    predicted = torch.tensor([[-100.0, 0.0, 100.0]])[None, None]
    speckle = SpeckleConfig(correlation=0.6, shift=logit(0.8))
    assert speckle.at(None) == 0.6
    assert speckle.at(predicted).flatten().tolist() == pytest.approx([0, 0.8 * MOST_ALIKE, MOST_ALIKE], abs=1e-6)
    assert "shift" not in SpeckleConfig().dump()


def test_correlation_is_lost_exponentially_in_time():
    predicted = torch.tensor([[-1.0, 0.0, 2.0]])[None, None]
    speckle = SpeckleConfig(correlation=0.6, interval_s=0.12)
    assert speckle.at(None, 0.12) == speckle.at(None) == 0.6
    assert speckle.at(None, 0.04) ** 3 == pytest.approx(0.6)
    assert torch.allclose(speckle.at(predicted, 0.06).square(), speckle.at(predicted))
    # Weights that do not say at which interval theirs holds keep it at any.
    assert SpeckleConfig(correlation=0.6).at(None, 0.04) == 0.6
    assert "interval_s" not in SpeckleConfig().dump()


@pytest.mark.parametrize("loop", [None, 16])
def test_noise_lasts_as_long_as_its_place_says(loop):
    still = torch.from_numpy(textured_still(96, 96)).float()[None, None] / 255
    texture = StillTexture.measure(still, still, (24, 24))
    rho = torch.full((1, 1, 24, 24), 0.3)
    rho[..., 12:] = 0.9
    noise = SpeckleNoise([1], texture, 48, rho, loop)
    for frames, side in ((noise.fine.take(17)[0, 0, 1:], 96), (noise.coarse.take(17)[0, 0, 1:], 48)):
        a, b = frames[:-1], frames[1:]
        alike = (a * b).mean(dim=(0, 1)) / frames.square().mean(dim=(0, 1))
        assert float(alike[: side // 2 - 4].mean()) == pytest.approx(0.3, abs=0.12)
        assert float(alike[side // 2 + 4 :].mean()) == pytest.approx(0.9, abs=0.08)


def test_one_number_everywhere_is_the_same_noise_as_that_number():
    still = torch.from_numpy(textured_still(64, 64)).float()[None, None] / 255
    texture = StillTexture.measure(still, still, (16, 16))
    by_place = SpeckleNoise([1], texture, 32, torch.full((1, 1, 16, 16), 0.6)).take(4, "stationary")
    alike = SpeckleNoise([1], texture, 32, 0.6).take(4, "stationary")
    for a, b in zip(by_place, alike, strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_the_shift_that_made_the_clips_is_found():
    autoencoder = mapped(size=SIZE)
    videos = []
    for seed in range(5):
        still = torch.from_numpy(textured_still(SIZE, SIZE, seed=seed)).float()[None, None] / 255
        motion = autoencoder.decode(torch.zeros(1, *autoencoder.config.latent_shape), still).in_float32().anchored()
        texture = StillTexture.measure(still, still, motion.grid)
        made_with = SpeckleConfig(shift=-1.0).at(autoencoder.persistence(still))
        videos.append(render(still, motion, SpeckleNoise([50 + seed], texture, SIZE, made_with), texture).detach())
    found = calibrated_speckle(reconstruction(autoencoder), videos, SpeckleConfig(), autoencoder.persistence)
    assert found.shift == pytest.approx(-1.0, abs=0.5)
    assert found.correlation == pytest.approx(MOST_ALIKE / (1 + math.exp(1.0 - logit(0.7))), abs=0.1)


def test_a_map_is_added_to_weights_that_had_none_and_nothing_else_may_differ(tmp_path):
    from us_i2v.weights import Header, save_weights

    plain = Autoencoder(SMALL_AUTOENCODER)
    header = Header(kind="autoencoder", package_version="0", autoencoder=SMALL_AUTOENCODER, frame_interval_s=0.05)
    path = tmp_path / "plain.safetensors"
    save_weights(path, header, {f"autoencoder.{k}": v for k, v in plain.state_dict().items()})
    config = autoencoder_config(init=str(path))
    wants = config.model_copy(update={"model": config.model.model_copy(update={"speckle_map": True})})
    fresh = mapped()
    state = initial_state(wants, fresh)
    fresh.load_state_dict(state)
    for name, value in plain.state_dict().items():
        assert torch.equal(state[name], value)
    other = config.model.model_copy(update={"latent_channels": config.model.latent_channels + 1})
    with pytest.raises(ConfigError, match="another shape"):
        initial_state(config.model_copy(update={"model": other}), Autoencoder(other))


def test_drawn_speckle_keeps_its_grain_at_every_depth():
    """The upper half of the still is fine, the lower half three times as coarse along x."""
    generator = torch.Generator().manual_seed(0)
    white = torch.randn(1, 1, 192, 192, generator=generator)

    def smooth(x: torch.Tensor, sigma: float) -> torch.Tensor:
        kernel = torch.exp(-0.5 * (torch.arange(-9, 10) / sigma) ** 2)
        out = functional.conv2d(x, (kernel / kernel.sum())[None, None, None], padding=(0, 9))
        return out / out.std()

    rows = torch.linspace(0, 1, 192)[None, None, :, None]
    field = torch.where(rows < 0.5, smooth(white, 1.0), smooth(white, 3.0))
    still = (0.5 + 0.1 * field).clamp(0, 1)
    texture = StillTexture.measure(still, still, (48, 48))
    noise = SpeckleNoise([0], texture, 96, 0.0).fine.take(9)[0, 0, 1:]

    def lag(x: torch.Tensor, k: int) -> float:
        return float((x[..., :-k] * x[..., k:]).mean() / x.square().mean())

    shown = texture.fine[0, 0]
    for part in (slice(0, 64), slice(128, 192)):
        assert lag(noise[:, part], 2) == pytest.approx(lag(shown[part], 2), abs=0.12)
        assert float(noise[:, part].var()) == pytest.approx(1.0, abs=0.12)
    assert lag(noise[:, 128:], 2) > lag(noise[:, :64], 2) + 0.25
