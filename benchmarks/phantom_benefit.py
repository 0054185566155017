"""Does synthetic video help where the truth is known? Real + synthetic against real only on the phantom.

    python benchmarks/phantom_benefit.py calibrate WORK     # how hard the phantom must be, on seeds of its own
    python benchmarks/phantom_benefit.py run WORK           # ten seeds at that difficulty
    python benchmarks/phantom_benefit.py report WORK        # benefit.json and benefit.md from what is there

Each seed is another phantom population: videos of VIDEOS breasts a class are trained on, others are tested, and the
generator sees the same training videos only; stills are of breasts without a video. Difficulty is the level of
electronic noise, which hides lesions gradually. It is chosen beforehand by real-only accuracy alone: of a fixed list
of levels, the one whose mean over the calibration seeds is nearest to 75 % and within 65 to 85 %. Calibration and
test seeds never meet, and no synthetic clip is made while calibrating.

Per seed, everything goes through the cells of `us-i2v reproduce table2` (ratio 1:4, LDDM, one classifier), so a
stopped run goes on with the same line. The difference is paired by seed; its interval is Student's over seeds.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from scipy import stats

from us_i2v.data.atomic import write_bytes
from us_i2v.data.manifest import Sample, write_manifest
from us_i2v.data.phantom.config import PhantomConfig
from us_i2v.data.phantom.simulate import simulate
from us_i2v.data.writers import write_clip, write_still
from us_i2v.errors import UsI2VError
from us_i2v.reproduction import table2
from us_i2v.reproduction.table2_cells import select
from us_i2v.reproduction.table2_jobs import Workshop
from us_i2v.reproduction.table2_scores import collect
from us_i2v.reproduction.table2_settings import Table2Settings
from us_i2v.seeding import derive_seed
from us_i2v.training.report import Silent

CLASSES = ("benign", "malignant")
NOISE_DB = (-28.0, -20.0, -14.0, -10.0, -6.0, -2.0, 2.0)
"""Levels that are tried; relative to gland at the lower edge."""
WANTED, LOWEST, HIGHEST = 0.75, 0.65, 0.85
CALIBRATION_SEEDS = tuple(range(1000, 1005))
TEST_SEEDS = tuple(range(10))
VIDEOS = 10
"""Training videos a class; four times as many are tested."""
FRAMES, FPS, SIZE = 24, 20.0, 64
METRICS = ("accuracy", "macro_f1", "auc")


def population(folder: Path, seed: int, noise_db: float, videos: int, stills: int) -> None:
    """Write one seed's videos and stills; what is there is left."""
    scanner = {"noise_db": noise_db}
    rows: dict[str, list[Sample]] = {"videos": [], "stills": []}
    for label in CLASSES:
        for kind, count, frames in (("videos", 5 * videos, FRAMES), ("stills", stills, 1)):
            for number in range(count):
                name = f"{label}_{number:03d}"
                path = folder / kind / (f"{name}.mp4" if kind == "videos" else f"{name}.png")
                if not path.exists():
                    values = {"label": label, "size": (SIZE, SIZE), "n_frames": frames, "fps": FPS, "scanner": scanner}
                    config = PhantomConfig.parse(values, "phantom")
                    clip = simulate(config, derive_seed(seed, "phantom benefit", kind, label, number)).frames
                    if kind == "videos":
                        write_clip(path, clip, FPS)
                    else:
                        write_still(path, clip[0])
                what = "clip" if kind == "videos" else "still"
                rows[kind].append(
                    Sample(path, what, label, f"{kind}-{name}", None, (), FPS if what == "clip" else None)
                )
    for kind, samples in rows.items():
        if samples:
            write_manifest(folder / kind / "manifest.csv", samples)


def settings(arguments: argparse.Namespace, seed: int, *, synthetic: bool) -> Table2Settings:
    values = {
        "splits": ["1:4"],
        "generators": ["lddm-base"],
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


def measure(folder: Path, seed: int, noise_db: float, arguments: argparse.Namespace, *, synthetic: bool) -> None:
    """Make one seed's data and cells; goes on where it was stopped."""
    population(folder, seed, noise_db, arguments.videos, arguments.stills)
    chosen = settings(arguments, seed, synthetic=synthetic)
    plan = table2.prepare([folder / "videos"], [folder / "stills"], folder / "run", chosen, silent)
    chosen = chosen.model_copy(update={"classes": CLASSES})
    shop = Workshop(folder / "run", chosen, plan.sha256, Silent(), silent, arguments.device, arguments.threads)
    table2.run_cells(select(None, chosen), shop)


def scores_of(folder: Path) -> dict[str, dict[str, float]] | None:
    """Return a finished seed's scores by diet, None if it is not finished."""
    plan = table2.read_plan(folder / "run")
    if plan is None:
        return None
    table = collect(folder / "run", plan.table_settings(), plan.sha256)
    if table.missing:
        return None
    return {row.diet: {name: row.values[name].mean for name in METRICS} for row in table.rows}


def calibrate(arguments: argparse.Namespace) -> None:
    """Train on real videos only, at every level and calibration seed, and choose the level."""
    levels = []
    for noise_db in NOISE_DB[:: 6 if arguments.small else 1]:
        found = []
        for seed in CALIBRATION_SEEDS[: 1 if arguments.small else None]:
            folder = arguments.work / "calibration" / f"noise{noise_db:+.0f}" / f"seed_{seed}"
            begun = time.monotonic()
            measure(folder, seed, noise_db, arguments, synthetic=False)
            found.append((scores_of(folder) or {})["real"]["accuracy"])
            print(f"noise {noise_db:+.0f} dB, seed {seed}: accuracy {found[-1]:.3f}, {time.monotonic() - begun:.0f} s")
        levels.append({"noise_db": noise_db, "mean": float(np.mean(found)), "accuracies": found})
    best = min(levels, key=lambda level: abs(level["mean"] - WANTED))
    fits = LOWEST <= best["mean"] <= HIGHEST
    seeds = list(CALIBRATION_SEEDS[: len(levels[0]["accuracies"])])
    out = {"chosen": best["noise_db"] if fits else None, "wanted": WANTED, "seeds": seeds, "levels": levels}
    write_bytes(arguments.work / "difficulty.json", (json.dumps(out, indent=1) + "\n").encode())
    if not fits:
        sys.exit(f"no level is between {LOWEST:.0%} and {HIGHEST:.0%}; the nearest gives {best['mean']:.1%}")
    print(f"chosen: {best['noise_db']:+.0f} dB, real-only accuracy {best['mean']:.3f} (n={len(seeds)} seeds)")


def run(arguments: argparse.Namespace) -> None:
    """Make the seeds that are missing, at the level of difficulty.json or the one that is given."""
    noise_db = level(arguments)
    for seed in arguments.seeds:
        folder = arguments.work / "seeds" / f"seed_{seed}"
        begun = time.monotonic()
        measure(folder, seed, noise_db, arguments, synthetic=True)
        found = scores_of(folder) or {}
        gain = found["both"]["accuracy"] - found["real"]["accuracy"]
        seconds = time.monotonic() - begun
        print(
            f"seed {seed}: real {found['real']['accuracy']:.3f}, both - real {gain:+.3f}, {seconds:.0f} s", flush=True
        )
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
    differences = {name: student([s["both"][name] - s["real"][name] for s in found.values()]) for name in METRICS}
    noise_db = level(arguments)
    out = {"noise_db": noise_db, "seeds": found, "both_minus_real": differences, "wanted_seeds": len(TEST_SEEDS)}
    write_bytes(arguments.work / "benefit.json", (json.dumps(out, indent=1) + "\n").encode())
    lines = [f"Phantom, noise {noise_db:+.0f} dB, n = {len(found)} of {len(TEST_SEEDS)} seeds.", ""]
    lines += ["| score | real only | real + synthetic | difference [95 %] |", "|---|---|---|---|"]
    for name in METRICS:
        real, both = (np.mean([s[diet][name] for s in found.values()]) for diet in ("real", "both"))
        d = differences[name]
        limits = "[?]" if d["low"] is None else f"[{d['low']:+.3f}, {d['high']:+.3f}]"
        lines.append(f"| {name} | {real:.3f} | {both:.3f} | {d['mean']:+.3f} {limits} |")
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
    parser.add_argument("command", choices=["calibrate", "run", "report"])
    parser.add_argument("work", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", choices=TEST_SEEDS, default=TEST_SEEDS)
    parser.add_argument("--noise-db", type=float, help="difficulty, instead of the calibrated one")
    parser.add_argument("--model", default="tsm")
    parser.add_argument("--videos", type=int, default=VIDEOS, help="training videos a class")
    parser.add_argument("--stills", type=int, default=30, help="stills a class")
    parser.add_argument("--clips-per-still", type=int, default=1)
    parser.add_argument("--steps", type=int, default=400, help="steps of the classifier")
    parser.add_argument("--generator-steps", type=int, default=2000, help="steps of each stage of the generator")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads while generating")
    parser.add_argument("--small", action="store_true", help="see that it works: two videos, one seed, few steps")
    arguments = parser.parse_args()
    if arguments.small:
        arguments.videos, arguments.stills, arguments.steps, arguments.generator_steps = 1, 2, 4, 4
        arguments.seeds = arguments.seeds[:2]
    try:
        {"calibrate": calibrate, "run": run, "report": report}[arguments.command](arguments)
    except UsI2VError as error:
        sys.exit(f"error: {error}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
