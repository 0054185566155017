"""Lists the clips that were made: `manifest.csv`, and what could not be read: `unreadable.txt`.

`manifest.csv` can be read as a data set again (columns file, label, group, split, mask, fps); the other
columns say where each clip comes from. It is made from the plan and from what lies in the folder, never
appended to, so it needs no bookkeeping while clips are made.

A shard writes `manifest-i-of-n.csv` for itself. The shard that finds every planned clip in place, or listed
as unreadable, writes `manifest.csv` as well; so the last one does, whatever the order.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from us_i2v.augmentation.outputs import write_text
from us_i2v.augmentation.planning import Job, Shard

COLUMNS = (
    "file",
    "label",
    "group",
    "split",
    "source",
    "source_sha256",
    "mask",
    "seed",
    "weights_sha256",
    "frames",
    "fps",
    "settings_sha256",
)


def write_manifests(
    out: Path,
    jobs: Sequence[Job],
    shard: Shard,
    unreadable: Mapping[str, str],
    common: Mapping[str, str],
    staging: Path,
) -> None:
    """Write the manifest and the list of unreadable stills of a finished run.

    Args:
        out: Output folder.
        jobs: All jobs, not only the shard's.
        shard: Which part has just been run.
        unreadable: Still's name -> why it cannot be read; of this part.
        common: Values of the columns that are the same for all clips (weights_sha256, frames, fps,
            settings_sha256).
        staging: Folder in which files are written before they are moved into place.
    """
    listing = out / f"unreadable{shard.suffix}.txt"
    if unreadable:
        lines = [f"{name}\t{why}\n" for name, why in sorted(unreadable.items())]
        write_text(listing, "".join(lines), staging)
    else:
        listing.unlink(missing_ok=True)
    write_text(out / f"manifest{shard.suffix}.csv", _csv(out, shard.select(jobs), common), staging)
    if shard.count > 1 and _complete(out, jobs, shard.count):
        write_text(out / "manifest.csv", _csv(out, jobs, common), staging)


def _complete(out: Path, jobs: Sequence[Job], shards: int) -> bool:
    skipped: set[str] = set()
    for index in range(1, shards + 1):
        listing = out / f"unreadable{Shard(index, shards).suffix}.txt"
        if listing.exists():
            skipped.update(line.split("\t", 1)[0] for line in listing.read_text(encoding="utf-8").splitlines())
    return all(job.source.name in skipped or (out / job.output).exists() for job in jobs)


def _csv(out: Path, jobs: Sequence[Job], common: Mapping[str, str]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for job in jobs:
        if not (out / job.output).exists():
            continue
        writer.writerow(
            {
                "file": str(job.output),
                "label": job.source.label or "",
                "group": job.source.group,
                "split": job.source.split or "",
                "source": job.source.name,
                "source_sha256": job.source.sha256,
                "mask": str(job.mask_output or ""),
                "seed": str(job.seed),
                **common,
            }
        )
    return text.getvalue()
