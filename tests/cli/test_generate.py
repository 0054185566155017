"""`us-i2v generate`: which files come out, with which settings, and what is refused before any work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage
from typer.testing import Result

from tests.cli.conftest import one_line_error
from tests.fakes import FakeGenerator, still_pixels, tree, write_png
from us_i2v.data.clips import open_clip

Run = Callable[..., Result]


@pytest.fixture
def still(tmp_path: Path) -> Path:
    return write_png(tmp_path / "in" / "still.png", still_pixels(1))


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    pixels = np.zeros((40, 48), bool)
    pixels[5:15, 10:20] = True
    return write_png(tmp_path / "in" / "lesion.png", pixels)


@pytest.mark.parametrize("name", ["c.mp4", "c.mkv", "c.avi", "c.gif", "c.npz", "c", "new/folder/c.mp4"])
def test_one_still_gives_one_clip(
    us_i2v: Run, generator: FakeGenerator, still: Path, tmp_path: Path, name: str
) -> None:
    out = tmp_path / "out" / name
    result = us_i2v("generate", still, "-o", out)
    assert result.exit_code == 0, result.stderr
    assert open_clip(out).n_frames == 16
    beside = [] if name == "c" else [out.with_name(f"{out.name}.json")]
    assert sorted(out.parent.iterdir()) == [out, *beside]
    assert result.stdout == f"{out}: 16 frames, 48x40, 20 fps, seed 0, weights lddm abababababab\n"


def test_options_reach_the_generator(us_i2v: Run, generator: FakeGenerator, still: Path, tmp_path: Path) -> None:
    line = "--frames 5 --fps 12.5 --seed 9 --steps 7 --sampler ddim --motion 0.5 --speckle 0.25 --size 32"
    extra = ["--label", "benign", "--guidance", "2", "--texture", "additive"]
    result = us_i2v("generate", still, "-o", tmp_path / "c.npz", *line.split(), *extra)
    assert result.exit_code == 0, result.stderr
    (call,) = generator.calls
    assert (call.seed, call.size) == (9, 32)
    assert call.options.model_dump() == {
        "frames": 5,
        "steps": 7,
        "sampler": "ddim",
        "motion": 0.5,
        "speckle": 0.25,
        "texture": "additive",
        "label": "benign",
        "guidance": 2.0,
        "fps": 12.5,
    }
    assert np.load(tmp_path / "c.npz")["frames"].shape == (5, 32, 32)


def test_weights_device_and_threads_reach_the_loader(
    us_i2v: Run, still: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from us_i2v.pipeline import CPU_THREADS, ImageToVideo

    asked: list[tuple[object, ...]] = []

    def load(weights: object, device: object, threads: int, precision: str) -> FakeGenerator:
        asked.append((weights, device, threads, precision))
        return FakeGenerator()

    monkeypatch.setattr(ImageToVideo, "from_pretrained", load)
    us_i2v("generate", still, "-o", tmp_path / "a.npz")
    line = ["--weights", "w.safetensors", "--device", "cpu", "--threads", 5, "--precision", "bf16"]
    us_i2v("generate", still, "-o", tmp_path / "b.npz", *line)
    assert asked == [(None, "auto", CPU_THREADS, "fp32"), ("w.safetensors", "cpu", 5, "bf16")]


def test_several_clips_of_a_still(us_i2v: Run, generator: FakeGenerator, still: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = us_i2v("generate", still, "-o", out, "--num-clips", 3, "--seed", 4, "--ext", "npz")
    assert result.exit_code == 0, result.stderr
    assert sorted(tree(out)) == [f"still_seed{seed}.npz{rest}" for seed in (4, 5, 6) for rest in ("", ".json")]
    assert len(result.stdout.splitlines()) == 3
    us_i2v("generate", still, "-o", tmp_path / "alone.npz", "--seed", 5)
    assert (tmp_path / "alone.npz").read_bytes() == (out / "still_seed5.npz").read_bytes()


def test_several_stills_with_a_mask_each(us_i2v: Run, generator: FakeGenerator, mask: Path, tmp_path: Path) -> None:
    first = write_png(tmp_path / "in" / "a.png", still_pixels(1))
    second = write_png(tmp_path / "in" / "b.png", still_pixels(2))
    empty = write_png(tmp_path / "in" / "empty.png", np.zeros((40, 48), bool))
    out = tmp_path / "out"
    result = us_i2v("generate", first, second, "-o", out, "--mask", mask, "--mask", empty)
    assert result.exit_code == 0, result.stderr
    assert sorted(tree(out)) == [f"{name}{rest}" for name in "ab" for rest in (".mp4", ".mp4.json", "_mask.mkv")]
    assert [int(call.mask.sum()) for call in generator.calls] == [100, 0]


def test_masks_of_one_still_are_united(us_i2v: Run, generator: FakeGenerator, still: Path, mask: Path) -> None:
    other = np.zeros((40, 48), bool)
    other[30:35, 30:35] = True
    second = write_png(mask.parent / "second.png", other)
    out = still.parent / "c.npz"
    result = us_i2v("generate", still, "-o", out, "--mask", mask, "--mask", second)
    assert result.exit_code == 0, result.stderr
    assert int(generator.calls[0].mask.sum()) == 125
    masks = np.load(out.with_name("c_mask.npz"))["frames"]
    assert masks.shape == (16, 40, 48)
    np.testing.assert_array_equal(masks[0] > 0, generator.calls[0].mask)


def test_colour_stays_colour(us_i2v: Run, generator: FakeGenerator, tmp_path: Path) -> None:
    pixels = np.stack([still_pixels(seed) for seed in range(3)], axis=2)
    still = write_png(tmp_path / "colour.png", pixels)
    us_i2v("generate", still, "-o", tmp_path / "c.npz")
    np.testing.assert_array_equal(np.load(tmp_path / "c.npz")["frames"][0], pixels)


def test_exact_video_holds_the_still(us_i2v: Run, generator: FakeGenerator, still: Path, tmp_path: Path) -> None:
    us_i2v("generate", still, "-o", tmp_path / "c.mp4", "--exact")
    np.testing.assert_array_equal(open_clip(tmp_path / "c.mp4").read([0])[0], still_pixels(1))


def test_preview_strip(us_i2v: Run, generator: FakeGenerator, still: Path, mask: Path, tmp_path: Path) -> None:
    strip = tmp_path / "pictures" / "strip.png"
    us_i2v("generate", still, "-o", tmp_path / "c.npz", "--preview", strip)
    picture = np.asarray(PillowImage.open(strip))
    assert picture.shape == (40, 8 * 48)
    frames = np.load(tmp_path / "c.npz")["frames"]
    np.testing.assert_array_equal(picture[:, :48], frames[0])
    np.testing.assert_array_equal(picture[:, -48:], frames[15])
    us_i2v("generate", still, "-o", tmp_path / "c.npz", "--preview", strip, "--mask", mask)
    assert np.asarray(PillowImage.open(strip)).shape == (40, 8 * 48, 3)


@pytest.mark.parametrize("name", ["c.mp4", "c"])
def test_the_same_command_gives_the_same_bytes(
    us_i2v: Run, generator: FakeGenerator, still: Path, mask: Path, tmp_path: Path, name: str
) -> None:
    for folder in ("one", "two", "two"):
        assert us_i2v("generate", still, "-o", tmp_path / folder / name, "--mask", mask).exit_code == 0
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def refused(us_i2v: Run, generator: FakeGenerator, folder: Path, *line: object) -> str:
    """Run a command line that must be refused before anything is generated or written."""
    before = tree(folder)
    message = one_line_error(us_i2v("generate", *line))
    assert generator.calls == []
    assert tree(folder) == before
    return message


def test_several_clips_do_not_fit_a_file(us_i2v: Run, generator: FakeGenerator, still: Path, tmp_path: Path) -> None:
    assert "folder" in refused(us_i2v, generator, tmp_path, still, "-o", tmp_path / "c.mp4", "--num-clips", 2)


def test_unknown_ending(us_i2v: Run, generator: FakeGenerator, still: Path, tmp_path: Path) -> None:
    assert "'.wmv'" in refused(us_i2v, generator, tmp_path, still, "-o", tmp_path / "c.wmv")
    line = [still, "-o", tmp_path / "c", "--num-clips", 2, "--ext", "wmv"]
    assert "'wmv'" in refused(us_i2v, generator, tmp_path, *line)


def test_masks_and_stills_must_pair_up(
    us_i2v: Run, generator: FakeGenerator, still: Path, mask: Path, tmp_path: Path
) -> None:
    other = write_png(tmp_path / "other.png", still_pixels(2))
    assert "1 masks" in refused(us_i2v, generator, tmp_path, still, other, "-o", tmp_path / "c", "--mask", mask)


def test_stills_of_one_name(us_i2v: Run, generator: FakeGenerator, still: Path, tmp_path: Path) -> None:
    other = write_png(tmp_path / "other" / "still.png", still_pixels(2))
    message = refused(us_i2v, generator, tmp_path, still, other, "-o", tmp_path / "c")
    assert str(still) in message
    assert str(other) in message


def test_input_is_never_overwritten(us_i2v: Run, generator: FakeGenerator, still: Path, tmp_path: Path) -> None:
    gif = tmp_path / "still.gif"
    PillowImage.fromarray(still_pixels(1)).save(gif)
    assert "overwrite" in refused(us_i2v, generator, tmp_path, gif, "-o", gif)
    assert "overwrite" in refused(us_i2v, generator, tmp_path, still, "-o", tmp_path / "c.mp4", "--preview", still)


def test_preview_must_be_a_png(us_i2v: Run, generator: FakeGenerator, still: Path, tmp_path: Path) -> None:
    line = [still, "-o", tmp_path / "c.mp4", "--preview", tmp_path / "strip.jpg"]
    assert ".png" in refused(us_i2v, generator, tmp_path, *line)


@pytest.mark.parametrize(
    "option", [("--frames", 513), ("--motion", 4), ("--speckle", -1), ("--sampler", "leap-frog"), ("--fps", 0)]
)
def test_options_out_of_range(
    us_i2v: Run, generator: FakeGenerator, still: Path, tmp_path: Path, option: tuple[str, object]
) -> None:
    message = refused(us_i2v, generator, tmp_path, still, "-o", tmp_path / "c.mp4", *option)
    assert option[0].removeprefix("--") in message


@pytest.mark.parametrize("size", ["big", "8", "-3", "1e3"])
def test_wrong_size_is_wrong_usage(
    us_i2v: Run, generator: FakeGenerator, still: Path, tmp_path: Path, size: str
) -> None:
    result = us_i2v("generate", still, "-o", tmp_path / "c.mp4", "--size", size)
    assert result.exit_code == 2
    assert "native" in result.stderr
    assert not (tmp_path / "c.mp4").exists()
