"""Time and memory of `us-i2v evaluate`: N real and N fake clips of 16 x 128 x 128, and where the time goes.

    python benchmarks/evaluate_speed.py --metric-weights FOLDER [-n 200] [--metrics fvd-x3d,lpips] [--threads 2]

Clips are drifting speckle, stored as .npz; five clips a group. Without --metrics both the aim's choice and all metrics
are timed. Peak memory is that of the whole process.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from us_i2v.data.manifest import Sample, write_manifest
from us_i2v.data.writers import write_clip
from us_i2v.evaluation.measure import clip_lpips, describe_clip
from us_i2v.metrics.block_matching import block_motion
from us_i2v.metrics.extractors import load_extractor
from us_i2v.metrics.lpips import LPIPS
from us_i2v.metrics.pretrained import find_metric_weights
from us_i2v.metrics.speckle import decorrelation
from us_i2v.metrics.ssim import ssim
from us_i2v.seeding import numpy_generator

FRAMES, SIZE = 16, 128
CHOICES = ("fvd-x3d,lpips", "")


def drifting(seed: int, noise: float) -> np.ndarray:
    """uint8 (16, 128, 128): speckle that moves by up to half a pixel a frame and changes by `noise`."""
    rng = numpy_generator(seed, "drifting")
    base = ndimage.gaussian_filter(rng.standard_normal((SIZE, SIZE)), 1.0)
    step = rng.uniform(-0.5, 0.5, 2)
    frames = [ndimage.shift(base, t * step, order=1, mode="wrap") for t in range(FRAMES)]
    frames = [f + noise * base.std() * rng.standard_normal(f.shape) * (t > 0) for t, f in enumerate(frames)]
    return np.clip(110 + 60 * np.stack(frames) / base.std(), 0, 255).astype(np.uint8)


def write_set(folder: Path, n: int, noise: float) -> None:
    samples = []
    for k in range(n):
        path = write_clip(folder / f"clip_{k:04d}.npz", drifting(k, noise), 25.0)
        samples.append(Sample(path, "clip", None, f"group-{k // 5}"))
    write_manifest(folder / "manifest.csv", samples)


def breakdown(folder: Path | None, repeats: int = 3) -> None:
    """Print seconds a clip of each step, alone in this process."""
    clip, other = drifting(0, 0.2), drifting(0, 0.4)
    path = find_metric_weights("lpips-alex", folder)
    extractor = load_extractor("fvd-x3d", folder)
    motion = block_motion(clip)
    steps = {
        "X3D-XS features": lambda: extractor.features([clip]),
        "block matching (one size)": lambda: block_motion(clip),
        "decorrelation, after matching": lambda: decorrelation(clip, motion),
        "all numbers of a clip, with crop": lambda: describe_clip(clip, clip[:, 8:120, 8:120], motion),
        "SSIM of 15 frames": lambda: ssim(clip[1:], other[1:]),
    }
    if path is not None:
        lpips = LPIPS.load("alex", path)
        steps["LPIPS-alex of 15 frames"] = lambda: clip_lpips(lpips, clip, other)
    for name, step in steps.items():
        step()
        start, used = time.perf_counter(), time.process_time()
        for _ in range(repeats):
            step()
        wall, cpu = (time.perf_counter() - start) / repeats, (time.process_time() - used) / repeats
        print(f"  {name:34} {wall:.3f} s (CPU {cpu:.3f} s)", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--metric-weights", type=Path)
    parser.add_argument("-n", type=int, default=200)
    parser.add_argument("--metrics", default=None)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"one clip of {FRAMES} x {SIZE} x {SIZE}, {arguments.threads} threads:")
    breakdown(arguments.metric_weights)
    with tempfile.TemporaryDirectory() as name:
        real, fake = Path(name) / "real", Path(name) / "fake"
        write_set(real, arguments.n, 0.2)
        write_set(fake, arguments.n, 0.3)
        for metrics in CHOICES if arguments.metrics is None else (arguments.metrics,):
            command = [sys.executable, "-m", "us_i2v", "evaluate", str(real), str(fake)]
            command += ["--metrics", metrics, "--threads", str(arguments.threads)]
            command += ["--metric-weights", str(arguments.metric_weights)] if arguments.metric_weights else []
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            start = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            wall = time.perf_counter() - start
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            print(
                f"evaluate, {arguments.n} real and {arguments.n} fake clips, metrics {metrics or 'all'}: "
                f"{wall:.0f} s wall, {cpu:.0f} s CPU, peak {after.ru_maxrss / 1024:.0f} MB",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
