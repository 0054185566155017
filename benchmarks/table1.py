"""Table 1 on real lung and muscle clips: the data split. How each row was trained stands in docs/results.md.

    python benchmarks/table1.py prepare DATA WORK     # DATA -> WORK/{lung_blues,lung_pocus,calf_muscle} with manifests

DATA holds `manifest.csv` (file, patient_or_group, ...) and `videos/...`. Groups are never divided: 25 of the 50
lung_blues patients are for testing, 4 for validation, 21 for training; of lung_pocus, three groups are for testing.
calf_muscle shows one person, so it is split by recording, which is no test of new people.
Nothing that is trained on lung_blues may be passed on (CC BY-NC-ND 4.0).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from train_bundled import HELD_CALF, HELD_POCUS, read_rows, write_manifest

from us_i2v.seeding import derive_seed

SEED = 31
TEST_PATIENTS, VALIDATION_PATIENTS = 25, 4
SOURCES = ("lung_blues", "lung_pocus", "calf_muscle")


def splits_of(source: str, groups: list[str]) -> dict[str, str]:
    """Split by group: by a seeded order of the patients, or by the groups that are held out by name."""
    if source != "lung_blues":
        return {group: "test" if group in HELD_POCUS else "train" for group in groups}
    order = sorted(set(groups), key=lambda group: derive_seed(SEED, "table1", group))
    last = TEST_PATIENTS + VALIDATION_PATIENTS
    return {g: "test" if k < TEST_PATIENTS else "val" if k < last else "train" for k, g in enumerate(order)}


def prepare(data: Path, work: Path) -> None:
    rows = read_rows(data)
    for source in SOURCES:
        chosen = [row for row in rows if row["file"].startswith(f"videos/{source}/")]
        split_of = splits_of(source, [row["patient_or_group"] for row in chosen])
        out = []
        for row in chosen:
            file, group = Path(row["file"]), row["patient_or_group"]
            target = work / source / "clips" / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                target.symlink_to((data / file).resolve())
            split = split_of[group]
            if source == "calf_muscle":
                group = f"{group}/{file.stem}"
                split = "test" if any(mark in file.stem for mark in HELD_CALF) else "train"
            out.append({"file": f"clips/{file.name}", "label": "", "group": group, "split": split, "fps": ""})
        write_manifest(work / source, out)
        counts = {
            s: (sum(r["split"] == s for r in out), len({r["group"] for r in out if r["split"] == s}))
            for s in ("train", "val", "test")
        }
        print(source, "clips and groups:", counts)


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
