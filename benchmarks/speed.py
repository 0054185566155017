"""Time and memory of the main jobs on this machine; prints a table and the machine's cores.

    python benchmarks/speed.py [--stills 600]

Whole-process figures start `us-i2v generate` in a new process; in-process ones are the median of ten after a
warm-up. The still is phantom-like texture of 500x500 pixels.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage


def still(seed: int, size: int = 500) -> np.ndarray:
    rng = np.random.Generator(np.random.PCG64(seed))
    speckle = np.abs(ndimage.gaussian_filter(rng.standard_normal((2, size, size)), (0, 1.5, 3))).sum(axis=0)
    picture = 20 * np.log10(speckle / speckle.max() + 1e-3) + 60
    return (picture / 60 * 255).clip(0, 255).astype(np.uint8)


def child(command: list[str]) -> tuple[float, float]:
    """Seconds and peak megabytes of a child process."""
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stills", type=int, default=600)
    arguments = parser.parse_args()
    tool = [str(Path(sys.executable).with_name("us-i2v"))]
    print(f"cores: {len(os.sched_getaffinity(0))}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        Image.fromarray(still(0)).save(folder / "still.png")
        runs = [child([*tool, "generate", str(folder / "still.png"), "-o", str(folder / f"{k}.mp4")]) for k in range(3)]
        print(
            f"generate, whole process, 16 frames of 500x500: {min(t for t, _ in runs):.2f} s best of 3, "
            f"{statistics.median(t for t, _ in runs):.2f} s median, peak {runs[-1][1]:.0f} MB"
        )
        from us_i2v.pipeline import ImageToVideo

        start = time.perf_counter()
        model = ImageToVideo.from_pretrained(device="cpu")
        print(f"loading the weights: {time.perf_counter() - start:.2f} s")
        picture = still(1)
        model(picture)
        times = []
        for seed in range(10):
            start = time.perf_counter()
            model(picture, seed=seed)
            times.append(time.perf_counter() - start)
        print(f"generate, in process: {statistics.median(times):.2f} s median, {max(times):.2f} s worst of 10")
        if arguments.stills:
            stills = folder / "stills" / "benign"
            stills.mkdir(parents=True)
            for k in range(arguments.stills):
                Image.fromarray(still(k)).save(stills / f"benign ({k + 1}).png")
            seconds, peak = child([*tool, "augment", str(folder / "stills"), str(folder / "out")])
            print(f"augment of {arguments.stills} stills of 500x500: {seconds / 60:.1f} min, peak {peak:.0f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
