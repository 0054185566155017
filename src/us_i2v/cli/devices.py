"""`us-i2v devices`: what `--device` can be on this machine."""

from __future__ import annotations

import typer


def command() -> None:
    """List the devices that this machine offers."""
    import torch

    typer.echo(f"torch {torch.__version__}")
    typer.echo(f"cpu      {torch.get_num_threads()} threads")
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        typer.echo(f"cuda:{index}   {properties.name}, {properties.total_memory / 2**30:.0f} GiB")
    if torch.backends.mps.is_available():
        typer.echo("mps      Apple GPU")
