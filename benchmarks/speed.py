"""Time and memory of the main jobs on this machine, beside a network of EchoNet-Synthetic's shape, as one table.

    python benchmarks/speed.py [--weights RUN_OR_FILE] [--steps N] [--stills 600] [--threads 2] [-o speed.md]

A whole process is `us-i2v generate` started anew; "in process" is the median of `--repeats` after a warm-up, decoding
included. Stills are phantom-like texture of 500x500 pixels. Ours and the peer's (`peer_network.py`, random weights) are
timed in turn, so that both meet the same machine. With a GPU the same rows are printed for it.
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
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from scipy import ndimage

if TYPE_CHECKING:
    from us_i2v.pipeline import ImageToVideo

SIDE = 500
LONG = 512
AIMS = {16: 0.35, 64: 1.5}
"""Seconds on two cores, decoding included, by frames of a clip."""


@dataclass
class Table:
    """Rows of (what, measured, aim), printed as they come."""

    rows: list[tuple[str, str, str]] = field(default_factory=list)

    def add(self, what: str, measured: str, aim: str = "") -> None:
        """Print a row and keep it."""
        self.rows.append((what, measured, aim))
        print(f"{what}: {measured}" + (f" (aim: {aim})" if aim else ""), flush=True)

    def markdown(self) -> str:
        """Return the rows as a Markdown table."""
        head = ["| | measured | aim |", "|---|---|---|"]
        return "\n".join(head + [f"| {' | '.join(row)} |" for row in self.rows]) + "\n"


def still(seed: int, size: int = SIDE) -> np.ndarray:
    rng = np.random.Generator(np.random.PCG64(seed))
    speckle = np.abs(ndimage.gaussian_filter(rng.standard_normal((2, size, size)), (0, 1.5, 3))).sum(axis=0)
    picture = 20 * np.log10(speckle / speckle.max() + 1e-3) + 60
    return (picture / 60 * 255).clip(0, 255).astype(np.uint8)


def child(command: list[str]) -> tuple[float, float]:
    """Seconds and peak megabytes of a child process; the peak is that of the largest child so far."""
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def load(arguments: argparse.Namespace, device: str = "cpu") -> ImageToVideo:
    from us_i2v.pipeline import ImageToVideo

    return ImageToVideo.from_pretrained(arguments.weights, device, arguments.threads)


def seconds(model: ImageToVideo, frames: int, steps: int | None, repeats: int) -> list[float]:
    """Seconds of one clip each, after a warm-up."""
    from us_i2v.pipeline import GenerateOptions

    picture, options, taken = still(1), GenerateOptions(frames=frames, steps=steps), []
    for seed in range(repeats + 1):
        start = time.perf_counter()
        model(picture, seed=seed, options=options)
        taken.append(time.perf_counter() - start)
    return taken[1:]


def in_process(table: Table, arguments: argparse.Namespace) -> None:
    from peer_network import STEPS, clip_seconds

    model = load(arguments)
    cost = {}
    for frames in (16, 64, 256):
        taken = seconds(model, frames, arguments.steps, arguments.repeats if frames < 256 else 2)
        cost[frames] = statistics.median(taken)
        each = 1000 * cost[frames] / frames
        table.add(
            f"in process, {frames} frames of {SIDE}x{SIDE}",
            f"{cost[frames]:.2f} s median, {max(taken):.2f} s worst of {len(taken)}; {each:.1f} ms a frame",
            f"{AIMS[frames]} s" if frames in AIMS else "no more a frame than 64 frames",
        )
    if arguments.no_peer:
        return
    for bf16 in (False, True):
        step, decode = clip_seconds(bf16=bf16)
        ours = statistics.median(seconds(model, 64, arguments.steps, 3))
        whole = STEPS * step + decode
        table.add(
            f"EchoNet-Synthetic's shape, 64 frames of 112x112, {STEPS} steps, {'bf16' if bf16 else 'fp32'}",
            f"{whole:.0f} s (a step {step:.2f} s); ours right after {ours:.2f} s: {whole / ours:.0f} times as long",
            "150 times as long",
        )


def on_gpu(table: Table, arguments: argparse.Namespace) -> None:
    import torch

    from us_i2v.pipeline import GenerateOptions

    if not torch.cuda.is_available():
        table.add("GPU: 64 frames alone; clips of 16 frames in batches", "not measured", "60 ms; 100 a second")
        return
    from peer_network import STEPS, clip_seconds

    name, model = torch.cuda.get_device_name(), load(arguments, "cuda")
    for frames, aim in ((16, ""), (64, "60 ms"), (256, "")):
        taken = seconds(model, frames, arguments.steps, arguments.repeats)
        middle = 1000 * statistics.median(taken)
        table.add(f"{name}: {frames} frames of {SIDE}x{SIDE}, alone", f"{middle:.0f} ms median of {len(taken)}", aim)
    options, picture = GenerateOptions(steps=arguments.steps), still(1)
    model(picture, num_clips=64, options=options)
    start = time.perf_counter()
    model(picture, seed=1, num_clips=256, options=options)
    rate = 256 / (time.perf_counter() - start)
    table.add(f"{name}: clips of 16 frames of {SIDE}x{SIDE}, 32 together", f"{rate:.0f} a second (n = 256)", "100")
    table.add(f"{name}: memory taken, all of the above", f"{torch.cuda.max_memory_reserved() / 2**20:.0f} MB")
    for bf16 in () if arguments.no_peer else (False, True):
        step, decode = clip_seconds(bf16=bf16, repeats=3, device="cuda")
        ours, whole = statistics.median(seconds(model, 64, arguments.steps, 10)), STEPS * step + decode
        table.add(
            f"{name}: EchoNet-Synthetic's shape, 64 frames of 112x112, {STEPS} steps, {'bf16' if bf16 else 'fp32'}",
            f"{whole:.2f} s; ours right after {1000 * ours:.0f} ms: {whole / ours:.0f} times as long",
        )


def whole_processes(table: Table, arguments: argparse.Namespace, folder: Path) -> None:
    tool = str(Path(sys.executable).with_name("us-i2v"))
    given = ["--weights", str(arguments.weights)] if arguments.weights else []
    if arguments.steps:
        given += ["--steps", str(arguments.steps)]
    Image.fromarray(still(0)).save(folder / "still.png")

    def generate(name: str, *more: str) -> tuple[float, float]:
        return child([tool, "generate", str(folder / "still.png"), "-o", str(folder / name), *given, *more])

    runs = [generate(f"{k}.mp4") for k in range(3)]
    table.add(
        f"`us-i2v generate`, whole process, 16 frames of {SIDE}x{SIDE}",
        f"{statistics.median(t for t, _ in runs):.2f} s median of 3; peak {runs[-1][1]:.0f} MB",
        "6 s; 1.2 GB",
    )
    taken, peak = generate("long.mp4", "--frames", str(LONG))
    table.add(f"the same, {LONG} frames", f"{taken:.1f} s; peak {peak:.0f} MB", "1.5 GB")
    if arguments.stills:
        stills = folder / "stills" / "benign"
        stills.mkdir(parents=True)
        for k in range(arguments.stills):
            Image.fromarray(still(k)).save(stills / f"benign ({k + 1}).png")
        taken, _ = child([tool, "augment", str(folder / "stills"), str(folder / "out"), *given])
        what = f"`us-i2v augment`, {arguments.stills} stills of {SIDE}x{SIDE}"
        table.add(what, f"{taken / 60:.1f} min", "600 in 10 min")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--stills", type=int, default=600)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-peer", action="store_true")
    parser.add_argument("--gpu-only", action="store_true", help="leave out what is measured on the CPU")
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    table = Table()
    print(f"cores: {len(os.sched_getaffinity(0))}")
    if not arguments.gpu_only:
        with tempfile.TemporaryDirectory() as name:
            whole_processes(table, arguments, Path(name))
        in_process(table, arguments)
    on_gpu(table, arguments)
    if arguments.output:
        arguments.output.write_text(table.markdown(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
