"""`us-i2v evaluate`: how far generated clips are from real ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from us_i2v.cli import options as opt
from us_i2v.errors import ConfigError

if TYPE_CHECKING:
    from us_i2v.evaluation.clips import ClipSet, Generated, RealWindows
    from us_i2v.evaluation.energy import EnergyScores
    from us_i2v.evaluation.report import Energy
    from us_i2v.evaluation.results import Comparison
    from us_i2v.metrics.lpips import LPIPS
    from us_i2v.ranks import Ranks

BUNDLED = "bundled"
NETWORKS = ("fvd-x3d", "fvd", "dtfvd", "fid")
OTHERS = ("lpips", "paired", "motion", "decorrelation")
"""Keys of `evaluation.networks`, repeated here so that `--help` need not import it; a test compares them."""


def command(
    real: Annotated[Path, typer.Argument(metavar="REAL", help="Real clips: a folder, a manifest.csv or a clip.")],
    fake: Annotated[
        str,
        typer.Argument(
            metavar="FAKE",
            help="Clips to judge: a folder, manifest.csv or clip. Or what makes them, one for each real clip's first "
            "frame: a weights file, a run folder, ORG/NAME on the hub, or the word 'bundled'.",
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="RESULTS.json", help="Also write all numbers.")
    ] = None,
    plot: Annotated[Path | None, typer.Option("--plot", metavar="PLOT.png", help="Also draw them.")] = None,
    length: Annotated[int, typer.Option("--length", help="Frames a window.")] = 16,
    stride: Annotated[
        int, typer.Option("--stride", help="Every N-th frame of clips that are longer than a window.")
    ] = 3,
    dt: Annotated[
        float | None, typer.Option("--dt", metavar="MS", help="Milliseconds between frames, instead of --stride.")
    ] = None,
    windows_per_clip: Annotated[int, typer.Option("--windows-per-clip", help="Windows a clip at most.")] = 1,
    size: Annotated[int, typer.Option("--size", help="Pixels of the square at which clips are compared.")] = 128,
    split: Annotated[
        str | None, typer.Option("--split", help="Take only clips of this split: train, val or test.")
    ] = None,
    metrics: Annotated[
        str, typer.Option("--metrics", metavar="LIST", help=f"Some of {','.join((*NETWORKS, *OTHERS))}. [default: all]")
    ] = "",
    metric_weights: Annotated[
        Path | None,
        typer.Option(
            "--metric-weights",
            metavar="FOLDER",
            help="Folder of the metric networks. [default: $US_I2V_METRIC_WEIGHTS, then the cache folder]",
        ),
    ] = None,
    lpips: Annotated[str, typer.Option("--lpips", help="Network of LPIPS: alex, squeeze or vgg.")] = "alex",
    n: Annotated[int, typer.Option("--n", help="Clips a side of every Frechet distance; no claim below 100.")] = 100,
    draws: Annotated[int, typer.Option("--draws", help="Divisions of the patients that are averaged.")] = 20,
    samples: Annotated[
        int,
        typer.Option("--samples", help="Clips a still of the energy score; 0: none. Only where FAKE is weights."),
    ] = 8,
    seed: opt.Seed = 0,
    speckle: opt.Speckle = None,
    allow_leak: Annotated[
        bool, typer.Option("--allow-leak", help="Go on with weights that were trained on the real clips.")
    ] = False,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Clips in memory at a time.")] = 8,
    device: opt.Device = "auto",
    threads: opt.Threads = None,
) -> None:
    """Compare generated clips with real ones: distances, paired differences, motion, speckle.

    Every Frechet distance stands beside two of the same n: real against other real clips, and frame 0 repeated.
    Intervals resample groups (patients), so give real clips with a manifest.csv that states them. Processes of torchrun
    share the measuring.

    Example: us-i2v evaluate my_clips bundled --split test -o results.json --plot results.png
    """
    import torch

    from us_i2v.cli.progress import counting
    from us_i2v.devices import choose_device
    from us_i2v.evaluation.clips import Generated, RealWindows, Repeated, WindowRule, list_samples
    from us_i2v.evaluation.compare import compare
    from us_i2v.evaluation.listed import Listed
    from us_i2v.evaluation.networks import choose
    from us_i2v.evaluation.plot import check_plot, write_plot
    from us_i2v.evaluation.report import Result, table, write_json
    from us_i2v.evaluation.spread import check_joinable, joined, measure_shared
    from us_i2v.hub import is_hub_name
    from us_i2v.pipeline import CPU_THREADS
    from us_i2v.ranks import Ranks

    check_output(output, ".json")
    check_output(plot, ".png")
    if plot is not None:
        check_plot()
    if n < 2 or draws < 1 or samples < 0 or samples == 1:
        raise ConfigError(
            f"--n {n}, --draws {draws}, --samples {samples}: at least 2, 1, and 0 or 2 are needed.",
            "Leave them out for 100, 20 and 8.",
        )
    ranks = Ranks.of_environment()
    check_joinable(ranks)
    values: dict[str, Any] = {"length": length, "stride": stride, "per_clip": windows_per_clip, "size": size}
    rule = WindowRule.parse(values | {"dt_s": None if dt is None else dt / 1000}, "windows")
    if threads is not None:
        torch.set_num_threads(threads)
    where = choose_device(device)
    names = [name.strip() for name in metrics.split(",") if name.strip()]
    wanted, left_out = choose(names, metric_weights, lpips, length, where)
    makes = fake == BUNDLED or is_weights(Path(fake)) or is_hub_name(fake)
    if not makes:
        list_samples([Path(fake)])
    model = None if not makes else open_generator(fake, device, threads or CPU_THREADS, speckle)
    if model is None and speckle is not None:
        raise ConfigError(f"--speckle {speckle:g} changes how clips are made; '{fake}' are clips.", "Leave it out.")
    with counting("real clips") as progress:
        windows = RealWindows.of([real], rule, split=split, progress=progress)
    fakes: Listed | Generated
    pairs: list[int | None]
    if model is not None:
        from us_i2v.evaluation.leaks import check_leaks

        if not allow_leak:
            check_leaks(model.info, windows, fake)
        options = opt.generate_options(frames=length, speckle=speckle)
        fakes, pairs = Generated(windows, model, options, seed), list(range(len(windows)))
    else:
        with counting("fake clips") as progress:
            fakes = Listed.of(
                [Path(fake)], rule, split=split if has_split(Path(fake), split) else None, progress=progress
            )
        pairs = fakes.pair_with(windows)
    notes = remarks(windows, fakes, pairs, left_out)

    def measured(clips: ClipSet, what: str, mates: list[int | None] | None, *, bare: bool = False) -> Any:
        paired = mates is not None and wanted.paired and any(mate is not None for mate in mates)
        with counting(what) as progress:
            return measure_shared(
                ranks,
                clips,
                wanted.networks,
                lpips=wanted.lpips,
                partner=windows if paired else None,
                pairs=mates if paired else None,
                describe=wanted.motion and not bare,
                curves=wanted.decorrelation and not bare,
                batch=batch,
                progress=progress,
            )

    with joined(ranks, None if model is None else model.weights_sha256):
        truth = measured(windows, "measure real", None)
        repeat = measured(Repeated(windows), "measure repeated", list(range(len(windows))), bare=True)
        made = measured(fakes, "measure fakes", pairs)
        drawn = None
        if isinstance(fakes, Generated) and samples:
            drawn = energies(ranks, windows, fakes, samples, wanted.lpips)
    if not ranks.first:
        return
    comparison = compare(truth, made, repeat=repeat, n=n, draws=draws, seed=seed)
    energy = {} if drawn is None else by_part(*drawn, comparison)
    result = Result(
        settings={
            "real": str(real),
            "fake": fake,
            "weights_sha256": None if model is None else model.weights_sha256,
            **rule.model_dump(),
            "split": split,
            "n": n,
            "draws": draws,
            "samples": samples if energy else None,
            "seed": seed,
            "speckle": speckle,
        },
        comparison=comparison,
        energy=energy,
        left_out=tuple(left_out),
        notes=tuple(notes),
    )
    if output is not None:
        write_json(output, result)
    if plot is not None:
        write_plot(plot, result)
    for line in table(result):
        typer.echo(line)


def check_output(path: Path | None, ending: str) -> None:
    """Raise an error unless a file with this ending can be written at `path`."""
    from us_i2v.data.atomic import check_writable

    if path is None:
        return
    if path.suffix.lower() != ending or path.is_dir():
        raise ConfigError(f"'{path}' is no name of a {ending} file.", f"Give for example results{ending}.")
    check_writable(path)


def is_weights(path: Path) -> bool:
    """Tell whether a path holds weights and no clips: a .safetensors file, or a run folder."""
    return path.suffix == ".safetensors" or (path / "weights.safetensors").is_file()


def open_generator(fake: str, device: str, threads: int, speckle: float | None) -> Any:
    """Load the generator; checks its options before anything is measured."""
    from us_i2v.pipeline import ImageToVideo

    opt.generate_options(speckle=speckle)
    return ImageToVideo.from_pretrained(None if fake == BUNDLED else fake, device, threads)


def has_split(path: Path, split: str | None) -> bool:
    """Tell whether clips at `path` state splits, so that one of them can be asked for."""
    from us_i2v.data.datasets import find_samples

    return split is not None and any(sample.split for sample in find_samples(path))


def remarks(windows: RealWindows, fakes: Any, pairs: list[int | None], left_out: list[str]) -> list[str]:
    """Return what the reader must know about the clips; adds to `left_out` what could not be paired."""
    notes = []
    for what, clips in (("real", windows), ("fake", fakes)):
        skipped = getattr(clips, "skipped", {})
        if skipped:
            notes.append(f"{len(skipped)} {what} clips give no window, for example {next(iter(skipped.values()))}")
    alone = sum(pair is None for pair in pairs)
    if alone:
        text = f"{alone} of {len(pairs)} fakes have no real partner of the same stem or manifest column 'source'"
        (left_out if alone == len(pairs) else notes).append(
            f"paired differences: {text}" if alone == len(pairs) else text
        )
    retimed = getattr(fakes, "retimed", 0)
    if retimed:
        notes.append(f"{retimed} real clips have a frame rate that the weights do not know; the nearest was taken")
    sizes = [
        sorted(min(entry.native) for entry in clips.entries) for clips in (windows, fakes) if hasattr(clips, "entries")
    ]
    if len(sizes) == 2:
        middles = [side[len(side) // 2] for side in sizes]
        if max(middles) > 1.1 * min(middles):
            notes.append(
                f"real clips are {middles[0]} px and fakes {middles[1]} px wide (median): native-size crops show "
                "other scales and cannot be compared"
            )
    return notes


def energies(
    ranks: Ranks, windows: RealWindows, fakes: Generated, samples: int, lpips: LPIPS | None
) -> tuple[EnergyScores, EnergyScores]:
    """Draw `samples` clips a still and score them; and the trivial answer."""
    from us_i2v.cli.progress import counting
    from us_i2v.evaluation.clips import Repeated
    from us_i2v.evaluation.spread import energy_scores_shared

    with counting("energy score") as progress:
        ours = energy_scores_shared(ranks, windows, fakes.sample, samples=samples, lpips=lpips, progress=progress)
    still = Repeated(windows)
    # Both "samples" of the trivial answer are the same clip: no spread is credited.
    trivial = energy_scores_shared(ranks, windows, lambda index, _: still.frames(index), samples=2, lpips=lpips)
    return ours, trivial


def by_part(ours: EnergyScores, trivial: EnergyScores, comparison: Comparison) -> dict[str, Energy]:
    """Return the means of both by part of the comparison."""
    from us_i2v.evaluation.compare import ALL
    from us_i2v.evaluation.report import Energy

    found = {}
    for part in comparison.parts:
        source = None if part == ALL else part
        less = ours.less(trivial, source)
        found[part] = Energy(ours.samples, ours.intervals(source), trivial.intervals(source), less)
    return found
