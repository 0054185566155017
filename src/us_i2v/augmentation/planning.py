"""Plans an augmented data set: which clip is made from which still, with which seed, under which name.

A plan depends only on the stills' relative names, bytes, labels and the settings, so that every machine
and every shard sees the same jobs. The clip `c` of a still has the seed
`derive_seed(base seed, sha256 of the still's file, c)`: adding or removing other stills does not change it.
Nothing is decoded here; unreadable stills are found when their job runs.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from us_i2v.augmentation.outputs import clip_name, mask_path
from us_i2v.data.manifest import Sample
from us_i2v.errors import ConfigError, DataError, OutputError
from us_i2v.seeding import derive_seed


@dataclass(frozen=True)
class Source:
    """A still to make clips from.

    Attributes:
        name: Path relative to the data set's folder, with forward slashes.
        path: Where the file lies.
        sha256: Hash of the file's bytes; empty if they cannot be read.
        label: Class, or None.
        group: Patient or recording; kept, so that a clip never leaves its still's side of a split.
        split: Given split, or None.
        masks: Mask files of the still, may be empty.
    """

    name: str
    path: Path
    sha256: str
    label: str | None
    group: str
    split: str | None
    masks: tuple[Path, ...]


@dataclass(frozen=True)
class Job:
    """One clip to make. `output` and `mask_output` are relative to the output folder."""

    source: Source
    clip: int
    seed: int
    output: PurePosixPath
    mask_output: PurePosixPath | None


def collect_sources(samples: Sequence[Sample], root: Path) -> list[Source]:
    """Return the stills among `samples`, hashed and sorted by name.

    Raises:
        DataError: there is no still among the samples.
    """
    sources = [
        Source(
            name=sample.path.relative_to(root).as_posix(),
            path=sample.path,
            sha256=file_sha256(sample.path),
            label=sample.label,
            group=sample.group,
            split=sample.split,
            masks=sample.masks,
        )
        for sample in samples
        if sample.kind == "still"
    ]
    if not sources:
        raise DataError(
            f"Folder '{root}' holds no stills; at least one is needed.",
            "Give a folder with class folders of PNG, JPEG, TIFF or BMP files, or with a manifest.csv.",
        )
    return sorted(sources, key=lambda source: source.name)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes in hex, or "" if the file cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def sources_sha256(sources: Sequence[Source]) -> str:
    """Return one hash of all stills: their names, bytes, labels, groups, splits and masks' bytes."""
    digest = hashlib.sha256()
    for source in sources:
        fields = [source.name, source.sha256, source.label or "", source.group, source.split or ""]
        fields += [file_sha256(mask) for mask in source.masks]
        digest.update("\x1f".join(fields).encode() + b"\x1e")
    return digest.hexdigest()


def clips_of_each(sources: Sequence[Source], clips_per_image: int, *, balance: bool, seed: int) -> list[int]:
    """Return how many clips each source gets.

    Without `balance` every still gets `clips_per_image`. With it every class gets as many clips as the
    largest one (its stills times `clips_per_image`); a rarer class spreads them over its stills as evenly
    as possible, and which stills get one more is drawn from the seed.
    """
    if not balance:
        return [clips_per_image] * len(sources)
    members: dict[str | None, list[int]] = defaultdict(list)
    for index, source in enumerate(sources):
        members[source.label].append(index)
    target = clips_per_image * max(len(indices) for indices in members.values())
    counts = [0] * len(sources)
    for indices in members.values():
        each, rest = divmod(target, len(indices))
        order = sorted(indices, key=lambda i: derive_seed(seed, "balance", sources[i].name, sources[i].sha256))
        for rank, index in enumerate(order):
            counts[index] = each + (rank < rest)
    return counts


def plan_jobs(sources: Sequence[Source], *, clips_per_image: int, balance: bool, seed: int, ending: str) -> list[Job]:
    """Return all jobs, ordered by still and clip.

    A clip is named `<folder of the still>/<stem>_<clip>`; where two stills of a folder differ in their
    ending only, the ending joins the name.

    Raises:
        DataError: two clips would still get the same name.
    """
    stems = Counter(_stem(source.name).lower() for source in sources)
    counts = clips_of_each(sources, clips_per_image, balance=balance, seed=seed)
    jobs: list[Job] = []
    owners: dict[str, str] = {}
    for source, count in zip(sources, counts, strict=True):
        stem = _stem(source.name)
        if stems[stem.lower()] > 1:
            stem = source.name.replace(".", "_")
        folder, _, name = stem.rpartition("/")
        for clip in range(count):
            output = PurePosixPath(folder) / clip_name(f"{name}_{clip}", ending)
            other = owners.setdefault(str(output).lower(), source.name)
            if other != source.name:
                raise DataError(
                    f"Stills '{other}' and '{source.name}' would both be written to '{output}'.",
                    "Rename one of them.",
                )
            jobs.append(
                Job(
                    source=source,
                    clip=clip,
                    seed=derive_seed(seed, source.sha256, clip),
                    output=output,
                    mask_output=PurePosixPath(mask_path(Path(output)).as_posix()) if source.masks else None,
                )
            )
    return jobs


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))


@dataclass(frozen=True)
class Shard:
    """Part `index` of `count` (counted from 1) of all jobs: every `count`-th one."""

    index: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read "2/8"; raises `ConfigError`."""
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip())
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise ConfigError(
                f"Shard '{text}' is not of the form i/n with 1 <= i <= n.", "Write for example --shard 1/4."
            )
        return cls(int(match[1]), int(match[2]))

    @property
    def suffix(self) -> str:
        """Mark of the files that a shard writes for itself: "-i-of-n", or nothing for the whole."""
        return "" if self.count == 1 else f"-{self.index}-of-{self.count}"

    def select(self, jobs: Sequence[Job]) -> list[Job]:
        """Return this shard's jobs."""
        return list(jobs[self.index - 1 :: self.count])


def check_apart(root: Path, out: Path) -> None:
    """Raise `OutputError` if the output folder lies in the data folder or the other way round.

    The clips would be found as data by the next run.
    """
    data, target = root.resolve(), out.resolve()
    if data == target or data in target.parents or target in data.parents:
        raise OutputError(
            f"Output folder '{out}' and data folder '{root}' must not contain each other.",
            "Choose an output folder beside the data.",
        )
