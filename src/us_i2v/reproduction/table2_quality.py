"""Mixes of the best synthetic clips: each is scored by a split's training videos, then the best share a class is kept.

Both kinds of clips are judged as classifiers see them: decoded to the same square and through the same codec. The
ranges come from training videos alone, at the synthetic clips' own time between frames; there is no critic. See
`quality.score`.
"""

from __future__ import annotations

import csv
import io
import math
from typing import TYPE_CHECKING

import numpy as np

from us_i2v.augmentation.selection import numbers_kept, ranked
from us_i2v.classifier import spread_windows
from us_i2v.data.atomic import write_bytes
from us_i2v.data.common_codec import store_alike
from us_i2v.data.datasets import find_samples
from us_i2v.data.manifest import MANIFEST, REQUIRED
from us_i2v.data.mixing import REAL, SYNTHETIC, read_synthetic
from us_i2v.data.tables import read_rows
from us_i2v.data.training_clips import ClipSampler
from us_i2v.errors import DataError
from us_i2v.evaluation.quality import LEAST, QualityFit, measured, reference_header
from us_i2v.models.classifiers import frame_size
from us_i2v.quality import QualityReference, failure, score

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from us_i2v.data.training_clips import StoredClip
    from us_i2v.training.classifier import ClassifierTraining
    from us_i2v.types import Frames

    Progress = Callable[[int, int, str], None]

WINDOWS = 100
"""Windows of the training videos that are measured, about: as many of each, at least one."""


def judge(made: Path, videos: Path, cache: Path, config: ClassifierTraining, progress: Progress) -> dict[str, float]:
    """Score synthetic clips by the training videos of a split.

    Args:
        made: Folder of synthetic clips with its manifest.
        videos: Data folder of the split.
        cache: Folder of decoded clips.
        config: How classifiers see clips: size, length, fit, codec.
        progress: Told about every clip.

    Returns:
        0..1 by the clip's name in the manifest.

    Raises:
        DataError: Fewer than `evaluation.quality.LEAST` windows of the training videos can be measured.
    """
    size, length = frame_size(config.model), config.model.n_frames
    clips = read_synthetic(made)
    train = [sample for sample in find_samples(videos) if sample.split == "train"]
    answers = store_alike([(SYNTHETIC, clip.sample) for clip in clips], cache, size, config.clips, config.crf)
    real = store_alike([(REAL, sample) for sample in train], cache, size, config.clips, config.crf)
    interval = float(np.median([clip.interval for clip in answers]))
    sampler = ClipSampler(real, config.clips, length=length, seed=0, augment=False)
    each = math.ceil(WINDOWS / len(sampler.clips))
    places = [
        (clip, start, stride)
        for clip in sampler.clips
        for start, stride in spread_windows(sampler, clip, interval, each)
    ]
    total = len(places) + len(answers)
    windows = ((clip.name, clip.group, _frames(clip, start, stride, length)) for clip, start, stride in places)
    # Some videos begin black.
    known = measured((window for window in windows if not failure(window[2], window[2][0])), total, progress)
    if len(known.values) < LEAST:
        raise DataError(
            f"{len(known.values)} windows of the training videos can be measured; quality needs {LEAST}.",
            "Give more videos, or leave out --keep-best.",
        )
    reference = QualityReference(reference_header(known, length, interval, QualityFit()), None, "")
    found = {}
    for done, (made_clip, answer) in enumerate(zip(clips, answers, strict=True), len(places) + 1):
        frames = _frames(answer, 0, 1, length)
        name = made_clip.sample.path.relative_to(made).as_posix()
        found[name] = score(frames, frames[0], reference).value
        progress(done, total, name)
    return found


def keep_best(folder: Path, quality: Mapping[str, float], share: float, name: str) -> Path:
    """Write a manifest of each class's best clips beside the folder's own.

    Clips that failed (score 0) are never kept. Of equal scores the smaller seed is better, as in `augment`.

    Args:
        folder: Folder of clips with its manifest.
        quality: Score by the clip's name in it.
        share: Share of a class's clips, 0..1; of what is left after rounding one at least.
        name: Of the manifest.

    Returns:
        Its path.

    Raises:
        DataError: None of a class is left.
        OutputError: It cannot be written.
    """
    rows = read_rows(folder / MANIFEST, "Manifest", REQUIRED)
    scores = [quality[row.text("file")] for row in rows]
    kept: set[int] = set()
    classes = ranked([row.text("label") for row in rows], scores, [int(row.text("seed")) for row in rows])
    for label, order in classes.items():
        best = [k for k in order[: numbers_kept(len(order), share)] if scores[k] > 0]
        if not best:
            raise DataError(f"All clips of class '{label}' in '{folder}' failed.", "Leave out --keep-best.")
        kept.update(best)
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(rows[0].values), lineterminator="\n")
    writer.writeheader()
    writer.writerows(row.values for index, row in enumerate(rows) if index in kept)
    path = folder / name
    write_bytes(path, out.getvalue().encode())
    return path


def _frames(clip: StoredClip, start: int, stride: int, length: int) -> Frames:
    stored = np.load(clip.frames, mmap_mode="r", allow_pickle=False)
    return np.ascontiguousarray(stored[start : start + stride * length : stride])
