"""Table 1 of the LDDM paper: how good are clips made of the first frames of held-out videos?

    split -> train each method on the training groups -> answer every held-out window -> measure -> compare

The paper prints FVD, DTFVD, LPIPS and DIV of cINN and LDDM on BUSV and nothing else. Here every Frechet distance stands
beside the real/real floor and repeated frame 0 on the same divisions of the patients, and energy scores, which a
method cannot win by always giving its one best answer, are paired between methods. What is finished is kept:
a run that is started again goes on.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from pydantic import Field

from us_i2v.config import Config
from us_i2v.data.training_clips import ClipSampler, ClipsConfig
from us_i2v.devices import choose_device
from us_i2v.errors import ConfigError, WeightsError
from us_i2v.evaluation.clips import RealWindows, WindowRule
from us_i2v.evaluation.compare import compare
from us_i2v.evaluation.leaks import check_leaks
from us_i2v.evaluation.measure import Measured, measure
from us_i2v.evaluation.networks import Wanted, choose
from us_i2v.evaluation.results import Comparison
from us_i2v.pipeline import CPU_THREADS, ImageToVideo
from us_i2v.reproduction.folders import divided
from us_i2v.reproduction.methods import METHODS, MethodName, train_method
from us_i2v.reproduction.rows import BORROWED, QUIET, REFERENCES, build_row, row_title
from us_i2v.reproduction.several import Several, answer_several, spread_indices
from us_i2v.reproduction.store import load_measured, load_several, row_key, save_measured, save_several
from us_i2v.training.runs import gather_clips

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from us_i2v.evaluation.clips import Answers, ClipSet
    from us_i2v.training.report import Reporter

    Progress = Callable[[str], AbstractContextManager[Callable[[int, int, str], None]]]


class Table1Settings(Config):
    """What Table 1 is made with."""

    windows: WindowRule = Field(WindowRule(per_clip=3), description="How held-out clips are cut.")
    training_share: float = Field(0.7, gt=0, lt=1, description="Share of groups to train on, if no split is stated.")
    preset: str | None = Field(None, description="Preset of every method; empty: each method's own.")
    changes: dict[str, Any] = Field({}, description="method -> stage -> settings beyond the preset.")
    n: int = Field(100, ge=2, description="Clips a side in Frechet distances.")
    draws: int = Field(20, ge=1, description="Divisions of the patients that they are averaged over.")
    samples: int = Field(8, ge=0, description="Clips a still for energy scores; 0 leaves them out.")
    stills: int = Field(50, ge=2, description="Stills that energy scores and DIV are measured on.")
    seed: int = Field(0, ge=0, description="Seed of the split, the clips and the divisions.")


@dataclass(frozen=True)
class RowResult:
    """What is known of a row.

    Attributes:
        title: Name in the table.
        comparison: With the real windows, by source and all together.
        several: What several answers a still gave; None where they were left out.
    """

    title: str
    comparison: Comparison
    several: Several | None


@dataclass(frozen=True)
class Table1:
    """The table.

    Attributes:
        rows: By key, references first.
        windows: Number of held-out windows by source.
        stills: Number of stills that were answered several times.
        left_out: What could not be measured, and why.
    """

    rows: dict[str, RowResult]
    windows: dict[str, int]
    stills: int
    left_out: tuple[str, ...]


def reproduce_table1(
    videos: Sequence[Path],
    out: Path,
    settings: Table1Settings,
    *,
    weights: Mapping[MethodName, Path],
    networks: tuple[Wanted, tuple[str, ...]],
    only: Sequence[str] | None = None,
    reporter: Reporter,
    progress: Progress,
    device: str = "auto",
    threads: int = CPU_THREADS,
) -> Table1:
    """Train what is missing, answer every held-out window by every row, and compare.

    Args:
        videos: Data folders; stated splits are kept, others are divided by group.
        out: Folder of runs and measurements; what is in it is used again.
        settings: See `Table1Settings`.
        weights: Trained weights by method; the others are trained.
        networks: Metric networks, and what is left out, see `metric_networks`.
        only: Rows to make; None for all.
        reporter: Receives the training's progress.
        progress: Opens a progress display for a named task.
        device: "auto", "cpu", "cuda", ...
        threads: CPU threads while generating.

    Raises:
        ConfigError: A row is unknown.
        DataError: No clips, too few groups, or a method was trained on held-out clips.
        WeightsError: Weights cannot be read.
    """
    keys = chosen_rows(only)
    wanted, left_out = networks
    folders = divided(videos, out / "data", settings.training_share, settings.seed)
    models = {}
    for method in needed_methods(keys):
        source = weights.get(method) or train_method(
            method,
            folders,
            out / "methods" / method,
            settings.preset,
            settings.changes,
            reporter=reporter,
            device=device,
        )
        models[method] = ImageToVideo.from_pretrained(source, device, threads)
    with progress("held-out clips") as shown:
        real = RealWindows.of(folders, settings.windows, split="test", progress=shown)
    for method, model in models.items():
        check_leaks(model.info, real, METHODS[method].title)
    bench = _Bench(out / "rows", settings, real, wanted, progress)
    sampler = training_windows(folders, out / "methods" / "cache", settings, reporter)
    made_by = {key: build_row(key, real, sampler, models, settings.seed) for key in {*keys, "repeat"}}
    truth = bench.measured("real", real, "")
    repeated = bench.measured("repeat", made_by["repeat"], "")
    rows = {}
    for key in keys:
        row = made_by[key]
        identity = _identity(key, models)
        made = repeated if key == "repeat" else bench.measured(key, row, identity)
        comparison = compare(truth, made, repeat=repeated, n=settings.n, draws=settings.draws, seed=settings.seed)
        rows[key] = RowResult(row_title(key), comparison, bench.several(key, row, identity))
    windows = {source: real.sources.count(source) for source in dict.fromkeys(real.sources)}
    return Table1(rows, windows, len(bench.stills), left_out)


class _Bench:
    """Measures rows on the same windows, and keeps what it measured."""

    def __init__(
        self, folder: Path, settings: Table1Settings, real: RealWindows, wanted: Wanted, progress: Progress
    ) -> None:
        self.folder, self.settings, self.real, self.wanted, self.progress = folder, settings, real, wanted, progress
        self.common = [real.names, settings.windows.dump(), settings.seed, sorted(wanted.networks)]
        self.stills = spread_indices(real.groups, settings.stills)

    def measured(self, name: str, row: ClipSet, identity: str) -> Measured:
        """Measure a row, or read it back."""
        path, key = self.folder / f"{name}.npz", row_key(name, self.common, identity)
        found = load_measured(path, key)
        if found is None:
            with self.progress(name) as shown:
                partner = None if name == "real" else self.real
                found = measure(row, self.wanted.networks, lpips=self.wanted.lpips, partner=partner, progress=shown)
            save_measured(path, found, key)
        return found

    def several(self, name: str, row: Answers, identity: str) -> Several | None:
        """Answer the chosen stills several times, or read it back; None if no samples are asked for."""
        samples = self.settings.samples
        if not samples:
            return None
        path = self.folder / f"{name}.several.npz"
        key = row_key(name, self.common, identity, samples, self.stills)
        found = load_several(path, key)
        if found is None:
            with self.progress(f"{name}, {samples} answers a still") as shown:
                networks, lpips = self.wanted.networks, self.wanted.lpips
                found = answer_several(self.real, row, self.stills, samples, networks, lpips, shown)
            save_several(path, found, key)
        return found


def parse_weights(texts: Sequence[str]) -> dict[MethodName, Path]:
    """Read "method=path" texts; raises `ConfigError`."""
    found: dict[MethodName, Path] = {}
    for text in texts:
        name, _, path = text.partition("=")
        method = next((known for known in METHODS if known == name), None)
        if method is None or not path:
            raise ConfigError(f"'{text}' is not METHOD=PATH.", f"METHOD is one of {', '.join(METHODS)}.")
        found[method] = Path(path)
    return found


def chosen_rows(only: Sequence[str] | None) -> list[str]:
    """Return the rows' keys in the table's order; raises `ConfigError` for an unknown one."""
    known = [*REFERENCES, *METHODS, QUIET]
    for key in only or ():
        if key not in known:
            raise ConfigError(f"Table 1 has no row '{key}'.", f"Use {', '.join(known)}.")
    return [key for key in known if only is None or key in only]


def needed_methods(keys: Sequence[str]) -> list[MethodName]:
    """Return the methods whose weights some rows need."""
    wanted = {BORROWED.get(key, key) for key in keys}
    return [method for method in get_args(MethodName) if method in wanted]


def metric_networks(folder: Path | None, length: int, device: str) -> tuple[Wanted, tuple[str, ...]]:
    """Load the metric networks that there are; raises `WeightsError` if none of them gives clips' features."""
    wanted, left_out = choose((), folder, "alex", length, choose_device(device))
    if not wanted.networks:
        raise WeightsError(
            f"No feature network's weights were found; without them there is no table ({left_out[0]}).",
            "Give their folder by --metric-weights; docs/metric-weights.md says how to make them.",
        )
    return wanted, tuple(left_out)


def training_windows(folders: Sequence[Path], cache: Path, settings: Table1Settings, reporter: Reporter) -> ClipSampler:
    """Return a sampler of the training groups' windows, cut as the held-out ones and not augmented."""
    rule = settings.windows
    clips = ClipsConfig(fit="stretch", stride=rule.stride, drop_repeats=rule.drop_repeats)
    train, _ = gather_clips(folders, cache, rule.size, clips, settings.seed, reporter)
    return ClipSampler(train, clips, length=rule.length, seed=settings.seed, augment=False)


def _identity(key: str, models: Mapping[MethodName, ImageToVideo]) -> str:
    """Return what a row's clips depend on beyond the settings."""
    method = BORROWED.get(key, key)
    return models[method].weights_sha256 if method in models else ""  # type: ignore[index]
