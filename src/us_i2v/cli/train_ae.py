"""`us-i2v train-ae`: stage 1, the video auto-encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from us_i2v.cli import options as opt


def command(
    data: opt.Data,
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
    """Train the auto-encoder (stage 1) on clips.

    The run folder gets the resolved settings (config.json), metrics.jsonl, sample strips, checkpoints and
    weights.safetensors. Ctrl-C saves; --resume goes on. Runs under torchrun as well:
    torchrun --nproc-per-node 2 -m us_i2v train-ae ...
    """
    from us_i2v.cli.progress import training_reporter
    from us_i2v.cli.training import flag_settings, resolve, use_threads
    from us_i2v.training.autoencoder import AutoencoderTraining, train_autoencoder

    flags = flag_settings(
        steps=steps, batch_size=batch_size, seed=seed, dt=dt, stride=stride, fit=fit, drop_repeats=drop_repeats
    )
    settings = resolve("autoencoder", preset, config, changes, flags)
    resolved = AutoencoderTraining.parse(settings, "settings")
    use_threads(threads)
    train_autoencoder(data, output, resolved, resume=resume, reporter=training_reporter(), device=device)
