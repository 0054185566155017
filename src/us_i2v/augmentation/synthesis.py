"""Runs a plan by an engine and writes the manifest.

A job is done if its clip lies in its place, so a run that was stopped at any moment, even by kill -9, goes on where it
was, and the final folder is the same as without the stop. Nothing else is remembered between runs. Which engine does
the jobs changes no byte of the folder either; one process, rank 0 or the driver, writes the manifest.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from us_i2v.augmentation.engines import Engine, Serial
from us_i2v.augmentation.manifest import write_manifests
from us_i2v.augmentation.outputs import make_folder
from us_i2v.augmentation.planning import Job, Shard
from us_i2v.augmentation.selection import QUALITY_NAME, clear_scores
from us_i2v.augmentation.settings import AugmentSettings, check_settings, pin_settings
from us_i2v.augmentation.work import (
    Generator,
    Outcome,
    Progress,
    Work,
    options_for,
    remove_left_over,
    staging_folder,
)
from us_i2v.errors import ConfigError
from us_i2v.provenance import Provenance
from us_i2v.quality import QualityReference

__all__ = ["Generator", "Outcome", "Progress", "options_for", "synthesise"]


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
    engine: Engine | None = None,
    judge: QualityReference | None = None,
) -> Outcome:
    """Make all clips of a shard that are not there yet, choose those that stay, and write the manifest.

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
        engine: Who does the jobs; None: this process.
        judge: What `settings.quality` refers to; needed where that is given.

    Returns:
        What was done: by all processes, or, on a rank that writes no manifest, by this one. Stills or masks that
        cannot be read are skipped and listed; nothing else is.

    Raises:
        ConfigError: the folder was made with other settings, or clips cannot be judged by `judge`.
        OutputError: something cannot be written, or other processes of the engine failed.
    """
    chosen = engine or Serial()
    if (settings.quality is None) != (judge is None):
        raise ConfigError("A selection by quality needs a reference, and the other way round.", "Give both or none.")
    if judge is not None:
        judge.check(settings.options.frames, fps, settings.weights_sha256)
    check_settings(out, settings)
    make_folder(out)
    shared = record or Provenance(
        command="augment",
        still_sha256=None,
        weights_sha256=settings.weights_sha256,
        seed=settings.seed,
        options={**settings.options.model_dump(mode="json"), "size": settings.size},
    )
    with staging_folder(out, shard, chosen.worker) as staging:
        pin_settings(out, settings, staging)
        work = Work(out, settings, tuple(labels), shared, judge)
        outcome = chosen.run(generator, work, jobs, shard, staging, progress)
        if chosen.first:
            common = {
                "weights_sha256": settings.weights_sha256,
                "frames": str(settings.options.frames),
                "fps": repr(float(fps)),
                "settings_sha256": settings.sha256(),
            }
            write_manifests(out, jobs, shard, outcome.unreadable, common, staging, settings)
            if (out / QUALITY_NAME).exists():
                clear_scores(out)
            remove_left_over(out, shard)
    return outcome
