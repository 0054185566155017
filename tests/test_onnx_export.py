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
from us_i2v.errors import ConfigError
from us_i2v.models.render import carried
from us_i2v.models.speckle import Grain
from us_i2v.onnx_export import INPUTS, ClipGraph, Resize, check_exportable, draw_inputs, export
from us_i2v.pipeline import GenerateOptions, ImageToVideo

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
    grain = Grain.measure(textured_still(16, 20).astype(np.float32) / 255 - 0.5)
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
