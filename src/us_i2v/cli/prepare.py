"""`us-i2v prepare`: public downloads brought into shape."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

SKIPPED = 1
"""Exit code when some files could not be read and all others were done."""


class Dataset(StrEnum):
    """Data sets that can be prepared."""

    BUSV = "busv"
    BUSI = "busi"


class LinkKind(StrEnum):
    """How files get into the new folder."""

    HARD = "hard"
    COPY = "copy"
    SYMBOLIC = "symbolic"


class ConflictRule(StrEnum):
    """What becomes of pictures that occur in two classes."""

    DROP = "drop"
    KEEP = "keep"


def command(
    dataset: Annotated[Dataset, typer.Argument(metavar="busv|busi", help="The data set.")],
    source: Annotated[Path, typer.Argument(metavar="SRC", help="The download, unpacked.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="New or empty folder.")],
    ratio: Annotated[
        str | None,
        typer.Option("--ratio", metavar="A:B", help="Split into train and test by group: 7:3, 5:5, 3:7 ..."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Chooses the split.")] = 0,
    crop: Annotated[bool, typer.Option("--crop", help="Write lesion crops of 224 px: box or mask and 25 %.")] = False,
    stable: Annotated[
        bool, typer.Option("--stable", help="busv: write stretches with one lesion that stays in place.")
    ] = False,
    no_erratum: Annotated[bool, typer.Option("--no-erratum", help="busv: leave out the authors' erratum.")] = False,
    erratum: Annotated[
        Path | None,
        typer.Option("--erratum", metavar="FILE", help="busv: more corrections, CSV of video,action,value."),
    ] = None,
    fps: Annotated[float | None, typer.Option("--fps", help="busv: frame rate to note; the release has none.")] = None,
    keep_duplicates: Annotated[bool, typer.Option("--keep-duplicates", help="Keep exact copies.")] = False,
    drop_near: Annotated[
        bool, typer.Option("--drop-near", help="busi: keep one picture of each set of near-duplicates.")
    ] = False,
    conflicts: Annotated[
        ConflictRule | None,
        typer.Option("--conflicts", help="Pictures in two classes. [default: drop for busi, keep for busv]"),
    ] = None,
    link: Annotated[
        LinkKind, typer.Option("--link", help="hard links (copies where they cannot be), copies, or symbolic links.")
    ] = LinkKind.HARD,
) -> None:
    """Bring BUSV or BUSI into shape: erratum, duplicates, groups, manifest.

    OUT appears whole or not at all. OUT/manifest.csv lists the files with class, group and split, OUT/report.json
    says what was left out and why. If some files could not be read, all others are done and the exit code is 1.
    """
    from us_i2v.cli.progress import counting
    from us_i2v.data.datasets.busv_erratum import ERRATUM, read_corrections
    from us_i2v.data.preparation.busi import prepare_busi
    from us_i2v.data.preparation.busv import prepare_busv
    from us_i2v.data.preparation.options import BusiOptions, BusvOptions, parse_ratio

    common: dict[str, Any] = {
        "ratio": None if ratio is None else parse_ratio(ratio),
        "seed": seed,
        "link": link.value,
        "keep_duplicates": keep_duplicates,
        "crop": crop,
    }
    if conflicts is not None:
        common["conflicts"] = conflicts.value
    if dataset is Dataset.BUSI:
        _refuse(dataset, {"--stable": stable, "--no-erratum": no_erratum, "--erratum": erratum, "--fps": fps})
        busi_options = BusiOptions(drop_near=drop_near, **common)
        with counting("prepare") as progress:
            report = prepare_busi(source, out, busi_options, progress)
    else:
        _refuse(dataset, {"--drop-near": drop_near})
        corrections = () if no_erratum else ERRATUM
        if erratum is not None:
            corrections = (*corrections, *read_corrections(erratum))
        busv_options = BusvOptions(corrections=corrections, stable=stable, fps=fps, **common)
        with counting("prepare") as progress:
            report = prepare_busv(source, out, busv_options, progress)
    for line in report.lines():
        typer.echo(line)
    typer.echo(f"{out}: {sum(report.after.values())} of {sum(report.before.values())} {report.unit}")
    if report.unreadable:
        typer.echo(f"{len(report.unreadable)} could not be read and were left out, see above", err=True)
        raise typer.Exit(SKIPPED)


def _refuse(dataset: Dataset, options: dict[str, object]) -> None:
    """Raise `ConfigError` if an option was given that means nothing for the data set."""
    from us_i2v.errors import ConfigError

    for name, value in options.items():
        if value not in (None, False):
            raise ConfigError(f"Option '{name}' means nothing for {dataset.value}.", "Leave it out.")
