"""`us-i2v finetune`: trained weights fitted to one's own scanner, in a given time."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from us_i2v.cli import options as opt


def command(
    data: opt.Data,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="RUN", help="Run folder.")],
    minutes: Annotated[float, typer.Option("--minutes", min=0.01, help="Time for both stages together.")] = 60.0,
    weights: opt.Weights = None,
    metric_weights: Annotated[
        Path | None,
        typer.Option("--metric-weights", metavar="FOLDER", help="Where LPIPS weights are (keeps texture sharp)."),
    ] = None,
    changes: opt.Settings = None,
    resume: opt.Resume = False,
    device: opt.Device = "auto",
    threads: opt.TrainingThreads = None,
) -> None:
    """Fit both stages of trained weights to your own clips; by default the bundled weights.

    A few clips of several patients are enough to try. RUN/weights.safetensors is what `us-i2v generate --weights RUN`
    takes. How many steps fit into the time is measured first. Ctrl-C saves; --resume goes on.
    """
    from us_i2v.cli.progress import training_reporter
    from us_i2v.cli.training import use_threads
    from us_i2v.config import merge, parse_override
    from us_i2v.hub import local_weights
    from us_i2v.training.finetune import FinetuneConfig, finetune

    values: dict[str, object] = {"minutes": minutes}
    for text in changes or []:
        values = merge(values, parse_override(text))
    config = FinetuneConfig.parse(values, "settings")
    use_threads(threads)
    path = finetune(
        data,
        None if weights is None else local_weights(weights),
        output,
        config,
        metric_weights=metric_weights,
        resume=resume,
        reporter=training_reporter(),
        device=device,
    )
    typer.echo(f"{path}: fitted weights")
