"""How long a classifier's training waits for data: python benchmarks/classifier_loading.py DATA [--preset base] ...

Prints, for each classifier and number of loading threads, seconds a step and the share of them spent waiting.
DATA is decoded into a temporary cache first, which is not counted.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch

from us_i2v.config import merge
from us_i2v.models.classifiers import NAMES, frame_size
from us_i2v.presets import preset
from us_i2v.training.classifier import ClassifierTask, ClassifierTraining
from us_i2v.training.classifier_data import Sources, gather_diet
from us_i2v.training.report import Silent


def measure(config: ClassifierTraining, data: Path, cache: Path, steps: int) -> tuple[float, float]:
    """Return seconds a step and the share of waiting, after one step that is not counted."""
    diet = gather_diet(
        Sources((data,)),
        cache,
        frame_size(config.model),
        config.clips,
        config.mix,
        crf=config.crf,
        classes=(),
        seed=0,
        reporter=Silent(),
    )
    task = ClassifierTask(config, diet, cache, pretrained=None, reporter=Silent())
    optimiser = torch.optim.AdamW(task.module.parameters())
    begin = 0.0
    for step in range(steps + 1):
        if step == 1:
            begin = time.perf_counter()
            if task.batches is not None:
                task.batches.restart()
        batch, _ = task.batch(step, 0, 1)
        with torch.autocast("cpu", torch.bfloat16, enabled=config.optimiser.precision == "bf16"):
            loss, _ = task.module(batch)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert task.batches is not None
    waiting, seconds = task.batches.share_waited(), (time.perf_counter() - begin) / steps
    task.batches.close()
    return seconds, waiting


def main() -> None:
    """Measure all classifiers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--preset", default="base")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1])
    given = parser.parse_args()
    print(f"torch threads {torch.get_num_threads()}, preset {given.preset}, n={given.steps} steps")
    with tempfile.TemporaryDirectory() as folder:
        for name in NAMES:
            for workers in given.workers:
                values = merge(preset(given.preset, "classifier"), {"model": {"name": name}, "workers": workers})
                values = merge(values, {"optimiser": {"steps": given.steps + 1}})
                config = ClassifierTraining.parse(values)
                seconds, waiting = measure(config, given.data, Path(folder), given.steps)
                print(f"{name}: {workers} workers, {seconds:.3f} s a step, waiting {100 * waiting:.2f} %", flush=True)


if __name__ == "__main__":
    main()
