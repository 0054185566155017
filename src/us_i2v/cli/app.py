"""The program `us-i2v`: its commands and global options."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from us_i2v import __version__
from us_i2v.cli import (
    augment,
    classify,
    convert,
    deidentify,
    devices,
    evaluate,
    export_onnx,
    finetune,
    generate,
    inspect,
    phantom,
    prepare,
    privacy,
    push_to_hub,
    quality,
    reproduce,
    train_ae,
    train_cinn,
    train_classifier,
    train_ldm,
    transfer,
    verify,
)
from us_i2v.cli.errors import ErrorMappingGroup, report_internal_error

app = typer.Typer(
    name="us-i2v",
    cls=ErrorMappingGroup,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"us-i2v {__version__}")
        raise typer.Exit


@app.callback()
def program(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of errors.")] = False,
    max_pixels: Annotated[int | None, typer.Option(help="Most pixels a frame that is read. [default: 50e6]")] = None,
    max_frames: Annotated[int | None, typer.Option(help="Most frames of a clip that is read. [default: 1e5]")] = None,
    max_bytes: Annotated[int | None, typer.Option(help="Largest file that is read, bytes. [default: 8 GiB]")] = None,
    max_seconds: Annotated[
        float | None, typer.Option(help="Longest first pass over a clip, seconds. [default: 600]")
    ] = None,
) -> None:
    """Turn single ultrasound stills into plausible, labelled ultrasound clips.

    Research software, not a medical device: generated motion is plausible, not measured.
    """
    caps = {"PIXELS": max_pixels, "FRAMES": max_frames, "BYTES": max_bytes, "SECONDS": max_seconds}
    # Variables reach worker processes too; see data.limits.
    os.environ.update({f"US_I2V_MAX_{name}": str(value) for name, value in caps.items() if value is not None})


app.command("generate")(generate.command)
app.command("augment")(augment.command)
app.command("phantom")(phantom.command)
app.command("train-ae")(train_ae.command)
app.command("train-ldm")(train_ldm.command)
app.command("train-cinn")(train_cinn.command)
app.command("finetune")(finetune.command)
app.command("train-classifier")(train_classifier.command)
app.command("classify")(classify.command)
app.command("transfer")(transfer.command)
app.command("verify")(verify.command)
app.command("evaluate")(evaluate.command)
app.add_typer(reproduce.app, name="reproduce")
app.add_typer(privacy.app, name="privacy")
app.add_typer(quality.app, name="quality")
app.command("prepare")(prepare.command)
app.command("inspect")(inspect.command)
app.command("deidentify")(deidentify.command)
app.command("convert")(convert.command)
app.command("push-to-hub")(push_to_hub.command)
app.command("export-onnx")(export_onnx.command)
app.command("devices")(devices.command)


def let_waiting_threads_sleep() -> None:
    """Have threads of OpenMP that wait go to sleep soon, unless the environment says what they shall do.

    GNU's library lets them spin for milliseconds, which costs nothing while there is a core for each. Where processes
    share cores, spinning threads keep the others from the work that they wait for: two ranks of two threads on two
    cores took ten times as long as one (docs/scaling.md). Must be called before torch is imported.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = "1000"


def main() -> None:
    """Run the program and exit."""
    sys.excepthook = report_internal_error
    let_waiting_threads_sleep()
    # Not `app()`: that would put typer's own traceback printer in place of the hook above.
    typer.main.get_command(app)(prog_name="us-i2v")
