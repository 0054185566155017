"""Who does the jobs: actors of a Ray cluster (extra `ray`), on as many machines as it has.

Each actor holds the weights and writes its clips itself, so stills, weights and output must lie where all machines see
them; an actor that does not see the output folder says so before anything is made. The driver hands out the jobs in
small batches and writes the manifest. The jobs of an actor that dies go to another one, and it is replaced.
"""

from __future__ import annotations

import math
import os
import secrets
import socket
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from us_i2v.augmentation.planning import Job, Shard
from us_i2v.augmentation.work import Generator, Outcome, Progress, Work, staging_folder
from us_i2v.errors import ConfigError, OutputError, UsI2VError, WeightsError
from us_i2v.pipeline import CPU_THREADS, ImageToVideo, Precision

MOST_AT_ONCE = 8
"""Jobs of a batch; what an actor has finished when it dies is not made again."""

MOST_DEATHS = 3
"""How often a batch may lose its actor, and how many actors are replaced for each that was asked for."""

START_S = 600.0
"""Seconds within which the first actor must be ready."""

STORE_BYTES = 100 * 2**20
"""Object store of a cluster started here: only jobs and counts pass through it."""

_SEEN = "seen-by-all"


@dataclass(frozen=True)
class Recipe:
    """What an actor loads.

    Attributes:
        weights: As `ImageToVideo.from_pretrained` takes them.
        device: As `devices.choose_device` takes it.
        precision: What networks compute in.
    """

    weights: str | None
    device: str
    precision: Precision = "fp32"


class Worker:
    """What an actor runs: holds the weights, does batches of jobs."""

    def __init__(self, recipe: Recipe, work: Work, shard: Shard) -> None:
        self.recipe, self.work, self.shard = recipe, work, shard
        self.name = f"actor-{secrets.token_hex(4)}"  # Of its staging folder; no two actors share one.
        self.generator: ImageToVideo | None = None

    def ready(self) -> None:
        """Load the weights; raises `WeightsError` and the like, and `OutputError` if the output is not seen."""
        if not (self.work.out / f".partial{self.shard.suffix}" / _SEEN).exists():
            raise OutputError(
                f"Machine '{socket.gethostname()}' does not see the output folder '{self.work.out}'.",
                "Put stills, weights and output on a file system that all machines share.",
            )
        self.generator = ImageToVideo.from_pretrained(
            self.recipe.weights, self.recipe.device, precision=self.recipe.precision
        )
        if self.generator.weights_sha256 != self.work.settings.weights_sha256:
            raise WeightsError(
                f"Machine '{socket.gethostname()}' has other weights at '{self.recipe.weights}' than this one.",
                "Use one file that all machines see.",
            )

    def run(self, jobs: Sequence[Job]) -> Outcome:
        """Do a batch."""
        if self.generator is None:
            raise RuntimeError("jobs were given to an actor that is not ready")
        with staging_folder(self.work.out, self.shard, self.name) as staging:
            return self.work.run(self.generator, jobs, staging, lambda done, total, name: None)


@dataclass
class _Batch:
    """Jobs, and how many actors died doing them; without jobs: an actor getting ready."""

    jobs: tuple[Job, ...] = ()
    deaths: int = 0

    def after_death(self, why: Exception) -> _Batch:
        """Return the batch for another actor; raises `OutputError` if it has lost too many."""
        if self.deaths + 1 >= MOST_DEATHS:
            raise OutputError(
                f"{MOST_DEATHS} workers died making '{self.jobs[0].output}' or the clips after it ({_line(why)}).",
                "Look at this still, and at the memory of the machines.",
            )
        return replace(self, deaths=self.deaths + 1)


class RayEngine:
    """Actors of the cluster that this machine belongs to, or of one that is started here for the run.

    Args:
        recipe: What the actors load.
        workers: Number of actors; None: one a GPU of the cluster, else one for every two CPUs.
    """

    worker = ""
    first = True

    def __init__(self, recipe: Recipe, workers: int | None = None) -> None:
        self.recipe, self.workers = recipe, workers
        self.ray: Any = ray_module()

    def run(
        self,
        generator: Generator,
        work: Work,
        jobs: Sequence[Job],
        shard: Shard,
        staging: Path,
        progress: Progress,
    ) -> Outcome:
        """See `engines.Engine.run`; the generator of this process is not used.

        Raises:
            OutputError: An actor cannot write, or actors died too often.
            WeightsError: An actor cannot read the same weights.
        """
        (staging / _SEEN).touch()
        selected = [_absolute(job) for job in shard.select(jobs)]
        outcome = Outcome(present=sum(map(work.done, selected)))
        missing = [job for job in selected if not work.done(job)]
        if not missing:
            return outcome
        recipe = self.recipe
        if recipe.weights is not None and Path(recipe.weights).exists():
            recipe = replace(recipe, weights=str(Path(recipe.weights).absolute()))
        away = replace(work, out=work.out.absolute())
        with _cluster(self.ray, self.workers) as resources:
            crew = _Crew(self.ray, Share.of(resources, self.workers, len(missing), recipe.device))
            try:
                crew.start(recipe, away, shard)
                self._stream(crew, missing, len(selected), outcome, progress)
            finally:
                crew.dismiss()
        outcome.made = sum(map(work.done, selected)) - outcome.present
        return outcome

    def _stream(self, crew: _Crew, missing: Sequence[Job], total: int, outcome: Outcome, progress: Progress) -> None:
        size = max(1, min(MOST_AT_ONCE, len(missing) // (4 * crew.share.workers)))
        waiting = deque(_Batch(tuple(missing[i : i + size])) for i in range(0, len(missing), size))
        done, unfinished = total - len(missing), len(waiting)
        while unfinished:
            slot, batch, found = crew.next_answer()
            if isinstance(found, Exception):
                if batch.jobs:
                    waiting.appendleft(batch.after_death(found))
                crew.replace(slot, found)
            else:
                crew.rest(slot)
                if found is not None:
                    outcome.unreadable.update(found.unreadable)
                    done, unfinished = done + len(batch.jobs), unfinished - 1
                    progress(done, total, str(batch.jobs[-1].output))
            while waiting and crew.has_idle():
                crew.give(waiting.popleft())


@dataclass(frozen=True)
class Share:
    """Number of actors, and what each takes of the cluster."""

    workers: int
    cpus: float
    gpus: float

    @classmethod
    def of(cls, resources: dict[str, float], workers: int | None, jobs: int, device: str) -> Share:
        """Divide a cluster's resources.

        An actor asks for half of its part of the CPUs, and for one at most: Ray would wait for ever for an actor that
        does not fit beside what else runs. That says nothing of its threads, whose number is fixed.
        """
        cpus, gpus = resources.get("CPU", 1.0), 0.0 if device == "cpu" else resources.get("GPU", 0.0)
        count = min(jobs, workers or max(1, int(gpus) or int(cpus) // CPU_THREADS))
        share = max(0.01, math.floor(100 * min(1.0, cpus / (2 * count))) / 100)
        part = 0.0 if not gpus else 1.0 if count <= gpus else math.floor(100 * gpus / count) / 100
        return cls(count, share, part)


class _Crew:
    """Actors and what they are doing: one batch each."""

    def __init__(self, ray: Any, share: Share) -> None:
        self.ray, self.share = ray, share
        self._actors: dict[int, Any] = {}
        self._running: dict[Any, tuple[int, _Batch]] = {}
        self._idle: list[int] = []
        self._replaced = 0
        self._arguments: tuple[Recipe, Work, Shard] | None = None

    def start(self, recipe: Recipe, work: Work, shard: Shard) -> None:
        """Ask the cluster for the actors; they become ready one by one."""
        self._arguments = recipe, work, shard
        for slot in range(self.share.workers):
            self._hire(slot)

    def next_answer(self) -> tuple[int, _Batch, Outcome | Exception | None]:
        """Wait for an actor: its number, what it did, and the outcome; None if it got ready, or why it died.

        Raises:
            UsI2VError: What the actor raised.
            ConfigError: None works, and the cluster has no room for another within `START_S`.
        """
        exceptions = self.ray.exceptions
        working = any(batch.jobs for _, batch in self._running.values())
        done, _ = self.ray.wait(list(self._running), num_returns=1, timeout=None if working else START_S)
        if not done:
            raise ConfigError(
                f"None of {self.share.workers} workers could start within {START_S:.0f} s "
                f"({self.share.cpus:g} CPUs and {self.share.gpus:g} GPUs each).",
                "Free the cluster, or lower --workers.",
            )
        slot, batch = self._running.pop(done[0])
        try:
            found: Outcome | None = self.ray.get(done[0])
        except exceptions.RayTaskError as error:
            cause = error.cause
            raise (cause if isinstance(cause, UsI2VError) else error) from None
        except (exceptions.RayActorError, exceptions.WorkerCrashedError, exceptions.OutOfMemoryError) as error:
            return slot, batch, error
        return slot, batch, found

    def rest(self, slot: int) -> None:
        """Take an actor for one that has nothing to do."""
        self._idle.append(slot)

    def has_idle(self) -> bool:
        """Tell whether an actor has nothing to do."""
        return bool(self._idle)

    def give(self, batch: _Batch) -> None:
        """Give one that has nothing to do a batch."""
        slot = self._idle.pop()
        self._running[self._actors[slot].run.remote(batch.jobs)] = slot, batch

    def replace(self, slot: int, why: Exception) -> None:
        """Start another actor for one that died; raises `OutputError` if that has happened too often."""
        self._replaced += 1
        if self._replaced > MOST_DEATHS * self.share.workers:
            raise OutputError(
                f"Workers died {self._replaced} times, the last one: {_line(why)}",
                "Look at the memory of the machines; the same command goes on with what is missing.",
            )
        self._hire(slot)

    def dismiss(self) -> None:
        """End all actors."""
        for actor in self._actors.values():
            self.ray.kill(actor)

    def _hire(self, slot: int) -> None:
        # Caps on what is read (data.limits) and how threads wait (cli.app) are variables of the driver's environment.
        passed = ("US_I2V_MAX_", "GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
        known = {name: value for name, value in os.environ.items() if name.startswith(passed)}
        options: dict[str, Any] = {"runtime_env": {"env_vars": known}} if known else {}
        kind = self.ray.remote(Worker).options(
            num_cpus=self.share.cpus, num_gpus=self.share.gpus, scheduling_strategy="SPREAD", **options
        )
        actor = kind.remote(*(self._arguments or ()))
        self._actors[slot] = actor
        self._running[actor.ready.remote()] = slot, _Batch()


@contextmanager
def _cluster(ray: Any, workers: int | None) -> Iterator[dict[str, float]]:
    """Connect to the cluster of this machine or of RAY_ADDRESS, or start one here; gives its resources."""
    if ray.is_initialized():
        yield ray.cluster_resources()
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        ray.init(address="auto", **quiet)
    except ConnectionError:
        if "RAY_ADDRESS" in os.environ:
            raise ConfigError(
                f"No Ray cluster answers at RAY_ADDRESS = '{os.environ['RAY_ADDRESS']}'.", "Unset it, or start one."
            ) from None
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(include_dashboard=False, object_store_memory=STORE_BYTES, **quiet)
    try:
        yield ray.cluster_resources()
    finally:
        ray.shutdown()


def ray_module() -> Any:
    """Import Ray; raises `ConfigError` where it is missing."""
    try:
        return import_module("ray")
    except ImportError as error:
        raise ConfigError(
            "The engine 'ray' needs the package ray.", "Install it: pip install 'us-i2v[ray]'."
        ) from error


def _absolute(job: Job) -> Job:
    """Other machines start elsewhere: give the files' full paths."""
    masks = tuple(mask.absolute() for mask in job.source.masks)
    return replace(job, source=replace(job.source, path=job.source.path.absolute(), masks=masks))


def _line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
