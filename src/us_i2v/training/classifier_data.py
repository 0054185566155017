"""What a classifier is trained and validated on: real clips split by group, synthetic clips checked and chosen.

Everything that can be refused is refused before a clip is decoded. Real and synthetic clips go through the same
steps: decoding, fitting, one codec, one cache, one sampler of windows.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from us_i2v.classifier import TrainedOn
from us_i2v.data.common_codec import store_alike
from us_i2v.data.datasets import find_samples
from us_i2v.data.mixing import (
    HELD_OUT,
    REAL,
    SYNTHETIC,
    HeldOut,
    SyntheticClip,
    carries_record,
    choose_synthetic,
    find_leaks,
    is_generated,
    read_synthetic,
    refuse_leaks,
    stratum,
    stratum_weights,
)
from us_i2v.data.training_clips import StoredClip, split_clips
from us_i2v.errors import ConfigError, DataError
from us_i2v.weights import bundled_path, load_weights

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from us_i2v.data.manifest import Sample
    from us_i2v.data.mixing import MixConfig, Trained
    from us_i2v.data.training_clips import ClipsConfig
    from us_i2v.training.report import Reporter


@dataclass(frozen=True)
class Sources:
    """Where the clips come from.

    Attributes:
        data: Folders of real clips.
        synthetic: Output folders of `us-i2v augment`.
        generators: Weights files or run folders that made the synthetic clips; the bundled ones need not be named.
        drop_leaks: Leave out synthetic clips that may not be trained on, instead of refusing them.
        makers: What made clips without weights of its own: the hash that stands in their manifest, and what it was
            fitted on.
    """

    data: tuple[Path, ...]
    synthetic: tuple[Path, ...] = ()
    generators: tuple[Path, ...] = ()
    drop_leaks: bool = False
    makers: tuple[tuple[str, TrainedOn], ...] = ()


@dataclass(frozen=True)
class Diet:
    """The clips of a training.

    Attributes:
        classes: Their names, in the order of the logits.
        train: Stored clips; `source` names the stratum that a clip is drawn from.
        held: Stored real validation clips.
        weights: How often each stratum is drawn.
        real: Real clips among `train`.
        stills: Hashes of the stills behind the synthetic clips.
        generators: Hashes of the weights that made them.
        behind: What these were trained on.
    """

    classes: tuple[str, ...]
    train: tuple[StoredClip, ...]
    held: tuple[StoredClip, ...]
    weights: dict[str, float]
    real: int
    stills: tuple[str, ...] = ()
    generators: tuple[str, ...] = ()
    behind: TrainedOn = field(default_factory=TrainedOn)


def gather_diet(
    sources: Sources,
    cache: Path,
    size: int,
    clips: ClipsConfig,
    mix: MixConfig,
    *,
    crf: int,
    classes: Sequence[str],
    seed: int,
    reporter: Reporter,
) -> Diet:
    """Find, check, split, choose and cache the clips of a training.

    Args:
        sources: Where they come from.
        cache: Folder of the cache.
        size: Side of the frames.
        clips: Fit, windows and validation share.
        mix: Which diet.
        crf: See `store_alike`.
        classes: Names of the classes to keep, in order; empty: all labels of the real clips, sorted.
        seed: Chooses the validation groups and the synthetic clips.
        reporter: Is told what was found and left out.

    Raises:
        DataError: No labelled clips, fewer than two classes, generated clips among the real ones, or synthetic clips
            that may not be trained on.
        ConfigError: Diet and sources do not fit.
    """
    if (mix.diet == "real") == bool(sources.synthetic):
        have = f"{len(sources.synthetic)} folders of synthetic clips"
        raise ConfigError(f"Diet '{mix.diet}' does not fit {have}.", "Give --synthetic and --diet synthetic or both.")
    samples = _real_samples(sources.data)
    names = tuple(classes) or tuple(sorted({s.label for s in samples if s.kind == "clip" and s.label}))
    if len(names) < 2:
        raise DataError(
            f"The real clips are of {len(names)} class ({', '.join(names) or 'none'}); two are needed.",
            "Give class folders or a manifest.csv with labels.",
        )
    found = [s for s in samples if s.kind == "clip" and s.split != "test"]
    real = [s for s in found if s.label in names]
    if not real:
        raise DataError(f"No real clip is of class {' or '.join(names)}.", "Check the labels, or --set classes.")
    _say_left_out(len(found) - len(real), "real", names, reporter)
    made_up = [s.path for s in real if carries_record(s.path)]
    if made_up:
        raise DataError(
            f"'{made_up[0]}' was generated, by the record in it ({len(made_up)} of {len(real)} clips); generated clips "
            "are neither validated nor tested on.",
            "Keep them apart, and give the output folder of `us-i2v augment` as --synthetic.",
        )
    made = [clip for folder in sources.synthetic for clip in read_synthetic(folder)]
    usable = [clip for clip in made if clip.sample.label in names]
    _say_left_out(len(made) - len(usable), "synthetic", names, reporter)
    trained: dict[str, Trained] = dict(sources.makers)
    trained |= known_generators({clip.weights_sha256 for clip in usable} - trained.keys(), sources.generators)
    stated = [s for s in samples if s.split in HELD_OUT]
    usable = _allowed(usable, HeldOut.of(stated) if usable else None, trained, sources, reporter)

    reporter.message(f"{len(real)} real clips: decoding what is not in the cache yet")
    stored = store_alike([(REAL, s) for s in real], cache, size, clips, crf)
    train, held = split_clips(stored, [s.split for s in real], clips, seed)
    if usable and not stated and held:
        groups = {clip.group for clip in held}
        drawn = [s for s in samples if s.group in groups]
        usable = _allowed(usable, HeldOut.of(drawn), trained, sources, reporter)
    chosen = choose_synthetic(usable, _numbers(train, names), mix, seed)
    eaten = store_alike([(SYNTHETIC, clip.sample) for clip in chosen], cache, size, clips, crf)
    makers = tuple(sorted({clip.weights_sha256 for clip in chosen}))
    diet = _mixed(names, [] if mix.diet == "synthetic" else train, eaten, held, mix)
    return replace(
        diet,
        stills=tuple(sorted({clip.source_sha256 for clip in chosen})),
        generators=makers,
        behind=_together([trained[digest] for digest in makers]),
    )


def known_generators(wanted: set[str], given: Sequence[Path]) -> dict[str, Trained]:
    """Return the headers of generators by the hash of their file: those given, and the bundled one if it is wanted."""
    found: dict[str, Trained] = {}
    for path in given:
        weights = load_weights(path)
        found[weights.sha256] = weights.header
    if wanted - found.keys() and bundled_path().is_file():
        weights = load_weights()
        found[weights.sha256] = weights.header
    return found


def _real_samples(folders: Sequence[Path]) -> list[Sample]:
    samples = []
    for folder in folders:
        if is_generated(folder):
            raise DataError(
                f"'{folder}' holds generated clips; they are neither validated nor tested on.",
                "Give it as --synthetic.",
            )
        samples += find_samples(folder)
    return samples


def _allowed(
    clips: list[SyntheticClip],
    held: HeldOut | None,
    generators: Mapping[str, Trained],
    sources: Sources,
    reporter: Reporter,
) -> list[SyntheticClip]:
    if held is None:
        return clips
    leaks = find_leaks(clips, held, generators)
    if leaks and sources.drop_leaks:
        reporter.message(
            f"left out: {len(leaks)} of {len(clips)} synthetic clips, for example because {next(iter(leaks.values()))}"
        )
    elif leaks:
        refuse_leaks(leaks)
    return [clip for clip in clips if clip not in leaks]


def _say_left_out(count: int, kind: str, names: Sequence[str], reporter: Reporter) -> None:
    if count:
        reporter.message(f"left out: {count} {kind} clips without a label or of other classes than {', '.join(names)}")


def _numbers(clips: Sequence[StoredClip], names: Sequence[str]) -> dict[str, int]:
    counts = Counter(clip.label for clip in clips)
    return {name: counts[name] for name in names}


def _together(weights: Sequence[Trained]) -> TrainedOn:
    return TrainedOn(
        training_groups=tuple(sorted({group for one in weights for group in one.training_groups})),
        clip_sha256=tuple(sorted({digest for one in weights for digest in one.clip_sha256})),
    )


def _mixed(
    names: tuple[str, ...], real: list[StoredClip], made: list[StoredClip], held: list[StoredClip], mix: MixConfig
) -> Diet:
    clips = tuple(replace(clip, source=stratum(clip.source, str(clip.label))) for clip in (*real, *made))
    if not clips:
        raise DataError("No clip is left to train on.", "Give more clips, or another diet.")
    numbers = Counter((origin, str(clip.label)) for origin, part in ((REAL, real), (SYNTHETIC, made)) for clip in part)
    missing = [name for name in names if not any(label == name for _, label in numbers)]
    if missing:
        raise DataError(f"No training clip is of class '{missing[0]}'.", "Give clips of every class, or set classes.")
    return Diet(names, clips, tuple(held), stratum_weights(numbers, mix), len(real))
