"""`us-i2v train-classifier`: a video classifier on real clips, synthetic clips, or both."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from us_i2v.cli import options as opt


def command(
    data: opt.Data,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="RUN", help="Run folder.")],
    model: Annotated[
        str | None, typer.Option("--model", help="c3d, tsm, tdn or atm. [default: the preset's, tsm]")
    ] = None,
    width: Annotated[
        float | None, typer.Option("--width", help="Factor on all channels, up to 1. [default: the preset's]")
    ] = None,
    size: Annotated[
        int | None, typer.Option("--size", help="Side of the frames in pixels. [default: the preset's]")
    ] = None,
    pretrained: Annotated[
        str | None,
        typer.Option("--pretrained", metavar="FILE", help="Published weights to begin with: .safetensors or hf://..."),
    ] = None,
    synthetic: Annotated[
        list[Path] | None,
        typer.Option("--synthetic", metavar="FOLDER", help="Clips of `us-i2v augment`; may be repeated."),
    ] = None,
    generators: Annotated[
        list[Path] | None,
        typer.Option("--generator", metavar="WEIGHTS", help="Weights that made them, unless the bundled ones did."),
    ] = None,
    diet: Annotated[
        str | None, typer.Option("--diet", help="real, synthetic or both. [default: both if --synthetic is given]")
    ] = None,
    ratio: Annotated[
        float | None, typer.Option("--ratio", help="Synthetic clips for each real one. [default: all there are]")
    ] = None,
    balance: Annotated[
        bool, typer.Option("--balance", help="Only as many synthetic clips as bring rarer classes up to the largest.")
    ] = False,
    drop_leaks: Annotated[
        bool, typer.Option("--drop-leaks", help="Leave out synthetic clips of held-out stills instead of refusing.")
    ] = False,
    cache: Annotated[
        Path | None,
        typer.Option("--cache", metavar="FOLDER", help="Decoded clips, may be shared by runs. [default: RUN/cache]"),
    ] = None,
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
    """Train a classifier on the labelled clips of DATA; validation and test clips are real ones only.

    Synthetic clips made from a held-out group's still, or by a generator trained on that group, are refused. The run
    folder gets config.json, metrics.jsonl, a checkpoint and weights.safetensors for `us-i2v classify`. Ctrl-C saves;
    --resume goes on.

    Example: us-i2v train-classifier my_clips --model tsm --synthetic my_augmented_clips -o run
    """
    from us_i2v.cli.progress import training_reporter
    from us_i2v.cli.training import flag_settings, resolve, use_threads
    from us_i2v.training.classifier import ClassifierTraining, train_classifier
    from us_i2v.training.classifier_data import Sources

    flags: dict[str, Any] = flag_settings(
        steps=steps, batch_size=batch_size, seed=seed, dt=dt, stride=stride, fit=fit, drop_repeats=drop_repeats
    )
    flags["model"] = {
        key: value for key, value in (("name", model), ("width", width), ("size", size)) if value is not None
    }
    mix = {"diet": diet or ("both" if synthetic else None), "ratio": ratio, "balance": balance or None}
    flags["mix"] = {key: value for key, value in mix.items() if value is not None}
    if pretrained is not None:
        flags["pretrained"] = pretrained
    resolved = ClassifierTraining.parse(resolve("classifier", preset, config, changes, flags), "settings")
    sources = Sources(tuple(data), tuple(synthetic or ()), tuple(generators or ()), drop_leaks)
    use_threads(threads)
    train_classifier(sources, output, resolved, cache=cache, resume=resume, reporter=training_reporter(), device=device)
