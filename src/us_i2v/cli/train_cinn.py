"""`us-i2v train-cinn`: stage 2 as in cINN, a normalising flow of the latents."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from us_i2v.cli import options as opt


def command(
    data: opt.Data,
    autoencoder: Annotated[
        Path,
        typer.Option(
            "--ae",
            metavar="RUN",
            help="Run folder or weights file of `us-i2v train-ae --set model.latent_mode=vector`.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="RUN", help="Run folder.")],
    preset: opt.Preset = "base",
    config: opt.ConfigFile = None,
    changes: opt.Settings = None,
    steps: opt.TrainingSteps = None,
    batch_size: opt.BatchSize = None,
    seed: opt.TrainingSeed = None,
    dt: opt.Interval = None,
    stride: opt.Stride = None,
    fit: opt.FitPolicy = None,
    drop_repeats: opt.DropRepeats = None,
    resume: opt.Resume = False,
    device: opt.Device = "auto",
    threads: opt.TrainingThreads = None,
) -> None:
    """Train a cINN (stage 2) on clips, with the auto-encoder of `us-i2v train-ae`.

    The run folder's weights.safetensors holds both stages; give it to `us-i2v generate --weights`.
    Ctrl-C saves; --resume goes on.
    """
    from us_i2v.cli.progress import training_reporter
    from us_i2v.cli.training import flag_settings, resolve, use_threads
    from us_i2v.training.cinn import CINNTraining, train_cinn

    flags = flag_settings(
        steps=steps, batch_size=batch_size, seed=seed, dt=dt, stride=stride, fit=fit, drop_repeats=drop_repeats
    )
    resolved = CINNTraining.parse(resolve("cinn", preset, config, changes, flags), "settings")
    use_threads(threads)
    train_cinn(data, autoencoder, output, resolved, resume=resume, reporter=training_reporter(), device=device)
