"""Memory and time of a training step, by preset and stage: what fits a GPU of 8 or 24 GB?

    python benchmarks/training_cost.py [--presets tiny base paper] [--device auto] [--steps 40] [-o cost.md]

Clips are simulated (eight of the phantom; decoding and preparing them is not counted, drawing windows is). Each row is
a process of its own: a few steps of a stage with the preset's own batch, the second half of which is timed. The peak
is what torch took of the GPU (`max_memory_reserved`; the CUDA context comes on top), on a CPU the process's resident
memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import torch

from us_i2v.data.phantom.config import PhantomConfig
from us_i2v.data.phantom.simulate import simulate
from us_i2v.data.writers import write_clip
from us_i2v.devices import choose_device
from us_i2v.presets import preset
from us_i2v.training.autoencoder import AutoencoderTraining, train_autoencoder
from us_i2v.training.denoiser import DenoiserTraining, train_denoiser
from us_i2v.training.report import Silent

CLIPS, FRAMES, FPS = 8, 24, 20.0


class Clock(Silent):
    """Keeps when each step ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def step(self, step: int, loss: float, values: dict[str, float]) -> None:
        """See `Reporter.step`."""
        self.ends.append(time.perf_counter())

    def seconds(self) -> float:
        """Median of the second half of the steps."""
        later = self.ends[len(self.ends) // 2 :]
        return statistics.median(b - a for a, b in pairwise(later))


def simulated(folder: Path) -> None:
    for number in range(CLIPS):
        label = ("benign", "malignant")[number % 2]
        config = PhantomConfig.parse({"label": label, "size": (128, 128), "n_frames": FRAMES, "fps": FPS}, "phantom")
        write_clip(folder / label / f"p{number}.mp4", simulate(config, number).frames, FPS)


def row(data: Path, run: Path, name: str, stage: str, steps: int, device: str) -> dict[str, float | int]:
    """Train a few steps; the first stage of a denoiser is trained for one step beforehand."""
    few = {"steps": steps, "validate_every": steps, "warmup": 0}
    clips = {"dt_ms": [40.0, 130.0]}
    values = preset(name, "autoencoder")
    config = AutoencoderTraining.parse(
        {**values, "clips": {**values.get("clips", {}), **clips}, "optimiser": {**values["optimiser"], **few}}, name
    )
    clock = Clock()
    if stage == "denoiser":
        one = config.model_copy(update={"optimiser": config.optimiser.model_copy(update={"steps": 1})})
        train_autoencoder([data], run / "first", one, reporter=Silent(), device=device)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        values = preset(name, "denoiser")
        second = DenoiserTraining.parse(
            {
                **values,
                "windows": 64,
                "clips": {**values.get("clips", {}), **clips},
                "optimiser": {**values["optimiser"], **few},
            },
            name,
        )
        train_denoiser([data], run / "first", run / "second", second, reporter=clock, device=device)
        batch = second.optimiser.batch_size
    else:
        train_autoencoder([data], run / "first", config, reporter=clock, device=device)
        batch = config.optimiser.batch_size
    if choose_device(device).type == "cuda":
        peak = torch.cuda.max_memory_reserved() / 2**20
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"batch": batch, "seconds": clock.seconds(), "peak_mb": peak}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="+", default=["tiny", "base", "paper"])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--row", nargs=2, metavar=("PRESET", "STAGE"), help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.row:
        with tempfile.TemporaryDirectory() as name:
            found = row(arguments.data, Path(name), *arguments.row, arguments.steps, arguments.device)
        print(json.dumps(found))
        return 0
    where = choose_device(arguments.device)
    title = torch.cuda.get_device_name(where) if where.type == "cuda" else where.type
    lines = [f"{title}, {arguments.steps} steps a row", "", "| preset | stage | batch | ms a step | peak, MB |"]
    lines.append("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        simulated(Path(name))
        for one in arguments.presets:
            for stage in ("autoencoder", "denoiser"):
                command = [sys.executable, __file__, "--row", one, stage, "--data", name]
                command += ["--device", arguments.device, "--steps", str(arguments.steps)]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                if done.returncode:
                    sys.exit(f"{one}, {stage}: {done.stderr[-2000:]}")
                found = json.loads(done.stdout.splitlines()[-1])
                cells = [one, stage, found["batch"], f"{1000 * found['seconds']:.0f}", f"{found['peak_mb']:.0f}"]
                lines.append(f"| {' | '.join(map(str, cells))} |")
                print(lines[-1], flush=True)
    if arguments.output:
        arguments.output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
