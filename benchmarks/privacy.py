"""What a privacy filter finds on real clips: planted copies, strangers, and clips of trained weights.

    python benchmarks/privacy.py DATA -o WORK [--source lung_blues] [--clips 60] [--copies 30] [--steps 1500]
                                 [--weights FILE] [--seed 0] [--draws 1]

DATA holds manifest.csv (columns file, patient_or_group, sha256) and videos/. Patients are divided: 60 % train the
filter, 20 % set its thresholds, 20 % are strangers that it never saw; patients on whom the weights were trained are all
of the first part. Then the filter is shown

    copies       windows of training clips, changed as `evaluation.planted` says and recoded with H.264
    strangers    a window of each of the third part's clips
    whole        the same clips from end to end, up to four windows each: as many of them should be flagged
    generated    clips that the weights make of the strangers' first frames: what is flagged there is flagged too often,
                 or remembered by the generator
    of training  clips made of training clips' first frames: their stills are training pictures, so they should be found

and the share of each that is flagged is printed, by measure, with Wilson intervals over patients, beside the share of
strangers that is flagged by construction. WORK keeps links to the clips and the run; a second call goes on with it, and
is refused if its clips, seed, steps or weights are others. Nothing fitted on clips under a licence without derivatives
may be passed on: WORK stays where the clips are.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

from us_i2v.data.clips import open_clip
from us_i2v.data.manifest import Sample, write_manifest
from us_i2v.data.splits import split_by_group
from us_i2v.data.transforms import to_gray
from us_i2v.data.writers import write_clip
from us_i2v.errors import UsI2VError
from us_i2v.evaluation.planted import STRENGTHS, planted
from us_i2v.evaluation.privacy import PrivacyResult, check_privacy
from us_i2v.evaluation.privacy_clips import Queries
from us_i2v.privacy import load_filter
from us_i2v.seeding import numpy_generator
from us_i2v.training.privacy import PrivacyTraining, fit_privacy
from us_i2v.training.report import Silent
from us_i2v.weights import load_weights

FRAMES, STRIDE = 16, 3
PARTS = {"train": 0.6, "val": 0.2, "test": 0.2}


class Lines(Silent):
    """Prints what the fit reports."""

    def message(self, text: str) -> None:
        """Print a line."""
        print(f"  {text}", flush=True)


def link(arguments: argparse.Namespace) -> list[Sample]:
    """Put links to the clips into WORK/data, with a manifest that states the three parts."""
    with (arguments.data / "manifest.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["file"].startswith(f"videos/{arguments.source}/")]
    rows.sort(key=lambda row: row["file"])
    order = numpy_generator(arguments.seed, "privacy-clips").permutation(len(rows))[: arguments.clips]
    rows = [rows[k] for k in sorted(order)]
    trained = load_weights(arguments.weights).header
    groups, files = set(trained.training_groups), set(trained.clip_sha256)
    groups |= {row["patient_or_group"] for row in rows if row["sha256"] in files}
    seen = [row for row in rows if row["patient_or_group"] in groups]
    others = [row for row in rows if row["patient_or_group"] not in groups]
    fractions = {part: share for part, share in PARTS.items() if part != "train" or not seen}
    shares = {part: share / sum(fractions.values()) for part, share in fractions.items()}
    parts = split_by_group([(None, row["patient_or_group"]) for row in others], shares, arguments.seed)
    divided = [(row, "train") for row in seen] + list(zip(others, parts, strict=True))
    return linked(arguments.output / "data", [of_row(arguments.data, row, part) for row, part in divided])


def of_row(data: Path, row: dict[str, str], part: str) -> tuple[str, Sample]:
    """Return a name for a link and what it leads to."""
    path = (data / row["file"]).resolve()
    name = row["file"].removeprefix("videos/").replace("/", "_")
    return name, Sample(path, "clip", None, row["patient_or_group"], part)


def linked(folder: Path, clips: list[tuple[str, Sample]]) -> list[Sample]:
    """Put links to clips into a folder, with a manifest; returns the clips there."""
    folder.mkdir(parents=True, exist_ok=True)
    samples = []
    for name, sample in clips:
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(sample.path.resolve())
        samples.append(replace(sample, path=folder / name))
    write_manifest(folder / "manifest.csv", samples)
    return samples


def write_windows(samples: list[Sample], folder: Path, seed: int, strength: str | None) -> Path:
    """Write one window a clip at a random start, as it is (without loss) or as a planted copy (H.264)."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    written = []
    for sample in samples:
        reader = open_clip(sample.path)
        stride = min(STRIDE, (reader.n_frames - 1) // (FRAMES - 1))
        if stride < 1:
            continue
        rng = numpy_generator(seed, "privacy-window", sample.path.name)
        start = int(rng.integers(reader.n_frames - (FRAMES - 1) * stride))
        frames = to_gray(reader.read([start + stride * k for k in range(FRAMES)]))
        if strength is not None:
            frames = planted(frames, STRENGTHS[strength], rng)
        path = folder / f"{sample.path.stem}.{'npz' if strength is None else 'mp4'}"
        write_clip(path, frames, reader.fps / stride)
        written.append(Sample(path, "clip", None, sample.group, None))
    write_manifest(folder / "manifest.csv", written)
    return folder


def rows_of(name: str, result: PrivacyResult) -> list[str]:
    lines = []
    for measure, count in result.counts.items():
        share, windows = count.share, windows_of(result, measure)
        lines.append(
            f"| {name} | {measure} | {count.copies} of {share.n} | {share.mean:.3f} "
            f"[{share.low:.3f}, {share.high:.3f}] | {share.groups} | {count.strangers:.3f} | {windows} | "
            f"{'' if count.by_still is None else count.by_still} |"
        )
    if result.seeds is not None:
        share = result.seeds.share
        lines.append(
            f"| {name} | first frame, near-copy | {result.seeds.copies} of {share.n} | {share.mean:.3f} "
            f"[{share.low:.3f}, {share.high:.3f}] | {share.groups} | | | |"
        )
    return lines


def windows_of(result: PrivacyResult, measure: str) -> str:
    """Return how many windows the clips have that were compared."""
    counts = [clip.matches[measure].windows for clip in result.clips if measure in clip.matches]
    return f"{min(counts)} to {max(counts)}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="WORK")
    parser.add_argument("--source", default="lung_blues", help="folder below videos/")
    parser.add_argument("--clips", type=int, default=60, help="clips that take part")
    parser.add_argument("--copies", type=int, default=30, help="planted copies of each strength")
    parser.add_argument("--draws", type=int, default=1, help="clips drawn for each still; 0: none")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--weights", type=Path, help="weights that give latents and clips [default: bundled]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    begun = time.perf_counter()
    samples = link(arguments)
    data, run, weights, device = (
        arguments.output / "data",
        arguments.output / "run",
        arguments.weights,
        arguments.device,
    )
    schedule = {"steps": arguments.steps, "warmup": min(100, arguments.steps), "seed": arguments.seed}
    config = PrivacyTraining.parse({"optimiser": schedule})
    try:
        fit_privacy([data], weights, run, config, resume=True, reporter=Lines(), device=device)
    except UsI2VError as error:
        print(f"{error} Other arguments need another WORK.", file=sys.stderr)
        return 2
    fitted = load_filter(run)
    print(f"fitted after {time.perf_counter() - begun:.0f} s; held-out AUC {fitted.header.held_auc}", flush=True)
    seen = [sample for sample in samples if sample.split == "train"]
    strangers = [sample for sample in samples if sample.split == "test"]
    order = numpy_generator(arguments.seed, "privacy-copies").permutation(len(seen))[: arguments.copies]
    chosen = [seen[k] for k in sorted(order)]
    print("| shown | measure | flagged | share [95 %] | patients | of strangers | windows | still is a near-copy |")
    print("|---|---|---|---|---|---|---|---|")

    def show(name: str, folder: Path, draws: int = 0) -> None:
        result = check_privacy(Queries([folder], samples=draws, seed=arguments.seed), run, weights, device=device)
        print("\n".join(rows_of(name, result)), flush=True)
        print(f"  {time.perf_counter() - begun:.0f} s", file=sys.stderr, flush=True)

    for strength in STRENGTHS:
        folder = write_windows(chosen, arguments.output / f"copies-{strength}", arguments.seed, strength)
        show(f"copies, {strength}", folder)
    folder = write_windows(strangers, arguments.output / "strangers", arguments.seed, None)
    show("strangers", folder)
    whole = arguments.output / "whole"
    linked(whole, [(sample.path.name, sample) for sample in strangers])
    show("whole", whole)
    if arguments.draws:
        show("generated", folder, arguments.draws)
        show("of training", write_windows(chosen, arguments.output / "seen", arguments.seed, None), arguments.draws)
    print(f"{time.perf_counter() - begun:.0f} s in all")
    return 0


if __name__ == "__main__":
    sys.exit(main())
