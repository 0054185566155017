"""`us-i2v reproduce table2`: does it help to train classifiers on synthetic videos as well?"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from us_i2v.cli import options as opt

if TYPE_CHECKING:
    from us_i2v.reproduction.table2 import Plan
    from us_i2v.reproduction.table2_settings import Table2Settings

MOST_SEEDS = 1000
"""Longest range of seeds."""


def command(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="RUN", help="Folder of cells and results.")],
    videos: Annotated[
        list[Path] | None, typer.Option("--videos", metavar="DIR", help="Labelled videos; may be repeated.")
    ] = None,
    images: Annotated[
        list[Path] | None, typer.Option("--images", metavar="DIR", help="Labelled stills; may be repeated.")
    ] = None,
    stills_from_videos: Annotated[
        bool, typer.Option("--stills-from-videos", help="Half of the groups give a still a video, instead of --images.")
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="All of it, small, on a phantom, to see that it works; no real result.")
    ] = False,
    tiny: Annotated[bool, typer.Option("--tiny", hidden=True)] = False,
    splits: Annotated[
        str | None, typer.Option("--splits", help="Training to test videos. [default: 7:3,5:5,3:7]")
    ] = None,
    folds: Annotated[
        int | None, typer.Option("--folds", metavar="K", help="Cross-validate: every patient is tested once.")
    ] = None,
    generators: Annotated[
        str | None,
        typer.Option("--generators", help="Of cinn, lddm-base, lddm-paper; or none. [default: cinn,lddm-base]"),
    ] = None,
    controls: Annotated[
        str | None,
        typer.Option("--controls", help="Of static, affine, elastic, class-blind, reconstructed, bundled; or all."),
    ] = None,
    models: Annotated[str | None, typer.Option("--models", help="Classifiers. [default: c3d,tsm,tdn,atm]")] = None,
    seeds: Annotated[str | None, typer.Option("--seeds", help="Such as 0-2 or 0,5. [default: 0-2]")] = None,
    diets: Annotated[
        str | None, typer.Option("--diets", help="Of real, synthetic, both. [default: all of them]")
    ] = None,
    ratio: Annotated[
        list[str] | None,
        typer.Option("--ratio", help="Synthetic clips for a real one, or all; may be repeated. [default: all]"),
    ] = None,
    balance: Annotated[
        bool, typer.Option("--balance", help="Also: only as many as bring rarer classes up to the largest.")
    ] = False,
    clips_per_still: Annotated[
        int | None, typer.Option("--clips-per-still", help="Clips a still. [default: 1]")
    ] = None,
    keep_best: Annotated[
        list[float] | None,
        typer.Option("--keep-best", metavar="P", help="Also: only this share of clips, by quality; may be repeated."),
    ] = None,
    cells: Annotated[
        str | None,
        typer.Option("--cells", help="Only these: 'tsm,c3d;3:7;real,both;0-2', or 3/16 of all; see docs/table2.md."),
    ] = None,
    list_cells: Annotated[bool, typer.Option("--list-cells", help="Print the cells and their state.")] = False,
    report: Annotated[bool, typer.Option("--report", help="Only write the table from what is there.")] = False,
    preset: Annotated[str | None, typer.Option("--preset", help="Of all trainings. [default: each one's own]")] = None,
    width: Annotated[
        float | None, typer.Option("--width", help="Factor on the classifiers' channels, up to 1.")
    ] = None,
    size: Annotated[
        int | None, typer.Option("--size", help="Side of classifiers' frames and synthetic clips, pixels.")
    ] = None,
    frames: Annotated[int | None, typer.Option("--frames", help="Frames of clips and windows. [default: 16]")] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="Steps of every classifier.")] = None,
    generator_steps: Annotated[
        int | None, typer.Option("--generator-steps", help="Steps of every generator's stages.")
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Setting, e.g. changes.classifier.optimiser.batch_size=4"),
    ] = None,
    plot: Annotated[bool, typer.Option("--plot/--no-plot", help="Also draw RUN/table2.png.")] = True,
    device: opt.Device = "auto",
    threads: opt.TrainingThreads = None,
) -> None:
    """Train classifiers on real videos, on synthetic ones and on both, test on held-out patients, and print Table 2.

    The work is done in cells, which are listed by --list-cells. Finished ones are kept: run the same line again to go
    on, also from several processes or machines at once. Writes table2.md, table2.json and table2.png.
    """
    from us_i2v.cli.progress import counting, training_reporter
    from us_i2v.cli.training import use_threads
    from us_i2v.config import merge, parse_override
    from us_i2v.errors import ConfigError
    from us_i2v.evaluation.plot import check_plot
    from us_i2v.pipeline import CPU_THREADS
    from us_i2v.ranks import Ranks
    from us_i2v.reproduction import table2
    from us_i2v.reproduction.table2_cells import select
    from us_i2v.reproduction.table2_jobs import Workshop
    from us_i2v.reproduction.table2_settings import Table2Settings, check_settings

    if plot and not list_cells:
        check_plot()
    values: dict[str, Any] = tiny_settings() if tiny else quick_settings() if quick else {}
    for text in changes or []:
        values = merge(values, parse_override(text))
    given = {
        "splits": listed(splits),
        "generators": listed(generators),
        "controls": every_control() if controls == "all" else listed(controls),
        "models": listed(models),
        "seeds": None if seeds is None else parse_seeds(seeds),
        "diets": listed(diets),
        "mixes": mixes(ratio, balance=balance, keep_best=keep_best),
        "folds": folds,
        "stills_from_videos": stills_from_videos or None,
        "clips_per_still": clips_per_still,
        "preset": preset,
        "width": width,
        "size": size,
        "frames": frames,
        "steps": steps,
        "generator_steps": generator_steps,
    }
    values |= {key: value for key, value in given.items() if value is not None}
    before = table2.read_plan(output)
    if (report or list_cells) and before is not None:
        values = {**before.settings, **before.axes, **values}
    settings = Table2Settings.parse(values, "settings")
    chosen = select(cells, settings)
    if list_cells:
        digest = None if before is None else before.sha256
        for cell in chosen:
            typer.echo(f"{table2.cell_state(output, cell, digest):8} {cell.id}")
        return
    if report:
        if before is None:
            raise ConfigError(f"'{output}' holds no {table2.PLAN} of an earlier run.", "Give a run's folder.")
        table2.check_plan(before, settings, before.data, output)
        finish(output, before, plot=plot)
        return
    if quick == bool(videos):
        raise ConfigError("Table 2 needs either --videos DIR or --quick.", "Give one of them.")
    ranks = Ranks.of_environment()
    use_threads(threads)
    check_settings(settings)
    if quick:
        videos, images = phantom_folders(output, settings, tiny=tiny)
    plan = table2.prepare(videos or [], images or [], output, settings, counting)
    settings = settings.model_copy(update={"classes": plan.table_settings().classes})
    shop = Workshop(output, settings, plan.sha256, training_reporter(), counting, device, threads or CPU_THREADS)
    table2.run_cells(chosen, shop, rank=ranks.rank, world=ranks.world)
    if ranks.first:
        finish(output, plan, plot=plot)


def finish(out: Path, plan: Plan, *, plot: bool) -> None:
    """Write and print the table of all cells that were ever asked for."""
    from us_i2v.reproduction.table2_report import markdown, write_table2
    from us_i2v.reproduction.table2_scores import collect

    settings = plan.table_settings()
    table = collect(out, settings, plan.sha256, plan.notes)
    values = {**settings.model_dump(mode="json"), "data": plan.counts}
    write_table2(out, table, values, plot=plot)
    typer.echo(markdown(table, values))


def listed(text: str | None) -> list[str] | None:
    """Split "a,b"; "none" is an empty list, None stays None."""
    if text is None:
        return None
    return [] if text == "none" else [part.strip() for part in text.split(",")]


def every_control() -> list[str]:
    """Return the names of all controls."""
    from us_i2v.reproduction.table2_settings import CONTROLS

    return list(CONTROLS)


def parse_seeds(text: str) -> list[int]:
    """Read "0-2,7"; raises `ConfigError`."""
    from us_i2v.errors import ConfigError

    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", part.strip())
        first, last = (0, -1) if match is None else (int(match[1]), int(match[2] or match[1]))
        if not first <= last < first + MOST_SEEDS:
            raise ConfigError(f"Seeds '{text}' are no list of numbers and ranges.", "Write for example 0-2 or 0,5.")
        found += range(first, last + 1)
    return found


def mixes(ratios: list[str] | None, *, balance: bool, keep_best: list[float] | None) -> list[str] | None:
    """Turn --ratio, --balance and --keep-best into mixes; None if none is given."""
    found = [text if text == "all" else f"x{text.strip()}" for text in ratios or []]
    also = ["balance"] * balance + [f"best{share:g}" for share in keep_best or []]
    return [*(found or ["all"]), *also] if found or also else None


def quick_settings() -> dict[str, Any]:
    """Return the settings of `--quick`: all classifiers and diets, small and for a few steps."""
    clips = {"fit": "stretch", "stride": None, "dt_ms": [40.0, 130.0]}
    few = {"batch_size": 2, "warmup": 5}
    stages = {
        # Without the residual's likelihood no speckle is drawn, and no time goes into fitting its process.
        "autoencoder": {"clips": clips, "optimiser": few, "loss": {"nll": 0.0}},
        "denoiser": {"clips": clips, "windows": 16, "optimiser": {**few, "batch_size": 8}},
        "cinn": {"clips": clips, "windows": 16, "optimiser": {**few, "batch_size": 8}},
    }
    second = {"cinn": "cinn", "lddm-base": "denoiser", "lddm-paper": "denoiser"}
    changes: dict[str, Any] = {
        name: {stage: stages[stage] for stage in ("autoencoder", own)} for name, own in second.items()
    }
    changes["classifier"] = {
        "optimiser": {"batch_size": 4, "validate_every": 12, "warmup": 5},
        "clips": {"stride": None},
    }
    return {
        "preset": "tiny",
        "changes": changes,
        "seeds": [0, 1],
        "generator_steps": 10,
        "steps": 12,
        "size": 64,
        "windows": 2,
    }


def tiny_settings() -> dict[str, Any]:
    """Return the settings of a run for tests: one ratio, generator and classifier, two steps each, small networks."""
    from us_i2v.config import merge

    autoencoder = {
        "size": 32,
        "latent_channels": 4,
        "spatial_strides": [2, 1, 1, 1],
        "encoder_widths": [8, 8, 8, 8],
        "decoder_widths": [8, 8, 8],
        "still_widths": [8, 8, 8],
        "correlation_radius": 1,
        "correlation_channels": 8,
    }
    denoiser = {"width": 8, "multipliers": [1, 2], "blocks": 1, "heads": 2, "still_widths": [8, 8]}
    return merge(
        quick_settings(),
        {
            "splits": ["5:5"],
            "generators": ["lddm-base"],
            "models": ["tsm"],
            "seeds": [0],
            "generator_steps": 2,
            "steps": 2,
            "changes": {"lddm-base": {"autoencoder": {"model": autoencoder}, "denoiser": {"model": denoiser}}},
        },
    )


def phantom_folders(out: Path, settings: Table2Settings, *, tiny: bool) -> tuple[list[Path], list[Path]]:
    """Write the phantom of `--quick`, or take it if it is there; return the folders of videos and of stills."""
    from us_i2v.cli.progress import counting
    from us_i2v.data.phantom.dataset import write_phantom
    from us_i2v.reproduction.claims import alone
    from us_i2v.reproduction.table2 import POLL_S

    folder = out / "phantom"
    with alone(out / "data", POLL_S), counting("phantom") as shown:
        write_phantom(
            folder,
            videos_per_class=4 if tiny else 10,
            stills_per_class=3 if tiny else 8,
            size=64,
            seed=settings.seed,
            n_frames=18 if tiny else 24,
            fps=20.0,
            progress=shown,
        )
    return [folder], [] if settings.stills_from_videos else [folder]
