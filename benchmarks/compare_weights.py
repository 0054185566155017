"""Weights files on the same held-out stills: each against the real clips, and paired differences from the first one.

    python benchmarks/compare_weights.py OUT VIDEOS... --metric-weights FOLDER \
        --weights before=RUN_OR_FILE --weights after=RUN_OR_FILE [--split test] [--options '{"steps": 4}'] [--stills 50]

Windows, n and intervals are Table 1's (16 frames at stride 3, three windows a clip at most, n = 100 a side, 20
divisions by patient). What is measured is kept in OUT, so that more weights can be added by the same line; `real.npz`
and `repeat.npz` of a Table 1 over the same folders serve as well. "bundled" as a path stands for the weights in the
wheel; NAME@JSON=PATH gives one of them options of its own.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch

from us_i2v.evaluation.clips import Generated, RealWindows, Repeated, WindowRule
from us_i2v.evaluation.compare import compare
from us_i2v.evaluation.divisions import paired_difference
from us_i2v.evaluation.measure import Measured, measure
from us_i2v.evaluation.networks import choose
from us_i2v.evaluation.results import Comparison
from us_i2v.metrics.intervals import Interval
from us_i2v.pipeline import GenerateOptions, ImageToVideo
from us_i2v.reproduction.several import Several, answer_several, spread_indices
from us_i2v.reproduction.store import load_measured, load_several, row_key, save_measured, save_several

NETWORK = "fvd-x3d"


def text(value: Interval, digits: int = 2) -> str:
    return f"{value.mean:.{digits}f} [{value.low:.{digits}f}, {value.high:.{digits}f}]"


class Bench:
    """Measures weights on windows, and keeps what it measured."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments, self.rule = arguments, WindowRule(per_clip=3)
        self.real = RealWindows.of(arguments.videos, self.rule, split=arguments.split or None)
        names = [NETWORK, "lpips", "paired", "motion", "decorrelation"]
        self.wanted, left_out = choose(names, arguments.metric_weights, "alex", 16, torch.device("cpu"))
        if left_out:
            sys.exit("; ".join(left_out))
        self.common = [self.real.names, self.rule.dump(), 0, sorted(self.wanted.networks)]
        self.stills = spread_indices(self.real.groups, arguments.stills)
        arguments.out.mkdir(parents=True, exist_ok=True)

    def measured(self, name: str, clips: object, identity: str) -> Measured:
        """Measure a set of clips, or read it back."""
        path, key = self.arguments.out / f"{name}.npz", row_key(name, self.common, identity)
        found = load_measured(path, key)
        if found is None:
            print(f"{name}: {len(self.real)} windows", flush=True)
            partner = None if name == "real" else self.real
            found = measure(clips, self.wanted.networks, lpips=self.wanted.lpips, partner=partner)
            save_measured(path, found, key)
        return found

    def several(self, name: str, row: Generated, identity: str) -> Several | None:
        """Answer some stills several times, or read it back."""
        if not self.arguments.samples:
            return None
        samples = self.arguments.samples
        path = self.arguments.out / f"{name}.several.npz"
        key = row_key(name, self.common, identity, self.stills, samples)
        found = load_several(path, key)
        if found is None:
            print(f"{name}: {len(self.stills)} stills, {samples} answers each", flush=True)
            found = answer_several(self.real, row, self.stills, samples, {}, self.wanted.lpips)
            save_several(path, found, key)
        return found


def report(title: str, comparison: Comparison, several: Several | None) -> None:
    for source, part in comparison.parts.items():
        found = part.distances[NETWORK]
        print(f"{title}, {source}: n = {found.n} a side of {part.n_real} windows of {part.groups} patients")
        print("  FVD-X3D " + ", ".join(f"{line} {text(value)}" for line, value in found.frechet.items()))
        print(f"  critic AUC {text(found.critic['fake'])}; LPIPS {text(part.paired['lpips']['fake'], 3)}")
        medians = {
            name: f"{name} {each.fake.median:.3g} of {each.real.median:.3g}"
            for name, each in part.distributions.items()
            if each.fake is not None and each.real is not None
        }
        print("  medians, of real: " + ", ".join(medians.values()))
        if part.decorrelation is not None:
            curves = part.decorrelation.fake.mean, part.decorrelation.real.mean
            print(
                "  speckle's correlation after 1, 4, 8, 15 frames, and real: "
                + ", ".join(f"{curves[0][t]:.2f} of {curves[1][t]:.2f}" for t in (1, 4, 8, 15) if t < len(curves[0]))
            )
        if several is not None:
            scores = several.energy.intervals(None if source == "all" else source)
            print("  energy " + ", ".join(f"{key} {text(value, 3)}" for key, value in scores.items()), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("videos", type=Path, nargs="+")
    parser.add_argument("--weights", action="append", required=True, metavar="NAME[@JSON]=PATH")
    parser.add_argument("--metric-weights", type=Path, required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--options", default="{}", help="of generation, as JSON")
    parser.add_argument("--stills", type=int, default=50)
    parser.add_argument("--samples", type=int, default=8, help="answers a still for energy scores; 0 leaves them out")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    bench = Bench(arguments)
    truth = bench.measured("real", bench.real, "")
    repeated = bench.measured("repeat", Repeated(bench.real), "")
    first: tuple[str, Comparison, Several | None] | None = None
    for given in arguments.weights:
        name, _, path = given.partition("=")
        name, _, own = name.partition("@")
        values = {"frames": 16} | json.loads(arguments.options) | json.loads(own or "{}")
        options = GenerateOptions.parse(values, "options")
        model = ImageToVideo.from_pretrained(None if path == "bundled" else path, "cpu", arguments.threads)
        row = Generated(bench.real, model, options)
        identity = row_key(model.weights_sha256, options.dump())
        made = bench.measured(name, row, identity)
        comparison = compare(truth, made, repeat=repeated, n=100, draws=20, seed=0)
        several = bench.several(name, row, identity)
        report(name, comparison, several)
        if first is None:
            first = (name, comparison, several)
            continue
        for source, part in comparison.parts.items():
            ours, theirs = part.distances[NETWORK], first[1].parts[source].distances[NETWORK]
            gain = paired_difference(ours.frechet["fake"], theirs.frechet["fake"], ours.samples, theirs.samples)
            line = f"  {name} minus {first[0]}, {source}: FVD-X3D {text(gain)}"
            if several is not None and first[2] is not None:
                less = several.energy.less(first[2].energy, None if source == "all" else source)
                line += "; energy " + ", ".join(f"{key} {text(value, 3)}" for key, value in less.items())
            print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
