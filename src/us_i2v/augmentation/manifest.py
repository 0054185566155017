"""Lists the clips that were made: `manifest.csv`, and what could not be read: `unreadable.txt`.

`README.md` is the data set's card, see `card`. `manifest.csv` can be read as a data set again (columns file,
label, group, split, mask, fps); the other columns say where each clip comes from. Both are made from the plan and
from what lies in the folder, never appended to, so they need no bookkeeping while clips are made.

Where clips are chosen by quality (`selection`), the manifests list those that stay, with their score in the column
`quality`, once the decision is taken.

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
from us_i2v.augmentation.selection import Row, is_rejected, settle
from us_i2v.augmentation.selection import rows as decided_rows
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
    skipped, quality = set(unreadable), settings.quality
    decided = None if quality is None else decided_rows(out)
    if shard.count > 1:
        _write_part(out, jobs, shard, common, decided, staging)
        skipped = _skipped(out, shard.count)
        missing = [job for job in jobs if job.source.name not in skipped and not (out / job.output).exists()]
        # Read after looking for clips: another shard may have decided meanwhile, and remove them.
        decided = None if quality is None else decided_rows(out)
        if any(decided is None or not is_rejected(out, job) for job in missing):
            return
    if quality is not None:
        decided = settle(out, jobs, quality, staging)
        for index in range(1, shard.count + 1) if shard.count > 1 else ():
            _write_part(out, jobs, Shard(index, shard.count), common, decided, staging)
    rows = _rows(out, jobs, common, decided)
    # The card goes first: where the manifest lies, the card does too.
    rejected = None if quality is None else sum(not row.kept for row in (decided or {}).values())
    text = card(rows, settings, len(skipped), measured(out / RESULTS_NAME), rejected)
    write_text(out / CARD_NAME, text, staging)
    write_text(out / "manifest.csv", _csv(rows), staging)


def _write_part(
    out: Path,
    jobs: Sequence[Job],
    shard: Shard,
    common: Mapping[str, str],
    decided: Mapping[str, Row] | None,
    staging: Path,
) -> None:
    rows = _rows(out, shard.select(jobs), common, decided)
    write_text(out / f"manifest{shard.suffix}.csv", _csv(rows), staging)


def _skipped(out: Path, shards: int) -> set[str]:
    skipped: set[str] = set()
    for index in range(1, shards + 1):
        listing = out / f"unreadable{Shard(index, shards).suffix}.txt"
        if listing.exists():
            skipped.update(line.split("\t", 1)[0] for line in listing.read_text(encoding="utf-8").splitlines())
    return skipped


def _rows(
    out: Path, jobs: Sequence[Job], common: Mapping[str, str], decided: Mapping[str, Row] | None
) -> list[dict[str, str]]:
    """Return a row for every clip that is there and, where a decision was taken, stays."""
    rows = []
    for job in jobs:
        row = (decided or {}).get(str(job.output))
        if not (out / job.output).exists() or (row is not None and not row.kept):
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
                **({} if row is None else {"quality": row.quality}),
            }
        )
    return rows


def _csv(rows: Sequence[Mapping[str, str]]) -> str:
    text = io.StringIO()
    columns = (*COLUMNS, "quality") if any("quality" in row for row in rows) else COLUMNS
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
