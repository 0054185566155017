"""`us-i2v convert`: metric weights from the publishers' own files, and any pickled state dict as safetensors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Collection

STATE_DICT = "state-dict"
_SHOWN = 8
"""Names that are shown of those left out."""
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
            help=f"You vouch for a file of this sha256, where none is published; '{STATE_DICT}' takes no other file.",
        ),
    ] = None,
) -> None:
    """Make the weights of a metric network from the publishers' own files.

    `us-i2v convert state-dict MODEL.pt -o MODEL.safetensors` turns any pickle of tensors (.pt .pth .ckpt .bin) into a
    safetensors file, in a process of its own that runs no code of the file. A leading `module.` is taken off the names;
    what is no tensor of floats is left out, and named.

    The sha256 of the publishers' files are checked; docs/metric-weights.md lists them and where to get the files.
    Nothing is fetched. The same files always give the same bytes.
    """
    from us_i2v.data.atomic import check_writable
    from us_i2v.data.limits import check_bytes
    from us_i2v.errors import OutputError
    from us_i2v.metrics.conversion import convert, usual_file
    from us_i2v.metrics.pretrained import cache_folder
    from us_i2v.metrics.publishers import sha256_of
    from us_i2v.weights import write_tensors

    for path in sources:
        if path.is_file():
            check_bytes(path, path.stat().st_size)
    if name == STATE_DICT:
        convert_state_dict(sources, output, sha256 or ())
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


def convert_state_dict(sources: list[Path], output: Path | None, sha256: Collection[str] = ()) -> None:
    """Turn one pickled state dict into a safetensors file.

    Args:
        sources: The one file.
        output: Target, ends in .safetensors; None: the same name with this ending.
        sha256: Digests of which the file must have one; none: it may have any.

    Raises:
        WeightsError: It is none, has another digest, or is of no use.
        OutputError: Nothing can be written there.
    """
    import torch

    from us_i2v.data.atomic import check_writable
    from us_i2v.errors import OutputError, WeightsError
    from us_i2v.metrics.conversion.reading import WRAPPER, take_state_dict
    from us_i2v.metrics.publishers import sha256_of
    from us_i2v.weights import write_tensors

    if len(sources) != 1:
        raise WeightsError(f"{len(sources)} files were given; a state dict is one file.", "Convert one at a time.")
    target = sources[0].with_suffix(".safetensors") if output is None else output
    if target.suffix != ".safetensors":
        raise OutputError(f"'{target}' does not end in .safetensors.", "Name such a file.")
    check_writable(target)
    digest = sha256_of(sources[0])
    if sha256 and digest not in {each.lower() for each in sha256}:
        raise WeightsError(
            f"'{sources[0]}' has sha256 {digest}; you gave {', '.join(sha256)}.", "Fetch it again, or check the digest."
        )
    taken = take_state_dict(sources[0], digest)
    tensors = taken.tensors
    bad = sorted(name for name, value in tensors.items() if not bool(torch.isfinite(value).all()))
    if bad or not tensors:
        what = f"tensor '{bad[0]}' holds NaN or infinity" if bad else "it holds no tensors of floats"
        raise WeightsError(f"'{sources[0]}' is of no use: {what}.", "Fetch it again.")
    write_tensors(target, tensors, {"source": sources[0].name, "source_sha256": digest})
    typer.echo(f"from {sources[0].name} sha256 {digest}")
    if taken.stripped:
        typer.echo(f"'{WRAPPER}' was taken off {taken.stripped} names")
    if taken.left_out:
        shown = ", ".join(taken.left_out[:_SHOWN]) + (", ..." if len(taken.left_out) > _SHOWN else "")
        typer.echo(f"left out, as they are no tensors of floats: {len(taken.left_out)} ({shown})")
    typer.echo(f"{target} sha256 {sha256_of(target)}, {len(tensors)} tensors")
