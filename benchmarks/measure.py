"""Measure weights on held-out real clips; writes one JSON and prints the tables of docs/results.md.

    python benchmarks/measure.py reconstruct DATA WORK --weights RUN_OR_FILE [--adain RUN] -o out.json
    python benchmarks/measure.py generate    DATA --weights RUN_OR_FILE -o out.json
    python benchmarks/measure.py strips      DATA OUT --weights RUN_OR_FILE

DATA holds manifest.csv, videos/ and, in its parent, weights/ with LPIPS and X3D-XS; WORK is the folder that
`train_bundled.py prepare` wrote. Windows are the paper's: 16 frames at stride 3 (repeated frames dropped first,
every source alike).
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from train_bundled import HELD_CALF, HELD_POCUS, busi_split, read_rows

from us_i2v.data.manifest import Sample
from us_i2v.data.stills import read_still
from us_i2v.data.transforms import to_gray
from us_i2v.evaluation.clips import RealWindows, WindowRule, at_size, middle
from us_i2v.evaluation.divisions import Side, available, frechet_lines
from us_i2v.evaluation.measure import describe_clip
from us_i2v.metrics.extractors import load_extractor
from us_i2v.metrics.lpips import LPIPS
from us_i2v.models.autoencoder import Autoencoder
from us_i2v.models.motion import deterministic_frames
from us_i2v.pipeline import GenerateOptions, ImageToVideo
from us_i2v.weights import load_weights

FRAMES = 16
SIZE = 128


def held_out(data: Path, source: str, per_clip: int = 1) -> RealWindows:
    """Windows of held-out clips of a source: 16 frames at stride 3."""
    samples = []
    for row in read_rows(data):
        if not row["file"].startswith(f"videos/{source}/"):
            continue
        path, group = data / row["file"], row["patient_or_group"]
        if source == "calf_muscle" and not any(mark in path.stem for mark in HELD_CALF):
            continue
        if source == "lung_pocus" and group not in HELD_POCUS:
            continue
        samples.append((source, Sample(path, "clip", None, group)))
    return RealWindows(samples, WindowRule(length=FRAMES, per_clip=per_clip, size=SIZE), root=data)


def windows(data: Path, source: str, per_clip: int = 1) -> list[dict]:
    """Native-size gray windows of held-out clips: {"name", "group", "frames" uint8 (16, H, W), "interval"}."""
    real = held_out(data, source, per_clip)
    return [
        {"name": e.path.stem, "group": e.group, "frames": real.native(k), "interval": e.interval_s}
        for k, e in enumerate(real.entries)
    ]


def shrink(frames: np.ndarray, size: int) -> torch.Tensor:
    """uint8 (T, H, W) -> float (1, 1, T, size, size) in 0..1, antialiased."""
    video = torch.from_numpy(frames.astype(np.float32))[:, None] / 255
    return F.interpolate(video, (size, size), mode="bilinear", antialias=True).clamp(0, 1).transpose(0, 1)[None]


@torch.no_grad()
def reconstruct(arguments: argparse.Namespace) -> dict:
    lpips = LPIPS.load("alex", arguments.data.parent / "weights" / "lpips_alex_v0.1.safetensors")
    models = {"warp": load_weights(arguments.weights).autoencoder()}
    if arguments.adain:
        models["adain"] = load_weights(arguments.adain).autoencoder()
    table: dict[str, dict] = {}
    for source in ("lung_blues", "lung_pocus", "calf_muscle"):
        rows = windows(arguments.data, source, 1 if source == "lung_blues" else 3)
        if source == "lung_blues":
            rows = spread_over_groups(rows, arguments.n)
        sums: dict[str, list[tuple[float, float]]] = {"repeat": []} | {name: [] for name in models}
        for row in rows:
            for name, model in models.items():
                video = shrink(row["frames"], model.config.size)
                still = video[:, :, 0]
                motion = model.decode(model.encode(video).mean, still).in_float32()
                full = motion.at_size(still.shape[-2:])
                sums[name].append(compare(lpips, deterministic_frames(still, full), video))
                if name == "warp":
                    sums["repeat"].append(compare(lpips, still[:, :, None].expand_as(video), video))
        table[source] = {"n": len(rows), "groups": len({r["group"] for r in rows})}
        for name, values in sums.items():
            array = np.array(values)
            table[source][name] = {"l1": array[:, 0].mean(), "lpips_alex": array[:, 1].mean()}
        print(source, json.dumps(table[source], default=lambda x: round(float(x), 4)), flush=True)
    return table


def spread_over_groups(rows: list[dict], n: int) -> list[dict]:
    """Take n rows, as evenly over the groups as they allow."""
    order: dict[str, list[dict]] = {}
    for row in rows:
        order.setdefault(row["group"], []).append(row)
    out = []
    for k in range(max(map(len, order.values()))):
        out += [members[k] for _, members in sorted(order.items()) if k < len(members)]
    return out[:n]


def compare(lpips: LPIPS, made: torch.Tensor, real: torch.Tensor) -> tuple[float, float]:
    """L1 in gray levels over frames 1..15, LPIPS of frames 5, 10 and 15; (1, 1, T, S, S)."""
    made, real = made.clamp(0, 1), real.clamp(0, 1)
    l1 = 255 * (made - real)[:, :, 1:].abs().mean()
    some = [5, 10, 15]
    distance = lpips(made[0, 0, some][:, None], real[0, 0, some][:, None]).mean()
    return float(l1), float(distance)


def describe(frames: np.ndarray) -> dict[str, float]:
    """Numbers of one clip, uint8 (16, H, W): on the whole frame at 128 px, and ("_crop") on the native middle crop."""
    return describe_clip(at_size(frames, SIZE), middle(frames))


def summary(rows: list[dict[str, float]]) -> dict[str, float]:
    out = {}
    for key in rows[0]:
        values = [row[key] for row in rows]
        out[f"{key}_mean"], out[f"{key}_median"] = float(np.nanmean(values)), float(np.nanmedian(values))
    return out


def make(model: ImageToVideo, rows: list[dict], **changes: object) -> tuple[list[np.ndarray], list[float]]:
    """Clips of the rows' first frames at their own frame rate, and their mean flow in pixels of 128."""
    clips, flows = [], []
    for k, row in enumerate(rows):
        options = GenerateOptions(fps=1 / row["interval"], **changes)
        clip = model(row["frames"][0], seed=k, options=options)[0]
        clips.append(clip.frames)
        flows.append(float(np.sqrt((clip.flow[1:] ** 2).sum(1)).mean()) * 128 / clip.flow.shape[-1])
    return clips, flows


@torch.no_grad()
def real_flow(autoencoder: Autoencoder, row: dict) -> float:
    """Mean flow that the auto-encoder reads off a real clip, pixels of 128."""
    video = shrink(row["frames"], autoencoder.config.size)
    motion = autoencoder.decode(autoencoder.encode(video).mean, video[:, :, 0])
    return float(motion.flow[:, :, 1:].square().sum(1).sqrt().mean()) * 128 / motion.grid[1]


def generate(arguments: argparse.Namespace) -> dict:
    model = ImageToVideo.from_pretrained(arguments.weights, device="cpu")
    network = load_extractor("fvd-x3d", arguments.data.parent / "weights")
    autoencoder = load_weights(arguments.weights).autoencoder()
    result: dict[str, dict] = {}
    for source in arguments.sources.split(","):
        rows = windows(arguments.data, source, 1 if source == "lung_blues" else 3)
        rows = spread_over_groups(rows, arguments.n)
        some = rows[: arguments.some]
        generated, flows = make(model, rows)
        print(f"{source}: {len(rows)} clips made", flush=True)
        quiet, quiet_flows = make(model, some, speckle=0.0)
        variants = {
            "real": [row["frames"] for row in rows],
            "repeat": [np.repeat(row["frames"][:1], FRAMES, axis=0) for row in rows],
            "generated": generated,
            "speckle_0": quiet,
            "additive": make(model, some, texture="additive")[0],
        }
        groups = [row["group"] for row in rows]
        flow = {"generated": flows, "speckle_0": quiet_flows, "real": [real_flow(autoencoder, row) for row in some]}
        entry: dict = {"n": len(rows), "n_some": len(some), "groups": len(set(groups))}
        entry["flow_px_128_mean_median"] = {k: [float(np.mean(v)), float(np.median(v))] for k, v in flow.items()}
        for name, clips in variants.items():
            entry[name] = summary([describe(clip) for clip in clips[: arguments.some]])
        entry["energy_ratio"] = {
            key: entry["generated"][key] / entry["real"][key]
            for key in ("motion_energy_mean", "motion_energy_crop_mean")
        }
        features = {
            name: network.features([at_size(c, SIZE) for c in clips])
            for name, clips in variants.items()
            if name in ("real", "repeat", "generated")
        }
        labels, partners = tuple(groups), np.arange(len(rows))
        data = Side(features["real"], labels, features["generated"], labels, features["repeat"], partners)
        n = min(100, available(data, 20, 0))
        if n >= 50:
            entry["fvd_x3d"] = {
                name: asdict(value) for name, value in frechet_lines(data, n, draws=20, seed=0).values.items()
            }
        result[source] = entry
        print(json.dumps(entry, indent=1, default=str), flush=True)
    return result


def strips(arguments: argparse.Namespace) -> dict:
    """Strips of clips of reserved breast stills, with x-t slices: PNGs to look at."""
    model = ImageToVideo.from_pretrained(arguments.weights, device="cpu")
    rows = [
        row
        for row in read_rows(arguments.data)
        if row["file"].startswith("images/busi/") and "_mask" not in row["file"]
        if busi_split(row["patient_or_group"]) == "reserved"
    ]
    chosen = rows[:: max(1, len(rows) // arguments.n)][: arguments.n]
    arguments.out.mkdir(parents=True, exist_ok=True)
    for k, row in enumerate(chosen):
        still = read_still(arguments.data / row["file"])
        clip = model(still, seed=k)[0]
        gray = to_gray(clip.frames)
        width = 300
        height = round(width * gray.shape[1] / gray.shape[2])
        shown = [np.asarray(Image.fromarray(gray[t]).resize((width, height))) for t in (0, 4, 8, 12, 15)]
        slice_xt = np.repeat(gray[:, gray.shape[1] // 2], max(1, height // 16), axis=0)
        xt = np.asarray(Image.fromarray(slice_xt).resize((width, height)))
        strip = np.concatenate([*shown, xt], axis=1)
        Image.fromarray(strip).save(arguments.out / f"{k:02d}_{Path(row['file']).stem.replace(' ', '_')}.png")
        clip_numbers = describe(gray)
        print(row["file"], {key: round(value, 3) for key, value in clip_numbers.items()}, flush=True)
    return {}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["reconstruct", "generate", "strips"])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path, nargs="?", default=Path("strips"))
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--adain", type=Path)
    parser.add_argument("-n", type=int, default=300, help="clips a source at most")
    parser.add_argument("--some", type=int, default=100, help="clips that are described, and made in variants")
    parser.add_argument("--sources", default="lung_blues,lung_pocus")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    result = {"reconstruct": reconstruct, "generate": generate, "strips": strips}[arguments.command](arguments)
    if arguments.output:
        arguments.output.write_text(json.dumps(result, indent=1, default=float) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
