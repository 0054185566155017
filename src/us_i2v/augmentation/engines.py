"""Who does the jobs of a plan: this process, or the ranks that torchrun has started; for Ray see `ray_engine`.

Ranks talk through files in a hidden folder of the output, which all must see; no process group is needed, so any
scheduler that sets RANK and WORLD_SIZE will do. Rank r does every WORLD_SIZE-th job. Meanwhile it counts a beat in
`r.beat`, and at its end it tells in `r.json` what it did. Rank 0 waits until every clip is in place or its still is
told to be unreadable, does the jobs of a rank whose beat has stopped, and writes the manifest.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

from us_i2v.augmentation.outputs import make_folder
from us_i2v.augmentation.planning import Job, Shard
from us_i2v.augmentation.work import Generator, Outcome, Progress, Work, handover_folder
from us_i2v.errors import ConfigError, OutputError, UsI2VError
from us_i2v.pipeline import Precision
from us_i2v.ranks import Ranks

ENGINES = ("auto", "serial", "torchrun", "ray")

BEAT_S = 2.0
"""Seconds between the beats of a rank."""

PATIENCE_S = 180.0
"""Seconds without a beat after which a rank is taken for dead; network file systems may show a file a minute late."""

GRACE_S = 3 * BEAT_S
"""Seconds that rank 0 waits for the report of a rank whose clips are all there."""


class Engine(Protocol):
    """Does the jobs of a shard."""

    @property
    def worker(self) -> str:
        """Name of this process among those that write to the output folder; "" if it is alone."""

    @property
    def first(self) -> bool:
        """Whether this process writes the manifest."""

    def run(
        self,
        generator: Generator,
        work: Work,
        jobs: Sequence[Job],
        shard: Shard,
        staging: Path,
        progress: Progress,
    ) -> Outcome:
        """Do those jobs of a shard of the plan that are not done yet; see `Work.run`."""


def choose_engine(
    name: str, weights: str | None, device: str, workers: int | None = None, precision: Precision = "fp32"
) -> Engine:
    """Return the engine of a name in `ENGINES`.

    Args:
        name: "auto" is "torchrun" where RANK and WORLD_SIZE say that there are several processes, else "serial".
        weights: What actors of Ray load, as `ImageToVideo.from_pretrained` takes it.
        device: Where they compute.
        workers: Number of actors of Ray.
        precision: What their networks compute in.

    Raises:
        ConfigError: The name is not known, it does not fit the environment, or Ray is missing.
    """
    ranks = Ranks.of_environment()
    if name not in ENGINES:
        raise ConfigError(f"Engine '{name}' is not one of {', '.join(ENGINES)}.", "Choose one of these.")
    if name in ("serial", "ray") and ranks.world > 1:
        raise ConfigError(
            f"Engine '{name}' was asked for in one of {ranks.world} processes (WORLD_SIZE).",
            "Leave --engine out, or start without torchrun.",
        )
    if workers is not None and name != "ray":
        raise ConfigError(f"--workers {workers} was given; it belongs to the engine 'ray'.", "Add --engine ray.")
    if name == "ray":
        from us_i2v.augmentation.ray_engine import RayEngine, Recipe

        return RayEngine(Recipe(weights, device, precision), workers)
    return Serial() if name == "serial" or (name == "auto" and ranks.world == 1) else Ranked(ranks)


class Serial:
    """This process does everything."""

    worker = ""
    first = True

    def run(
        self,
        generator: Generator,
        work: Work,
        jobs: Sequence[Job],
        shard: Shard,
        staging: Path,
        progress: Progress,
    ) -> Outcome:
        """See `Engine.run`."""
        return work.run(generator, shard.select(jobs), staging, progress)


class Ranked:
    """The ranks share the jobs.

    Args:
        ranks: Place of this process.
        patience_s: See `PATIENCE_S`.
    """

    def __init__(self, ranks: Ranks, patience_s: float = PATIENCE_S) -> None:
        self.ranks, self.patience_s = ranks, patience_s
        # A rank of a killed run may still be at work: no two processes share a name.
        self.worker, self.first = f"rank{ranks.rank}-{secrets.token_hex(4)}", ranks.first

    def run(
        self,
        generator: Generator,
        work: Work,
        jobs: Sequence[Job],
        shard: Shard,
        staging: Path,
        progress: Progress,
    ) -> Outcome:
        """See `Engine.run`; rank 0 returns what all did, and raises `OutputError` if another rank failed."""
        selected = shard.select(jobs)
        folder = handover_folder(work.out, shard)
        make_folder(folder)
        report = folder / f"{self.ranks.rank}.json"
        for stale in folder.glob("*.json") if self.first else (report,):
            stale.unlink(missing_ok=True)
        try:
            with _beating(folder / f"{self.ranks.rank}.beat"):
                outcome = work.run(generator, self.ranks.share(selected), staging, progress)
                if self.first:
                    for rank in range(1, self.ranks.world):
                        outcome.add(self._of(rank, generator, work, selected, folder, staging, progress))
        except UsI2VError as error:
            _tell(report, {"error": error.message, "hint": error.hint})
            raise
        _tell(report, asdict(outcome))
        return outcome

    def _of(
        self,
        rank: int,
        generator: Generator,
        work: Work,
        selected: Sequence[Job],
        folder: Path,
        staging: Path,
        progress: Progress,
    ) -> Outcome:
        """Wait for what another rank does, or do it."""
        share = self.ranks.share(selected, rank)
        missing, beat, since = share, "", time.monotonic()
        while True:
            missing = [job for job in missing if not work.done(job)]
            told = _told(rank, folder / f"{rank}.json")
            if told is not None and all(job.source.name in told.unreadable for job in missing):
                return told
            now = _read_text(folder / f"{rank}.beat")
            if now != beat:
                beat, since = now, time.monotonic()
            silent = time.monotonic() - since
            if not missing and silent > min(GRACE_S, self.patience_s):
                return Outcome(present=len(share))
            if silent > self.patience_s:
                return work.run(generator, share, staging, progress)
            time.sleep(0.1)


@contextmanager
def _beating(path: Path) -> Iterator[None]:
    """Count in a file for as long as the body runs; fails silently where its folder is gone."""
    ended = threading.Event()

    def beat() -> None:
        while True:
            with suppress(OSError):
                path.write_text(str(time.time_ns()), encoding="ascii")
            if ended.wait(BEAT_S):
                return

    thread = threading.Thread(target=beat, name="beat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _tell(path: Path, content: dict[str, object]) -> None:
    """Write a report whole; where its folder is gone rank 0 has ended, or the disk fails, which raises elsewhere."""
    part = path.with_suffix(".part")
    with suppress(OSError):
        part.write_text(json.dumps(content), encoding="utf-8")
        part.replace(path)


def _told(rank: int, path: Path) -> Outcome | None:
    """Read the report of a rank, if there is one; raises `OutputError` if it failed."""
    text = _read_text(path)
    if not text:
        return None
    told = json.loads(text)
    if "error" in told:
        raise OutputError(f"Rank {rank} stopped: {told['error']}", told["hint"])
    return Outcome(**told)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
