"""How `variants.py` scores a row: on test patients what is reported, on validation patients what decides.

A row is a set of weights and a way of sampling them. Measurements are kept in the row's folder under a key of weights,
windows and settings; result.json holds all that the report needs.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from variants_report import write_report
from variants_runs import CPU, Settings, Workshop, spent

from us_i2v.cli.progress import counting
from us_i2v.config import read_mapping
from us_i2v.data.atomic import write_bytes
from us_i2v.data.datasets import find_samples
from us_i2v.data.manifest import Sample
from us_i2v.data.training_clips import ClipSampler
from us_i2v.errors import DataError
from us_i2v.evaluation.clips import Answers, Generated, RealWindows, WindowRule
from us_i2v.evaluation.compare import ALL, compare
from us_i2v.evaluation.leaks import check_leaks
from us_i2v.evaluation.measure import Measured, measure
from us_i2v.evaluation.networks import choose
from us_i2v.evaluation.report import finite
from us_i2v.generators import LDDM
from us_i2v.metrics.frechet import LEAST_CLIPS
from us_i2v.metrics.intervals import LIMITS, REPEATS, Interval, group_members, mean_interval, resampled_counts
from us_i2v.options import GenerateOptions, choose_sampler
from us_i2v.pipeline import ImageToVideo
from us_i2v.reproduction.rows import build_row
from us_i2v.reproduction.several import Several, answer_several, spread_indices
from us_i2v.reproduction.store import load_measured, load_several, row_key, save_measured, save_several
from us_i2v.seeding import derive_seed
from us_i2v.training.latent_bank import LatentBank

NEAREST = 64
"""Latents that are compared with the training latents."""

TIMED = 5
"""Clips that seconds a clip are the median of."""


class Row(NamedTuple):
    """A row of the table: weights, and how they are sampled (None: their default)."""

    key: str
    part: str
    second: str
    sampler: str | None = None
    steps: int | None = None

    @property
    def options(self) -> GenerateOptions:
        """How its clips are made."""
        return GenerateOptions.model_validate({"frames": 16, "sampler": self.sampler, "steps": self.steps})


class Bench:
    """Scores rows on the same windows and keeps what it measured."""

    def __init__(self, workshop: Workshop) -> None:
        settings = self.settings = workshop.settings
        self.workshop, self.folder = workshop, workshop.out / "rows"
        weights = Path(settings.metric_weights) if settings.metric_weights else None
        self.wanted, self.left_out = choose(("fvd-x3d", "lpips", "decorrelation"), weights, "alex", 16, CPU)
        self.test = windows(settings, "test", settings.test_windows)
        self.validation = windows(settings, "val", settings.stills)
        if self.test is None:
            raise DataError("None of the data folders has clips of split 'test'.", "State splits in manifest.csv.")
        self.stills = spread_indices(self.test.groups, settings.stills)
        self.common = [self.test.names, settings.compared, settings.seed, sorted(self.wanted.networks)]
        self.models: dict[str, ImageToVideo] = {}
        self.truth = self._measured("real", self.test, "")
        self.repeated = self._measured("repeat", self._answers(Row("repeat", "reference", ""), self.test), "")

    def _model(self, second: str) -> ImageToVideo:
        if second not in self.models:
            self.models = {second: ImageToVideo.from_pretrained(self.workshop.train_second(second), "cpu", 1)}
            check_leaks(self.models[second].info, cast("RealWindows", self.test), second)
        return self.models[second]

    def _answers(self, row: Row, real: RealWindows) -> Answers:
        if row.part != "reference":
            return Generated(real, self._model(row.second), row.options, self.settings.seed)
        models = {} if row.key == "repeat" else {"lddm-base": self._model(row.second)}
        train, _ = self.workshop.clips()
        config = self.workshop.first_settings("warp").clips
        sampler = ClipSampler(train, config, length=16, seed=self.settings.seed, augment=False)
        return build_row(row.key, real, sampler, cast("Any", models), self.settings.seed)

    def _measured(self, name: str, clips: RealWindows | Answers, identity: str) -> Measured:
        path, key = self.folder / name / "measured.npz", row_key(name, self.common, identity)
        found = load_measured(path, key)
        if found is None:
            partner = None if name == "real" else self.test
            with counting(name) as shown:
                found = measure(
                    clips,
                    self.wanted.networks,
                    lpips=self.wanted.lpips,
                    partner=partner,
                    describe=False,
                    progress=shown,
                )
            save_measured(path, found, key)
        return found

    def _several(self, row: Row, real: RealWindows, stills: list[int], split: str, identity: str) -> Several:
        samples = self.settings.samples
        path = self.folder / row.key / f"{split}.npz"
        key = row_key(row.key, real.names, stills, samples, self.settings.compared, self.settings.seed, identity)
        found = load_several(path, key)
        if found is None:
            answers = self._answers(row, real)
            with counting(f"{row.key}, {split}: {samples} clips a still") as shown:
                found = answer_several(real, answers, stills, samples, {}, self.wanted.lpips, shown)
            save_several(path, found, key)
        return found

    def result_of(self, row: Row) -> Path:
        """Where a row's result lies once it is scored."""
        return self.folder / row.key / "result.json"

    def report(self, rows: list[Row], *, plot: bool) -> None:
        """Write the report of all rows that are scored, by whichever call."""
        results = [read_mapping(path) for row in rows if (path := self.result_of(row)).is_file()]
        if results and results[0]["key"] == "default":
            write_report(self.workshop.out, results, self.settings.model_dump(mode="json"), self.left_out, plot=plot)

    def score(self, row: Row) -> dict[str, Any]:
        """Train what a row needs, measure it, write its result and return it."""
        began, test = time.process_time(), cast("RealWindows", self.test)
        model = None if row.key == "repeat" else self._model(row.second)
        identity = "" if model is None else model.weights_sha256
        trained = time.process_time()
        made = self.repeated if model is None else self._measured(row.key, self._answers(row, test), identity)
        result: dict[str, Any] = {
            "key": row.key,
            "part": row.part,
            "weights_sha256": identity,
            "test": self._compared(made),
            "validation": None,
        }
        if self.validation is not None:
            every = list(range(len(self.validation)))
            result["validation"] = scores(self._several(row, self.validation, every, "validation", identity))
        # Of other numbers of steps the validation says enough.
        known = row.part != "steps" or self.validation is None
        result["test"]["energy"] = scores(self._several(row, test, self.stills, "test", identity)) if known else None
        if model is not None and row.part != "reference":
            result |= self._described(row, model)
        result["cpu_seconds"] = {"training": trained - began, "scoring": time.process_time() - trained}
        write_bytes(self.result_of(row), (json.dumps(finite(result), indent=1) + "\n").encode())
        return result

    def _compared(self, made: Measured) -> dict[str, Any]:
        found = compare(
            self.truth, made, repeat=self.repeated, n=LEAST_CLIPS, draws=self.settings.draws, seed=self.settings.seed
        )
        part = found.parts[ALL] if ALL in found.parts else next(iter(found.parts.values()))
        distances = part.distances.get("fvd-x3d")
        return {
            "windows": part.n_real,
            "groups": part.groups,
            "fvd": None if distances is None else asdict(distances),
            "paired": {name: asdict(lines["fake"]) for name, lines in part.paired.items()},
            "decorrelation_error": optional(decorrelation_error(made, self.truth)),
        }

    def _described(self, row: Row, model: ImageToVideo) -> dict[str, Any]:
        generator = cast("LDDM", model.generator)
        plan = choose_sampler(row.options, generator.process)
        second = self.workshop.second[row.second]
        runs = {
            "first": self.workshop.out / "first" / second.first,
            "second": self.workshop.out / "second" / row.second,
        }
        training = {stage: spent(run) for stage, run in runs.items()}
        if second.init:
            before = spent(self.workshop.out / "second" / second.init)
            training["second"] = {key: training["second"][key] + before[key] for key in before}
        return {
            "sampler": type(plan.sampler).__name__,
            "steps": plan.steps,
            "evaluations": 2 * plan.steps - 1 if type(plan.sampler).__name__ == "Heun" else plan.steps,
            "parameters": {
                name: sum(p.numel() for p in module.parameters())
                for name, module in (("first", generator.autoencoder), ("second", generator.denoiser))
            },
            "training": training,
            "latent": list(model.info.autoencoder.latent_shape),
            "seconds_a_clip": self._seconds(row, model),
            # A matter of the weights, not of how they are sampled.
            "latents": None if row.part == "steps" else self._nearest(row, generator, runs["second"]),
        }

    def _seconds(self, row: Row, model: ImageToVideo) -> float:
        """Median CPU seconds of a clip at the still's own size, after one to warm up."""
        test, taken = cast("RealWindows", self.test), []
        for index in range(min(1 + TIMED, len(test))):
            still = test.native(index)[0]
            before = time.process_time()
            model(still, seed=index, options=row.options)
            taken.append(time.process_time() - before)
        return float(np.median(taken[1:]))

    @torch.no_grad()
    def _nearest(self, row: Row, generator: LDDM, run: Path) -> dict[str, Any]:
        """Root mean square distance to the nearest training latent: of generated ones, of held-out real ones.

        Both are of the same held-out windows (their stills, their posteriors' samples), in standard deviations.
        """
        banks = {
            name: LatentBank(
                **{
                    key: np.load(run / "latents" / name / f"{key}.npy", mmap_mode="r")
                    for key in ("mean", "sd", "still", "scalars")
                },
                names=json.loads((run / "latents" / name / "names.json").read_text(encoding="utf-8")),
            )
            for name in ("train", "held")
        }
        held = banks["held"]
        chosen = list(range(min(NEAREST, len(held.names))))
        seeds = [derive_seed(self.settings.seed, "nearest", k) % 2**31 for k in chosen]
        made = generator.latents(held.stills(chosen), seeds, row.options)
        real = held.draw(chosen, torch.Generator().manual_seed(self.settings.seed))
        known = torch.from_numpy(np.asarray(banks["train"].mean, np.float32))
        names = [held.names[k] for k in chosen]

        def nearest(z: torch.Tensor) -> Interval:
            a, b = (((x - generator.mean) / generator.sd).flatten(1).double() for x in (z, known))
            return mean_interval(torch.cdist(a, b).amin(1).numpy() / np.sqrt(a.shape[1]), names)

        return {"generated": asdict(nearest(made)), "held_out": asdict(nearest(real))}


def scores(several: Several) -> dict[str, Any]:
    """Energy scores with what pairs them: {"groups", "scores": distance -> a number a still, "mean": intervals}."""
    energy = several.energy
    return {
        "groups": list(energy.groups),
        "scores": {name: values.tolist() for name, values in energy.scores.items()},
        "mean": {name: asdict(value) for name, value in energy.intervals().items()},
    }


def decorrelation_error(made: Measured, real: Measured) -> Interval | None:
    """Mean absolute difference of the mean curves over frames 1 .. T - 1, paired, with its interval over patients.

    Noise raises the error of resampled patients, so the limits are shifted to the estimate; None without curves.
    """
    gap = made.curves["decorrelation"] - real.curves["decorrelation"]
    rows = np.flatnonzero(np.isfinite(gap).all(axis=1))
    if not len(rows):
        return None
    gap, groups = gap[rows, 1:], [real.groups[row] for row in rows]
    members = group_members(groups, len(gap))
    weights = resampled_counts(len(members), REPEATS, 0)
    sums, counts = np.stack([gap[m].sum(0) for m in members]), np.array([len(m) for m in members])
    drawn = np.abs((weights @ sums) / (weights @ counts)[:, None]).mean(1)
    value = float(np.abs(gap.mean(0)).mean())
    low, high = np.percentile(drawn, LIMITS) - drawn.mean() + value if len(members) > 1 else (np.nan, np.nan)
    return Interval(value, max(float(low), 0.0), float(high), len(gap), len(members))


def optional(value: Interval | None) -> dict[str, Any] | None:
    """A record as a mapping, None as it is."""
    return None if value is None else asdict(value)


def windows(settings: Settings, split: str, count: int) -> RealWindows | None:
    """One window of up to `count` clips of a split each, taking one of each patient in turn; None if there are none."""
    found: list[tuple[str, Sample]] = []
    for folder in map(Path, settings.data):
        if not settings.test or folder.name in settings.test:
            found += [(folder.name, s) for s in find_samples(folder) if s.kind == "clip" and s.split == split]
    chosen = spread_indices([sample.group for _, sample in found], count)
    rule = WindowRule(stride=settings.stride, size=settings.compared)
    return RealWindows([found[k] for k in chosen], rule) if chosen else None
