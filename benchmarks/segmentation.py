"""Do generated clips with carried masks help to segment lesions in stills? A U-Net trained with and without them.

    python benchmarks/segmentation.py estimate OUT DATA          # how long `run` will take here
    python benchmarks/segmentation.py run OUT DATA               # stop and go on at any time by the same line
    python benchmarks/segmentation.py run OUT DATA --explore     # also arms that are in no rule
    python benchmarks/segmentation.py run OUT --quick            # a phantom and a few steps: no result
    python benchmarks/segmentation.py report OUT                 # segmentation.{md,json,png} of what is finished

DATA is a folder whose manifest states splits, or the folder that `train_bundled.py` takes: its BUSI groups that were
reserved when the bundled weights were trained are tested on, its `val` and `train` groups are those of that training.

Fixed beforehand
    arms        `static` (stills alone), `affine`, `elastic`, `generated`: 16 pictures of each training still, the
                still among them (`segmentation_pictures.py`)
    equal       number of pictures, steps, batch, network, schedule, light augmentation (flip, brightness); with one
                seed also the stills that are taken, their order in the batches and the initial weights
    sizes       16, 64 and all training stills; seeds 0, 1, 2, each with stills of its own
    primary     mean Dice over the test stills with a lesion, averaged over seeds for each still first, of the weights
                of the last step, at the still's working size
    compared    generated minus each of the other three arms, paired by still, 95 % bootstrap interval over groups.
                Clips help at a size if the interval lies above 0 against all three
    reported    Dice with the weights that were best on validation stills, IoU, HD95; on stills without a lesion apart:
                how often anything is marked, and how much of the picture
Nothing is chosen by the test stills.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field
from segmentation_network import Training, dice, found_masks, hd95, iou
from segmentation_pictures import (
    ARMS,
    EXPLORED,
    Pictures,
    Still,
    check_unseen,
    squared,
    stills_of,
    stills_sha256,
    subset,
)
from segmentation_report import write_report
from variants import keep_settings, say

from us_i2v.config import Config, merge, parse_override, read_mapping
from us_i2v.data.atomic import write_bytes
from us_i2v.data.phantom.dataset import write_phantom
from us_i2v.devices import choose_device
from us_i2v.errors import ConfigError, UsI2VError
from us_i2v.metrics.publishers import sha256_of
from us_i2v.pipeline import ImageToVideo
from us_i2v.types import Mask
from us_i2v.weights import bundled_path, load_weights

QUICK: dict[str, Any] = {
    "sizes": [2, 0],
    "seeds": 2,
    "pictures": 5,
    "clips": 2,
    "side": 32,
    "work": 48,
    "steps": 4,
    "width": 8,
    "checks": 2,
}


class Settings(Config):
    """What all runs have in common."""

    data: str = Field(description="Folder of stills.")
    weights: str = Field("", description="Generator's weights; empty: the bundled ones.")
    weights_sha256: str = Field("", description="Their hash, so that no folder mixes clips of two.")
    stills_sha256: str | None = Field(None, description="Hash of the stills, see there; empty: begun without.")
    sizes: tuple[int, ...] = Field((16, 64, 0), min_length=1, description="Training stills; 0: all.")
    seeds: int = Field(3, ge=1, description="Seeds 0 .. seeds - 1.")
    pictures: int = Field(16, ge=2, description="Pictures a still, itself included.")
    clips: int = Field(3, ge=1, description="Generated clips a still, from which the other pictures are taken.")
    side: int = Field(128, ge=16, multiple_of=8, description="Side of the network's pictures.")
    work: int = Field(256, ge=32, description="Longer side at which pictures are deformed and masks compared.")
    width: int = Field(16, ge=1, description="Channels of the U-Net's first level.")
    slope: float = Field(0.01, ge=0, lt=1, description="Of leaky ReLU below 0; 0: ReLU.")
    steps: int = Field(500, ge=1, description="Optimiser steps of every run.")
    batch: int = Field(8, ge=1, description="Pictures a step.")
    rate: float = Field(2e-3, gt=0, description="Largest learning rate.")
    checks: int = Field(6, ge=1, description="Validations of a run.")
    precision: Literal["bf16", "fp32"] = Field("bf16", description="What convolutions of a training compute in.")


class Cell(NamedTuple):
    """One training."""

    arm: str
    size: int
    seed: int

    @property
    def key(self) -> str:
        """Name of its folder."""
        return f"{self.arm}-{self.size or 'all'}-{self.seed}"


def cells_of(settings: Settings, *, explore: bool = False) -> Iterator[Cell]:
    """All trainings; what is compared with each other lies together."""
    for size in settings.sizes:
        for seed in range(settings.seeds):
            for arm in (*ARMS, *EXPLORED) if explore else ARMS:
                yield Cell(arm, size, seed)


class Examined(NamedTuple):
    """Stills that a network is measured on."""

    stills: list[Still]
    pictures: torch.Tensor
    truths: list[Mask]

    @classmethod
    def of(cls, stills: Sequence[Still], settings: Settings) -> Examined:
        """Read them."""
        squares, truths = [], []
        for still in stills:
            picture, mask = still.read(settings.work)
            squares.append(squared(picture[None], mask[None], settings.side)[0])
            truths.append(mask)
        return cls(list(stills), torch.from_numpy(np.concatenate(squares)), truths)

    def found(self, training: Training) -> list[Mask]:
        """Masks by the network."""
        return found_masks(training.probabilities(self.pictures), [truth.shape for truth in self.truths])

    def mean_dice(self, training: Training) -> float:
        """Mean over the stills with a lesion."""
        pairs = zip(self.found(training), self.truths, strict=True)
        return float(np.mean([dice(found, truth) for found, truth in pairs if truth.any()]))

    def scores(self, training: Training) -> dict[str, list[float]]:
        """Values by still: with a lesion `dice`, `iou` and `hd95`, without one `marked`, the share of the picture."""
        values: dict[str, list[float]] = {"dice": [], "iou": [], "hd95": [], "marked": []}
        for found, truth in zip(self.found(training), self.truths, strict=True):
            if truth.any():
                for name, measure in (("dice", dice), ("iou", iou), ("hd95", hd95)):
                    values[name].append(measure(found, truth))
            else:
                values["marked"].append(float(found.mean()))
        return values


class Study:
    """Data, pictures and the trainings of a study."""

    def __init__(self, out: Path, settings: Settings) -> None:
        self.out, self.settings, self.device = out, settings, choose_device("auto")
        self.stills = stills_of(Path(settings.data))
        # Here, and not where clips are made: those may be there already.
        check_unseen(load_weights(settings.weights or None).header, self.stills)
        self.pictures = Pictures(
            out,
            side=settings.side,
            work=settings.work,
            count=settings.pictures,
            clips=settings.clips,
            model=self._generator,
        )
        self._examined: dict[str, Examined] = {}

    def _generator(self) -> ImageToVideo:
        return ImageToVideo.from_pretrained(self.settings.weights or None, threads=torch.get_num_threads())

    def examined(self, split: str) -> Examined:
        """Stills of the validation or test side."""
        if split not in self._examined:
            some = [still for still in self.stills if still.split == split]
            self._examined[split] = Examined.of(some, self.settings)
        return self._examined[split]

    def result_of(self, cell: Cell) -> Path:
        """Where a training's result lies once it is finished."""
        return self.out / "runs" / cell.key / "result.json"

    def training(self, cell: Cell, stills: Sequence[Still]) -> Training:
        """A training before its first step."""
        made = []
        for number, still in enumerate(stills):
            made.append(self.pictures.of(still, cell.arm))
            if (number + 1) % 50 == 0:
                say(f"{cell.key}: pictures of {number + 1} of {len(stills)} stills")
        pictures, masks = (torch.from_numpy(np.stack(values)) for values in zip(*made, strict=True))
        return self.begin(pictures, masks, cell.seed)

    def begin(self, pictures: torch.Tensor, masks: torch.Tensor, seed: int) -> Training:
        """A training on given pictures, (N, P, S, S)."""
        chosen = self.settings
        return Training(
            pictures,
            masks,
            seed,
            chosen.steps,
            size=chosen.batch,
            rate=chosen.rate,
            width=chosen.width,
            slope=chosen.slope,
            bf16=chosen.precision == "bf16",
            device=self.device,
        )

    def run(self, cell: Cell) -> dict[str, Any]:
        """Train, measure, write the result."""
        stills = subset(self.stills, cell.size, cell.seed)
        training = self.training(cell, stills)
        begun, loss, best, checks = time.process_time(), [], None, []
        marks = {round((k + 1) * training.steps / self.settings.checks) for k in range(self.settings.checks)}
        for step in range(1, training.steps + 1):
            loss.append(training.advance())
            if step in marks:
                checks.append({"step": step, "dice": self.examined("val").mean_dice(training)})
                if best is None or checks[-1]["dice"] > best[0]:
                    best = checks[-1]["dice"], {k: v.clone() for k, v in training.network.state_dict().items()}
        test = self.examined("test")
        result = {
            "arm": cell.arm,
            "size": cell.size,
            "seed": cell.seed,
            "stills": len(stills),
            "pictures": training.pictures.shape[0] * training.pictures.shape[1],
            "steps": training.step,
            "loss": float(np.mean(loss[-50:])),
            "validation": checks,
            "last": test.scores(training),
        }
        training.network.load_state_dict(best[1])
        result["best"] = test.scores(training)
        for name, chosen in (("lesion", True), ("normal", False)):
            some = [s for s, truth in zip(test.stills, test.truths, strict=True) if bool(truth.any()) == chosen]
            result[name] = {"names": [still.name for still in some], "groups": [still.group for still in some]}
        result["cpu_seconds"] = time.process_time() - begun
        write_bytes(self.result_of(cell), (json.dumps(result) + "\n").encode())
        return result


def run(out: Path, settings: Settings, *, explore: bool = False) -> None:
    """Train what is not there yet, then report."""
    torch.set_num_threads(1)
    settings = pinned(out, settings)
    keep_settings(out, settings)
    study = Study(out, settings)
    cells = list(cells_of(settings, explore=explore))
    counts = {split: sum(still.split == split for still in study.stills) for split in ("train", "val", "test")}
    say(f"{len(cells)} trainings; stills: {counts['train']} train, {counts['val']} val, {counts['test']} test")
    try:
        for number, cell in enumerate(cells):
            if not study.result_of(cell).is_file():
                found = study.run(cell)
                say(
                    f"{number + 1} of {len(cells)}, {cell.key}: Dice {np.mean(found['last']['dice']):.3f}, "
                    f"{found['cpu_seconds']:.0f} CPU seconds"
                )
    finally:
        report(out)
    say(f"done: {out / 'segmentation.md'}")


def pinned(out: Path, settings: Settings) -> Settings:
    """Settings with the hash of the stills; a folder that was begun before there was one goes on without."""
    path = out / "settings.json"
    if path.exists() and read_mapping(path).get("stills_sha256") is None:
        say(f"{path} does not state its stills' hash: whether they are the same is not checked")
        return settings
    return settings.model_copy(update={"stills_sha256": stills_sha256(stills_of(Path(settings.data)))})


def report(out: Path) -> None:
    """Write the report of the trainings that are finished, if there are any."""
    settings = read_mapping(out / "settings.json")
    results = [json.loads(path.read_text()) for path in sorted(out.glob("runs/*/result.json"))]
    if results:
        write_report(out, results, settings)
    else:
        say(f"{out}: nothing is finished yet")


def estimate(out: Path, settings: Settings, repeats: int = 8) -> None:
    """Measure a step, a clip and a test, each of its real size, and print what a whole run takes; nothing is kept."""
    torch.set_num_threads(1)
    study = Study(out / "estimate", settings)
    pool = [still for still in study.stills if still.split == "train"]
    taken: dict[str, float] = {}
    few = pool[1:4]
    for arm in ARMS:
        study.pictures.make(pool[0], arm)  # Loads the weights.
        taken[arm] = clocked(lambda arm=arm: [study.pictures.make(still, arm) for still in few]) / len(few)
    square = torch.zeros(2, settings.pictures, settings.side, settings.side, dtype=torch.uint8)
    training = study.begin(square, square > 0, 0)
    training.advance()
    step = clocked(lambda: [training.advance() for _ in range(repeats)]) / repeats
    test, val = study.examined("test"), study.examined("val")
    tested, checked = clocked(lambda: test.scores(training)), clocked(lambda: val.mean_dice(training))
    runs = len(list(cells_of(settings)))
    made = len(pool) * sum(taken.values())
    whole = made + runs * (settings.steps * step + 2 * tested + settings.checks * checked)
    say(
        f"a step {step:.3f} CPU s (n = {repeats}), testing {tested:.1f} s, a validation {checked:.1f} s; "
        "pictures of a still: " + ", ".join(f"{arm} {seconds:.2f} s" for arm, seconds in taken.items())
    )
    say(f"{runs} trainings of {settings.steps} steps, pictures of {len(pool)} stills: {whole / 60:.0f} CPU minutes")


def clocked(work: Any) -> float:
    """CPU seconds of a call."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


def settings_of(arguments: argparse.Namespace) -> Settings:
    """Settings of a command line; without data, of the phantom that is written."""
    values: dict[str, Any] = dict(QUICK) if arguments.quick else {}
    if arguments.data is None:
        if not arguments.quick:
            raise ConfigError("DATA or --quick is needed.", "Give a folder whose manifest states splits.")
        arguments.data = arguments.out / "phantom"
        write_phantom(arguments.data, videos_per_class=0, stills_per_class=5, size=48, seed=3)
    values["data"] = str(arguments.data)
    file = arguments.weights or bundled_path()
    file = file / "weights.safetensors" if file.is_dir() else file
    values["weights_sha256"] = sha256_of(file)
    if arguments.weights is not None:
        values["weights"] = str(arguments.weights)
    for text in arguments.set:
        values = merge(values, parse_override(text))
    settings = Settings.parse(values, "settings")
    if (settings.pictures - 1) % settings.clips:
        raise ConfigError(
            f"{settings.pictures - 1} pictures beside the still cannot be shared by {settings.clips} clips.",
            "Let clips divide pictures - 1.",
        )
    return settings


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["run", "estimate", "report"])
    parser.add_argument("out", type=Path)
    parser.add_argument("data", type=Path, nargs="?", help="folder of stills")
    parser.add_argument("--weights", type=Path, help="generator's weights; default the bundled ones")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting, e.g. steps=1200")
    parser.add_argument("--quick", action="store_true", help="a few steps, of a phantom if no DATA is given; no result")
    parser.add_argument("--explore", action="store_true", help="also arms that were not fixed beforehand")
    arguments = parser.parse_args()
    try:
        if arguments.command == "report":
            report(arguments.out)
        elif arguments.command == "estimate":
            estimate(arguments.out, settings_of(arguments))
        else:
            run(arguments.out, settings_of(arguments), explore=arguments.explore)
    except UsI2VError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped; the same line goes on.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
