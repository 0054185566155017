"""`us-i2v push-to-hub`: weights and their card on the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    weights: Annotated[Path, typer.Argument(metavar="WEIGHTS", help="Weights file or run folder.")],
    repo: Annotated[str, typer.Argument(metavar="ORG/NAME", help="Repository; made if it does not exist.")],
    license_: Annotated[str, typer.Option("--license", help="Licence of the weights, as the hub writes it.")] = "other",
    revision: Annotated[str, typer.Option("--revision", help="Branch.")] = "main",
    public: Annotated[
        bool, typer.Option("--public", help="Let everybody read a new repository; it is private otherwise.")
    ] = False,
) -> None:
    """Publish trained weights with a model card; log in first (`hf auth login`, or HF_TOKEN).

    The weights' header names the groups (patients) and the hashes of the files that they were trained on: these are
    published too. Who may read a repository that is there already does not change.
    """
    from us_i2v.hub import push_weights

    def say(line: str) -> None:
        typer.echo(line, err=True)

    commit = push_weights(weights, repo, private=not public, license_=license_, revision=revision, say=say)
    typer.echo(f"{repo}: published at commit {commit}")
