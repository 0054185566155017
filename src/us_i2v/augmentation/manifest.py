"""Lists the clips that were made: `manifest.csv`, and what could not be read: `unreadable.txt`.

`README.md` is the data set's card, see `card`. `manifest.csv` can be read as a data set again (columns file,
label, group, split, mask, fps); the other columns say where each clip comes from. Both are made from the plan and
from what lies in the folder, never appended to, so they need no bookkeeping while clips are made.

A shard writes `manifest-i-of-n.csv` for itself. The shard that finds every planned clip in place, or listed
as unreadable, writes `manifest.csv` and the card as well; so the last one does, whatever the order.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from us_i2v.augmentation.card import CARD_NAME, RESULTS_NAME, card, measured
from us_i2v.augmentation.outputs import write_text
from us_i2v.augmentation.planning import Job, Shard
from us_i2v.augmentation.settings import AugmentSettings

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
    settings: AugmentSettings,
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
        settings: What the folder is pinned to.
    """
    listing = out / f"unreadable{shard.suffix}.txt"
    if unreadable:
        lines = [f"{name}\t{why}\n" for name, why in sorted(unreadable.items())]
        write_text(listing, "".join(lines), staging)
    else:
        listing.unlink(missing_ok=True)
    rows = _rows(out, shard.select(jobs), common)
    skipped = set(unreadable)
    if shard.count > 1:
        write_text(out / f"manifest{shard.suffix}.csv", _csv(rows), staging)
        skipped = _skipped(out, shard.count)
        if not all(job.source.name in skipped or (out / job.output).exists() for job in jobs):
            return
        rows = _rows(out, jobs, common)
    # The card goes first: where the manifest lies, the card does too.
    write_text(out / CARD_NAME, card(rows, settings, len(skipped), measured(out / RESULTS_NAME)), staging)
    write_text(out / "manifest.csv", _csv(rows), staging)


def _skipped(out: Path, shards: int) -> set[str]:
    skipped: set[str] = set()
    for index in range(1, shards + 1):
        listing = out / f"unreadable{Shard(index, shards).suffix}.txt"
        if listing.exists():
            skipped.update(line.split("\t", 1)[0] for line in listing.read_text(encoding="utf-8").splitlines())
    return skipped


def _rows(out: Path, jobs: Sequence[Job], common: Mapping[str, str]) -> list[dict[str, str]]:
    """Return a row for every clip that is there."""
    rows = []
    for job in jobs:
        if not (out / job.output).exists():
            continue
        rows.append(
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
    return rows


def _csv(rows: Sequence[Mapping[str, str]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
