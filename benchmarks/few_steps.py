"""Few sampling steps against many from equal noise: how far the motion differs, and what the energy score loses.

    python benchmarks/few_steps.py VIDEOS... --weights RUN_OR_FILE --metric-weights FOLDER \
        --few heun:4 --few euler:4 --many heun:50 [--split test] [--stills 50] [--samples 8] [-o few_steps.json]

VIDEOS are folders of real clips; each still is the first frame of one of their windows (16 frames, as for Table 1).
A sampler is NAME:STEPS. "euler" is the shortcut model's, for weights that are one. Printed for each of `--few`:

    flow      |flow_few - flow_many| in pixels of the model's square, mean over frames 1.. and the picture; median and
              90th percentile over stills and samples, all drawn from the same noise
    energy    paired difference of the energy scores (LPIPS, motion), few minus many, as a share of many's, with its
              95 % interval over patients
    seconds   of the sampler alone, one clip at a time
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

from us_i2v.data.transforms import Fit
from us_i2v.evaluation.clips import Generated, RealWindows, WindowRule
from us_i2v.evaluation.energy import EnergyScores
from us_i2v.metrics.lpips import LPIPS
from us_i2v.options import nearest_rate
from us_i2v.pipeline import GenerateOptions, ImageToVideo
from us_i2v.reproduction.several import answer_several, spread_indices
from us_i2v.still import seen_by_networks


def options_of(text: str) -> GenerateOptions:
    name, _, steps = text.partition(":")
    return GenerateOptions.parse({"sampler": name, "steps": int(steps)}, f"sampler {text}")


@torch.no_grad()
def flows(model: ImageToVideo, real: RealWindows, rows: list[int], samples: int, text: str) -> tuple[np.ndarray, float]:
    """Flow (stills * samples, 2, T, h, w) in pixels of the model's square, and the sampler's seconds a clip."""
    found, taken, fit = [], 0.0, Fit(model.info.fit, model.info.autoencoder.size)
    for row in rows:
        rate = nearest_rate(1 / real.entries[row].interval_s, model.info.interval_range_s)
        options = options_of(text).model_copy(update={"fps": rate})
        seen, _ = seen_by_networks(real.native(row)[0], fit)
        for number in range(samples):
            start = time.perf_counter()
            latent = model.generator.latents(seen, [1000 * row + number], options)
            taken += time.perf_counter() - start
            motion = model.generator.decode(latent, seen)
            found.append((motion.flow * (fit.size / motion.grid[1])).half().numpy())
    return np.concatenate(found), taken / (len(rows) * samples)


def length(flow: np.ndarray) -> np.ndarray:
    """Mean length of a flow over frames 1.. and the picture: (n, 2, T, h, w) -> (n,)."""
    return np.sqrt((flow[:, :, 1:].astype(np.float32) ** 2).sum(1)).mean((1, 2, 3))


def scores(
    model: ImageToVideo, real: RealWindows, rows: list[int], samples: int, text: str, lpips: LPIPS
) -> EnergyScores:
    return answer_several(real, Generated(real, model, options_of(text)), rows, samples, {}, lpips).energy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path, nargs="+")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--metric-weights", type=Path, required=True)
    parser.add_argument("--few", action="append", required=True)
    parser.add_argument("--many", default="heun:50")
    parser.add_argument("--split", default="test")
    parser.add_argument("--stills", type=int, default=50)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--flow-samples", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-energy", action="store_true")
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model = ImageToVideo.from_pretrained(arguments.weights, "cpu", arguments.threads)
    real = RealWindows.of(arguments.videos, WindowRule(per_clip=3), split=arguments.split or None)
    rows = spread_indices(real.groups, arguments.stills)
    lpips = LPIPS.load("alex", arguments.metric_weights / "lpips_alex_v0.1.safetensors")
    many, cost = flows(model, real, rows, arguments.flow_samples, arguments.many)
    result: dict[str, dict] = {arguments.many: {"seconds": cost, "flow_px": length(many).mean()}}
    print(f"{len(rows)} stills of {len({real.groups[row] for row in rows})} patients")
    print(f"{arguments.many}: {cost:.3f} s a clip, mean flow {length(many).mean():.2f} px", flush=True)
    best = None if arguments.no_energy else scores(model, real, rows, arguments.samples, arguments.many, lpips)
    for text in arguments.few:
        few, cost = flows(model, real, rows, arguments.flow_samples, text)
        off = length(few - many)
        entry: dict = {"seconds": cost, "flow_px": length(few).mean()}
        entry |= {"median": np.median(off), "p90": np.quantile(off, 0.9)}
        line = f"{text}: {cost:.3f} s a clip, mean flow {entry['flow_px']:.2f} px, off by {entry['median']:.3f} px "
        line += f"(median), {entry['p90']:.3f} (90 %)"
        if best is not None:
            own = scores(model, real, rows, arguments.samples, text, lpips)
            for key, lost in own.less(best).items():
                whole = float(best.scores[key].mean()) / 100
                entry[f"energy_{key}_percent"] = [lost.mean / whole, lost.low / whole, lost.high / whole]
                line += "; energy {}: {:+.1f} % [{:+.1f}, {:+.1f}]".format(key, *entry[f"energy_{key}_percent"])
        print(line, flush=True)
        result[text] = entry
    if arguments.output:
        arguments.output.write_text(json.dumps(result, indent=1, default=float) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
