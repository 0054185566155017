"""`us-i2v reproduce`: the tables of the LDDM paper."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from us_i2v.cli import options as opt
from us_i2v.cli import reproduce_table2
from us_i2v.cli.errors import ErrorMappingGroup

app = typer.Typer(
    cls=ErrorMappingGroup,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Reproduce the tables of the LDDM paper (Chen et al. 2024).",
)

app.command("table2")(reproduce_table2.command)

QUICK_VIDEOS = 12
QUICK_STEPS = {"autoencoder": 12, "denoiser": 12, "cinn": 12}


@app.command("table1")
def table1(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="Folder of runs and results.")],
    videos: Annotated[
        list[Path] | None,
        typer.Option("--videos", metavar="DIR", help="Video folder, any known layout; several are several sources."),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="A small run on a phantom, to see that everything works; no real result.")
    ] = False,
    given: Annotated[
        list[str] | None,
        typer.Option("--weights", metavar="METHOD=PATH", help="Take trained weights for a method, do not train it."),
    ] = None,
    metric_weights: Annotated[
        Path | None, typer.Option("--metric-weights", metavar="FOLDER", help="Weights of the metric networks.")
    ] = None,
    rows: Annotated[
        list[str] | None, typer.Option("--row", metavar="KEY", help="Make this row; give it again for more.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option("--preset", help="Preset of every method; by default each method's own.")
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Setting, e.g. changes.cinn.autoencoder.optimiser.steps=5000"),
    ] = None,
    plot: Annotated[bool, typer.Option("--plot/--no-plot", help="Also draw OUT/table1.png.")] = True,
    device: opt.Device = "auto",
    threads: opt.Threads = None,
) -> None:
    """Train cINN and LDDM, answer every held-out first frame, and print Table 1 with its reference rows.

    Clips are divided by group unless they state their split. Finished work in OUT is kept: run the same line again
    to go on. Writes table1.md, table1.json and table1.png.
    """
    from us_i2v.cli.progress import counting, training_reporter
    from us_i2v.config import merge, parse_override
    from us_i2v.data.atomic import write_bytes
    from us_i2v.errors import ConfigError
    from us_i2v.evaluation.plot import check_plot
    from us_i2v.pipeline import CPU_THREADS
    from us_i2v.reproduction.table1 import Table1Settings, chosen_rows, metric_networks, parse_weights, reproduce_table1
    from us_i2v.reproduction.table1_report import markdown, write_table1

    if plot:
        check_plot()
    if quick == bool(videos):
        raise ConfigError("Table 1 needs either --videos DIR or --quick.", "Give one of them.")
    values: dict[str, Any] = quick_settings() if quick else {}
    for text in changes or []:
        values = merge(values, parse_override(text))
    if preset is not None:
        values["preset"] = preset
    settings = Table1Settings.parse(values, "settings")
    networks = metric_networks(metric_weights, settings.windows.length, device)
    chosen_rows(rows)
    weights = parse_weights(given or [])
    folders = [write_quick_phantom(output / "phantom", settings.seed)] if quick else cast("list[Path]", videos)
    table = reproduce_table1(
        folders,
        output,
        settings,
        weights=weights,
        networks=networks,
        only=rows,
        reporter=training_reporter(),
        progress=counting,
        device=device,
        threads=threads or CPU_THREADS,
    )
    write_bytes(output / "settings.json", settings.dump().encode())
    write_table1(output, table, settings.model_dump(mode="json"), plot=plot)
    typer.echo(markdown(table))


def quick_settings() -> dict[str, Any]:
    """Return the settings of `--quick`: 64 px, a few steps, few clips."""
    from us_i2v.config import merge

    clips = {"stride": 1, "fit": "stretch"}
    first = {"clips": clips, "optimiser": {"steps": QUICK_STEPS["autoencoder"], "batch_size": 2, "warmup": 5}}
    second = {"clips": clips, "windows": 32, "optimiser": {"batch_size": 8, "warmup": 5}}
    changes = {}
    for method, stage in (("lddm-base", "denoiser"), ("lddm-paper", "denoiser"), ("cinn", "cinn")):
        own = merge(second, {"optimiser": {"steps": QUICK_STEPS[stage]}})
        changes[method] = {"autoencoder": first, stage: own}
    return {
        "preset": "tiny",
        "changes": changes,
        "windows": {"stride": 1, "size": 64, "per_clip": 2},
        "n": 8,
        "draws": 4,
        "samples": 2,
        "stills": 4,
        "training_share": 0.6,
    }


def write_quick_phantom(folder: Path, seed: int) -> Path:
    """Write the phantom of `--quick`, or take it if it is there; return its folder."""
    from us_i2v.cli.progress import counting
    from us_i2v.data.phantom.dataset import write_phantom

    with counting("phantom") as shown:
        write_phantom(
            folder,
            videos_per_class=QUICK_VIDEOS // 2,
            stills_per_class=0,
            size=64,
            seed=seed,
            n_frames=34,
            fps=20.0,
            motion_only=False,
            progress=shown,
        )
    return folder
