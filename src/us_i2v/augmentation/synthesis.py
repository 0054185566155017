"""Runs the planned jobs: one still in memory, one clip being made, one being written.

Clips are written in a hidden staging folder and moved into place whole, mask first. A job is done if its clip
lies in its place, so a run that was stopped at any moment, even by kill -9, goes on where it was, and the
final folder is the same as without the stop. Nothing else is remembered between runs.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from us_i2v.augmentation.manifest import write_manifests
from us_i2v.augmentation.outputs import make_folder, write_result
from us_i2v.augmentation.planning import Job, Shard
from us_i2v.augmentation.settings import AugmentSettings, check_settings, pin_settings
from us_i2v.data.masks import read_masks
from us_i2v.data.stills import read_still
from us_i2v.errors import InputError
from us_i2v.options import CONTROLS
from us_i2v.pipeline import GeneratedClip, GenerateOptions
from us_i2v.provenance import Provenance
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


def synthesise(
    generator: Generator,
    jobs: Sequence[Job],
    out: Path,
    settings: AugmentSettings,
    *,
    fps: float,
    shard: Shard = Shard(),  # noqa: B008 (frozen)
    progress: Progress = lambda done, total, name: None,
    labels: Sequence[str] = (),
    record: Provenance | None = None,
) -> Outcome:
    """Make all clips of a shard that are not there yet, then the manifest.

    Args:
        generator: Makes the clips, one a call, so that a clip does not depend on its neighbours.
        jobs: The whole plan, see `planning.plan_jobs`.
        out: Output folder.
        settings: What the folder is pinned to.
        fps: Frame rate of the clips, for the manifest.
        shard: Which part of the plan to run.
        progress: Told about every job.
        labels: Classes that the weights know; a still of one of them is conditioned on it.
        record: What the clips' records have in common; None leaves what only the weights know out of them.

    Returns:
        What was done. Stills or masks that cannot be read are skipped and listed; nothing else is.

    Raises:
        ConfigError: the folder was made with other settings.
        OutputError: something cannot be written.
    """
    check_settings(out, settings)
    make_folder(out)
    outcome = Outcome()
    shared = record or Provenance(
        command="augment",
        still_sha256=None,
        weights_sha256=settings.weights_sha256,
        seed=settings.seed,
        options={**settings.options.model_dump(mode="json"), "size": settings.size},
    )
    with _staging(out, shard) as staging:
        pin_settings(out, settings, staging)
        _run(generator, shard.select(jobs), out, settings, staging, outcome, progress, labels, shared)
        common = {
            "weights_sha256": settings.weights_sha256,
            "frames": str(settings.options.frames),
            "fps": repr(float(fps)),
            "settings_sha256": settings.sha256(),
        }
        write_manifests(out, jobs, shard, outcome.unreadable, common, staging, settings)
    return outcome


def _run(
    generator: Generator,
    jobs: Sequence[Job],
    out: Path,
    settings: AugmentSettings,
    staging: Path,
    outcome: Outcome,
    progress: Progress,
    labels: Sequence[str],
    record: Provenance,
) -> None:
    writing: Future[None] | None = None
    with ThreadPoolExecutor(max_workers=1) as writer:
        for done, job in enumerate(jobs, start=1):
            if (out / job.output).exists():
                outcome.present += 1
            elif job.source.name not in outcome.unreadable:
                try:
                    clip = _make(generator, job, settings, labels)
                except InputError as error:
                    outcome.unreadable[job.source.name] = " ".join(error.message.split())
                else:
                    # Waiting for the last clip before handing over the next keeps memory bounded
                    # and lets an error in the writer stop the run.
                    if writing is not None:
                        writing.result()
                    writing = writer.submit(
                        _write, clip, out / job.output, settings, staging, _of_job(record, job, labels, settings)
                    )
                    outcome.made += 1
            progress(done, len(jobs), str(job.output))
        if writing is not None:
            writing.result()


def _make(generator: Generator, job: Job, settings: AugmentSettings, labels: Sequence[str]) -> GeneratedClip:
    still = read_still(job.source.path, regions=settings.region)
    size = (still.shape[0], still.shape[1])
    mask = read_masks(job.source.masks, size) if job.source.masks else None
    options = options_for(job.source.label, labels, settings.options)
    (clip,) = generator(still, mask=mask, seed=job.seed, num_clips=1, options=options, size=settings.size)
    return clip


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


def _of_job(record: Provenance, job: Job, labels: Sequence[str], settings: AugmentSettings) -> Provenance:
    options = options_for(job.source.label, labels, settings.options)
    own = {"options": {**options.model_dump(mode="json"), "size": settings.size}}
    return record.model_copy(update={"still_sha256": job.source.sha256, "seed": job.seed, **own})


def _write(clip: GeneratedClip, path: Path, settings: AugmentSettings, staging: Path, record: Provenance) -> None:
    make_folder(path.parent)
    write_result(clip, path, exact=settings.exact, staging=staging, record=record)


@contextmanager
def _staging(out: Path, shard: Shard) -> Iterator[Path]:
    """An empty hidden folder of this shard; what a killed run left in it is removed first."""
    folder = out / f".partial{shard.suffix}"
    shutil.rmtree(folder, ignore_errors=True)
    make_folder(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
