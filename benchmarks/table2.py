"""Table 2 on real lung clips: the data folder. The experiment itself is `us-i2v reproduce table2`.

    python benchmarks/table2.py prepare DATA WORK      # DATA -> WORK/lung_severity with links and a manifest
    us-i2v reproduce table2 --videos WORK/lung_severity --stills-from-videos --folds 4 -o WORK/table2
    python benchmarks/table2.py learnable WORK X3D     # can the classes be told at all? AUC by training patients

DATA holds `manifest.csv` (file, class_label, patient_or_group, ...) and `videos/lung_blues`. Classes: severity 0 and
1 are "mild", 2 and 3 "severe" (the positive class); labels are per video, groups are patients. Nothing that is
trained on lung_blues may be passed on (CC BY-NC-ND 4.0).

`learnable` asks a network that has seen many other videos: ridge logistic regression (`metrics.critic.fit_critic`) on
frozen X3D-XS features (Kinetics-400; X3D is the weights file), of windows as the classifiers of `--preset tiny` see
them and of 16 frames spread over the whole video at its own size. Patients to train on are drawn 40 times a number; the
others are tested.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

import numpy as np
from scipy.special import expit
from train_bundled import read_rows, write_manifest

from us_i2v.classifier import spread_windows
from us_i2v.data.clips import open_clip
from us_i2v.data.common_codec import store_alike
from us_i2v.data.datasets import find_samples
from us_i2v.data.mixing import REAL
from us_i2v.data.training_clips import ClipSampler
from us_i2v.metrics.classification import Predictions, scores
from us_i2v.metrics.critic import fit_critic
from us_i2v.metrics.x3d import FEATURES, X3DXS, x3d_features
from us_i2v.models.classifiers import NAMES, frame_size
from us_i2v.reproduction.table2_settings import Table2Settings, classifier_training

CLASSES = {"severity_0": "mild", "severity_1": "mild", "severity_2": "severe", "severity_3": "severe"}
WINDOWS = 5
"""Of a video."""
PATIENTS = (8, 13, 18, 26, 35, 44)
DRAWS = 40


def prepare(data: Path, work: Path) -> None:
    folder, out = work / "lung_severity", []
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    for row in read_rows(data):
        if not row["file"].startswith("videos/lung_blues/"):
            continue
        label = CLASSES.get(row["class_label"])
        if label is None:
            sys.exit(f"error: '{row['file']}' has class '{row['class_label']}'; {', '.join(CLASSES)} are known.")
        source, name = data / row["file"], f"clips/{Path(row['file']).name}"
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(source.resolve())
        out.append({"file": name, "label": label, "group": row["patient_or_group"], "split": "", "fps": ""})
    if not out:
        sys.exit(f"error: '{data}' lists no clips of lung_blues.")
    write_manifest(folder, out)
    clips = Counter(row["label"] for row in out)
    patients = {label: len({row["group"] for row in out if row["label"] == label}) for label in clips}
    print(f"{folder}: {dict(clips)} clips, of patients with any: {patients}, {len({r['group'] for r in out})} in all")


def learnable(work: Path, weights: Path) -> None:
    samples = find_samples(work / "lung_severity")
    network = X3DXS.load(weights)
    config = classifier_training(Table2Settings(preset="tiny"), NAMES[0], "real", "", 0)
    stored = store_alike(
        [(REAL, s) for s in samples], work / "cache", frame_size(config.model), config.clips, config.crf
    )
    sampler = ClipSampler(stored, config.clips, length=config.model.n_frames, seed=0, augment=False)
    interval = sampler.typical_interval()
    seen, whole = [], []
    for clip, sample in zip(stored, samples, strict=True):
        frames = np.load(clip.frames, allow_pickle=False)
        places = spread_windows(sampler, clip, interval, WINDOWS) if sampler.strides(clip) else []
        windows = [frames[start::stride][: config.model.n_frames] for start, stride in places]
        seen.append(x3d_features(network, windows) if windows else np.zeros((0, FEATURES)))
        reader = open_clip(sample.path)
        # The first frames of some videos are black.
        spread = np.linspace(2, reader.n_frames - 1, config.model.n_frames).round().astype(int)
        whole.append(x3d_features(network, [reader.read(spread.tolist())]))
    truth = np.array([sample.label == "severe" for sample in samples])
    patients = np.array([sample.group for sample in samples])
    short = sum(len(rows) == 0 for rows in seen)
    print(f"{len(samples)} videos of {len(set(patients))} patients, {short} too short for windows\n")
    print("| training patients | windows of 16 frames, 64 px: AUC | whole videos: AUC |\n|---|---|---|")
    for count in PATIENTS:
        cells = [_held_out_auc(features, truth, patients, count) for features in (seen, whole)]
        print(f"| {count} | {' | '.join(f'{np.mean(c):.3f} +- {np.std(c, ddof=1):.3f}' for c in cells)} |", flush=True)


def _held_out_auc(features: list[np.ndarray], truth: np.ndarray, patients: np.ndarray, count: int) -> list[float]:
    """Return the AUC of each draw of `count` training patients; videos without features are left out."""
    rng, groups, found = np.random.default_rng(0), sorted(set(patients)), []
    there = np.array([len(rows) > 0 for rows in features])
    while len(found) < DRAWS:
        inside = np.isin(patients, rng.permutation(groups)[:count])
        train, test = np.flatnonzero(inside & there), np.flatnonzero(~inside & there)
        if len(set(truth[train])) < 2 or len(set(truth[test])) < 2:
            continue
        positive = np.repeat(truth[train], [len(features[k]) for k in train])
        fitted = fit_critic(np.concatenate([features[k] for k in train]), positive)
        p = np.array([expit(fitted.scores(features[k])).mean() for k in test])
        predictions = Predictions.of(np.stack([1 - p, p], 1), truth[test].astype(int), patients[test].tolist())
        found.append(scores(predictions, repeats=1).values["auc"])
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["prepare", "learnable"])
    parser.add_argument("first", type=Path, help="DATA; for `learnable` WORK")
    parser.add_argument("second", type=Path, help="WORK; for `learnable` X3D")
    arguments = parser.parse_args()
    {"prepare": prepare, "learnable": learnable}[arguments.command](arguments.first, arguments.second)
    return 0


if __name__ == "__main__":
    sys.exit(main())
