"""Which clips of an augmented data set stay: each is scored when it is made, and one decision is taken at the end.

    OUT/.quality/<clip>.json    a candidate's score, written before the clip is moved into its place
    OUT/quality.csv             the decision: every candidate, its score, whether it was kept, and why not

quality.csv is written once, whole, when all candidates lie there; then the rejected clips are removed, and then the
manifest is written. A run that was killed in between finds quality.csv and goes on removing; what it lists as rejected
is not made again. Of shards that finish together each may take the decision; that of the first is published (`once`),
and the others go by it. The decision depends on scores and seeds alone, so on no order in which clips were made. What
it does not list was not there in time: such a clip is not made, and one that lies there nevertheless is refused.
"""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from us_i2v.augmentation.once import write_once
from us_i2v.augmentation.outputs import make_folder, mask_path, write_text
from us_i2v.config import Config
from us_i2v.errors import OutputError
from us_i2v.provenance import sidecar_path
from us_i2v.quality import CRITIC, MEASURED, QualityReference, Score, load_reference

if TYPE_CHECKING:
    from us_i2v.augmentation.planning import Job

QUALITY_NAME = "quality.csv"
SCORES = ".quality"
BUILT_IN = "built-in"
PARTS = ("frame0", *MEASURED, CRITIC)
COLUMNS = ("file", "label", "quality", "kept", "reason", *PARTS)
LATE = f"can be read now, but {QUALITY_NAME} was decided without it; make it into another folder"
"""Why no clips of a still are made."""


class QualitySelection(Config):
    """Which candidates stay."""

    keep_best: float | None = Field(None, gt=0, le=1, description="Share of each class's candidates that is kept.")
    reject_below: float | None = Field(None, ge=0, le=1, description="Candidates of a lower score are rejected.")
    reference: str = Field(BUILT_IN, description="What they are judged by.")
    reference_sha256: str = Field("", description="Hash of its file.")


@dataclass(frozen=True)
class Candidate:
    """A clip that was made and scored."""

    job: Job
    score: Score


@dataclass(frozen=True)
class Row:
    """One line of quality.csv, as far as it is needed again."""

    quality: str
    kept: bool


def numbers_kept(n: int, share: float) -> int:
    """Return how many of n candidates are the best share: rounded, halves up, and at least 1."""
    return max(1, math.floor(share * n + 0.5))


def ranked(labels: Sequence[str], scores: Sequence[float], seeds: Sequence[int]) -> dict[str, list[int]]:
    """Return the indices of each class's clips from the best to the worst.

    Of equal scores the smaller seed is better: seeds are derived by hashing, so no still and no number of a clip is
    favoured.
    """
    classes: dict[str, list[int]] = defaultdict(list)
    for index in sorted(range(len(labels)), key=lambda k: (-scores[k], seeds[k], k)):
        classes[labels[index]].append(index)
    return classes


def decide(candidates: Sequence[Candidate], selection: QualitySelection) -> list[str]:
    """Return why each candidate is rejected, "" for those that are kept; a score of 0 is always rejected."""
    classes = ranked(
        [candidate.job.source.label or "" for candidate in candidates],
        [candidate.score.value for candidate in candidates],
        [candidate.job.seed for candidate in candidates],
    )
    reasons = [""] * len(candidates)
    for label, order in classes.items():
        kept = len(order) if selection.keep_best is None else numbers_kept(len(order), selection.keep_best)
        for rank, index in enumerate(order, 1):
            score = candidates[index].score
            if score.value == 0:
                reasons[index] = score.worst
            elif selection.reject_below is not None and score.value < selection.reject_below:
                reasons[index] = f"below {selection.reject_below:g}: {score.worst}"
            elif rank > kept:
                reasons[index] = f"rank {rank} of {len(order)} in class '{label}', {kept} kept: {score.worst}"
    return reasons


def write_score(out: Path, job: Job, score: Score, staging: Path) -> None:
    """Keep a candidate's score until the decision; raises `OutputError`."""
    path = _score_path(out, job)
    make_folder(path.parent)
    write_text(path, json.dumps({"value": score.value, "parts": score.parts, "worst": score.worst}), staging)


def is_rejected(out: Path, job: Job) -> bool:
    """Tell whether the decision has been taken and was against this clip."""
    row = (rows(out) or {}).get(str(job.output))
    return row is not None and not row.kept


def is_late(out: Path, job: Job) -> bool:
    """Tell whether the decision has been taken without this clip."""
    decided = rows(out)
    return decided is not None and str(job.output) not in decided


def rows(out: Path) -> dict[str, Row] | None:
    """Return the decision by clip; None if it has not been taken. Raises `OutputError` where it is damaged."""
    path = out / QUALITY_NAME
    try:
        changed = path.stat().st_mtime_ns
    except OSError:
        return None
    return _read(path, changed)


def settle(out: Path, jobs: Sequence[Job], selection: QualitySelection, staging: Path) -> dict[str, Row] | None:
    """Take the decision if it has not been taken, and remove the clips that it is against.

    Args:
        out: Output folder, in which every clip lies that can be made.
        jobs: All jobs.
        selection: What is asked for.
        staging: Folder in which files are written before they are moved into place; of this process alone.

    Returns:
        See `rows`; None also where there is no clip to decide on.

    Raises:
        OutputError: A score is missing or damaged, a clip lies there that was not decided on, or something cannot be
            written.
    """
    if rows(out) is None:
        text = _decision(out, jobs, selection)
        if text is not None:
            write_once(out / QUALITY_NAME, text, staging)
    decided = rows(out)
    if decided is None:
        return None
    for job in jobs:
        row = decided.get(str(job.output))
        if row is None and (out / job.output).exists():
            raise OutputError(
                f"'{out / job.output}' does not stand in {QUALITY_NAME}: it was made after the decision.",
                "Remove it, or make it into another folder.",
            )
        if row is not None and not row.kept:
            _remove(out / job.output)
    return decided


def _decision(out: Path, jobs: Sequence[Job], selection: QualitySelection) -> str | None:
    """Return the text of quality.csv; None if there is no clip, or if another shard has published it meanwhile."""
    try:
        candidates = [Candidate(job, _score(out, job)) for job in jobs if (out / job.output).exists()]
    except OutputError:
        if rows(out) is None:
            raise
        return None  # Another shard has decided, and cleared the scores.
    return _csv(candidates, decide(candidates, selection)) if candidates else None


def clear_scores(out: Path) -> None:
    """Remove the candidates' scores, which quality.csv holds too."""
    shutil.rmtree(out / SCORES, ignore_errors=True)


def _score_path(out: Path, job: Job) -> Path:
    return out / SCORES / f"{job.output}.json"


def _score(out: Path, job: Job) -> Score:
    path = _score_path(out, job)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return Score(float(values["value"]), dict(values["parts"]), str(values["worst"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(
            f"The score of '{job.output}' cannot be read from '{path}'.",
            "Run again; if it stays, delete this clip first.",
        ) from error


def _csv(candidates: Sequence[Candidate], reasons: Sequence[str]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for candidate, reason in zip(candidates, reasons, strict=True):
        job, score = candidate.job, candidate.score
        fixed = {
            "file": str(job.output),
            "label": job.source.label or "",
            "quality": f"{score.value:.6f}",
            "kept": "no" if reason else "yes",
            "reason": reason,
        }
        writer.writerow(fixed | {name: repr(score.parts[name]) for name in PARTS if name in score.parts})
    return text.getvalue()


_ANSWERS = {"yes": True, "no": False}


@lru_cache(maxsize=4)
def _read(path: Path, changed: int) -> dict[str, Row]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return {row["file"]: Row(row["quality"], _ANSWERS[row["kept"]]) for row in csv.DictReader(file)}
    except (OSError, KeyError, UnicodeDecodeError, csv.Error) as error:
        raise OutputError(f"'{path}' is damaged ({type(error).__name__}).", "Restore it, or start anew.") from error


def _remove(clip: Path) -> None:
    """Remove a clip, its record and its mask with the mask's record: the clip first, as it says that all is there."""
    mask = mask_path(clip)
    for path in (clip, sidecar_path(clip), mask):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    with suppress(OSError):
        clip.parent.rmdir()  # Where it was the last one.


def chosen_by(
    keep_best: float | None, reject_below: float | None, reference: Path | None
) -> tuple[QualitySelection | None, QualityReference | None]:
    """Return what options ask for, and the reference that it refers to; None and None if they ask for nothing.

    Raises:
        ConfigError: A number is out of range.
        WeightsError: The reference cannot be read.
    """
    if keep_best is None and reject_below is None and reference is None:
        return None, None
    judge = load_reference(reference)
    values = {"keep_best": keep_best, "reject_below": reject_below, "reference_sha256": judge.sha256}
    name = BUILT_IN if judge.built_in else judge.header.name or "fitted"
    return QualitySelection.parse({**values, "reference": name}, "options"), judge


def summary(out: Path, judge: QualityReference) -> str:
    """Return in one line what was decided, and by what."""
    header = judge.header
    name = f"built-in ranges ({header.name})" if judge.built_in else header.name or "fitted ranges"
    by = f"{name}, {header.windows} real windows of {header.groups} groups"
    by += ", no critic" if judge.critic is None else ", and a critic"
    decided = rows(out)
    if decided is None and (out / "manifest.csv").exists() and not (out / SCORES).exists():
        return "quality: no clip was made, so none was judged"
    if decided is None:
        return f"quality: not decided yet, other shards have clips to make; judged by {by}"
    kept = sum(row.kept for row in decided.values())
    return f"quality: {kept} of {len(decided)} clips kept; judged by {by}"
