"""The exported graph, run by onnxruntime, makes the clip that torch makes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.cli.conftest import one_line_error, us_i2v
from tests.factories import small_cinn_weights, small_weights, textured_still
from tests.fakes import write_png
from us_i2v import onnx_export
from us_i2v.data.transforms import to_gray
from us_i2v.errors import ConfigError, InputError, OutputError
from us_i2v.models.render import carried
from us_i2v.models.speckle import Grain
from us_i2v.models.speckle_config import SpeckleConfig
from us_i2v.onnx_export import INPUTS, ClipGraph, Resize, check_exportable, draw_inputs, export
from us_i2v.pipeline import GenerateOptions, ImageToVideo
from us_i2v.weights import load_weights, save_weights

__all__ = ["us_i2v"]

SIDE = 32
SIZES = ((SIDE, SIDE), (40, 51))
OPTIONS = GenerateOptions(steps=2, frames=9, motion=0.7, speckle=0.8)
ROUNDING = 0.5 / 255


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ImageToVideo:
    path = small_weights(tmp_path_factory.mktemp("onnx") / "w.safetensors", labels=("benign",), controls=True)
    return ImageToVideo.from_pretrained(path, "cpu")


def run_graph(model: ImageToVideo, size: tuple[int, int], options: GenerateOptions, seed: int) -> np.ndarray:
    inputs = draw_inputs(model, textured_still(*size), options, seed)
    with torch.no_grad():
        return ClipGraph(model, size, options)(*(torch.from_numpy(inputs[name]) for name in INPUTS)).numpy()[0, 0]


@pytest.mark.parametrize("options", [OPTIONS, GenerateOptions(steps=2, label="benign", slide=1.0, guidance=2.0)])
def test_the_graph_makes_the_pipelines_clip(model: ImageToVideo, options: GenerateOptions) -> None:
    """At the model's own size nothing is rounded on the way; clips are stored in 8 bits."""
    clip = model(textured_still(SIDE, SIDE), seed=5, options=options)[0].frames
    made = run_graph(model, (SIDE, SIDE), options, 5)
    assert np.abs(made - clip / 255).max() < ROUNDING + 1e-4
    assert np.abs(made[1:] - made[:1]).mean() > 0.02
    other = run_graph(model, (SIDE, SIDE), options, 6)
    assert np.abs(other - made).max() > 0.1


def test_at_another_size_only_the_networks_view_is_rounded_differently(model: ImageToVideo) -> None:
    clip = model(textured_still(40, 51), seed=5, options=OPTIONS)[0].frames
    difference = np.abs(run_graph(model, (40, 51), OPTIONS, 5) - clip / 255)
    assert difference.mean() < 0.002
    assert difference.max() < 0.02


def test_onnxruntime_makes_the_same_clip(model: ImageToVideo, tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="onnx is not installed")
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    size = SIZES[1]
    export(model, tmp_path / "m.onnx", size, OPTIONS)
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]
    session = runtime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    assert [node.name for node in session.get_inputs()] == list(INPUTS)
    for seed in range(3):
        (frames,) = session.run(["frames"], draw_inputs(model, textured_still(*size), OPTIONS, seed))
        assert frames.shape == (1, 1, OPTIONS.frames, *size)
        assert np.abs(frames[0, 0] - run_graph(model, size, OPTIONS, seed)).max() < 1e-3


CASES = {
    "documented": (None, GenerateOptions(steps=4)),
    "label": ("labels", GenerateOptions(steps=2, label="benign", guidance=2.0, slide=1.0)),
    "interval": ("interval", GenerateOptions(steps=1, frames=9, fps=20.0)),
}


@pytest.mark.parametrize("case", CASES)
def test_onnxruntime_with_what_weights_can_hold(model: ImageToVideo, tmp_path: Path, case: str) -> None:
    """The bundled weights as documented; a class with guidance; speckle that follows the frame rate."""
    pytest.importorskip("onnx", reason="onnx is not installed")
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    kind, options = CASES[case]
    if kind is None:
        model = ImageToVideo.from_pretrained(device="cpu")
    elif kind == "interval":
        model = timed(tmp_path)
    size = (48, 64)
    export(model, tmp_path / "m.onnx", size, options)
    session = runtime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    expected = session.get_inputs()[0].shape[2:]
    still = textured_still(*size, colour=True)
    inputs = draw_inputs(model, still, options, 3, size=expected)
    (frames,) = session.run(["frames"], inputs)
    assert frames.shape == (1, 1, options.frames, *size)
    with torch.no_grad():
        made = ClipGraph(model, size, options)(*(torch.from_numpy(inputs[name]) for name in INPUTS)).numpy()
    assert np.abs(frames - made).max() < 1e-3
    clip = model(to_gray(still), seed=3, options=options)[0].frames
    assert np.abs(frames[0, 0] - clip / 255).mean() < 0.002
    with pytest.raises(InputError, match=r"40x32 pixels; the graph was exported for 64x48\. .*--size 40x32"):
        draw_inputs(model, still[:32, :40], options, 3, size=expected)


def timed(folder: Path, interval_s: float | None = 0.1) -> ImageToVideo:
    """Weights whose speckle's correlation holds at an interval."""
    weights = load_weights(small_weights(folder / "w.safetensors"))
    speckle = SpeckleConfig(correlation=0.6, interval_s=interval_s)
    save_weights(folder / "t.safetensors", weights.header.model_copy(update={"speckle": speckle}), weights.tensors)
    return ImageToVideo.from_pretrained(folder / "t.safetensors", "cpu")


def test_speckle_follows_the_frame_rate(tmp_path: Path) -> None:
    model, untimed = timed(tmp_path), timed(tmp_path, None)
    options = GenerateOptions(steps=2, frames=9, fps=20.0)
    clip = model(textured_still(SIDE, SIDE), seed=5, options=options)[0].frames
    assert np.abs(run_graph(model, (SIDE, SIDE), options, 5) - clip / 255).max() < ROUNDING + 1e-4
    assert np.abs(run_graph(untimed, (SIDE, SIDE), options, 5) - clip / 255).max() > 0.015


def test_a_full_disk_is_one_error(model: ImageToVideo, tmp_path: Path) -> None:
    """A limit on the size of files makes the system refuse the write."""
    pytest.importorskip("onnx", reason="onnx is not installed")
    resource = pytest.importorskip("resource", reason="this system limits no files")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(OutputError, match=r"m\.onnx' cannot be written"):
            export(model, tmp_path / "new" / "m.onnx", (SIDE, SIDE), GenerateOptions(steps=1, frames=2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("size", "word"), [((15, 64), "64x15"), ((9999, 9999), "9999x9999")])
def test_sizes_that_cannot_be_exported(model: ImageToVideo, size: tuple[int, int], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        check_exportable(model, size, OPTIONS)


def test_places_are_whole_numbers_whose_products_are_exact() -> None:
    places = onnx_export.wrapped(torch.tensor([-1.0, 0.0, 5000.0, 5001.0, 12345.0]), 5001)
    assert places.tolist() == [5000, 0, 5000, 0, 2343]
    assert int(places[2] * 5001 + places[4]) == 5000 * 5001 + 2343 > 1 << 24


@pytest.mark.parametrize(("mode", "antialias"), [("area", False), ("bilinear", True), ("bicubic", False)])
def test_resizing_by_matrices(mode: str, antialias: bool) -> None:
    picture = torch.from_numpy(textured_still(37, 50)).float()[None, None]
    for after in ((16, 23), (74, 90), (37, 20)):
        align = None if mode == "area" else False
        expected = nn.functional.interpolate(picture, after, mode=mode, align_corners=align, antialias=antialias)
        assert torch.allclose(Resize((37, 50), after, mode, antialias=antialias)(picture), expected, atol=1e-3)


def test_noise_is_carried_around_the_edges_whatever_the_flow() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1, 1, 3, 16, 20, generator=generator)
    flow = 5 * torch.randn(1, 2, 3, 16, 20, generator=generator)
    grain = Grain.measure(torch.from_numpy(textured_still(16, 20).astype(np.float32) / 255 - 0.5))
    alike = torch.stack(grain.at_rows(16).neighbours())
    assert torch.allclose(onnx_export.carried(noise, flow, alike), carried(noise, flow, grain), atol=1e-4)
    assert torch.allclose(onnx_export.carried(noise, flow, None), carried(noise, flow), atol=1e-4)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"frames": 17}, "17 frames"),
        ({"loop": True}, "in a loop"),
        ({"sampler": "ddpm"}, "ddpm"),
        ({"texture": "envelope"}, "envelope"),
        ({"label": "malignant"}, "malignant"),
    ],
)
def test_options_that_the_graph_does_not_hold(model: ImageToVideo, options: dict[str, object], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        check_exportable(model, (SIDE, SIDE), GenerateOptions(**options))


def test_weights_that_cannot_be_exported(tmp_path: Path) -> None:
    cinn = ImageToVideo.from_pretrained(small_cinn_weights(tmp_path / "c.safetensors"), "cpu")
    with pytest.raises(ConfigError, match="kind 'cinn'"):
        check_exportable(cinn, (SIDE, SIDE), GenerateOptions())


def test_command(us_i2v, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights, out = small_weights(tmp_path / "w.safetensors"), tmp_path / "m.onnx"
    asked: list[object] = []

    def noted(model: ImageToVideo, path: Path, size: tuple[int, int], options: GenerateOptions) -> None:
        asked.append((size, options.steps))
        path.write_bytes(b"x" * 2_000_000)

    monkeypatch.setattr(onnx_export, "export", noted)
    still = write_png(tmp_path / "s.png", textured_still(40, 51))
    for size in ("51x40", str(still)):
        result = us_i2v("export-onnx", weights, "-o", out, "--size", size, "--steps", 3)
        assert result.stdout == f"{out}: 16 frames of 51x40, 2.0 MB\n"
    assert us_i2v("export-onnx", weights, "-o", out).exit_code == 0
    assert asked == [((40, 51), 3), ((40, 51), 3), ((SIDE, SIDE), None)]
    assert "neither WxH nor a still" in one_line_error(us_i2v("export-onnx", weights, "-o", out, "--size", "big"))
    assert ".onnx" in one_line_error(us_i2v("export-onnx", weights, "-o", tmp_path / "m.pt"))
    monkeypatch.undo()
    monkeypatch.setattr(onnx_export, "find_spec", lambda name: None)
    out.unlink()
    assert "us-i2v[onnx]" in one_line_error(us_i2v("export-onnx", weights, "-o", out))
    assert not out.exists()
