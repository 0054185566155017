"""Table 2 on real lung clips: the data folder. The experiment itself is `us-i2v reproduce table2`.

    python benchmarks/table2.py prepare DATA WORK      # DATA -> WORK/lung_severity with links and a manifest
    us-i2v reproduce table2 --videos WORK/lung_severity --stills-from-videos --folds 4 -o WORK/table2

DATA holds `manifest.csv` (file, class_label, patient_or_group, ...) and `videos/lung_blues`. Classes: severity 0 and
1 are "mild", 2 and 3 "severe" (the positive class); labels are per video, groups are patients. Nothing that is
trained on lung_blues may be passed on (CC BY-NC-ND 4.0).
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

from train_bundled import read_rows, write_manifest

CLASSES = {"severity_0": "mild", "severity_1": "mild", "severity_2": "severe", "severity_3": "severe"}


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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["prepare"])
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    arguments = parser.parse_args()
    prepare(arguments.data, arguments.work)
    return 0


if __name__ == "__main__":
    sys.exit(main())
