"""`us-i2v convert`: metric weights from the publishers' own files, and any pickled state dict as safetensors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

STATE_DICT = "state-dict"
NAMES = "lpips-alex, lpips-squeeze, lpips-vgg, x3d-xs, i3d-kinetics400, i3d-dtdb or inception-fid"


def command(
    name: Annotated[str, typer.Argument(metavar="NAME", help=f"What to make: {NAMES}; or {STATE_DICT}.")],
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

    `us-i2v convert state-dict MODEL.pt -o MODEL.safetensors` turns any pickle of tensors (.pt .pth .ckpt .bin) into a
    safetensors file with the same names, in a process of its own that runs no code of the file.

    The files' sha256 are checked; docs/metric-weights.md lists them and where to get the files. Nothing is
    fetched. The same files always give the same bytes.
    """
    from us_i2v.data.atomic import check_writable
    from us_i2v.errors import OutputError
    from us_i2v.metrics.conversion import convert, usual_file
    from us_i2v.metrics.pretrained import cache_folder
    from us_i2v.metrics.publishers import sha256_of
    from us_i2v.weights import write_tensors

    if name == STATE_DICT:
        convert_state_dict(sources, output)
        return
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


def convert_state_dict(sources: list[Path], output: Path | None) -> None:
    """Turn one pickled state dict into a safetensors file; raises `WeightsError` or `OutputError`."""
    import torch

    from us_i2v.data.atomic import check_writable
    from us_i2v.errors import OutputError, WeightsError
    from us_i2v.metrics.conversion.reading import read_state_dict
    from us_i2v.metrics.publishers import sha256_of
    from us_i2v.weights import write_tensors

    if len(sources) != 1:
        raise WeightsError(f"{len(sources)} files were given; a state dict is one file.", "Convert one at a time.")
    target = sources[0].with_suffix(".safetensors") if output is None else output
    if target.suffix != ".safetensors":
        raise OutputError(f"'{target}' does not end in .safetensors.", "Name such a file.")
    check_writable(target)
    digest = sha256_of(sources[0])
    tensors = read_state_dict(sources[0], digest)
    bad = sorted(name for name, value in tensors.items() if not bool(torch.isfinite(value).all()))
    if bad or not tensors:
        what = f"tensor '{bad[0]}' holds NaN or infinity" if bad else "it holds no tensors of floats"
        raise WeightsError(f"'{sources[0]}' is of no use: {what}.", "Fetch it again.")
    write_tensors(target, tensors, {"source": sources[0].name, "source_sha256": digest})
    typer.echo(f"from {sources[0].name} sha256 {digest}")
    typer.echo(f"{target} sha256 {sha256_of(target)}, {len(tensors)} tensors")
