"""Which clips a privacy filter may call strangers: none that the generator has seen.

A filter compares with its training side and takes its thresholds from the held-out side. If clips that the generator
was trained on are held out, thresholds rise to what a copy reaches; if they are on neither side, copies of them are not
found. A generator's weights name their training groups and the hashes of their training files, so both can be told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from us_i2v.data.datasets import find_samples
from us_i2v.data.mixing import SHOWN, content_sha256, find_seen
from us_i2v.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from us_i2v.data.training_clips import StoredClip
    from us_i2v.training.report import Reporter
    from us_i2v.weights import Header

_REMEDY = (
    "Fit with the split and the --seed that the generator was trained with, or put these clips into split 'train' of a "
    "manifest.csv (and give other group names to other patients)."
)


def check_sides(
    header: Header,
    data: Sequence[Path],
    train: Sequence[StoredClip],
    held: Sequence[StoredClip],
    reporter: Reporter,
) -> None:
    """Compare a filter's two sides with each other and with what a generator was trained on.

    Args:
        header: Of the generator's weights.
        data: Where the clips come from; their test clips are looked at too.
        train: Clips that the filter compares with.
        held: Clips that set its thresholds.
        reporter: Told how many of the generator's training files are on the training side.

    Raises:
        DataError: A file is on both sides, or the generator has seen a held-out group or clip, or one on neither.
    """
    ours = {clip.sha256 for clip in train}
    both = [clip.name for clip in held if clip.sha256 in ours]
    if both:
        raise DataError(
            f"{len(both)} held-out files are among the training files too: {_few(both)}.",
            "Give files with the same content the same group and split (`us-i2v inspect` finds them).",
        )
    seen = find_seen(header, {clip.group for clip in held}, {clip.sha256 for clip in held})
    if seen:
        raise DataError(f"The generator was trained on what the filter would hold out: {_few(seen)}.", _REMEDY)
    known = set(header.clip_sha256)
    if not known:
        return
    clips = [sample for folder in data for sample in find_samples(folder) if sample.kind == "clip"]
    apart = [
        sample.path.name
        for sample in clips
        if sample.split == "test" and (digest := content_sha256(sample.path)) in known and digest not in ours
    ]
    if apart:
        raise DataError(f"The generator was trained on clips of split 'test': {_few(apart)}.", _REMEDY)
    reporter.message(
        f"{len(known & ours)} of the {len(known)} files that the generator was trained on are compared with"
    )


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
