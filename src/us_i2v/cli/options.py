"""Options that several commands share.

Options of the generator have no default here: what is not given is left to `GenerateOptions`, so that
defaults and ranges have one home. The help texts repeat them for the reader.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from us_i2v.pipeline import GenerateOptions, Precision

Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps; see `us-i2v devices`.")]
Weights = Annotated[
    str | None,
    typer.Option(
        "--weights",
        metavar="PATH",
        help="Weights file, run folder or ORG/NAME on the hub. [default: bundled weights]",
    ),
]
Frames = Annotated[int | None, typer.Option("--frames", help="Frames a clip, 2 to 512. [default: 16]")]
Fps = Annotated[
    float | None,
    typer.Option("--fps", help="Frame rate. [default: the one that the weights were trained at]"),
]
Loop = Annotated[
    bool | None,
    typer.Option("--loop", help="Close the clip: its last frame leads into its first.", show_default=False),
]
Longer = Annotated[
    str | None,
    typer.Option("--longer", help="How frames from 17 on are made: stitch or reseed; see docs/long-clips.md."),
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Same still, seed and settings: same clip.")]
Steps = Annotated[int | None, typer.Option("--steps", help="Sampling steps. [default: the sampler's own]")]
Sampler = Annotated[str | None, typer.Option("--sampler", help="ddpm, ddim or dpm-solver. [default: dpm-solver]")]
Motion = Annotated[float | None, typer.Option("--motion", help="Scales the motion, 0 to 3. [default: 1]")]
Speckle = Annotated[float | None, typer.Option("--speckle", help="Scales the change of speckle, 0 to 1. [default: 1]")]
Strength = Annotated[
    float | None,
    typer.Option("--strength", help="Motion to draw, 0 to 4, 1 = the training clips' median; see docs/controls.md."),
]
Pressure = Annotated[
    float | None,
    typer.Option("--pressure", help="Compression at the end, -4 to 4, < 0 = release; for weights that know it."),
]
Slide = Annotated[
    float | None,
    typer.Option("--slide", help="Slide at the end, -4 to 4, > 0 = to the right; for weights that know it."),
]
Prompt = Annotated[
    str | None,
    typer.Option("--prompt", help="The same in words: 'slow compression, malignant, slight slide left'."),
]
Label = Annotated[str | None, typer.Option("--label", help="Class to condition on, for weights that know classes.")]
Guidance = Annotated[
    float | None, typer.Option("--guidance", help="Strength of guidance by label and motion conditions.")
]
Texture = Annotated[
    str | None,
    typer.Option(
        "--texture", help="How speckle change is drawn: stationary, envelope or additive. [default: stationary]"
    ),
]
Threads = Annotated[
    int | None,
    typer.Option("--threads", min=1, help="CPU threads; another number may change the last bits. [default: 2]"),
]
NetworkPrecision = Annotated[
    str,
    typer.Option("--precision", help="What networks compute in: fp32, or bf16, which is faster where it is built in."),
]
OutputSize = Annotated[
    str,
    typer.Option("--size", metavar="native|N", help="The still's own size, or N pixels on the longer side."),
]
Exact = Annotated[
    bool,
    typer.Option("--exact", help="Write mp4 without loss (larger; few players show it). Masks always are."),
]
Stamp = Annotated[bool, typer.Option("--stamp", help="Put the time (UTC) into the clips' records.")]


def parse_size(text: str) -> int | None:
    """Turn "native" into None and "256" into 256."""
    if text == "native":
        return None
    if not text.isascii() or not text.isdecimal() or not 16 <= int(text) <= 8192:
        raise typer.BadParameter(f"'{text}' is neither 'native' nor a number from 16 to 8192.", param_hint="'--size'")
    return int(text)


def parse_precision(text: str) -> Precision:
    """Return "fp32" or "bf16"."""
    if text not in ("fp32", "bf16"):
        raise typer.BadParameter(f"'{text}' is neither fp32 nor bf16.", param_hint="'--precision'")
    return "bf16" if text == "bf16" else "fp32"


def stamp_text(wanted: bool) -> str | None:
    """Return the present time, "2026-01-31T12:00:00Z", if it is wanted."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if wanted else None


def generate_options(**values: float | str | None) -> GenerateOptions:
    """Build `GenerateOptions` from the options that were given; raises `ConfigError`."""
    from us_i2v.pipeline import GenerateOptions

    given = {name: value for name, value in values.items() if value is not None}
    return GenerateOptions.parse(given, "options")


Resume = Annotated[bool, typer.Option("--resume", help="Go on from the run folder's checkpoint.")]
Data = Annotated[
    list[Path],
    typer.Argument(metavar="DATA", help="Folders of clips: class folders, BUSI-like folders, or a manifest.csv."),
]
Preset = Annotated[str, typer.Option("--preset", help="paper, base or tiny.")]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="TOML or JSON file; overrides the preset.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Overrides one value, may be repeated: --set optimiser.steps=500."),
]
TrainingSteps = Annotated[int | None, typer.Option("--steps", help="Optimiser steps. [default: the preset's]")]
BatchSize = Annotated[int | None, typer.Option("--batch-size", help="Clips a step. [default: the preset's]")]
Interval = Annotated[
    str | None,
    typer.Option("--dt", metavar="MS", help="Milliseconds between frames of a window: 50, or a range 40-130."),
]
Stride = Annotated[int | None, typer.Option("--stride", help="Take every N-th frame instead, whatever the frame rate.")]
FitPolicy = Annotated[
    str | None,
    typer.Option("--fit", help="How frames fit the square: letterbox, center-crop or stretch. [default: the preset's]"),
]
DropRepeats = Annotated[
    bool | None,
    typer.Option(
        "--drop-repeats/--keep-repeats",
        help="Drop frames that repeat the one before, or keep them. [default: the preset's]",
        show_default=False,
    ),
]
TrainingThreads = Annotated[
    int | None, typer.Option("--threads", min=1, help="CPU threads. [default: torch's own choice]")
]
TrainingSeed = Annotated[int | None, typer.Option("--seed", help="Seed of everything random. [default: the preset's]")]
