"""`us-i2v phantom`: a data set of a simulated breast, to try everything without data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="New folder, or one that was written with the same settings.")
    ],
    videos: Annotated[int, typer.Option("--videos", min=0, help="Videos a class.")] = 10,
    stills: Annotated[int, typer.Option("--stills", min=0, help="Stills a class.")] = 10,
    frames: Annotated[int, typer.Option("--frames", min=1, help="Frames a video.")] = 32,
    fps: Annotated[float, typer.Option("--fps", help="Frames a second.")] = 20.0,
    size: Annotated[int, typer.Option("--size", min=16, max=2048, help="Side of the pictures in pixels.")] = 128,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The same seed gives the same data.")] = 0,
    motion_only: Annotated[
        bool,
        typer.Option("--motion-only", help="Let the classes differ in how they move, not in how they look."),
    ] = False,
) -> None:
    """Write videos and stills of a simulated breast, with masks.

    Scatterers are moved and imaged again, so speckle changes as it does in a scan. OUT/manifest.csv lists
    all files; running it again with larger numbers adds to the folder.
    """
    from us_i2v.cli.progress import counting
    from us_i2v.data.phantom.dataset import write_phantom

    with counting("phantom") as progress:
        write_phantom(
            out,
            videos_per_class=videos,
            stills_per_class=stills,
            size=size,
            seed=seed,
            motion_only=motion_only,
            n_frames=frames,
            fps=fps,
            progress=progress,
        )
    typer.echo(f"{out}: phantom with {videos} videos and {stills} stills a class")
