"""`us-i2v export-onnx`: the still-to-clip path as one ONNX graph of fixed shape."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from us_i2v.cli import options as opt
from us_i2v.errors import ConfigError


def command(
    weights: Annotated[
        str,
        typer.Argument(metavar="WEIGHTS", help="Weights file, run folder or ORG/NAME; 'bundled': the bundled ones."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="MODEL.onnx", help="What to write.")],
    size: Annotated[
        str | None,
        typer.Option(
            "--size", metavar="WxH|STILL", help="Size of stills, or one of them. [default: the model's square]"
        ),
    ] = None,
    frames: opt.Frames = None,
    steps: opt.Steps = None,
    sampler: opt.Sampler = None,
    fps: opt.Fps = None,
    motion: opt.Motion = None,
    speckle: opt.Speckle = None,
    label: opt.Label = None,
    guidance: opt.Guidance = None,
    strength: opt.Strength = None,
    pressure: opt.Pressure = None,
    slide: opt.Slide = None,
) -> None:
    """Write weights as an ONNX graph: a gray still and noise in, frames out; sizes, steps and conditions are fixed.

    All noise is input, see docs/onnx.md; `us_i2v.onnx_export.draw_inputs` draws it. Needs the extra `onnx`.

    Example: us-i2v export-onnx bundled -o model.onnx --size 128x128 --steps 4
    """
    from us_i2v.data.atomic import check_writable
    from us_i2v.errors import OutputError

    if output.suffix.lower() != ".onnx" or output.is_dir():
        raise OutputError(f"'{output}' is no name of an .onnx file.", "Give for example model.onnx.")
    check_writable(output)
    options = opt.generate_options(
        frames=frames,
        steps=steps,
        sampler=sampler,
        fps=fps,
        motion=motion,
        speckle=speckle,
        label=label,
        guidance=guidance,
        strength=strength,
        pressure=pressure,
        slide=slide,
    )
    from us_i2v.onnx_export import export
    from us_i2v.pipeline import ImageToVideo

    wanted = None if size is None else parse_size(size)
    model = ImageToVideo.from_pretrained(None if weights == "bundled" else weights, "cpu")
    side = model.info.autoencoder.size
    height, width = wanted or (side, side)
    export(model, output, (height, width), options)
    megabytes = output.stat().st_size / 1e6
    typer.echo(f"{output}: {options.frames} frames of {width}x{height}, {megabytes:.1f} MB")


def parse_size(text: str) -> tuple[int, int]:
    """Turn "640x480", or the path of a still, into (height, width)."""
    from us_i2v.data.stills import read_still

    match = re.fullmatch(r"(\d{2,4})x(\d{2,4})", text)
    if match is not None:
        return int(match[2]), int(match[1])
    if not Path(text).exists():
        raise ConfigError(f"Size '{text}' is neither WxH nor a still.", "Write for example --size 640x480.")
    still = read_still(Path(text))
    return still.shape[0], still.shape[1]
