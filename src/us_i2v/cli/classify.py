"""`us-i2v classify`: what a trained classifier says of videos, and how right it is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from us_i2v.cli import options as opt


def command(
    clips: Annotated[
        list[Path], typer.Argument(metavar="CLIP...", help="Clips, folders of clips, or a manifest.csv with labels.")
    ],
    weights: Annotated[
        Path, typer.Option("--weights", metavar="RUN", help="Run folder or weights of `us-i2v train-classifier`.")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="RESULTS.json", help="Also write all numbers.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="PLOT.png", help="Also draw confusion matrix and calibration.")
    ] = None,
    windows: Annotated[int, typer.Option("--windows", min=1, help="Windows a video over which is averaged.")] = 5,
    split: Annotated[
        str | None, typer.Option("--split", help="Take only clips of this split: train, val or test.")
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option("--cache", metavar="FOLDER", help="Keep decoded clips here. [default: a temporary folder]"),
    ] = None,
    allow_leak: Annotated[
        bool, typer.Option("--allow-leak", help="Go on with clips that the classifier was trained on.")
    ] = False,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the intervals' resampling.")] = 0,
    device: opt.Device = "auto",
    threads: opt.TrainingThreads = None,
) -> None:
    """Classify videos; with labels also F1, accuracy, AUC, confusion matrix and calibration.

    Probabilities are averaged over windows of each video. Intervals resample groups (patients), so give a manifest.csv
    that states them. Clips that cannot be read or are too short are listed, and the exit code is then 1.

    Example: us-i2v classify my_clips --weights run --split test -o results.json --plot results.png
    """
    import tempfile

    from us_i2v.classifier import load_classifier
    from us_i2v.cli.evaluate import check_output
    from us_i2v.cli.progress import counting
    from us_i2v.cli.training import use_threads
    from us_i2v.data.mixing import is_generated
    from us_i2v.devices import choose_device
    from us_i2v.errors import ConfigError
    from us_i2v.evaluation.classification import (
        Classification,
        check_seen,
        classify,
        score,
        table,
        write_classification,
        write_classification_plot,
    )
    from us_i2v.evaluation.plot import check_plot
    from us_i2v.evaluation.windows import list_samples

    check_output(output, ".json")
    check_output(plot, ".png")
    if plot is not None:
        check_plot()
    use_threads(threads)
    where = choose_device(device)
    trained = load_classifier(weights)
    trained.network.to(where)
    samples = [
        (sample, made)
        for path in clips
        for made in [is_generated(path)]
        for _, sample in list_samples([path], split)[0]
    ]
    known = any(not made and sample.label in trained.header.classes for sample, made in samples)
    if plot is not None and not known:
        raise ConfigError("A plot needs labelled real clips of the classifier's classes.", "Leave --plot out.")
    if not allow_leak:
        check_seen(trained, [sample for sample, made in samples if not made])
    with tempfile.TemporaryDirectory() as folder, counting("classify") as progress:
        videos, skipped = classify(trained, samples, Path(folder) if cache is None else cache, windows, progress)
    result, notes = score(videos, trained.header.classes, seed=seed)
    found = Classification(
        settings={
            "clips": [str(path) for path in clips],
            "weights": str(weights),
            "weights_sha256": trained.sha256,
            "model": trained.header.model.name,
            "width": trained.header.model.width,
            "windows": windows,
            "split": split,
            "seed": seed,
            "allow_leak": allow_leak,
        },
        classes=trained.header.classes,
        videos=tuple(videos),
        skipped=skipped,
        result=result,
        notes=notes,
    )
    if output is not None:
        write_classification(output, found)
    if plot is not None:
        write_classification_plot(plot, found)
    for line in table(found):
        typer.echo(line)
    if skipped:
        raise typer.Exit(1)
