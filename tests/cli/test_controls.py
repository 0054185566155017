"""Motion controls from the command line, with real (untrained) weights; what is refused, and that nothing is left."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import Result

from tests.cli.test_bad_input import refused
from tests.factories import small_cinn_weights, small_weights, textured_still
from tests.fakes import tree, write_png
from us_i2v.latents_file import METADATA_KEY
from us_i2v.pipeline import GenerateOptions, ImageToVideo
from us_i2v.weights import read_tensors

Run = Callable[..., Result]


@pytest.fixture
def still(tmp_path: Path) -> Path:
    return write_png(tmp_path / "in" / "still.png", textured_still(40, 44))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_weights(tmp_path_factory.mktemp("w") / "plain.safetensors")


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("w")
    return small_weights(folder / "full.safetensors", labels=("benign", "malignant"), controls=True)


def generate(us_i2v: Run, weights: Path, still: Path, out: Path, *line: object) -> Result:
    common = ["--weights", weights, "--device", "cpu", "--threads", 1]
    result = us_i2v("generate", still, "-o", out, *common, *line)
    assert result.exit_code == 0, result.stderr
    return result


def frames(path: Path) -> np.ndarray:
    return np.load(path)["frames"]


def test_label_guidance_and_conditions_reach_the_network(us_i2v: Run, full: Path, still: Path, tmp_path: Path) -> None:
    given = ["--label", "malignant", "--guidance", 3, "--strength", 1.5, "--pressure", 1, "--slide", -1]
    generate(us_i2v, full, still, tmp_path / "c.npz", "--steps", 2, *given)
    model = ImageToVideo.from_pretrained(full, "cpu", 1)
    options = GenerateOptions(steps=2, label="malignant", guidance=3.0, strength=1.5, pressure=1.0, slide=-1.0)
    expected = model(still, options=options)[0].frames
    assert np.array_equal(frames(tmp_path / "c.npz"), expected)
    for name in ("label", "guidance", "strength", "pressure", "slide"):
        less = options.model_copy(update={name: None})
        assert not np.array_equal(model(still, options=less)[0].frames, expected), name


def test_a_prompt_is_its_options(us_i2v: Run, full: Path, still: Path, tmp_path: Path) -> None:
    prompt = "slow compression, malignant, slight slide left"
    generate(us_i2v, full, still, tmp_path / "a.npz", "--steps", 2, "--prompt", prompt)
    line = ["--pressure", 0.5, "--label", "malignant", "--slide", -0.5]
    generate(us_i2v, full, still, tmp_path / "b.npz", "--steps", 2, *line)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_clips_on_the_way_from_seed_to_seed(us_i2v: Run, plain: Path, still: Path, tmp_path: Path) -> None:
    line = ["--steps", 2, "--ext", "npz"]
    result = generate(us_i2v, plain, still, tmp_path / "way", "--seed", 3, "--interpolate", 9, "--num-clips", 3, *line)
    made = {name: data for name, data in tree(tmp_path / "way").items() if name.endswith(".npz")}
    assert sorted(made) == [f"still_seed3to9_{k}.npz" for k in range(3)]
    assert "seed 3 to 9 at 0.5" in result.stdout
    for seed, name in ((3, "still_seed3to9_0.npz"), (9, "still_seed3to9_2.npz")):
        generate(us_i2v, plain, still, tmp_path / "alone.npz", "--seed", seed, "--steps", 2)
        assert (tmp_path / "alone.npz").read_bytes() == made[name]
    assert len(set(made.values())) == 3


@pytest.mark.parametrize("more", [[], ["--frames", 20], ["--frames", 24, "--loop"], ["--frames", 20, "--fps", 12]])
def test_one_motion_on_many_stills(us_i2v: Run, plain: Path, still: Path, tmp_path: Path, more: list[object]) -> None:
    kept = tmp_path / "new" / "motion.safetensors"
    generate(us_i2v, plain, still, tmp_path / "a.npz", "--steps", 2, "--seed", 5, "--save-latent", kept, *more)
    header = json.loads(read_tensors(kept)[0][METADATA_KEY])
    model = ImageToVideo.from_pretrained(plain, "cpu", 1)
    assert header["seed"] == 5
    assert header["weights_sha256"] == model.weights_sha256
    assert header["shape"][1] == model.info.autoencoder.latent_channels
    generate(us_i2v, plain, still, tmp_path / "b.npz", "--seed", 5, "--latent", kept)
    assert np.array_equal(frames(tmp_path / "a.npz"), frames(tmp_path / "b.npz"))
    other = write_png(tmp_path / "in" / "other.png", textured_still(50, 40, seed=2))
    common = ["--weights", plain, "--device", "cpu", "--ext", "npz", "--latent", kept, "--frames", 16, "--speckle", 0]
    if "--loop" not in more:
        result = us_i2v("generate", still, other, "-o", tmp_path / "both", *common)
        assert result.exit_code == 0, result.stderr
        assert frames(tmp_path / "both" / "other.npz").shape == (16, 50, 40)


def test_only_the_first_clips_latent_is_kept(us_i2v: Run, plain: Path, still: Path, tmp_path: Path) -> None:
    for name, line in {"one": [], "many": ["--num-clips", 2]}.items():
        kept = tmp_path / f"{name}.safetensors"
        generate(us_i2v, plain, still, tmp_path / name, "--steps", 2, "--seed", 4, "--save-latent", kept, *line)
    assert (tmp_path / "one.safetensors").read_bytes() == (tmp_path / "many.safetensors").read_bytes()


def test_a_drivers_latent_can_be_kept(us_i2v: Run, plain: Path, still: Path, tmp_path: Path) -> None:
    big = textured_still(80, 44)
    np.savez(tmp_path / "driver.npz", frames=np.stack([big[t : t + 40] for t in range(33)]), fps=np.float32(10))
    kept = tmp_path / "d.safetensors"
    common = ["--weights", plain, "--device", "cpu", "--threads", 1]
    line = ["--frames", 20, "--stride", 1, "--save-latent", kept]
    result = us_i2v("transfer", tmp_path / "driver.npz", still, "-o", tmp_path / "t.npz", *common, *line)
    assert result.exit_code == 0, result.stderr
    generate(us_i2v, plain, still, tmp_path / "g.npz", "--latent", kept)
    assert np.array_equal(frames(tmp_path / "t.npz"), frames(tmp_path / "g.npz"))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["--pressure", 1], ["'pressure' = 1", "known: strength", "--pressure"]),
        (["--slide", 1], ["'slide' = 1"]),
        (["--slide", 9], ["slide", "9"]),
        (["--strength", -1], ["strength"]),
        (["--label", "benign"], ["'benign'", "known: none"]),
        (["--guidance", 2], ["without anything to guide by"]),
        (["--prompt", "slow compression"], ["'compression'", "'pressure'", "known: strength"]),
        (["--prompt", "slow compresion"], ["'compresion'", "Did you mean 'compression'?", "breathing"]),
        (["--prompt", "slow motion", "--strength", 1], ["prompt", "strength"]),
        (["--interpolate", 5], ["2 or more", "--num-clips"]),
        (["--latent", "nothing.safetensors"], ["'nothing.safetensors' does not exist"]),
        (["--latent", "x.safetensors", "--interpolate", 5, "--num-clips", 2], ["'interpolate'"]),
        (["--latent", "x.safetensors", "--prompt", "still"], ["'prompt'"]),
        (["--latent", "x.safetensors", "--save-latent", "y.safetensors"], ["'save-latent'"]),
        (["--save-latent", "y.npz"], ["'y.npz'", ".safetensors"]),
    ],
    ids=str,
)
def test_what_is_refused(
    us_i2v: Run, plain: Path, still: Path, tmp_path: Path, line: list[object], words: list[str]
) -> None:
    out = ["-o", tmp_path / ("clips" if "--num-clips" in line else "c.npz"), "--weights", plain, "--device", "cpu"]
    message = refused(us_i2v, tmp_path, "generate", still, *out, *line)
    for word in words:
        assert word.lower() in message.lower()


def test_flows_have_no_motion_conditions_but_latents(us_i2v: Run, still: Path, tmp_path: Path) -> None:
    weights = small_cinn_weights(tmp_path / "c.safetensors")
    out = ["-o", tmp_path / "c.npz", "--weights", weights, "--device", "cpu"]
    assert "known: none" in refused(us_i2v, tmp_path, "generate", still, *out, "--strength", 1)
    kept = tmp_path / "l.safetensors"
    generate(us_i2v, weights, still, tmp_path / "a.npz", "--seed", 1, "--save-latent", kept)
    generate(us_i2v, weights, still, tmp_path / "b.npz", "--seed", 1, "--latent", kept)
    assert np.array_equal(frames(tmp_path / "a.npz"), frames(tmp_path / "b.npz"))


def test_latents_of_other_weights_and_options_that_draw_are_refused(
    us_i2v: Run, plain: Path, still: Path, tmp_path: Path
) -> None:
    kept = tmp_path / "l.safetensors"
    generate(us_i2v, plain, still, tmp_path / "a.npz", "--steps", 2, "--save-latent", kept)
    out = ["-o", tmp_path / "c.npz", "--device", "cpu", "--latent", kept]
    other = small_weights(tmp_path / "o.safetensors", seed=7)
    assert "another first stage" in refused(us_i2v, tmp_path, "generate", still, *out, "--weights", other)
    message = refused(us_i2v, tmp_path, "generate", still, *out, "--weights", plain, "--strength", 1)
    assert "the latent is given" in message
    line = [still, "-o", tmp_path / "c.npz", "--weights", plain, "--save-latent", tmp_path / "in"]
    assert "'.safetensors'" in refused(us_i2v, tmp_path, "generate", *line).replace(".safetensors", "'.safetensors'")
