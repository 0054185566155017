"""The data of Table 2: labelled videos divided by patient in every ratio, and the stills that clips are made of.

    RUN/data/splits/SPLIT/manifest.csv    links to videos, each "train" or "test"; videos of neither are left out
    RUN/data/stills/manifest.csv          links to stills, or frames of those videos that play the image set

Groups (patients) are never divided: not between training and test, not between stills and videos. What the data say
about splits by themselves is not used.

One split a ratio    training gets its share of the groups, the rest is tested.
K folds              the groups are divided into K parts; fold k tests part k and trains on groups of the others, as
                     many as the ratio's share of all videos. Every patient is tested once, and all ratios are
                     tested on the same patients.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from us_i2v.data.clips import open_clip
from us_i2v.data.datasets import find_samples
from us_i2v.data.manifest import MANIFEST, write_manifest
from us_i2v.data.mixing import carries_record, content_sha256, is_generated
from us_i2v.data.splits import split_by_group
from us_i2v.data.writers import write_still
from us_i2v.errors import ConfigError, DataError
from us_i2v.reproduction.folders import linked
from us_i2v.reproduction.store import row_key
from us_i2v.reproduction.table2_cells import place_name
from us_i2v.reproduction.table2_settings import training_share

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from us_i2v.data.manifest import Sample
    from us_i2v.reproduction.table2_settings import Table2Settings

LEFT_OUT = "left out"


@dataclass(frozen=True)
class Data:
    """What the experiment is made on.

    Attributes:
        classes: Their names; the last one is positive.
        videos: Labelled videos of these classes that are trained or tested on.
        stills: Labelled stills of these classes; or the videos that give one each.
        identity: Hash of names, labels, groups and sizes.
        notes: What was left out.
    """

    classes: tuple[str, ...]
    videos: tuple[Sample, ...]
    stills: tuple[Sample, ...]
    identity: str
    notes: tuple[str, ...]


def read_data(videos: Sequence[Path], images: Sequence[Path], settings: Table2Settings) -> Data:
    """Find videos and stills and check that they suffice; nothing is written, no picture decoded.

    Raises:
        DataError: A folder does not exist, holds generated clips, or too little of a class.
        InputError: A video cannot be read.
        ConfigError: Folders and settings do not fit.
    """
    if settings.stills_from_videos == bool(images):
        have = f"{len(images)} image folders" if images else "No image folder"
        raise ConfigError(
            f"{have} and --stills-from-videos {'on' if settings.stills_from_videos else 'off'} do not fit.",
            "Give --images DIR, or --stills-from-videos without it.",
        )
    found = _samples(videos, "clip")
    classes = settings.classes or tuple(sorted({s.label for s in found if s.label}))
    if len(classes) < 2:
        raise DataError(
            f"The videos are of {len(classes)} class ({', '.join(classes) or 'none'}); two are needed.",
            "Give class folders or a manifest.csv with labels.",
        )
    labelled = [sample for sample in found if sample.label in classes]
    notes = _difference(len(found), len(labelled), f"videos without a label or of others than {', '.join(classes)}")
    if settings.stills_from_videos:
        halves = split_by_group(_items(labelled), {"videos": 0.5, "stills": 0.5}, settings.seed)
        stills = [sample for sample, half in zip(labelled, halves, strict=True) if half == "stills"]
        labelled = [sample for sample, half in zip(labelled, halves, strict=True) if half == "videos"]
    else:
        every = _samples(images, "still")
        known = [sample for sample in every if sample.label in classes]
        notes += _difference(len(every), len(known), f"stills without a label or of others than {', '.join(classes)}")
        groups = {sample.group for sample in labelled}
        stills = [sample for sample in known if sample.group not in groups]
        notes += _difference(len(known), len(stills), "stills of a group that has videos")
    for kind, samples in (("video", labelled), ("still", stills)):
        counts = Counter(sample.label for sample in samples)
        missing = [name for name in classes if not counts[name]]
        if missing and (kind == "video" or settings.diets != ("real",)):
            raise DataError(f"No {kind} is of class '{missing[0]}'.", "Give some, or choose other classes.")
    identity = row_key([[_facts(sample) for sample in samples] for samples in (labelled, stills)])
    return Data(classes, tuple(labelled), tuple(stills), identity, tuple(notes))


def divide(data: Data, settings: Table2Settings) -> dict[tuple[str, int | None], list[str]]:
    """Return, for every split and fold, each video's part: "train", "test" or `LEFT_OUT`.

    Raises:
        DataError: Too few groups, or a class that is missing on a side; or too few stills for a mix.
        ConfigError: A ratio trains on more than folds leave.
    """
    items = _items(data.videos)
    found: dict[tuple[str, int | None], list[str]] = {}
    folds = settings.folds
    tested = split_by_group(items, {str(k): 1 / folds for k in range(folds)}, settings.seed) if folds > 1 else []
    for split in settings.splits:
        share = training_share(split)
        if folds == 1:
            parts = split_by_group(items, {"train": share, "test": 1 - share}, settings.seed)
            found[split, None] = parts
            continue
        used = share * folds / (folds - 1)
        if used > 1 + 1e-9:
            raise ConfigError(
                f"{split} trains on {share:.0%} of the videos; {folds} folds leave {1 - 1 / folds:.0%}.",
                "Use more --folds, or other --splits.",
            )
        for fold in range(folds):
            found[split, fold] = _fold(items, tested, fold, min(used, 1.0), settings.seed)
    for (split, place), parts in found.items():
        _check(data, split, place, parts, settings)
    return found


def write_splits(data: Data, parts: dict[tuple[str, int | None], list[str]], out: Path) -> None:
    """Write a folder a split, unless it is there; raises `OutputError`."""
    for (split, fold), own in parts.items():
        folder = split_folder(out, split, fold)
        if not (folder / MANIFEST).is_file():
            kept = [(sample, part) for sample, part in zip(data.videos, own, strict=True) if part != LEFT_OUT]
            linked([sample for sample, _ in kept], [part for _, part in kept], folder)


def write_stills(
    data: Data, out: Path, progress: Callable[[int, int, str], None] = lambda done, total, name: None
) -> None:
    """Write the folder of stills (of videos the middle frame), unless it is there; raises `UsI2VError`."""
    folder = stills_folder(out)
    if (folder / MANIFEST).is_file() or not data.stills:
        return
    rows = []
    for number, sample in enumerate(data.stills):
        if sample.kind == "clip":
            path = folder / "stills" / f"{number:05d}_{sample.path.stem}.png"
            reader = open_clip(sample.path)
            if not path.exists():
                write_still(path, reader.read([reader.n_frames // 2])[0])
            rows.append(replace(sample, path=path, kind="still", split=None, masks=(), fps=None))
        progress(number + 1, len(data.stills), sample.path.name)
    if rows:
        write_manifest(folder / MANIFEST, rows)
    else:
        linked(data.stills, [None] * len(data.stills), folder)


def split_folder(out: Path, split: str, fold: int | None) -> Path:
    """Return the data folder of a split."""
    return out / "data" / "splits" / place_name(split, fold)


def stills_folder(out: Path) -> Path:
    """Return the data folder of the stills."""
    return out / "data" / "stills"


def _fold(items: list[tuple[str | None, str]], tested: list[str], fold: int, used: float, seed: int) -> list[str]:
    rest = [k for k, part in enumerate(tested) if part != str(fold)]
    parts = ["test"] * len(items)
    if used > 1 - 1e-9:
        chosen = ["train"] * len(rest)
    else:
        chosen = split_by_group([items[k] for k in rest], {"train": used, LEFT_OUT: 1 - used}, seed)
    for k, part in zip(rest, chosen, strict=True):
        parts[k] = part
    return parts


def _check(data: Data, split: str, fold: int | None, parts: list[str], settings: Table2Settings) -> None:
    where = f"Split {split}" + ("" if fold is None else f", fold {fold},")
    counts = Counter((part, sample.label) for part, sample in zip(parts, data.videos, strict=True))
    for part, said in (("train", "training"), ("test", "test")):
        for name in data.classes:
            # A fold is tested together with the others.
            if not counts[part, name] and (part == "train" or fold is None):
                raise DataError(
                    f"{where} has no {said} video of class '{name}'.", "Give more patients, or fewer folds or splits."
                )
    real: dict[str | None, int] = {name: counts["train", name] for name in data.classes}
    stills = Counter(sample.label for sample in data.stills)
    for source, given in (("stills", stills), ("reconstructed", real)):
        if source in settings.sources or (source == "stills" and set(settings.sources) - {"reconstructed"}):
            there: dict[str | None, int] = {name: given[name] * settings.clips_per_still for name in data.classes}
            check_mixes(settings.model_copy(update={"classes": data.classes}), real, there, f"{where} {source}")


def check_mixes(
    settings: Table2Settings, real: Mapping[str | None, int], there: Mapping[str | None, int], who: str
) -> None:
    """Raise `DataError` if a mix asks for more synthetic clips of a class than there are.

    Args:
        settings: With classes.
        real: Training videos by class.
        there: Synthetic clips by class, or how many there can be.
        who: The place and source, for the message.
    """
    most = max(real.get(name, 0) for name in settings.classes)
    for mix in settings.mixes if "both" in settings.diets else ():
        for name in settings.classes:
            own = real.get(name, 0)
            wanted = most - own if mix == "balance" else round(float(mix[1:]) * own) if mix.startswith("x") else 0
            if wanted > there.get(name, 0):
                raise DataError(
                    f"{who} give {there.get(name, 0)} synthetic clips of class '{name}'; {mix} asks for {wanted}.",
                    "Raise --clips-per-still, or lower --ratio, or leave out --balance.",
                )


def check_copies(data: Data) -> None:
    """Raise `DataError` if a file comes under two groups: among videos, and among videos that give stills."""
    known: dict[str, Sample] = {}
    for sample in (*data.videos, *(still for still in data.stills if still.kind == "clip")):
        first = known.setdefault(content_sha256(sample.path), sample)
        if first.group != sample.group:
            raise DataError(
                f"'{first.path}' and '{sample.path}' are the same video, of groups '{first.group}' and "
                f"'{sample.group}'.",
                "Remove one, or state one group for both in manifest.csv.",
            )


def _samples(folders: Sequence[Path], kind: str) -> list[Sample]:
    found = []
    for folder in folders:
        if is_generated(folder):
            raise DataError(f"'{folder}' holds generated clips.", "Give real ones.")
        own = [sample for sample in find_samples(folder, check_groups=False) if sample.kind == kind]
        if not own:
            raise DataError(
                f"'{folder}' holds no {'videos' if kind == 'clip' else 'stills'}.", "Give a folder of some."
            )
        if kind == "clip":
            made_up = next((sample.path for sample in own if carries_record(sample.path)), None)
            if made_up is not None:
                raise DataError(f"'{made_up}' was generated, by the record in it.", "Take it out: give real videos.")
        found += own
    return found


def _items(samples: Sequence[Sample]) -> list[tuple[str | None, str]]:
    return [(sample.label, sample.group) for sample in samples]


def _difference(before: int, after: int, what: str) -> list[str]:
    return [f"{before - after} {what}"] if before > after else []


def _facts(sample: Sample) -> list[object]:
    size = len(list(sample.path.iterdir())) if sample.path.is_dir() else sample.path.stat().st_size
    return [sample.path.name, sample.kind, sample.label, sample.group, sample.fps, size]
