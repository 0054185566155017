"""Train the weights that the wheel ships, from openly licensed videos and animated breast stills.

    python benchmarks/train_bundled.py prepare DATA WORK      # data -> three folders with manifests
    us-i2v train-ae  WORK/... -o WORK/ae                      # the commands, word for word, are
    us-i2v train-ae  WORK/... -o WORK/decoder                 # in docs/model-card.md
    us-i2v train-ldm WORK/... --ae WORK/ae -o WORK/ldm
    python benchmarks/train_bundled.py bundle WORK/ldm WORK/decoder src/us_i2v/bundled/base.safetensors \
        --held WORK/lung_pocus --held WORK/calf_muscle

DATA holds `manifest.csv` (file, class_label, patient_or_group, sha256, ...), `images/busi` and `videos/...`.
Only sources whose licence allows it are used: calf_muscle, lung_pocus and BUSI. 20 % of the BUSI groups are
reserved: they are in no split of the result (see docs/model-card.md for the list).
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from us_i2v.data.hold import find_hold
from us_i2v.data.still_motion import animate_still
from us_i2v.seeding import derive_seed, numpy_generator

SEED = 20
SIZE = 128
INTERVAL = (0.04, 0.13)
RESERVED_SHARE = 0.2
HELD_POCUS = ("pocus-1", "pocus-119", "pocus-99")
HELD_CALF = ("_push_03",)
NOTES = (
    "us-i2v base. Data: calf muscle (CC BY 4.0, Zenodo 2598553), lung POCUS (CC BY 4.0 and 2.0), BUSI stills "
    "(Al-Dhabyani et al. 2020) with simulated motion. Details, credits and limits: docs/model-card.md."
)
COLUMNS = ("file", "label", "group", "split", "fps")


def read_rows(data: Path) -> list[dict[str, str]]:
    with (data / "manifest.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def busi_split(group: str) -> str:
    """Reserved, val or train, by a hash of the group alone."""
    place = derive_seed(SEED, "busi", group) / 2**63
    return "reserved" if place < RESERVED_SHARE else "val" if place < RESERVED_SHARE + 0.08 else "train"


def write_manifest(folder: Path, rows: list[dict[str, str]]) -> None:
    temporary = folder / "manifest.csv.tmp"
    with temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    temporary.replace(folder / "manifest.csv")


def prepare_videos(data: Path, work: Path, name: str) -> None:
    folder = work / name
    rows = []
    for row in read_rows(data):
        source = data / row["file"]
        if not row["file"].startswith(f"videos/{name}/"):
            continue
        target = folder / "clips" / source.name
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            temporary = target.with_name(f"{target.name}.tmp")
            temporary.write_bytes(source.read_bytes())
            temporary.replace(target)
        group = row["patient_or_group"]
        if name == "calf_muscle":  # One person: split by recording, and said so in the model card.
            held = any(mark in source.stem for mark in HELD_CALF)
            group = f"{group}/{source.stem}"
        else:
            held = group in HELD_POCUS
        rows.append(
            {
                "file": f"clips/{source.name}",
                "label": "",
                "group": group,
                "split": "val" if held else "train",
                "fps": "",
            }
        )
    write_manifest(folder, rows)
    print(f"{name}: {len(rows)} clips, {sum(r['split'] == 'val' for r in rows)} held out")


def stretch(picture: np.ndarray, box: bool) -> np.ndarray:
    mode = Image.Resampling.BOX if box else Image.Resampling.LANCZOS
    return np.asarray(Image.fromarray(picture).resize((SIZE, SIZE), mode))


def animate(job: tuple[Path, tuple[Path, ...], int, Path]) -> None:
    source, masks, k, target = job
    if target.exists():
        return
    picture = np.asarray(Image.open(source).convert("RGB"))
    hold = stretch(find_hold(picture).astype(np.uint8) * 255, box=True) > 127
    still = stretch(np.asarray(Image.open(source).convert("L")), box=False).astype(np.float32) / 255
    mask = np.zeros((SIZE, SIZE), bool)
    for path in masks:
        mask |= stretch(np.asarray(Image.open(path).convert("L")), box=True) > 127
    rng = numpy_generator(SEED, "animate", source.name, k)
    low, high = INTERVAL
    interval = float(low * (high / low) ** rng.random())
    moved = animate_still(still, mask if mask.any() else None, rng, dt=interval, hold=hold if hold.any() else None)
    cells = SIZE // 4
    flow = moved.flow.reshape(16, 2, cells, 4, cells, 4).mean(axis=(3, 5)) / 4
    temporary = target.with_suffix(f".{os.getpid()}.tmp.npz")
    np.savez_compressed(
        temporary,
        frames=(moved.frames * 255).round().astype(np.uint8),
        fps=np.float32(1 / interval),
        flow=flow.astype(np.float16),
    )
    temporary.replace(target)


def prepare_breast(data: Path, work: Path, clips: int, workers: int) -> None:
    folder = work / "breast_motion"
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    stills, masks = {}, {}
    for row in read_rows(data):
        if row["file"].startswith("images/busi/"):
            stem = Path(row["file"]).stem
            if "_mask" in stem:
                masks.setdefault(stem.split("_mask")[0], []).append(data / row["file"])
            else:
                stills[stem] = row
    jobs, rows, reserved = [], [], set()
    for stem, row in sorted(stills.items()):
        split = busi_split(row["patient_or_group"])
        if split == "reserved":
            reserved.add(row["patient_or_group"])
            continue
        for k in range(clips):
            name = f"{stem.replace(' ', '_')}_{k}.npz"
            jobs.append((data / row["file"], tuple(masks.get(stem, ())), k, folder / "clips" / name))
            rows.append(
                {
                    "file": f"clips/{name}",
                    "label": row["class_label"],
                    "group": row["patient_or_group"],
                    "split": split,
                    "fps": "",
                }
            )
    jobs.sort(key=lambda job: job[2])
    with ProcessPoolExecutor(workers) as pool:
        for done, _ in enumerate(pool.map(animate, jobs, chunksize=4), 1):
            if done % 100 == 0:
                print(f"breast_motion: {done} of {len(jobs)}", flush=True)
    write_manifest(folder, rows)
    (folder / "reserved.txt").write_text("".join(f"{g}\n" for g in sorted(reserved)), encoding="utf-8")
    print(f"breast_motion: {len(rows)} clips of {len(stills)} stills, {len(reserved)} groups reserved")


def bundle(run: Path, decoder: Path, target: Path, held: list[Path]) -> None:
    """Join stage 2 with the fine-tuned decoder, calibrate its speckle, and store both in half precision."""
    import torch

    from us_i2v.evaluation.clips import RealWindows, WindowRule
    from us_i2v.training.calibration import calibrated_on_generated
    from us_i2v.weights import Weights, load_weights, save_weights

    weights, tuned = load_weights(run), load_weights(decoder)
    tensors = dict(weights.tensors)
    for name, value in tuned.tensors.items():
        if name.startswith("autoencoder.encoder.") and not torch.equal(value, tensors[name]):
            raise SystemExit(f"{decoder}: its encoder is not the one that {run} was trained on ({name})")
        tensors[name] = value
    real = RealWindows.of(held, WindowRule(per_clip=2, size=SIZE), split="val")
    videos = [torch.from_numpy(real.frames(k)).float()[None, None] / 255 for k in range(len(real))]
    # The decoder may predict what that of stage 1 did not, as the speckle's correlation by place.
    changes = {"autoencoder": tuned.header.autoencoder, "speckle": tuned.header.speckle}
    header = weights.header.model_copy(update=changes)
    # Answered at the weights' usual rate, and taken to hold at the windows': see docs/results.md for the other way.
    speckle = calibrated_on_generated(Weights(header, "", tensors, str(run)), videos, torch.device("cpu"))
    speckle = speckle.model_copy(update={"interval_s": float(np.median([e.interval_s for e in real.entries]))})
    print(f"speckle of clips generated for {len(videos)} held-out windows: {speckle}")
    header = header.model_copy(update={"speckle": speckle, "notes": NOTES})
    save_weights(target, header, tensors, half=True)
    print(f"{target}: {target.stat().st_size / 1e6:.1f} MB")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    prepare = commands.add_parser("prepare")
    prepare.add_argument("data", type=Path)
    prepare.add_argument("work", type=Path)
    prepare.add_argument("--clips", type=int, default=4, help="clips a breast still")
    prepare.add_argument("--workers", type=int, default=1)
    export = commands.add_parser("bundle")
    export.add_argument("run", type=Path)
    export.add_argument("decoder", type=Path)
    export.add_argument("target", type=Path)
    export.add_argument("--held", type=Path, action="append", required=True, help="real clips to calibrate speckle on")
    arguments = parser.parse_args()
    if arguments.command == "bundle":
        bundle(arguments.run, arguments.decoder, arguments.target, arguments.held)
        return 0
    for name in ("calf_muscle", "lung_pocus"):
        prepare_videos(arguments.data, arguments.work, name)
    prepare_breast(arguments.data, arguments.work, arguments.clips, arguments.workers)
    return 0


if __name__ == "__main__":
    sys.exit(main())
