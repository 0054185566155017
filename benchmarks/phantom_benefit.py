"""Does synthetic video help where the truth is known? Real + synthetic against real only on the phantom.

    python benchmarks/phantom_benefit.py calibrate WORK     # how hard the phantom must be, on seeds of its own
    python benchmarks/phantom_benefit.py run WORK           # ten seeds at that difficulty
    python benchmarks/phantom_benefit.py choose WORK        # the difficulty from the calibration as far as it is there
    python benchmarks/phantom_benefit.py report WORK        # benefit.json and benefit.md from what is there

Each seed is another phantom population: videos of VIDEOS breasts a class are trained on, others are tested, and the
generator sees the same training videos only; stills are of breasts without a video. Difficulty is the level of
electronic noise, which hides lesions gradually. It is chosen beforehand by real-only accuracy alone: of a fixed list
of levels, the one whose mean over the calibration seeds is nearest to 75 % and within 65 to 85 %. Calibration and
test seeds never meet, and no synthetic clip is made while calibrating. A calibration seed shows the same breasts at
every level.

Per seed, everything goes through the cells of `us-i2v reproduce table2` (ratio 1:4, LDDM, one classifier), so a
stopped run goes on with the same line. The difference is paired by seed; its interval is Student's over seeds.
`--workers N` simulates N clips, then trains on N seeds at once, each in a process of one thread.

`--motion-only` (in every command) takes lesions that differ in stiffness alone: a still says nothing of its class, so
that stills repeated or moved at random cannot help, and motion must.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from scipy import stats

from us_i2v.data.atomic import write_bytes
from us_i2v.data.manifest import Sample, write_manifest
from us_i2v.data.phantom.config import PhantomConfig
from us_i2v.data.phantom.simulate import simulate_at_noise
from us_i2v.data.writers import write_clip, write_still
from us_i2v.errors import UsI2VError
from us_i2v.reproduction import table2
from us_i2v.reproduction.table2_cells import select
from us_i2v.reproduction.table2_jobs import Workshop
from us_i2v.reproduction.table2_scores import collect
from us_i2v.reproduction.table2_settings import Table2Settings
from us_i2v.seeding import derive_seed
from us_i2v.training.report import Silent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

Item = TypeVar("Item")
Result = TypeVar("Result")

CLASSES = ("benign", "malignant")
NOISE_DB = (-28.0, 2.0, 8.0, 11.0, 14.0, 17.0, 20.0)
"""Levels that are tried; relative to gland at the lower edge, so that lesions, which lie higher, have less."""
WANTED, LOWEST, HIGHEST = 0.75, 0.65, 0.85
CALIBRATION_SEEDS = tuple(range(1000, 1005))
TEST_SEEDS = tuple(range(10))
VIDEOS, TESTED = 10, 4
"""Training videos a class, and how many times as many are tested."""
FRAMES, FPS, SIZE = 24, 20.0, 64
GENERATOR = "lddm-base"
METRICS = ("accuracy", "macro_f1", "auc")


@dataclass(frozen=True)
class Breast:
    """A video or still of a population, in a folder for each level of noise."""

    folders: tuple[tuple[float, Path], ...]
    seed: int
    kind: str
    label: str
    number: int
    motion_only: bool = False

    @property
    def name(self) -> str:
        """The file's name without ending."""
        return f"{self.label}_{self.number:03d}"

    def path(self, folder: Path) -> Path:
        """Where it lies in a population's folder."""
        return folder / self.kind / (f"{self.name}.mp4" if self.kind == "videos" else f"{self.name}.png")


def population(folders: Sequence[tuple[float, Path]], seed: int, arguments: argparse.Namespace) -> list[Breast]:
    """Return what one seed's population consists of, at all levels."""
    numbers = {"videos": (1 + arguments.tested) * arguments.videos, "stills": arguments.stills}
    return [
        Breast(tuple(folders), seed, kind, label, number, arguments.motion_only)
        for label in CLASSES
        for kind, count in numbers.items()
        for number in range(count)
    ]


def show(breast: Breast) -> None:
    """Simulate a breast and write what is not there yet."""
    missing = [(level, breast.path(folder)) for level, folder in breast.folders if not breast.path(folder).exists()]
    if not missing:
        return
    frames = FRAMES if breast.kind == "videos" else 1
    values = {
        "label": breast.label,
        "motion_only": breast.motion_only,
        "size": (SIZE, SIZE),
        "n_frames": frames,
        "fps": FPS,
    }
    seed = derive_seed(breast.seed, "phantom benefit", breast.kind, breast.label, breast.number)
    clips = simulate_at_noise(PhantomConfig.parse(values, "phantom"), seed, [level for level, _ in missing])
    for (_, path), clip in zip(missing, clips, strict=True):
        if breast.kind == "videos":
            write_clip(path, clip.frames, FPS)
        else:
            write_still(path, clip.frames[0])


def write_manifests(breasts: Sequence[Breast]) -> None:
    """Write the manifests of populations whose files are there."""
    rows: dict[Path, list[Sample]] = {}
    for breast in breasts:
        for _, folder in breast.folders:
            path = breast.path(folder)
            kind, fps = ("clip", FPS) if breast.kind == "videos" else ("still", None)
            sample = Sample(path, kind, breast.label, f"{breast.kind}-{breast.name}", None, (), fps)
            rows.setdefault(path.parent, []).append(sample)
    for parent, samples in rows.items():
        write_manifest(parent / "manifest.csv", samples)


def settings(arguments: argparse.Namespace, seed: int, *, synthetic: bool) -> Table2Settings:
    values = {
        "splits": [f"1:{arguments.tested}"],
        "generators": [GENERATOR],
        "controls": list(arguments.controls) if synthetic else [],
        "models": [arguments.model],
        "seeds": [seed],
        "diets": ["real", "both"] if synthetic else ["real"],
        "preset": "tiny",
        "size": SIZE,
        "seed": seed,
        "steps": arguments.steps,
        "generator_steps": arguments.generator_steps,
        "clips_per_still": arguments.clips_per_still,
    }
    # Few videos give few windows that differ.
    generator: dict[str, dict] = {"denoiser": {"windows": 16 if arguments.small else 512}}
    if arguments.small:
        # Without the residual's likelihood no time goes into fitting the speckle's process.
        generator["autoencoder"] = {"loss": {"nll": 0.0}}
    values["changes"] = {"lddm-base": generator}
    return Table2Settings.parse(values, "settings")


@dataclass(frozen=True)
class Measurement:
    """One seed's cells."""

    folder: Path
    seed: int
    arguments: argparse.Namespace
    synthetic: bool
    said: str


def measure(asked: Measurement) -> tuple[Measurement, dict[str, dict[str, float]], float]:
    """Make one seed's cells, going on where it was stopped; return its scores by diet, and the seconds it took."""
    begun = time.monotonic()
    folder, arguments = asked.folder, asked.arguments
    chosen = settings(arguments, asked.seed, synthetic=asked.synthetic)
    plan = table2.prepare([folder / "videos"], [folder / "stills"], folder / "run", chosen, silent)
    chosen = chosen.model_copy(update={"classes": CLASSES})
    shop = Workshop(folder / "run", chosen, plan.sha256, Silent(), silent, arguments.device, arguments.threads)
    table2.run_cells(select(None, chosen), shop)
    return asked, scores_of(folder) or {}, time.monotonic() - begun


def spread(task: Callable[[Item], Result], items: Sequence[Item], workers: int) -> Iterator[Result]:
    """Yield the results of a task in the order in which they come, from several processes if asked for."""
    if workers == 1:
        yield from map(task, items)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for future in as_completed([pool.submit(task, item) for item in items]):
            yield future.result()


def scores_of(folder: Path) -> dict[str, dict[str, float]] | None:
    """Return a finished seed's scores by diet, None if it is not finished."""
    plan = table2.read_plan(folder / "run")
    if plan is None:
        return None
    table = collect(folder / "run", plan.table_settings(), plan.sha256)
    if table.missing:
        return None
    return {
        row.diet if row.source in ("", GENERATOR) else row.source: {name: row.values[name].mean for name in METRICS}
        for row in table.rows
    }


def calibration_folder(work: Path, noise_db: float, seed: int) -> Path:
    return work / "calibration" / f"noise{noise_db:+.0f}" / f"seed_{seed}"


def calibrate(arguments: argparse.Namespace) -> None:
    """Train on real videos only, at every level and calibration seed, and choose the level."""
    begun = time.monotonic()
    # Nothing is made of stills; the cells ask for one a class all the same.
    few = argparse.Namespace(**{**vars(arguments), "stills": 1})
    places = {
        seed: [(level, calibration_folder(arguments.work, level, seed)) for level in arguments.levels]
        for seed in arguments.calibration_seeds
    }
    breasts = [breast for seed, folders in places.items() for breast in population(folders, seed, few)]
    for _ in spread(show, breasts, arguments.workers):
        pass
    write_manifests(breasts)
    print(f"{len(breasts)} breasts at {len(arguments.levels)} levels, {time.monotonic() - begun:.0f} s", flush=True)
    asked = [
        Measurement(folder, seed, few, False, f"noise {level:+.0f} dB, seed {seed}")
        for seed, folders in places.items()
        for level, folder in folders
    ]
    for one, scores, seconds in spread(measure, asked, arguments.workers):
        print(f"{one.said}: accuracy {scores['real']['accuracy']:.3f}, {seconds:.0f} s", flush=True)
    choose(arguments)


def choose(arguments: argparse.Namespace) -> None:
    """Choose the level, of those at which all calibration seeds are done, and write difficulty.json."""
    seeds, levels = list(arguments.calibration_seeds), []
    for noise_db in arguments.levels:
        found = [scores_of(calibration_folder(arguments.work, noise_db, seed)) for seed in seeds]
        accuracies = [scores["real"]["accuracy"] for scores in found if scores is not None]
        if len(accuracies) == len(seeds):
            levels.append({"noise_db": noise_db, "mean": float(np.mean(accuracies)), "accuracies": accuracies})
    if not levels:
        sys.exit("no level is finished: run `calibrate` first")
    best = min(levels, key=lambda level: abs(level["mean"] - WANTED))
    fits = LOWEST <= best["mean"] <= HIGHEST
    out = {"chosen": best["noise_db"] if fits else None, "wanted": WANTED, "seeds": seeds, "levels": levels}
    write_bytes(arguments.work / "difficulty.json", (json.dumps(out, indent=1) + "\n").encode())
    if not fits:
        sys.exit(f"no level is between {LOWEST:.0%} and {HIGHEST:.0%}; the nearest gives {best['mean']:.1%}")
    print(f"chosen: {best['noise_db']:+.0f} dB, real-only accuracy {best['mean']:.3f} (n={len(seeds)} seeds)")


def run(arguments: argparse.Namespace) -> None:
    """Make the seeds that are missing, at the level of difficulty.json or the one that is given."""
    noise_db, begun = level(arguments), time.monotonic()
    places = {seed: arguments.work / "seeds" / f"seed_{seed}" for seed in arguments.seeds}
    breasts = [b for seed, folder in places.items() for b in population([(noise_db, folder)], seed, arguments)]
    for _ in spread(show, breasts, arguments.workers):
        pass
    write_manifests(breasts)
    print(f"{len(breasts)} breasts, {time.monotonic() - begun:.0f} s", flush=True)
    asked = [Measurement(folder, seed, arguments, True, f"seed {seed}") for seed, folder in places.items()]
    for one, scores, seconds in spread(measure, asked, arguments.workers):
        real, both = (scores[diet]["accuracy"] for diet in ("real", "both"))
        print(f"{one.said}: real {real:.3f}, both - real {both - real:+.3f}, {seconds:.0f} s", flush=True)
    report(arguments)


def report(arguments: argparse.Namespace) -> None:
    """Write benefit.json and benefit.md of the seeds that are finished."""
    found = {}
    for seed in TEST_SEEDS:
        scores = scores_of(arguments.work / "seeds" / f"seed_{seed}")
        if scores is not None:
            found[seed] = scores
    if not found:
        sys.exit("no seed is finished")
    noise_db = level(arguments)
    out = {"noise_db": noise_db, "seeds": found, "wanted_seeds": len(TEST_SEEDS), "both_minus": {}}
    lines = [f"Phantom, noise {noise_db:+.0f} dB, n = {len(found)} of {len(TEST_SEEDS)} seeds.", ""]
    lines += ["| score | beside real clips | score | real + synthetic | difference [95 %] |", "|---|---|---|---|---|"]
    others = sorted(set.intersection(*(set(s) for s in found.values())) - {"both", "real"})
    for other in ["real", *others]:
        differences = {name: student([s["both"][name] - s[other][name] for s in found.values()]) for name in METRICS}
        out["both_minus"][other] = differences
        for name in METRICS:
            its, both = (np.mean([s[key][name] for s in found.values()]) for key in (other, "both"))
            d = differences[name]
            limits = "[?]" if d["low"] is None else f"[{d['low']:+.3f}, {d['high']:+.3f}]"
            beside = "nothing" if other == "real" else other
            lines.append(f"| {name} | {beside} | {its:.3f} | {both:.3f} | {d['mean']:+.3f} {limits} |")
    write_bytes(arguments.work / "benefit.json", (json.dumps(out, indent=1) + "\n").encode())
    text = "\n".join(lines) + "\n"
    write_bytes(arguments.work / "benefit.md", text.encode())
    print(text)


def student(values: list[float]) -> dict[str, float | int | None]:
    """Return mean and 95 % interval, mean +- t s / sqrt(n), of paired differences; no interval from one."""
    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return {"mean": mean, "low": None, "high": None, "n": n}
    half = float(stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) / np.sqrt(n))
    return {"mean": mean, "low": mean - half, "high": mean + half, "n": n}


def level(arguments: argparse.Namespace) -> float:
    """Return the difficulty: the given one, or what `calibrate` chose."""
    if arguments.noise_db is not None:
        return arguments.noise_db
    path = arguments.work / "difficulty.json"
    if not path.is_file():
        sys.exit(f"'{path}' is missing: run `calibrate` first, or give --noise-db")
    chosen = json.loads(path.read_text(encoding="utf-8"))["chosen"]
    if chosen is None:
        sys.exit(f"'{path}' found no level; give --noise-db")
    return float(chosen)


@contextmanager
def silent(name: str):
    yield lambda done, total, name: None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["calibrate", "choose", "run", "report"])
    parser.add_argument("work", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", choices=TEST_SEEDS, default=TEST_SEEDS)
    parser.add_argument("--levels", type=float, nargs="+", default=NOISE_DB, help="noise levels that are tried, dB")
    parser.add_argument("--calibration-seeds", type=int, nargs="+", default=CALIBRATION_SEEDS)
    parser.add_argument("--motion-only", action="store_true", help="classes differ in motion alone")
    parser.add_argument("--noise-db", type=float, help="difficulty, instead of the calibrated one")
    parser.add_argument("--model", default="tsm")
    parser.add_argument("--videos", type=int, default=VIDEOS, help="training videos a class")
    parser.add_argument("--tested", type=int, default=TESTED, help="how many times as many videos are tested")
    parser.add_argument("--stills", type=int, default=30, help="stills a class")
    parser.add_argument("--clips-per-still", type=int, default=1)
    parser.add_argument("--controls", nargs="*", default=[], help="also these controls of Table 2, such as static")
    parser.add_argument("--steps", type=int, default=400, help="steps of the classifier")
    parser.add_argument("--generator-steps", type=int, default=2000, help="steps of each stage of the generator")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads while generating")
    parser.add_argument("--workers", type=int, default=1, help="processes at once")
    parser.add_argument("--small", action="store_true", help="see that it works: two videos, one seed, few steps")
    arguments = parser.parse_args()
    if arguments.small:
        arguments.videos, arguments.stills, arguments.steps, arguments.generator_steps = 1, 2, 4, 4
        arguments.seeds, arguments.levels = arguments.seeds[:2], arguments.levels[::6]
        arguments.calibration_seeds = arguments.calibration_seeds[:1]
    if set(arguments.calibration_seeds) & set(TEST_SEEDS):
        parser.error(f"--calibration-seeds must be none of the test seeds, {TEST_SEEDS[0]} to {TEST_SEEDS[-1]}")
    commands = {"calibrate": calibrate, "choose": choose, "run": run, "report": report}
    try:
        commands[arguments.command](arguments)
    except UsI2VError as error:
        sys.exit(f"error: {error}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
