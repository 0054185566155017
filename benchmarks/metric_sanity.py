"""Reference values of the metrics on real clips, and what copies of them that are known to be wrong get.

    python benchmarks/metric_sanity.py DATA [-n 50] [--source lung_blues] [--x3d FILE]

DATA holds manifest.csv and videos/. One window a patient: 16 frames at stride 3 from the middle of the recording,
reduced to 128 px by areas; windows that begin black are left out. With X3D-XS weights also kernel distance and
critic. Prints the tables of docs/metrics.md.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from us_i2v.data.clips import open_clip
from us_i2v.data.transforms import to_gray
from us_i2v.metrics.block_matching import block_motion
from us_i2v.metrics.critic import critic_interval
from us_i2v.metrics.energy_score import energy_score, motion_vector
from us_i2v.metrics.intervals import Interval, curve_interval, mean_interval, paired_interval
from us_i2v.metrics.kernel import kernel_interval
from us_i2v.metrics.motion import motion_energy
from us_i2v.metrics.speckle import decorrelation, flicker, local_deviation
from us_i2v.metrics.x3d import X3DXS, x3d_features
from us_i2v.seeding import numpy_generator
from us_i2v.types import Frames

FRAMES, STRIDE, SIZE = 16, 3, 128
BLANK = 5.0
SHOWN = (1, 2, 4, 8, 12, 15)
DRAWS = 8


def windows(data: Path, source: str, count: int) -> tuple[list[Frames], list[str]]:
    clips: list[Frames] = []
    groups: list[str] = []
    with (data / "manifest.csv").open(newline="", encoding="utf-8") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["file"])
    for row in rows:
        group = row["patient_or_group"]
        if not row["file"].startswith(f"videos/{source}/") or group in groups or len(clips) == count:
            continue
        reader = open_clip(data / row["file"])
        last = reader.n_frames - 1 - (FRAMES - 1) * STRIDE
        if last < 0:
            continue
        frames = to_gray(reader.read([last // 2 + STRIDE * k for k in range(FRAMES)]))
        if frames[0].mean() < BLANK:
            continue
        video = F.interpolate(torch.from_numpy(frames).float()[:, None], (SIZE, SIZE), mode="area")
        clips.append(video[:, 0].round().byte().numpy())
        groups.append(group)
    return clips, groups


def copies(clip: Frames, other: Frames, rng: np.random.Generator) -> dict[str, Frames]:
    """The clip, and copies of it that are wrong in a known way."""
    noise = clip + rng.normal(0, 10, clip.shape)
    noise[0] = clip[0]
    differences = clip[0].astype(np.float64) + other - other[0].astype(np.float64)
    dimmed = clip * (1 + 0.03 * (-1.0) ** np.arange(FRAMES))[:, None, None]
    return {
        "real": clip,
        "frozen": np.repeat(clip[:1], FRAMES, axis=0),
        "reversed after frame 0": np.concatenate([clip[:1], clip[:0:-1]]),
        "shuffled after frame 0": np.concatenate([clip[:1], clip[1 + rng.permutation(FRAMES - 1)]]),
        "noise of 10 gray levels": noise.clip(0, 255).astype(np.uint8),
        "brightness +-3 %": dimmed.clip(0, 255).astype(np.uint8),
        "another clip's differences": differences.clip(0, 255).astype(np.uint8),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("-n", type=int, default=50)
    parser.add_argument("--source", default="lung_blues")
    parser.add_argument("--x3d", type=Path, help="X3D-XS weights: also kernel distance and critic")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    clips, groups = windows(arguments.data, arguments.source, arguments.n)
    rng = numpy_generator(0, "metric-sanity")
    values: dict[str, dict[str, list]] = {}
    seconds = 0.0
    for index, clip in enumerate(clips):
        for name, frames in copies(clip, clips[(index + 1) % len(clips)], rng).items():
            row = values.setdefault(name, {key: [] for key in ("curve", "sd", "flicker", "energy", "vector")})
            motion = block_motion(frames)
            start = time.process_time()
            row["curve"].append(decorrelation(frames, motion))
            seconds += time.process_time() - start
            row["sd"].append(local_deviation(frames))
            row["flicker"].append(flicker(frames))
            row["energy"].append(motion_energy(frames))
            row["vector"].append(motion_vector(frames, motion))
    n_calls = sum(len(row["sd"]) for row in values.values())
    print(
        f"{arguments.source}: n = {len(clips)} ({len(set(groups))} groups); decorrelation {seconds / n_calls:.3f} s\n"
    )
    print("| | motion energy | local deviation | flicker | motion distance to real |")
    print("|---|---|---|---|---|")
    real = np.array(values["real"]["vector"])
    for name, row in values.items():
        cells = [cell(mean_interval(row[key], groups)) for key in ("energy", "sd", "flicker")]
        distance = np.linalg.norm(np.array(row["vector"]) - real, axis=1)
        print(f"| {name} | {' | '.join(cells)} | {cell(mean_interval(distance, groups))} |")
    print(f"\n| decorrelation | {' | '.join(f't = {t}' for t in SHOWN)} |\n|---|{'---|' * len(SHOWN)}")
    for name, row in values.items():
        mean, low, high = curve_interval(row["curve"], groups)
        print(f"| {name} | {' | '.join(f'{mean[t]:.2f} ({low[t]:.2f} to {high[t]:.2f})' for t in SHOWN)} |")
    apart = np.linalg.norm(real[:, None] - real[None], axis=2)
    print(
        f"\nmotion distance of two real clips of different patients: {apart[np.triu_indices(len(real), 1)].mean():.3f}"
    )
    print_energy(values, groups)
    if arguments.x3d:
        print_features(X3DXS.load(arguments.x3d), clips, groups)
    return 0


def print_features(network: X3DXS, clips: list[Frames], groups: list[str]) -> None:
    """Kernel distance and critic of real against real (other patients), and against wrong copies."""
    rng = numpy_generator(0, "metric-sanity-features")
    kinds: dict[str, list[Frames]] = {}
    for index, clip in enumerate(clips):
        for name, frames in copies(clip, clips[(index + 1) % len(clips)], rng).items():
            if name in ("real", "frozen", "shuffled after frame 0", "noise of 10 gray levels"):
                kinds.setdefault(name, []).append(frames)
    features = {name: x3d_features(network, found) for name, found in kinds.items()}
    real, half = features.pop("real"), len(clips) // 2
    pairs = {"real, other patients (half against half)": (real[:half], real[half:], groups[:half], groups[half:])}
    pairs |= {name: (real, fake, groups, groups) for name, fake in features.items()}
    print("\n| X3D-XS | kernel distance x 1000 | critic AUC |\n|---|---|---|")
    for name, pair in pairs.items():
        print(f"| {name} | {cell(kernel_interval(*pair), 1000)} | {cell(critic_interval(*pair))} |")


def print_energy(values: dict[str, dict[str, list]], groups: list[str]) -> None:
    """Energy scores of eight answers to each clip: other patients' motion, one of it eight times, none at all."""
    real = np.array(values["real"]["vector"])
    frozen = np.array(values["frozen"]["vector"])
    rng = numpy_generator(0, "metric-sanity-energy")
    scores: dict[str, list[float]] = {"eight other clips": [], "one other clip, eight times": [], "frozen": []}
    for k, vector in enumerate(real):
        drawn = real[rng.permutation(np.delete(np.arange(len(real)), k))[:DRAWS]]
        sets = (drawn, np.repeat(drawn[:1], DRAWS, 0), np.repeat(frozen[k : k + 1], DRAWS, 0))
        for name, chosen in zip(scores, sets, strict=True):
            between = np.linalg.norm(chosen[:, None] - chosen[None], axis=2)
            scores[name].append(energy_score(np.linalg.norm(chosen - vector, axis=1), between))
    best = scores["eight other clips"]
    for name, found in scores.items():
        difference = cell(paired_interval(found, best, groups))
        print(f"energy score (motion), {name}: {cell(mean_interval(found, groups))}; over the first {difference}")


def cell(interval: Interval, scale: float = 1.0) -> str:
    return f"{scale * interval.mean:.3f} ({scale * interval.low:.3f} to {scale * interval.high:.3f})"


if __name__ == "__main__":
    sys.exit(main())
