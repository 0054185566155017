"""`us-i2v deidentify`: DICOM files without identifying attributes and without burned-in text, as far as it is found."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from us_i2v.cli import dicom_options as dcm

if TYPE_CHECKING:
    from us_i2v.data.dicom.cleaning import Outcome

SKIPPED = 1
"""Exit code if some files could not be cleaned."""


def command(
    inputs: Annotated[list[Path], typer.Argument(metavar="IN", help="DICOM files, or folders of them.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="A folder; for a single file also a name that ends in .dcm.")
    ],
    region: dcm.CleanRegion = "blank",
    keep_text: Annotated[
        bool, typer.Option("--keep-text", help="Do not search and blank text that is burned into the pictures.")
    ] = False,
    keep_names: Annotated[
        bool, typer.Option("--keep-names", help="Keep folders and file names, which may name patients.")
    ] = False,
    salt: Annotated[
        str | None,
        typer.Option("--salt", help="Secret text: the same one gives the same pseudonyms and UIDs in another run."),
    ] = None,
) -> None:
    """Remove identity from DICOM files: best effort, look at what comes out before you pass it on.

    Attributes by the basic profile of DICOM PS3.15 Annex E, private ones all; what lies outside of the stated
    ultrasound regions and burned-in text are blanked. Text that is faint, thick or written by hand is not found.
    """
    from us_i2v.cli.progress import counting
    from us_i2v.data.dicom.detect import require_pydicom

    require_pydicom()
    from us_i2v.data.dicom.cleaning import clean_files, plan

    regions = dcm.parse_region(region)
    jobs = plan(inputs, output, keep_names=keep_names)
    with counting("deidentify") as progress:
        outcome = clean_files(jobs, output, regions=regions, blank_text=not keep_text, salt=salt, progress=progress)
    report(output, outcome)
    if outcome.unreadable:
        raise typer.Exit(SKIPPED)


def report(output: Path, outcome: Outcome) -> None:
    """Say what was done, what was not, and that it is best effort."""
    typer.echo(
        f"{output}: {outcome.made} files of {len(outcome.patients)} patients; text blanked in {outcome.with_text}, "
        f"pixels rewritten in {outcome.rewritten}"
    )
    if outcome.without_region:
        where = "where the picture lies was estimated there, or kept with --region keep"
        typer.echo(f"{outcome.without_region} files state no ultrasound region: {where}", err=True)
    typer.echo("best effort: look at the files before you pass them on", err=True)
    if outcome.unreadable:
        typer.echo(f"{len(outcome.unreadable)} files could not be read and were left out:", err=True)
        for name, why in sorted(outcome.unreadable.items()):
            typer.echo(f"  {name}: {why}", err=True)
