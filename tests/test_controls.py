"""Conditions, guidance, prompts, seeds on the way to others, and latents that are kept, through the pipeline."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.factories import SMALL_AUTOENCODER, small_cinn_weights, small_weights, textured_still
from us_i2v.errors import ConfigError, InputError, WeightsError
from us_i2v.latents_file import METADATA_KEY, latent_space, load_latent, save_latent
from us_i2v.pipeline import GenerateOptions, ImageToVideo
from us_i2v.seeding import SeedBlend, blends, per_sample_noise, spherical
from us_i2v.weights import load_weights, read_tensors, save_weights

SHAPE = SMALL_AUTOENCODER.latent_shape


def options(**given) -> GenerateOptions:
    return GenerateOptions(**{"steps": 2} | given)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("weights")


@pytest.fixture(scope="module")
def plain(folder) -> ImageToVideo:
    return ImageToVideo.from_pretrained(small_weights(folder / "plain.safetensors"), "cpu", 1)


@pytest.fixture(scope="module")
def full(folder) -> ImageToVideo:
    """Weights that know two classes, pressure and slide."""
    file = small_weights(folder / "full.safetensors", labels=("benign", "malignant"), controls=True)
    return ImageToVideo.from_pretrained(file, "cpu", 1)


def latent(model: ImageToVideo, **given) -> torch.Tensor:
    still = torch.rand((1, 1, 32, 32), generator=torch.Generator().manual_seed(0))
    return model.generator.latents(still, [1], options(**given))


def test_headers_say_what_can_be_asked(folder, full, plain):
    assert plain.info.controls == ("strength",)
    assert full.info.controls == ("strength", "pressure", "slide")
    header = plain.info
    assert "controls" not in header.model_dump_json()
    for later in ("strength_condition", "pressure_median", "slide_median", '"pressure"'):
        assert later not in header.model_dump_json()
    assert header.model_copy(update={"strength_condition": False}).controls == ()
    never = header.denoiser.model_copy(update={"dropout": 1.0})
    assert header.model_copy(update={"denoiser": never}).controls == ()
    painting = header.autoencoder.model_copy(update={"decoder": "adain"})
    assert header.model_copy(update={"autoencoder": painting}).controls == ()
    cinn = load_weights(small_cinn_weights(folder / "c.safetensors"))
    assert cinn.header.controls == ()


def test_conditions_need_their_medians(folder, full):
    weights = load_weights(folder / "full.safetensors")
    save_weights(folder / "bad.safetensors", weights.header.model_copy(update={"slide_median": None}), weights.tensors)
    with pytest.raises(WeightsError, match="damaged header"):
        load_weights(folder / "bad.safetensors")
    save_weights(folder / "again.safetensors", weights.header, weights.tensors)
    assert load_weights(folder / "again.safetensors").header == weights.header


@pytest.mark.parametrize("given", [{"strength": 2.0}, {"pressure": -1.0}, {"slide": 1.0}, {"label": "benign"}], ids=str)
def test_conditions_change_the_latent(full, given):
    assert float((latent(full, **given) - latent(full)).abs().max()) > 1e-3


def test_a_slide_to_the_left_is_another_one_than_to_the_right(full):
    assert not torch.allclose(latent(full, slide=1.0), latent(full, slide=-1.0), atol=1e-3)


@pytest.mark.parametrize("name", ["pressure", "slide"])
def test_conditions_that_were_not_trained_are_refused(plain, name):
    with pytest.raises(ConfigError, match=rf"'{name}' = 1 was given; .*without that condition \(known: strength\)"):
        plain(textured_still(), options=options(**{name: 1.0}))
    clip = plain(textured_still(40, 40), options=options(strength=1.0))[0]
    assert clip.frames.shape[0] == 16


def test_a_flow_has_no_motion_conditions(folder):
    model = ImageToVideo.from_pretrained(small_cinn_weights(folder / "c.safetensors"), "cpu", 1)
    with pytest.raises(ConfigError, match=r"known: none.*--strength out"):
        model(textured_still(), options=GenerateOptions(strength=1.0))


@pytest.mark.parametrize("given", [{"label": "benign"}, {"slide": 1.0}], ids=str)
def test_guidance_goes_away_from_what_was_not_asked(full, given):
    one, free = latent(full, **given), latent(full)
    assert torch.equal(latent(full, guidance=1.0, **given), one)
    assert torch.equal(latent(full, guidance=0.0, **given), free)
    # One step of a sampler is affine in the network's output.
    single = {"steps": 1} | given
    base, there = latent(full, steps=1), latent(full, **single)
    assert torch.allclose(latent(full, guidance=3.0, **single), base + 3 * (there - base), atol=1e-4)
    assert not torch.allclose(there, base, atol=1e-4)


def test_guidance_by_nothing_is_refused(full):
    with pytest.raises(ConfigError, match="without anything to guide by"):
        full(textured_still(), options=options(guidance=2.0))


def test_options_that_came_later_leave_old_dumps_alone():
    assert set(GenerateOptions().model_dump()) == {
        *("frames", "steps", "sampler", "motion", "speckle", "texture", "label", "guidance", "fps")
    }
    assert GenerateOptions(slide=-1.0).model_dump()["slide"] == -1.0
    assert GenerateOptions.parse(json.loads(GenerateOptions(slide=-1.0).dump())).slide == -1.0


def test_prompts_become_options(full, plain):
    asked = full.prompted("slow compression, malignant, slight slide left, long", options(speckle=0.5))
    assert asked == options(speckle=0.5, pressure=0.5, label="malignant", slide=-0.5, frames=64)
    assert asked.model_fields_set == {"steps", "speckle", "pressure", "label", "slide", "frames"}
    assert full.prompted("still").motion == 0
    with pytest.raises(ConfigError, match="'compression' needs the condition 'pressure'"):
        plain.prompted("compression")
    with pytest.raises(ConfigError, match=r"says slide = 1\.0; the option is given as 0\.5 too"):
        full.prompted("slide", options(slide=0.5))
    closing = full.prompted("slow breathing")
    assert (closing.loop, closing.strength) == (True, 0.5)


def test_spherical_keeps_the_length_and_meets_both_ends():
    a, b = torch.randn((2, 5000), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for share in (0.0, 0.25, 0.5, 1.0):
        between = spherical(a, b, share)
        assert float(between.norm()) == pytest.approx(5000**0.5, rel=0.02)
        cosine = torch.nn.functional.cosine_similarity
        angle, whole = (float(cosine(a, x, dim=0).clamp(-1, 1).arccos()) for x in (between, b))
        assert angle == pytest.approx(share * whole, abs=2e-2)
    assert torch.allclose(spherical(a, a, 0.3), a)
    assert torch.equal(spherical(torch.zeros(3), torch.zeros(3), 0.5), torch.zeros(3))


def test_noise_of_a_blend():
    ends = per_sample_noise([4, 9], (300,), "latent")
    noise = per_sample_noise([*blends(4, 9, 3), 4], (300,), "latent")
    assert torch.equal(noise[0], ends[0])
    assert torch.equal(noise[2], ends[1])
    assert torch.equal(noise[3], ends[0])
    assert torch.equal(noise[1], spherical(ends[0], ends[1], 0.5))
    assert [blend.share for blend in blends(4, 9, 5)] == [0, 0.25, 0.5, 0.75, 1]


@pytest.mark.parametrize(
    "given",
    [{}, {"sampler": "ddpm"}, {"frames": 20}, {"frames": 20, "longer": "reseed"}, {"loop": True}],
    ids=str,
)
def test_interpolation_meets_both_seeds_clips(plain, given):
    still, chosen = textured_still(40, 44), options(**given)
    clips = plain.interpolate(still, seed=3, other=11, num_clips=3, options=chosen)
    first, last = (plain(still, seed=seed, options=chosen)[0] for seed in (3, 11))
    for made, alone in ((clips[0], first), (clips[2], last)):
        assert np.array_equal(made.frames, alone.frames)
        assert np.array_equal(made.flow, alone.flow)
    middle = clips[1]
    for end in (first, last):
        assert np.abs(middle.flow - end.flow).max() > 1e-3
    assert middle.seed == SeedBlend(3, 11, 0.5)
    again = plain(still, seed=middle.seed, options=chosen)[0]
    assert np.array_equal(again.frames, middle.frames)


def test_an_interpolation_takes_two_clips(plain):
    with pytest.raises(ConfigError, match="takes 2"):
        plain.interpolate(textured_still(), seed=1, other=2, num_clips=1)
    with pytest.raises(ConfigError, match="one blend"):
        plain(textured_still(), seed=SeedBlend(1, 2, 0.5), num_clips=2)


def keep(path: Path, model: ImageToVideo, latent: torch.Tensor, **given) -> Path:
    common = {"space": model.latent_space, "weights_sha256": model.weights_sha256, "frames": 16, "fps": 10.0}
    save_latent(path, latent, **common | given)
    return path


def load(path: Path, model: ImageToVideo):
    return load_latent(path, space=model.latent_space, shape=model.info.autoencoder.latent_shape)


@pytest.mark.parametrize(
    "given",
    [{}, {"frames": 20}, {"frames": 20, "longer": "reseed"}, {"loop": True}, {"frames": 24, "loop": True}],
    ids=str,
)
def test_a_kept_latent_gives_the_clip_again(plain, tmp_path, given):
    """Reseeded segments see the frame before, which is the same on the same still."""
    still, chosen = textured_still(40, 44), options(**given)
    clip = plain(still, seed=5, options=chosen)[0]
    saved = load(keep(tmp_path / "l.safetensors", plain, clip.latent, seed=5, frames=chosen.frames), plain)
    assert torch.equal(saved.latent, clip.latent)
    again = plain.animate(
        still, saved.latent, seed=5, options=GenerateOptions(frames=saved.header.frames, loop=chosen.loop)
    )
    assert np.array_equal(again.frames, clip.frames)
    assert saved.header.seed == 5
    assert saved.header.weights_sha256 == plain.weights_sha256
    assert saved.header.mean == pytest.approx(float(clip.latent.mean()), abs=1e-5)
    assert saved.header.sd == pytest.approx(float(clip.latent.std(correction=0)), abs=1e-5)


def test_the_latent_space_is_the_first_stage(folder, plain, tmp_path):
    weights = load_weights(folder / "plain.safetensors")
    save_weights(tmp_path / "half.safetensors", weights.header, weights.tensors, half=True)
    half = ImageToVideo.from_pretrained(tmp_path / "half.safetensors", "cpu", 1)
    assert half.weights_sha256 != plain.weights_sha256
    assert half.latent_space == plain.latent_space == latent_space(weights.autoencoder())
    redone = weights.tensors | {k: v + 1 for k, v in weights.tensors.items() if k.startswith("denoiser.")}
    save_weights(tmp_path / "redone.safetensors", weights.header, redone)
    assert latent_space(load_weights(tmp_path / "redone.safetensors").autoencoder()) == plain.latent_space
    other = ImageToVideo.from_pretrained(small_weights(tmp_path / "o.safetensors", seed=1), "cpu", 1)
    assert other.latent_space != plain.latent_space
    file = keep(tmp_path / "l.safetensors", plain, torch.zeros(1, *SHAPE))
    assert load(file, half).latent.shape == (1, *SHAPE)
    with pytest.raises(InputError, match="belongs to another first stage"):
        load(file, other)


def test_latents_that_are_damaged_or_strange_are_refused(plain, folder, tmp_path):
    file = keep(tmp_path / "l.safetensors", plain, torch.zeros(1, *SHAPE))
    tensors, metadata = load_file(file), read_tensors(file)[0]
    bad = tmp_path / "bad.safetensors"

    def refused(match: str, changed: dict[str, torch.Tensor] | None = None, **header: object) -> None:
        values = json.loads(metadata[METADATA_KEY]) | header
        save_file(tensors if changed is None else changed, bad, {METADATA_KEY: json.dumps(values)})
        with pytest.raises(InputError, match=match):
            load(bad, plain)

    refused("NaN or infinity", {"latent": torch.full((1, *SHAPE), torch.nan)})
    refused("one float32 tensor", {"latent": tensors["latent"].half()})
    refused("one float32 tensor", {"latent": tensors["latent"], "more": torch.zeros(1)})
    refused("one float32 tensor", {"other": tensors["latent"]})
    refused("these weights need", {"latent": torch.zeros(1, *SHAPE[:3], SHAPE[3] + 1)})
    wrong = (1, SHAPE[0] + 1, *SHAPE[1:])
    refused("these weights need", {"latent": torch.zeros(wrong)}, shape=wrong)
    two_long = (2, SHAPE[0], SHAPE[1] + 1, *SHAPE[2:])
    refused("these weights need", {"latent": torch.zeros(two_long)}, shape=two_long)
    refused("format 2", format_version=2)
    refused("damaged header", seed=-1)
    refused("damaged header", extra=1)
    with pytest.raises(InputError, match="no latent file"):
        load(folder / "plain.safetensors", plain)
    with pytest.raises(InputError, match="does not exist"):
        load(tmp_path / "none.safetensors", plain)
    bad.write_bytes(b"nothing")
    with pytest.raises(InputError, match="not a readable"):
        load(bad, plain)
    for latent in (torch.full((1, *SHAPE), torch.inf), torch.zeros(SHAPE)):
        with pytest.raises(InputError, match="finite numbers"):
            keep(tmp_path / "x.safetensors", plain, latent)
    assert not (tmp_path / "x.safetensors").exists()


def test_animating_refuses_what_draws(plain):
    for given in ({"strength": 1.0}, {"pressure": 1.0}, {"slide": 1.0}):
        with pytest.raises(ConfigError, match=f"--{next(iter(given))} out"):
            plain.animate(textured_still(), torch.zeros(SHAPE), options=GenerateOptions(**given))
