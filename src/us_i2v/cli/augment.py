"""`us-i2v augment`: a data set of clips from a data set of stills."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from us_i2v.cli import dicom_options as dcm
from us_i2v.cli import options as opt

SKIPPED = 1
"""Exit code when some stills could not be read and all others were done."""


def command(
    data: Annotated[
        Path, typer.Argument(metavar="DATA", help="Folder of stills: BUSI, class folders or manifest.csv.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Output folder; an unfinished one is continued.")],
    clips_per_image: Annotated[int, typer.Option("--clips-per-image", min=1, help="Clips a still.")] = 1,
    balance: Annotated[bool, typer.Option("--balance", help="Even out the classes: more clips of rarer ones.")] = False,
    shard: Annotated[
        str,
        typer.Option("--shard", metavar="i/n", help="Make part i of n; all parts together are the whole."),
    ] = "1/1",
    ext: Annotated[str, typer.Option("--ext", help="mp4, mkv, avi, gif, npz or png (a folder a clip).")] = "mp4",
    seed: opt.Seed = 0,
    weights: opt.Weights = None,
    frames: opt.Frames = None,
    loop: opt.Loop = None,
    longer: opt.Longer = None,
    fps: opt.Fps = None,
    motion: opt.Motion = None,
    speckle: opt.Speckle = None,
    size: opt.OutputSize = "native",
    steps: opt.Steps = None,
    sampler: opt.Sampler = None,
    label: opt.Label = None,
    own_label: Annotated[
        bool,
        typer.Option("--own-label", help="Condition each clip on its still's class, where the weights know it."),
    ] = False,
    guidance: opt.Guidance = None,
    strength: opt.Strength = None,
    pressure: opt.Pressure = None,
    slide: opt.Slide = None,
    prompt: opt.Prompt = None,
    texture: opt.Texture = None,
    region: dcm.Region = "keep",
    exact: opt.Exact = False,
    license_: Annotated[
        str, typer.Option("--license", metavar="TEXT", help="Licence of the clips, for OUT/README.md.")
    ] = "",
    source: Annotated[
        str, typer.Option("--source", metavar="TEXT", help="Where the stills come from, for OUT/README.md.")
    ] = "",
    keep_best: Annotated[
        float | None,
        typer.Option("--keep-best", metavar="P", help="Keep this share of each class's clips, 0 to 1, by quality."),
    ] = None,
    reject_below: Annotated[
        float | None, typer.Option("--reject-below", metavar="S", help="Keep no clips of a quality below this, 0 to 1.")
    ] = None,
    quality: Annotated[
        Path | None,
        typer.Option(
            "--quality",
            metavar="FILE",
            help="Reference of `us-i2v quality fit` for both. [default: built in, from open data]",
        ),
    ] = None,
    device: opt.Device = "auto",
    precision: opt.NetworkPrecision = "fp32",
    engine: Annotated[
        str,
        typer.Option(
            "--engine",
            help="auto, serial, torchrun or ray: who makes the clips, see docs/scaling.md. auto: this process, "
            "or those of torchrun where it has started this one.",
        ),
    ] = "auto",
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=1, help="Actors of --engine ray. [default: one a GPU, else one for two CPUs]"),
    ] = None,
) -> None:
    """Make a clip of every still of a data set; class folders are kept and masks carried along.

    Run it again to continue after a stop; clips that are there are not made again. OUT/manifest.csv lists every
    clip with its still, seed and weights, OUT/README.md sums the data set up. Stills that cannot be read are
    skipped and listed in OUT/unreadable.txt; the exit code is then 1. With --keep-best, --reject-below or --quality
    clips are scored, and implausible ones removed at the end; OUT/quality.csv says which and why.
    """
    from us_i2v.augmentation.engines import choose_engine
    from us_i2v.augmentation.outputs import clip_name
    from us_i2v.augmentation.planning import Shard, check_apart, collect_sources, plan_jobs, sources_sha256
    from us_i2v.augmentation.records import run_record
    from us_i2v.augmentation.selection import chosen_by, summary
    from us_i2v.augmentation.settings import AugmentSettings, check_own_label
    from us_i2v.augmentation.synthesis import synthesise
    from us_i2v.cli.progress import counting
    from us_i2v.data.datasets import find_samples
    from us_i2v.pipeline import ImageToVideo

    clip_name("clip", ext)
    part = Shard.parse(shard)
    root = data.parent if data.is_file() else data
    check_apart(root, out)
    computed_in = opt.parse_precision(precision)
    selection, judge = chosen_by(keep_best, reject_below, quality)
    crew = choose_engine(engine, weights, device, workers, computed_in)
    options = opt.generate_options(
        frames=frames,
        steps=steps,
        sampler=sampler,
        motion=motion,
        speckle=speckle,
        label=label,
        guidance=guidance,
        fps=fps,
        texture=texture,
        loop=loop,
        longer=longer,
        strength=strength,
        pressure=pressure,
        slide=slide,
    )
    sources = collect_sources(find_samples(data), root)
    jobs = plan_jobs(sources, clips_per_image=clips_per_image, balance=balance, seed=seed, ending=ext)
    generator = ImageToVideo.from_pretrained(weights, device, precision=computed_in)
    if prompt is not None:
        options = generator.prompted(prompt, options)
    if own_label:
        check_own_label(generator.info.labels, options.label)
    settings = AugmentSettings(
        clips_per_image=clips_per_image,
        balance=balance,
        seed=seed,
        ending=ext,
        exact=exact,
        size=opt.parse_size(size),
        region=dcm.parse_region(region),
        precision=computed_in,
        own_label=own_label,
        license=license_,
        source=source,
        options=options,
        weights_sha256=generator.weights_sha256,
        sources_sha256=sources_sha256(sources),
        quality=selection,
    )
    rate = options.fps if options.fps is not None else 1 / generator.info.frame_interval_s
    known = generator.info.labels if own_label else ()
    record = run_record(
        "augment",
        generator.info,
        generator.weights_sha256,
        options,
        seed=seed,
        size=settings.size,
        precision=computed_in,
    )
    with counting("augment") as progress:
        outcome = synthesise(
            generator,
            jobs,
            out,
            settings,
            fps=rate,
            shard=part,
            progress=progress,
            labels=known,
            record=record,
            engine=crew,
            judge=judge,
        )
    if not crew.first:
        return
    typer.echo(f"{out}: {outcome.made} clips made, {outcome.present} already there")
    if judge is not None:
        typer.echo(summary(out, judge))
    if outcome.unreadable:
        typer.echo(f"{len(outcome.unreadable)} stills could not be read and were skipped:", err=True)
        for name, why in sorted(outcome.unreadable.items()):
            typer.echo(f"  {name}: {why}", err=True)
        raise typer.Exit(SKIPPED)
