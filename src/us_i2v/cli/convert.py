"""`us-i2v convert`: metric weights from the publishers' own files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

NAMES = "lpips-alex, lpips-squeeze, lpips-vgg, x3d-xs, i3d-kinetics400, i3d-dtdb or inception-fid"


def command(
    name: Annotated[str, typer.Argument(metavar="NAME", help=f"What to make: {NAMES}.")],
    sources: Annotated[list[Path], typer.Argument(metavar="SRC...", help="The publishers' files, in any order.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="OUT",
            help="File (.safetensors) or folder. [default: the cache folder, where it is found]",
        ),
    ] = None,
    sha256: Annotated[
        list[str] | None,
        typer.Option(
            "--sha256",
            metavar="DIGEST",
            help="You vouch for a file of this sha256, where none is published.",
        ),
    ] = None,
) -> None:
    """Make the weights of a metric network from the publishers' own files.

    The files' sha256 are checked; docs/metric-weights.md lists them and where to get the files. Nothing is
    fetched. The same files always give the same bytes.
    """
    from us_i2v.data.atomic import check_writable
    from us_i2v.errors import OutputError
    from us_i2v.metrics.conversion import convert, usual_file
    from us_i2v.metrics.pretrained import cache_folder
    from us_i2v.metrics.publishers import sha256_of
    from us_i2v.weights import write_tensors

    target = cache_folder() if output is None else output
    usual = usual_file(name)
    if target.is_dir() or not target.suffix:
        target /= usual
    if target.suffix != ".safetensors":
        raise OutputError(f"'{target}' does not end in .safetensors.", "Name such a file, or a folder.")
    check_writable(target)
    made = convert(name, sources, sha256 or ())
    write_tensors(target, made.tensors, made.metadata)
    for source in made.sources:
        typer.echo(f"from {source.file} sha256 {source.sha256} ({source.checked})")
    if made.like_known is not None:
        typer.echo(f"tensors {'equal' if made.like_known else 'differ from'} those of the {name} file known to us-i2v")
    typer.echo(f"{target} sha256 {sha256_of(target)}")
