"""`us-i2v privacy`: do generated clips copy clips of the training set?

| exit code of `check` | |
|---|---|
| 0 | the check ran (and no share is above `--fail-above`) |
| 2 | an input is not usable |
| 5 | the share of copies by some measure is above `--fail-above` |
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from us_i2v.cli import options as opt

COPIES = 5

app = typer.Typer(no_args_is_help=True, help="Find generated clips that copy clips of the training set.")


@app.command("fit")
def fit(
    data: opt.Data,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="RUN", help="Run folder.")],
    weights: opt.Weights = None,
    config: opt.ConfigFile = None,
    changes: opt.Settings = None,
    steps: opt.TrainingSteps = None,
    batch_size: opt.BatchSize = None,
    seed: opt.TrainingSeed = None,
    dt: opt.Interval = None,
    stride: opt.Stride = None,
    drop_repeats: opt.DropRepeats = None,
    resume: opt.Resume = False,
    device: opt.Device = "auto",
    threads: opt.TrainingThreads = None,
) -> None:
    """Fit a privacy filter to the clips that a generator is trained on.

    A re-identification network learns which pictures are of one clip; held-out groups set the thresholds, and must be
    held out by the generator too: give its --weights, and the split or --seed of its training. The run folder gets
    privacy.safetensors and reference.safetensors, which holds pictures of the training clips: keep it where those are
    kept. Ctrl-C saves; --resume goes on.
    """
    from us_i2v.cli.progress import training_reporter
    from us_i2v.cli.training import flag_settings, use_threads
    from us_i2v.config import merge, parse_override, read_mapping
    from us_i2v.training.privacy import PrivacyTraining, fit_privacy

    values: dict[str, Any] = {} if config is None else read_mapping(config)
    for text in changes or []:
        values = merge(values, parse_override(text))
    flags = flag_settings(
        steps=steps, batch_size=batch_size, seed=seed, dt=dt, stride=stride, drop_repeats=drop_repeats
    )
    resolved = PrivacyTraining.parse(merge(values, flags), "settings")
    use_threads(threads)
    fit_privacy(data, weights, output, resolved, resume=resume, reporter=training_reporter(), device=device)


@app.command("check")
def check(
    run: Annotated[Path, typer.Option("--privacy", metavar="RUN", help="Run folder of `us-i2v privacy fit`.")],
    clips: Annotated[
        list[Path] | None, typer.Argument(metavar="[CLIPS]...", help="Generated clips, or folders of clips.")
    ] = None,
    weights: opt.Weights = None,
    train: Annotated[
        list[Path] | None,
        typer.Option("--train", metavar="DATA", help="Read the training clips anew. [default: what RUN keeps of them]"),
    ] = None,
    latents: Annotated[
        list[Path] | None,
        typer.Option("--latents", metavar="FILE", help="Also check a file of --save-latent; may be repeated."),
    ] = None,
    samples: Annotated[
        int,
        typer.Option(
            "--samples",
            min=0,
            metavar="N",
            help="Draw N clips of each still, or of each clip's first frame, in CLIPS and check those.",
        ),
    ] = 0,
    seed: opt.Seed = 0,
    fail_above: Annotated[
        float | None,
        typer.Option(
            "--fail-above",
            min=0,
            max=1,
            metavar="SHARE",
            help="Exit with 5 if a larger share copies; leave room above 0.05.",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="REPORT.md", help="Also write REPORT.md and REPORT.json.")
    ] = None,
    device: opt.Device = "auto",
    threads: opt.Threads = None,
) -> None:
    """Say how many clips copy a clip of the training set, by each measure, and which.

    The column "of strangers" is the share that clips of other people get: 0.05, or more where few clips were held out.
    Exit code 0, or 5 with --fail-above.

    Example: us-i2v privacy check my_augmented --privacy runs/privacy -o privacy.md
    """
    from us_i2v.cli.evaluate import check_output
    from us_i2v.cli.progress import counting
    from us_i2v.cli.training import use_threads
    from us_i2v.evaluation.privacy import check_privacy
    from us_i2v.evaluation.privacy_clips import Queries
    from us_i2v.evaluation.privacy_report import remarks, summary, write_report

    check_output(output, ".md")
    use_threads(threads)
    queries = Queries(tuple(clips or ()), tuple(latents or ()), samples, seed)
    with counting("windows") as progress:
        result = check_privacy(queries, run, weights, train=tuple(train or ()), device=device, progress=progress)
    if output is not None:
        write_report(output, result)
    for line in (*summary(result), *remarks(result)):
        typer.echo(line)
    if fail_above is not None and result.largest_share > fail_above:
        raise typer.Exit(COPIES)
