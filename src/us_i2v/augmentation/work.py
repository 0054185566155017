"""What a job is: one still in memory, one clip being made, one being written.

Clips are written in a hidden staging folder and moved into place whole, mask first. A job is done if its clip lies in
its place. What a job gives depends on the job, the settings and the weights, never on who does it: the number of CPU
threads that the networks compute with is part of the generator, not of the process.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from us_i2v.augmentation.outputs import make_folder, write_result
from us_i2v.augmentation.planning import Job, Shard
from us_i2v.augmentation.records import recorded_options
from us_i2v.augmentation.selection import LATE, is_late, is_rejected, write_score
from us_i2v.augmentation.settings import AugmentSettings
from us_i2v.data.masks import read_masks
from us_i2v.data.stills import read_still
from us_i2v.errors import InputError
from us_i2v.options import CONTROLS
from us_i2v.pipeline import GeneratedClip, GenerateOptions
from us_i2v.provenance import Provenance
from us_i2v.quality import QualityReference, score
from us_i2v.types import Image, Mask

Progress = Callable[[int, int, str], None]
"""Called as progress(done, total, name of the clip) after every job."""


class Generator(Protocol):
    """What makes clips; `ImageToVideo` is one."""

    def __call__(
        self,
        image: Image | str | Path,
        *,
        mask: Mask | None = None,
        seed: int = 0,
        num_clips: int = 1,
        options: GenerateOptions | None = None,
        size: int | None = None,
    ) -> list[GeneratedClip]:
        """Make `num_clips` clips from a still."""


@dataclass
class Outcome:
    """What a run did.

    Attributes:
        made: Clips made by this run.
        present: Clips that were there already.
        unreadable: Still's name -> why it could not be read.
    """

    made: int = 0
    present: int = 0
    unreadable: dict[str, str] = field(default_factory=dict)

    def add(self, other: Outcome) -> None:
        """Add what another process did with other jobs."""
        self.made += other.made
        self.present += other.present
        self.unreadable.update(other.unreadable)


@dataclass(frozen=True)
class Work:
    """What all jobs of a run have in common; can be sent to other processes.

    Attributes:
        out: Output folder.
        settings: What the folder is pinned to.
        labels: Classes that the weights know; a still of one of them is conditioned on it.
        record: What the clips' records have in common.
        judge: What clips are scored by, if a selection follows.
    """

    out: Path
    settings: AugmentSettings
    labels: tuple[str, ...]
    record: Provenance
    judge: QualityReference | None = None

    def done(self, job: Job) -> bool:
        """Tell whether a job's clip lies in its place, or was made and rejected."""
        return (self.out / job.output).exists() or (self.judge is not None and is_rejected(self.out, job))

    def run(self, generator: Generator, jobs: Sequence[Job], staging: Path, progress: Progress) -> Outcome:
        """Do those jobs that are not done; stills or masks that cannot be read are skipped and listed.

        So are stills that can be read only after clips were chosen by quality: none of theirs could be judged.

        Args:
            generator: Makes the clips, one a call, so that a clip does not depend on its neighbours.
            jobs: What to do.
            staging: Folder in which files are written before they are moved into place; of this process alone.
            progress: Told about every job.

        Raises:
            OutputError: something cannot be written.
        """
        outcome = Outcome()
        writing: Future[None] | None = None
        with ThreadPoolExecutor(max_workers=1) as writer:
            for done, job in enumerate(jobs, start=1):
                if self.done(job):
                    outcome.present += 1
                elif job.source.name not in outcome.unreadable:
                    try:
                        still, mask = self._read(job)
                        if self.judge is not None and is_late(self.out, job):
                            raise InputError(LATE)
                        clip = self._make(generator, job, still, mask)
                    except InputError as error:
                        outcome.unreadable[job.source.name] = " ".join(error.message.split())
                    else:
                        # Waiting for the last clip before handing over the next keeps memory bounded
                        # and lets an error in the writer stop the run.
                        if writing is not None:
                            writing.result()
                        writing = writer.submit(self._write, clip, job, staging)
                        outcome.made += 1
                progress(done, len(jobs), str(job.output))
            if writing is not None:
                writing.result()
        return outcome

    def _read(self, job: Job) -> tuple[Image, Mask | None]:
        still = read_still(job.source.path, regions=self.settings.region)
        size = (still.shape[0], still.shape[1])
        return still, read_masks(job.source.masks, size) if job.source.masks else None

    def _make(self, generator: Generator, job: Job, still: Image, mask: Mask | None) -> GeneratedClip:
        options, size_asked = self._options(job), self.settings.size
        (clip,) = generator(still, mask=mask, seed=job.seed, num_clips=1, options=options, size=size_asked)
        return clip

    def _write(self, clip: GeneratedClip, job: Job, staging: Path) -> None:
        path = self.out / job.output
        make_folder(path.parent)
        asked = recorded_options(self._options(job), self.settings.size, self.settings.precision)
        own = {"still_sha256": job.source.sha256, "seed": job.seed, "options": asked}
        record = self.record.model_copy(update=own)
        if self.judge is not None:
            still = read_still(job.source.path, regions=self.settings.region)
            write_score(self.out, job, score(clip.frames, still, self.judge), staging)
        write_result(clip, path, exact=self.settings.exact, staging=staging, record=record)

    def _options(self, job: Job) -> GenerateOptions:
        return options_for(job.source.label, self.labels, self.settings.options)


def options_for(label: str | None, labels: Sequence[str], options: GenerateOptions) -> GenerateOptions:
    """Add a still's class to the options, if the weights know it; capitals do not matter.

    Guidance goes where nothing is left to guide by.
    """
    if not labels:
        return options
    known = next((name for name in labels if label is not None and name.casefold() == label.casefold()), None)
    if known is not None:
        return options.model_copy(update={"label": known})
    guided = any(getattr(options, name) is not None for name in CONTROLS)
    return options if guided else options.model_copy(update={"guidance": None})


@contextmanager
def staging_folder(out: Path, shard: Shard, worker: str = "") -> Iterator[Path]:
    """An empty hidden folder of a shard, or of one of its workers; what a killed run left in it is removed first."""
    folder = out / f".partial{shard.suffix}{worker and '.' + worker}"
    shutil.rmtree(folder, ignore_errors=True)
    make_folder(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_left_over(out: Path, shard: Shard) -> None:
    """Remove what killed workers of a shard have left: their staging folders, and their hand-over."""
    for folder in (*out.glob(f".partial{shard.suffix}.*"), handover_folder(out, shard)):
        shutil.rmtree(folder, ignore_errors=True)


def handover_folder(out: Path, shard: Shard) -> Path:
    """Return where the ranks of a shard tell each other how far they are, see `engines`."""
    return out / f".ranks{shard.suffix}"
