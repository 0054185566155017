"""Weights decide which generator is built; given latents, longer clips, and options that do not apply."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.factories import SMALL_CINN, small_cinn_weights, small_weights, textured_still
from us_i2v.errors import ConfigError, InputError, WeightsError
from us_i2v.pipeline import CINN, LDDM, GenerateOptions, ImageToVideo
from us_i2v.weights import load_weights, save_weights

STEPS = {"lddm": 3, "cinn": None}


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, ImageToVideo]:
    folder = tmp_path_factory.mktemp("weights")
    files = {"lddm": small_weights(folder / "l.safetensors"), "cinn": small_cinn_weights(folder / "c.safetensors")}
    return {kind: ImageToVideo.from_pretrained(file, device="cpu", threads=1) for kind, file in files.items()}


@pytest.fixture(params=["lddm", "cinn"])
def model(request, models) -> ImageToVideo:
    return models[request.param]


def options(model: ImageToVideo, **given) -> GenerateOptions:
    return GenerateOptions(steps=STEPS[model.info.kind], **given)


def test_header_round_trip(tmp_path):
    weights = load_weights(small_cinn_weights(tmp_path / "w.safetensors"))
    assert weights.header.kind == "cinn"
    assert weights.header.cinn == SMALL_CINN
    save_weights(tmp_path / "half.safetensors", weights.header, weights.tensors, half=True)
    again = load_weights(tmp_path / "half.safetensors")
    assert again.header == weights.header
    for key, value in again.cinn().state_dict().items():
        assert torch.allclose(value, weights.cinn().state_dict()[key], rtol=2e-3, atol=1e-3)


def test_files_without_a_flow_say_nothing_of_it(tmp_path):
    header = load_weights(small_weights(tmp_path / "w.safetensors")).header
    assert '"cinn"' not in header.model_dump_json()


def test_a_header_must_hold_what_its_kind_says(tmp_path):
    header = load_weights(small_cinn_weights(tmp_path / "w.safetensors")).header
    wrong = header.model_copy(update={"cinn": None})
    save_weights(tmp_path / "x.safetensors", wrong, {})
    with pytest.raises(WeightsError, match="damaged header"):
        load_weights(tmp_path / "x.safetensors")


def test_kind_decides(models):
    assert isinstance(models["lddm"].generator, LDDM)
    assert isinstance(models["cinn"].generator, CINN)


def test_one_seed_is_one_clip_alone_or_among_others(model):
    still = textured_still()
    many = model(still, seed=3, num_clips=3, options=options(model))
    alone = model(still, seed=5, options=options(model))[0]
    assert np.array_equal(many[2].frames, alone.frames)
    assert np.array_equal(many[2].flow, alone.flow)
    assert np.abs(many[0].flow - many[1].flow).max() > 1e-3


def test_a_batch_of_seeds_equals_single_draws(models):
    generator = models["cinn"].generator
    stills = torch.rand((3, 1, 32, 32), generator=torch.Generator().manual_seed(0))
    chosen = GenerateOptions()
    together = generator.latents(stills, [7, 8, 9], chosen)
    single = torch.cat([generator.latents(stills[k : k + 1], [7 + k], chosen) for k in range(3)])
    assert torch.allclose(together, single, atol=1e-5)
    assert float((together[0] - together[1]).abs().max()) > 0.1


def test_the_still_and_the_interval_condition_the_latent(models):
    generator = models["cinn"].generator
    still = torch.rand((1, 1, 32, 32), generator=torch.Generator().manual_seed(0))
    one = generator.latents(still, [1], GenerateOptions())
    assert not torch.allclose(one, generator.latents(1 - still, [1], GenerateOptions()), atol=1e-3)
    assert not torch.allclose(one, generator.latents(still, [1], GenerateOptions(fps=20.0)), atol=1e-3)


@pytest.mark.parametrize(
    "given", [{"steps": 5}, {"sampler": "ddim"}, {"guidance": 2.0}, {"label": "benign"}], ids=lambda g: next(iter(g))
)
def test_options_that_a_flow_has_not_are_refused(models, given):
    name = next(iter(given))
    with pytest.raises(ConfigError, match=rf"(?i){name}.*--{name} out"):
        models["cinn"](textured_still(), options=GenerateOptions(**given))


def test_rate_is_refused_where_it_is_no_condition(tmp_path):
    weights = small_cinn_weights(tmp_path / "w.safetensors", interval=False)
    model = ImageToVideo.from_pretrained(weights, device="cpu", threads=1)
    assert model(textured_still())[0].fps == pytest.approx(10)
    with pytest.raises(ConfigError, match="frame rate as a condition"):
        model(textured_still(), options=GenerateOptions(fps=12.0))


def test_a_painting_decoder_generates_too(tmp_path):
    weights = small_cinn_weights(tmp_path / "w.safetensors", decoder="adain")
    model = ImageToVideo.from_pretrained(weights, device="cpu", threads=1)
    clip = model(textured_still(), options=GenerateOptions(frames=20))[0]
    assert clip.frames.shape[0] == 20
    assert not clip.flow.any()
    assert np.abs(clip.frames[19].astype(int) - clip.frames[15]).mean() > 0.1


def test_animate_decodes_the_given_latent_on_the_still(model):
    """`animate` of the latent that a seed draws is the clip of that seed, and nothing else is drawn."""
    still, chosen = textured_still(40, 40), options(model)
    clip = model(still, seed=3, options=chosen)[0]
    from us_i2v.data.transforms import Fit
    from us_i2v.pipeline import Still

    seen = Still.prepare(still, Fit("stretch", 32)).seen
    latent = clip.latent[0]
    # Sums depend on the number of threads, which only the model's own calls fix: the bits are those of its latent.
    assert torch.allclose(model.generator.latents(seen, [3], chosen)[0], latent, atol=1e-4)
    again = model.animate(still, latent, seed=3)
    assert np.array_equal(again.frames, clip.frames)
    other = model.animate(still, latent, seed=4)
    assert np.array_equal(other.flow, clip.flow)
    assert not np.array_equal(other.frames, clip.frames)  # only the drawn speckle
    assert not np.array_equal(model.animate(still, latent + 1, seed=3).flow, clip.flow)


def test_encode_gives_the_posterior_mean_of_the_fitted_clip(model):
    frames = model(textured_still(), seed=1, options=options(model))[0].frames
    latent = model.encode(frames, 10.0)
    assert tuple(latent.shape) == model.info.autoencoder.latent_shape
    assert torch.equal(latent, model.encode(np.stack([frames] * 3, axis=3)))  # gray shown as RGB
    assert not torch.allclose(latent, model.encode(frames[::-1].copy()))
    with pytest.raises(InputError, match=r"16, H, W"):
        model.encode(frames[:15])
    with pytest.raises(InputError, match="float"):
        model.encode(frames.astype(float))
    with pytest.raises(ConfigError, match="another spacing"):
        model.encode(frames, 500.0)


def test_latents_of_another_shape_and_options_that_draw_are_refused(model):
    latent = torch.zeros(model.info.autoencoder.latent_shape)
    with pytest.raises(InputError, match="these weights need"):
        model.animate(textured_still(), torch.zeros(3, 1, 1, 1))
    with pytest.raises(InputError, match="40 frames need 3 latents; 1 were given"):
        model.animate(textured_still(), latent, options=GenerateOptions(frames=40))
    with pytest.raises(ConfigError, match="--sampler out"):
        model.animate(textured_still(), latent, options=GenerateOptions(sampler="ddim"))


def test_a_long_clip_begins_as_the_short_one_and_goes_on(model):
    still = textured_still()
    mask = np.zeros(still.shape, bool)
    mask[20:40, 25:50] = True
    short = model(still, mask=mask, seed=2, options=options(model))[0]
    clip = model(still, mask=mask, seed=2, options=options(model, frames=38, longer="reseed"))[0]
    assert clip.frames.shape == (38, *still.shape)
    assert np.array_equal(clip.frames[:16], short.frames)
    assert np.array_equal(clip.masks[:16], short.masks)
    assert np.array_equal(clip.flow[:16], short.flow)
    # A segment begins as the first one does: these weights are not trained and jump off frame 0.
    steps = np.abs(np.diff(clip.frames.astype(int), axis=0)).mean((1, 2))
    assert steps[[15, 30]].max() < 1.5 * steps[0]
    assert steps.min() > 0
    thirty = model(still, mask=mask, seed=2, options=options(model, frames=30, longer="reseed"))[0]
    assert np.array_equal(thirty.frames, clip.frames[:30])
    assert np.array_equal(thirty.masks, clip.masks[:30])


def test_a_long_clip_at_rest_repeats_the_still(models):
    still = textured_still()
    clip = models["cinn"](still, options=GenerateOptions(frames=40, motion=0.0, speckle=0.0))[0]
    assert np.array_equal(clip.frames, np.broadcast_to(still, clip.frames.shape))


def test_segments_take_a_latent_each(model):
    assert [model.segments(n) for n in (2, 16, 17, 31, 32, 512)] == [1, 1, 2, 2, 3, 35]
    latents = torch.randn(2, *model.info.autoencoder.latent_shape, generator=torch.Generator().manual_seed(0))
    clip = model.animate(textured_still(), latents, options=GenerateOptions(frames=31, speckle=0.0))
    alone = model.animate(textured_still(), latents[0], options=GenerateOptions(speckle=0.0))
    assert clip.frames.shape[0] == 31
    assert np.array_equal(clip.frames[:16], alone.frames)
