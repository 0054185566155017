"""What a classifier says of videos, how right it is, and the report: table, JSON, plot.

Scores are computed on labelled real videos of the classifier's classes only; what was generated is classified, but
never tested on. A video on which the classifier, or the generator behind its synthetic clips, was trained is refused.
"""

from __future__ import annotations

import dataclasses
import io
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from us_i2v import __version__
from us_i2v.classifier import video_probabilities
from us_i2v.data.atomic import write_bytes
from us_i2v.data.common_codec import store_alike
from us_i2v.data.mixing import SHOWN, carries_record, content_sha256, find_seen
from us_i2v.data.training_clips import ClipSampler
from us_i2v.errors import DataError, InputError
from us_i2v.evaluation.plot import check_plot
from us_i2v.evaluation.report import FEW_GROUPS, finite, interval_text
from us_i2v.metrics.classification import (
    SCORES,
    Predictions,
    class_f1,
    confusion_matrix,
    reliability,
    scores,
)
from us_i2v.models.classifiers import CLASSIFIERS, frame_size

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from us_i2v.classifier import TrainedClassifier
    from us_i2v.data.manifest import Sample
    from us_i2v.metrics.classification import Bin, Scores

FORMAT_VERSION = 1
TITLES = {
    "macro_f1": "macro F1",
    "binary_f1": "F1 of {}",
    "weighted_f1": "weighted F1",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "auc": "AUC",
    "brier": "Brier score (0 is best)",
    "ece": "calibration error (0 is best)",
}


@dataclass(frozen=True)
class Video:
    """A classified video.

    Attributes:
        file: Its path as text.
        label: True class, if known.
        group: Its patient.
        generated: Whether a generator made it.
        windows: Windows over which probabilities were averaged, at most.
        probabilities: (K,), in the order of the classifier's classes.
        predicted: Name of the most probable class.
    """

    file: str
    label: str | None
    group: str
    generated: bool
    windows: int
    probabilities: tuple[float, ...]
    predicted: str


@dataclass(frozen=True)
class ClassScores:
    """Scores of the labelled real videos.

    Attributes:
        scores: Values and bootstrap samples.
        confusion: Counts (K, K), rows true.
        f1: F1 of each class; NaN for one that is nowhere.
        reliability: Bins of the largest probability.
    """

    scores: Scores
    confusion: tuple[tuple[int, ...], ...]
    f1: tuple[float, ...]
    reliability: tuple[Bin, ...]


@dataclass(frozen=True)
class Classification:
    """Everything that `us-i2v classify` finds.

    Attributes:
        settings: Inputs and options.
        classes: In the order of the probabilities.
        videos: Those that were classified.
        skipped: File to why it could not be.
        result: Scores; None without labelled real videos.
        notes: What the reader must know.
    """

    settings: dict[str, Any]
    classes: tuple[str, ...]
    videos: tuple[Video, ...]
    skipped: dict[str, str]
    result: ClassScores | None
    notes: tuple[str, ...]


def check_seen(trained: TrainedClassifier, samples: Sequence[Sample]) -> None:
    """Raise `DataError` naming groups and files that the classifier or its generators were trained on."""
    hashes = {content_sha256(sample.path) for sample in samples}
    groups = {sample.group for sample in samples}
    found = find_seen(trained.header, groups, hashes)
    found += [f"{name} (its generator)" for name in find_seen(trained.header.behind, groups, hashes)]
    if found:
        named = ", ".join(found[:SHOWN]) + (f" and {len(found) - SHOWN} more" if len(found) > SHOWN else "")
        raise DataError(
            f"'{trained.path}' was trained on {named} of the clips; a score on them means little.",
            "Give clips that were held out (--split test), or --allow-leak to go on all the same.",
        )


def classify(
    trained: TrainedClassifier,
    samples: Sequence[tuple[Sample, bool]],
    cache: Path,
    windows: int,
    progress: Callable[[int, int, str], None] = lambda done, total, name: None,
    *,
    strict: bool = False,
) -> tuple[list[Video], dict[str, str]]:
    """Classify videos as in training: fitted, through the codec, in windows of the training's spacing.

    Args:
        trained: The classifier, on its device.
        samples: Clips, each with whether its manifest says that it was generated; if not, the clip is asked.
        cache: Folder for decoded clips.
        windows: Windows a video at most.
        progress: Told about every clip.
        strict: Raise where a file cannot be read, instead of leaving it out.

    Returns:
        The videos, and for each file that cannot be read or is too short, why.

    Raises:
        InputError: A file cannot be read, if `strict`.
    """
    header = trained.header
    found: list[Video] = []
    skipped: dict[str, str] = {}
    for done, (sample, listed) in enumerate(samples):
        try:
            generated = listed or carries_record(sample.path)
            (clip,) = store_alike([("", sample)], cache, frame_size(header.model), header.clips, header.crf)
            sampler = ClipSampler([clip], header.clips, length=header.model.n_frames, seed=0, augment=False)
            p = video_probabilities(trained.network, sampler, clip, header.frame_interval_s, windows)
        except (InputError, DataError) as error:
            if strict and isinstance(error, InputError):
                raise
            skipped[str(sample.path)] = error.message
        else:
            predicted = header.classes[int(p.argmax())]
            video = Video(
                str(sample.path), sample.label, sample.group, generated, windows, tuple(p.tolist()), predicted
            )
            found.append(video)
        progress(done + 1, len(samples), sample.path.name)
    return found, skipped


def score(
    videos: Sequence[Video], classes: tuple[str, ...], *, seed: int = 0
) -> tuple[ClassScores | None, tuple[str, ...]]:
    """Return the scores of the labelled real videos, None if there are none, and what the reader must know."""
    real = [video for video in videos if not video.generated]
    known = [video for video in real if video.label in classes]
    notes = []
    if len(real) < len(videos):
        notes.append(f"{len(videos) - len(real)} generated videos are not scored")
    if known and len(known) < len(real):
        notes.append(f"{len(real) - len(known)} videos have no label or another one and are not scored")
    if not known:
        return None, tuple(notes)
    predictions = predictions_of(known, classes)
    confusion = confusion_matrix(predictions.truth, predictions.predicted, len(classes))
    result = ClassScores(
        scores(predictions, seed=seed),
        tuple(tuple(row) for row in confusion.tolist()),
        tuple(class_f1(confusion).tolist()),
        tuple(reliability(predictions)),
    )
    if result.scores.groups < FEW_GROUPS:
        notes.append(f"intervals over {result.scores.groups} groups (fewer than {FEW_GROUPS}) are too narrow")
    return result, tuple(notes)


def predictions_of(videos: Sequence[Video], classes: Sequence[str]) -> Predictions:
    """Return labelled videos as `Predictions`."""
    truth = [list(classes).index(str(video.label)) for video in videos]
    return Predictions.of(np.array([video.probabilities for video in videos]), truth, [video.group for video in videos])


def document(found: Classification) -> dict[str, Any]:
    """Return what the JSON file holds; unknown limits are null."""
    result = found.result
    values: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "package_version": __version__,
        "settings": found.settings,
        "classes": list(found.classes),
        "scores": None,
        "notes": list(found.notes),
        "skipped": found.skipped,
        "videos": [dataclasses.asdict(video) for video in found.videos],
    }
    if result is not None:
        values["scores"] = {
            name: dataclasses.asdict(result.scores.interval(name)) for name in SCORES if name in result.scores.values
        }
        values["f1"] = dict(zip(found.classes, result.f1, strict=True))
        values["confusion"] = result.confusion
        values["reliability"] = [dataclasses.asdict(row) for row in result.reliability]
    out: dict[str, Any] = finite(values)
    return out


def write_classification(path: Path, found: Classification) -> None:
    """Write the JSON file atomically; raises `OutputError`."""
    write_bytes(path, (json.dumps(document(found), indent=1, allow_nan=False) + "\n").encode())


def table(found: Classification) -> list[str]:
    """Return the printed lines: scores if there are any, else one line a video."""
    lines: list[str] = []
    result = found.result
    if result is None:
        width = max((len(video.file) for video in found.videos), default=0)
        for video in found.videos:
            lines.append(f"{video.file:{width}}  {video.predicted}  {max(video.probabilities):.3f}")
    else:
        name = CLASSIFIERS[found.settings["model"]].title
        lines.append(f"{name}: {result.scores.n} videos of {result.scores.groups} groups")
        width = max(len(_title(key, found.classes)) for key in SCORES)
        for key in (key for key in SCORES if key in result.scores.values):
            lines.append(f"  {_title(key, found.classes):{width}}  {interval_text(result.scores.interval(key))}")
        lines += _confusion(found.classes, result)
    lines += [f"skipped: {file}: {why}" for file, why in found.skipped.items()]
    lines += [f"note: {text}" for text in found.notes]
    if result is not None:
        lines.append("[...]: 95 % intervals over groups.")
    return lines


def _title(name: str, classes: Sequence[str]) -> str:
    return TITLES[name].format(classes[-1])


def _confusion(classes: Sequence[str], result: ClassScores) -> list[str]:
    corner = "true, predicted"
    width = max(len(corner), *(len(name) for name in classes))
    columns = [max(len(name), 5) for name in classes]
    head = "  ".join(f"{name:>{size}}" for name, size in zip(classes, columns, strict=True))
    lines = [f"  {corner:{width}}  {head}  {'F1':>5}"]
    for name, row, f1 in zip(classes, result.confusion, result.f1, strict=True):
        cells = "  ".join(f"{count:>{size}}" for count, size in zip(row, columns, strict=True))
        lines.append(f"  {name:{width}}  {cells}  {'-' if np.isnan(f1) else f'{f1:.3f}':>5}")
    return lines


def write_classification_plot(path: Path, found: Classification) -> None:
    """Draw confusion matrix and reliability as a PNG and write it atomically.

    Raises:
        ConfigError: matplotlib is not installed.
        DataError: There are no scores.
        OutputError: The file cannot be written.
    """
    check_plot()
    if found.result is None:
        raise DataError("There is no confusion matrix without labelled real clips.", "Leave --plot out.")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    counts = np.array(found.result.confusion)
    left.imshow(counts / np.maximum(counts.sum(1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        share = count / max(counts[row].sum(), 1)
        left.text(column, row, str(count), ha="center", va="center", color="white" if share > 0.5 else "black")
    left.set_xticks(range(len(found.classes)), found.classes)
    left.set_yticks(range(len(found.classes)), found.classes)
    left.set_xlabel("predicted")
    left.set_ylabel("true")
    left.set_title(f"{found.result.scores.n} videos of {found.result.scores.groups} groups", loc="left")
    right.plot([0, 1], [0, 1], color="#7f8c8d", lw=1)
    rows = found.result.reliability
    right.plot([row.confidence for row in rows], [row.accuracy for row in rows], "o-", color="#c0392b")
    for row in rows:
        right.annotate(f"n={row.n}", (row.confidence, row.accuracy), (0, 6), textcoords="offset points", fontsize=8)
    right.set_xlim(0, 1.02)
    right.set_ylim(-0.02, 1.08)
    right.set_xlabel("largest probability")
    right.set_ylabel("share right")
    right.set_title(f"calibration error {found.result.scores.values['ece']:.3f}", loc="left")
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110, metadata={"Software": None})
    write_bytes(path, content.getvalue())
