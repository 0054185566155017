"""`us-i2v quality`: what real clips are like in what can be measured, and how far generated ones are from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from us_i2v.cli import options as opt

if TYPE_CHECKING:
    from us_i2v.quality import QualityHeader

app = typer.Typer(no_args_is_help=True, help="Score clips by how plausible they are, for `augment --quality`.")


@app.command("fit")
def fit(
    real: Annotated[
        list[Path],
        typer.Argument(metavar="REAL...", help="Real clips: folders, manifests or files; patients as groups."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="QUALITY.safetensors", help="The reference.")],
    dt: Annotated[
        float | None,
        typer.Option("--dt", metavar="MS", help="Milliseconds between frames. [default: the weights' own]"),
    ] = None,
    length: Annotated[int, typer.Option("--length", help="Frames a window.")] = 16,
    windows_per_clip: Annotated[int, typer.Option("--windows-per-clip", help="Windows a clip at most.")] = 1,
    split: Annotated[
        str | None, typer.Option("--split", help="Take only clips of this split: train, val or test.")
    ] = None,
    critic: Annotated[
        bool, typer.Option("--critic/--no-critic", help="Also fit a critic, on a generated clip for each real one.")
    ] = True,
    name: Annotated[str, typer.Option("--name", help="What the clips are, for reports.")] = "",
    weights: opt.Weights = None,
    seed: opt.Seed = 0,
    device: opt.Device = "auto",
    threads: opt.Threads = None,
) -> None:
    """Measure real clips: the ranges that generated clips shall keep to, and a critic that tells the two apart.

    Example: us-i2v quality fit my_clips --split train -o quality.safetensors
    """
    from us_i2v.cli.evaluate import check_output
    from us_i2v.cli.progress import counting
    from us_i2v.cli.training import use_threads
    from us_i2v.evaluation.clips import RealWindows, WindowRule
    from us_i2v.evaluation.quality import QualityFit, fit_quality
    from us_i2v.pipeline import CPU_THREADS, ImageToVideo
    from us_i2v.weights import load_weights

    check_output(output, ".safetensors")
    use_threads(threads)
    generator = ImageToVideo.from_pretrained(weights, device, threads or CPU_THREADS) if critic else None
    interval = load_weights(weights).header.frame_interval_s if generator is None else generator.info.frame_interval_s
    rule = WindowRule.parse(
        {"length": length, "dt_s": interval if dt is None else dt / 1000, "per_clip": windows_per_clip}, "windows"
    )
    config = QualityFit.parse({"name": name}, "settings")
    with counting("quality") as progress:
        windows = RealWindows.of(real, rule, split=split, progress=progress)
        found = fit_quality(windows, output, config, generator=generator, seed=seed, stage=lambda what: progress)
    for line in (*lines(found.header), *found.notes):
        typer.echo(line)


@app.command("score")
def score(
    clips: Annotated[list[Path], typer.Argument(metavar="CLIPS...", help="Clips, or folders or manifests of them.")],
    quality: Annotated[
        Path | None,
        typer.Option("--quality", metavar="FILE", help="Reference of `us-i2v quality fit`. [default: built in]"),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="SCORES.json", help="Also write all parts.")
    ] = None,
) -> None:
    """Score clips that are there; the still is taken to be frame 0.

    Example: us-i2v quality score my_augmented --quality quality.safetensors
    """
    from us_i2v.cli.evaluate import check_output
    from us_i2v.cli.progress import counting
    from us_i2v.data.atomic import write_bytes
    from us_i2v.data.clips import open_clip
    from us_i2v.evaluation.windows import list_samples
    from us_i2v.quality import load_reference
    from us_i2v.quality import score as score_clip

    check_output(output, ".json")
    reference = load_reference(quality)
    samples, _ = list_samples(clips)
    rows: list[dict[str, Any]] = []
    with counting("score") as progress:
        for done, (_, sample) in enumerate(samples, 1):
            reader = open_clip(sample.path, sample.fps)
            reference.check(reader.n_frames, reader.fps)
            frames = reader.read(range(reference.header.frames))
            found = score_clip(frames, frames[0], reference)
            row = {"file": str(sample.path), "score": found.value, "worst": found.worst, "parts": found.parts}
            rows.append(row)
            progress(done, len(samples), sample.path.name)
    for row in rows:
        typer.echo(f"{row['score']:.4f}  {row['file']}  {row['worst']}")
    if output is not None:
        about = {"reference": reference.header.model_dump(mode="json"), "clips": rows}
        write_bytes(output, (json.dumps(about, indent=1, allow_nan=False) + "\n").encode())


def lines(header: QualityHeader) -> list[str]:
    """Return what a reference holds as lines."""
    low, high = header.quantiles
    found = [
        f"{header.windows} real windows of {header.groups} groups, {header.frames} frames, "
        f"{1000 * header.interval_s:.0f} ms apart; quantiles {low:g} and {high:g}:"
    ]
    found += [f"  {name}: {limits.low:.4g} to {limits.high:.4g}" for name, limits in header.ranges.items()]
    if header.critic is not None:
        about = header.critic
        limits = "" if about.auc_low is None else f" [{about.auc_low:.3f}, {about.auc_high:.3f}]"
        found.append(f"  critic: AUC {about.auc:.3f}{limits} against {about.generated} generated clips")
    return found
