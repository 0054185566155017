"""`us-i2v train-ldm`: stage 2, the conditional denoiser of the latents."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from us_i2v.cli import options as opt


def command(
    data: opt.Data,
    autoencoder: Annotated[
        Path, typer.Option("--ae", metavar="RUN", help="Run folder or weights file of `us-i2v train-ae`.")
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
    """Train the denoiser (stage 2) on clips, with the auto-encoder of `us-i2v train-ae`.

    The run folder's weights.safetensors holds both stages; give it to `us-i2v generate --weights`.
    Ctrl-C saves; --resume goes on.
    """
    from us_i2v.cli.progress import training_reporter
    from us_i2v.cli.training import flag_settings, resolve, use_threads
    from us_i2v.training.denoiser import DenoiserTraining, train_denoiser

    flags = flag_settings(
        steps=steps, batch_size=batch_size, seed=seed, dt=dt, stride=stride, fit=fit, drop_repeats=drop_repeats
    )
    settings = resolve("denoiser", preset, config, changes, flags)
    resolved = DenoiserTraining.parse(settings, "settings")
    use_threads(threads)
    train_denoiser(data, autoencoder, output, resolved, resume=resume, reporter=training_reporter(), device=device)
