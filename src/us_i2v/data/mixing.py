"""Diets of a classifier: real clips, synthetic clips, or both at a ratio; and what may not be among them.

Synthetic clips are those of `us-i2v augment`: their manifest.csv says which still each was made from, of which group,
and by which weights. A clip is refused for training if

- its still, its still's group or its stated split belongs to the test or validation side, or
- its generator was trained on a group or a file of that side, or nobody knows on what it was trained,

and synthetic clips are refused as real data, by their manifest or by the record that each carries (see `provenance`),
so that none is ever tested on. Which synthetic clips are
taken, where not all are, depends on the seed and on them alone: first one clip of every still, then a second one; a
larger share holds a smaller one.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, Self

from pydantic import Field, model_validator

from us_i2v.config import Config
from us_i2v.data.clips import open_clip
from us_i2v.data.datasets import find_samples
from us_i2v.data.embedding import read_record
from us_i2v.data.manifest import MANIFEST, REQUIRED
from us_i2v.data.tables import read_rows
from us_i2v.errors import DataError
from us_i2v.seeding import derive_seed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from us_i2v.data.manifest import Sample

REAL, SYNTHETIC = "real", "synthetic"
GENERATED_COLUMNS = ("source", "source_sha256", "weights_sha256")
"""Columns by which a manifest shows that its clips were generated."""
HELD_OUT = ("val", "test")
SHOWN = 5
UNKNOWN = "nobody knows on what"


class Trained(Protocol):
    """What weights say they were trained on; a weights file's header does."""

    @property
    def training_groups(self) -> tuple[str, ...]:
        """Groups (patients)."""

    @property
    def clip_sha256(self) -> tuple[str, ...]:
        """Hashes of files."""


class MixConfig(Config):
    """Which clips a classifier is trained on, and how often they are drawn."""

    diet: Literal["real", "synthetic", "both"] = Field("real", description="Which clips are trained on.")
    ratio: float | None = Field(
        None, gt=0, description="Synthetic clips for each real one, in every class; empty: all that there are."
    )
    balance: bool = Field(
        False, description="Take only as many synthetic clips as bring rarer classes up to the largest one."
    )
    share: float | None = Field(
        None, gt=0, lt=1, description="Share of synthetic windows in training; empty: that of the clips."
    )
    equal_classes: bool = Field(False, description="Draw all classes equally often, whatever their numbers.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.balance and self.ratio is not None:
            raise ValueError("balance decides how many synthetic clips are taken; leave ratio empty")
        if self.diet != "both" and (self.balance or self.ratio is not None or self.share is not None):
            raise ValueError(f"balance, ratio and share need diet 'both', not '{self.diet}'")
        return self


@dataclass(frozen=True)
class SyntheticClip:
    """A clip of `us-i2v augment`.

    Attributes:
        sample: The clip with its still's label, group and split.
        source: Name of the still.
        source_sha256: Hash of its file.
        weights_sha256: Hash of the weights that made it.
    """

    sample: Sample
    source: str
    source_sha256: str
    weights_sha256: str


@dataclass(frozen=True)
class HeldOut:
    """What is not trained on: groups, and hashes of files."""

    groups: frozenset[str]
    sha256: frozenset[str]

    @classmethod
    def of(cls, samples: Iterable[Sample]) -> HeldOut:
        """Return the groups and file hashes of held-out samples, stills as well as clips."""
        held = list(samples)
        return cls(frozenset(s.group for s in held), frozenset(content_sha256(s.path) for s in held))


def content_sha256(path: Path) -> str:
    """Return the hash of a still's or clip's content, as weights and manifests record it."""
    if path.is_dir():
        return open_clip(path).source_hash()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def manifest_of(path: Path) -> Path | None:
    """Return the manifest of a data folder, or the path itself if it is one; None if there is none."""
    if path.is_dir():
        path /= MANIFEST
    return path if path.suffix.lower() == ".csv" and path.is_file() else None


def is_generated(path: Path) -> bool:
    """Tell whether a data folder's manifest is one of `us-i2v augment`."""
    manifest = manifest_of(path)
    if manifest is None:
        return False
    rows = read_rows(manifest, "Manifest", REQUIRED)
    return any(row.text(column) for row in rows for column in GENERATED_COLUMNS[1:])


def carries_record(path: Path) -> bool:
    """Tell whether a clip says by itself that it was generated; raises `InputError` if it cannot be read."""
    return read_record(path) is not None


def read_synthetic(path: Path) -> list[SyntheticClip]:
    """Return the clips of a folder that `us-i2v augment` wrote.

    Raises:
        DataError: There is no such manifest, or a line does not say what a clip was made from.
    """
    manifest = manifest_of(path)
    if manifest is None or not is_generated(path):
        raise DataError(
            f"'{path}' has no manifest that says what its clips were made from.",
            "Give a finished output folder of `us-i2v augment`.",
        )
    rows = {manifest.parent / row.text("file"): row for row in read_rows(manifest, "Manifest", REQUIRED)}
    clips = []
    for sample in find_samples(manifest, check_groups=False):
        row = rows[sample.path]
        for column in GENERATED_COLUMNS:
            if not row.text(column):
                raise row.error(column, "is empty", "Give a manifest of `us-i2v augment`")
        clips.append(SyntheticClip(sample, *(row.text(column) for column in GENERATED_COLUMNS)))
    return clips


def find_seen(trained: Trained, groups: Iterable[str], sha256: Iterable[str]) -> list[str]:
    """Return the groups and files on which weights were trained, of some groups and file hashes; sorted."""
    found = [f"group '{group}'" for group in sorted(set(trained.training_groups) & set(groups))]
    return found + [f"file {digest[:12]}..." for digest in sorted(set(trained.clip_sha256) & set(sha256))]


def find_leaks(
    clips: Sequence[SyntheticClip], held: HeldOut, generators: Mapping[str, Trained]
) -> dict[SyntheticClip, str]:
    """Return the synthetic clips that may not be trained on, each with the reason.

    Args:
        clips: Synthetic clips.
        held: The test and validation side.
        generators: Weights by their hash.
    """
    seen = {digest: find_seen(weights, held.groups, held.sha256) for digest, weights in generators.items()}
    found = {}
    for clip in clips:
        if clip.sample.split in HELD_OUT:
            found[clip] = f"its still '{clip.source}' is of split {clip.sample.split}"
        elif clip.sample.group in held.groups:
            found[clip] = f"its still's group '{clip.sample.group}' is held out"
        elif clip.source_sha256 in held.sha256:
            found[clip] = f"its still '{clip.source}' is held out"
        elif clip.weights_sha256 not in seen:
            found[clip] = f"{UNKNOWN} its generator {clip.weights_sha256[:12]}... was trained"
        elif seen[clip.weights_sha256]:
            found[clip] = (
                f"its generator {clip.weights_sha256[:12]}... was trained on {_listed(seen[clip.weights_sha256])}, "
                "which is held out"
            )
    return found


def refuse_leaks(leaks: Mapping[SyntheticClip, str]) -> None:
    """Raise `DataError` naming synthetic clips that may not be trained on."""
    if not leaks:
        return
    reasons = Counter(leaks.values())
    parts = []
    for reason, count in list(reasons.items())[:SHOWN]:
        first = next(clip.sample.path.name for clip, why in leaks.items() if why == reason)
        parts.append(f"'{first}'" + (f" and {count - 1} more" if count > 1 else "") + f": {reason}")
    more = len(reasons) - SHOWN
    text = "; ".join(parts) + (f"; and {more} more reasons" if more > 0 else "")
    remedy = "Make clips of training stills, by weights that saw no others, or leave these out (--drop-leaks)."
    if any(reason.startswith(UNKNOWN) for reason in reasons):
        remedy = f"Give the generator's weights (--generator). {remedy}"
    raise DataError(f"{len(leaks)} synthetic clips may not be trained on. {text}.", remedy)


def choose_synthetic(
    clips: Sequence[SyntheticClip], real: Mapping[str, int], config: MixConfig, seed: int
) -> list[SyntheticClip]:
    """Return the synthetic clips to train on, in the order of `clips`.

    Args:
        clips: Those that may be trained on, of known classes.
        real: Number of real training clips of each class.
        config: See `MixConfig`.
        seed: Chooses, where not all are taken.

    Raises:
        DataError: A class has fewer synthetic clips than are asked for.
    """
    if config.diet == "real":
        return []
    wanted: dict[str, int] | None = None
    if config.balance:
        most = max(real.values(), default=0)
        wanted = {label: most - count for label, count in real.items()}
    elif config.ratio is not None:
        wanted = {label: round(config.ratio * count) for label, count in real.items()}
    if wanted is None:
        return list(clips)
    ordered = _by_turns(clips, seed)
    taken: set[SyntheticClip] = set()
    for label, count in wanted.items():
        own = [clip for clip in ordered if clip.sample.label == label]
        if len(own) < count:
            raise DataError(
                f"{count} synthetic clips of class '{label}' are asked for, {len(own)} are there.",
                "Make more with `us-i2v augment --clips-per-image`, or ask for fewer.",
            )
        taken.update(own[:count])
    return [clip for clip in clips if clip in taken]


def stratum(origin: str, label: str) -> str:
    """Return the name under which clips of one origin and class are drawn; see `ClipSampler`'s sources."""
    return f"{origin}: {label}"


def stratum_weights(counts: Mapping[tuple[str, str], int], config: MixConfig) -> dict[str, float]:
    """Return how often each (origin, class) is drawn, as shares; see `MixConfig.share` and `equal_classes`.

    Args:
        counts: Number of clips by (origin, class), none of them 0.
        config: See `MixConfig`.
    """
    origins: Counter[str] = Counter()
    classes: Counter[tuple[str, str]] = Counter()
    for (origin, label), count in counts.items():
        origins[origin] += count
        classes["" if config.share is None else origin, label] += count
    total = sum(origins.values())
    shares = {}
    for (origin, label), count in counts.items():
        within = "" if config.share is None else origin
        of_origin, size = (1.0, total) if config.share is None else (_origin_share(origin, config), origins[origin])
        if config.equal_classes:
            alike = sum(1 for key in classes if key[0] == within)
            shares[stratum(origin, label)] = of_origin * count / classes[within, label] / alike
        else:
            shares[stratum(origin, label)] = of_origin * count / size
    return shares


def _origin_share(origin: str, config: MixConfig) -> float:
    share = config.share or 0.0
    return share if origin == SYNTHETIC else 1 - share


def _by_turns(clips: Sequence[SyntheticClip], seed: int) -> list[SyntheticClip]:
    """Order clips so that every still gives its first one before any gives a second."""
    stills: dict[str, list[SyntheticClip]] = defaultdict(list)
    for clip in clips:
        stills[clip.source_sha256].append(clip)

    def drawn(clip: SyntheticClip) -> int:
        return derive_seed(seed, "mix", clip.source_sha256, clip.sample.path.name)

    turns = [(turn, clip) for own in stills.values() for turn, clip in enumerate(sorted(own, key=drawn))]
    return [clip for _, clip in sorted(turns, key=lambda entry: (entry[0], drawn(entry[1])))]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
