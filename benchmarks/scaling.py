"""Clips a second of `us-i2v augment` by engine and number of workers, as ratios to one process.

python benchmarks/scaling.py [--stills 64] [--workers 1 2] [--repeats 3] [--weights FILE] [-o scaling.md]

Stills are phantom-like textures of 500x500 pixels with a mask each. Every run makes all clips in a new folder; then one
clip a worker is deleted and the command run again. The difference is the time of the other clips, without start,
loading and manifest. Engines take turns, so that all meet the same machine. All folders must agree byte for byte. Each
worker has two threads: more than half as many workers as cores share cores. Without Ray its rows are left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from speed import still  # noqa: E402
from tests.fakes import tree  # noqa: E402


def write_stills(folder: Path, count: int, side: int) -> Path:
    for k in range(count):
        label = ("benign", "malignant", "normal")[k % 3]
        (folder / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(still(k, side)).save(folder / label / f"{label} ({k}).png")
        mask = np.zeros((side, side), bool)
        mask[side // 3 : side // 2, side // 3 : side // 2] = True
        Image.fromarray(mask).save(folder / label / f"{label} ({k})_mask.png")
    return folder


def command(engine: str, workers: int, line: list[str]) -> list[str]:
    """Return the command line of `us-i2v augment` by an engine."""
    if engine == "torchrun":
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(workers)]
        return [sys.executable, *launcher, "-m", "us_i2v", *line]
    more = ["--engine", "ray", "--workers", str(workers)] if engine == "ray" else []
    return [sys.executable, "-m", "us_i2v", *line, *more]


def seconds(line: list[str]) -> float:
    begun = time.perf_counter()
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(line)} ended with {done.returncode}: {done.stderr}")
    return time.perf_counter() - begun


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stills", type=int, default=64)
    parser.add_argument("--side", type=int, default=500)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("-o", "--output", type=Path)
    given = parser.parse_args()
    kinds = [("serial", 1)] + [("torchrun", count) for count in given.workers if count > 1]
    if importlib.util.find_spec("ray"):
        kinds += [("ray", count) for count in given.workers]
    making: dict[tuple[str, int], list[float]] = {kind: [] for kind in kinds}
    whole: dict[tuple[str, int], list[float]] = {kind: [] for kind in kinds}
    files: dict[str, bytes] = {}
    with tempfile.TemporaryDirectory(prefix="us-i2v-scaling-") as name:
        data = write_stills(Path(name) / "stills", given.stills, given.side)
        weights = ["--weights", str(given.weights.absolute())] if given.weights else []
        for repeat in range(given.repeats):
            for kind in kinds:
                out = Path(name) / f"{kind[0]}-{kind[1]}-{repeat}"
                line = command(*kind, ["augment", str(data), str(out), *weights])
                full = seconds(line)
                whole[kind].append(full)
                for clip in sorted(out.glob("*/*.mp4"))[: kind[1]]:
                    clip.unlink()
                making[kind].append((full - seconds(line)) / (given.stills - kind[1]))
                files = files or tree(out)
                if tree(out) != files:
                    raise SystemExit(f"{kind[0]} with {kind[1]} workers made other bytes.")
                print(f"{kind[0]} {kind[1]}, run {repeat + 1}: {full:.1f} s, {making[kind][-1]:.2f} a clip", flush=True)
    base = statistics.median(making["serial", 1])
    rows = [f"{len(os.sched_getaffinity(0))} cores, {given.stills} stills, median of {given.repeats}", ""]
    rows += ["| engine | workers | whole run, s | clips a second | times one process |", "|---|---|---|---|---|"]
    for engine, workers in kinds:
        middle = statistics.median(making[engine, workers])
        every = statistics.median(whole[engine, workers])
        rows.append(f"| {engine} | {workers} | {every:.1f} | {1 / middle:.2f} | {base / middle:.2f} |")
    size = sum(map(len, files.values())) / given.stills
    rows += [
        "",
        f"{size / 1000:.0f} kB a still in {len(files) / given.stills:.1f} files; all folders agree byte for byte.",
    ]
    print("\n".join(rows))
    if given.output:
        given.output.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
