"""Fits a quality reference to real clips: ranges of what is measured, and a critic of generated clips."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from us_i2v import __version__
from us_i2v.config import Config
from us_i2v.errors import DataError
from us_i2v.evaluation.clips import Generated, RealWindows
from us_i2v.metrics.critic import critic_interval, fit_critic
from us_i2v.options import GenerateOptions
from us_i2v.quality import (
    MEASURED,
    SAME_INTERVAL,
    CriticHeader,
    QualityHeader,
    Range,
    measure,
    same_interval,
    save_reference,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from us_i2v.evaluation.clips import Answers
    from us_i2v.metrics.critic import LinearCritic
    from us_i2v.metrics.intervals import Array
    from us_i2v.pipeline import ImageToVideo
    from us_i2v.types import Frames

Progress = Callable[[int, int, str], None]

LEAST = 20
"""Real windows below which no range can be told."""


class QualityFit(Config):
    """How ranges are taken from real clips."""

    low: float = Field(0.025, ge=0, lt=0.5, description="Lower quantile of the ranges.")
    high: float = Field(0.975, gt=0.5, le=1, description="Upper quantile.")
    name: str = Field("", max_length=200, description="What the real clips are.")


@dataclass(frozen=True)
class Measured:
    """Values of windows that all could be measured.

    Attributes:
        values: (N, D), in the order of `quality.MEASURED`.
        groups: (N,).
        left_out: Windows without texture or the like.
    """

    values: Array
    groups: tuple[str, ...]
    left_out: int


@dataclass(frozen=True)
class Fitted:
    """A reference that was fitted.

    Attributes:
        header: What was written.
        notes: What was left out and why, a line each.
    """

    header: QualityHeader
    notes: tuple[str, ...]


def measured(windows: Iterable[tuple[str, str, Frames]], total: int, progress: Progress) -> Measured:
    """Measure windows (name, group, frames as `quality.measure` takes them); `total` of them are announced.

    Those of which a part is not known are left out.
    """
    rows, groups, done = [], [], 0
    for done, (name, group, frames) in enumerate(windows, 1):
        found = measure(frames)
        if all(math.isfinite(value) for value in found.values()):
            rows.append([found[part] for part in MEASURED])
            groups.append(group)
        progress(done, total, name)
    return Measured(np.array(rows).reshape(-1, len(MEASURED)), tuple(groups), done - len(rows))


def _natives(clips: RealWindows | Answers, indices: Sequence[int]) -> Iterator[tuple[str, str, Frames]]:
    return ((clips.names[index], clips.groups[index], clips.native(index)) for index in indices)


def fit_quality(
    real: RealWindows,
    path: Path,
    config: QualityFit,
    *,
    generator: ImageToVideo | None = None,
    seed: int = 0,
    stage: Callable[[str], Progress] = lambda what: lambda done, total, name: None,
) -> Fitted:
    """Measure real windows, fit the critic if there is a generator, and write the reference.

    Windows whose frame interval is not that of the rule (clips slower than it, files that are one window at any rate)
    are left out: see `quality.SAME_INTERVAL`. A rule without one takes the windows' median.

    Args:
        real: Real windows, cut by the frame interval that the clips to be judged will have.
        path: Where to.
        config: See `QualityFit`.
        generator: Makes a clip of each window's first frame, for the critic; None: no critic.
        seed: Of these clips, and of the critic's folds.
        stage: Called with what is begun; gives a function that is told (done, total, name).

    Returns:
        What was written, and what was left out.

    Raises:
        DataError: Fewer than `LEAST` windows can be measured, or the critic has too few patients.
        OutputError: The file cannot be written.
    """
    intervals = [entry.interval_s for entry in real.entries]
    wanted = float(np.median(intervals)) if real.rule.dt_s is None else real.rule.dt_s
    chosen = [index for index, interval in enumerate(intervals) if same_interval(interval, wanted)]
    others = [interval for interval in intervals if not same_interval(interval, wanted)]
    found = measured(_natives(real, chosen), len(chosen), stage("measure real clips"))
    if len(found.values) < LEAST:
        why = f", {len(others)} have frames {_apart(others)} apart instead of {1000 * wanted:.0f} ms" if others else ""
        raise DataError(
            f"{len(found.values)} real windows could be measured ({found.left_out} not{why}); {LEAST} are needed.",
            "Give more clips, or raise --windows-per-clip" + (", or choose --dt for them." if others else "."),
        )
    notes = _notes(real, found, wanted, others)
    critic: LinearCritic | None = None
    about: CriticHeader | None = None
    if generator is not None:
        clips = Generated(real, generator, GenerateOptions(frames=real.rule.length), seed)
        made = measured(_natives(clips, chosen), len(chosen), stage("make and measure clips"))
        if not len(made.values):
            raise DataError("No generated clip could be measured.", "Leave the critic out: --no-critic.")
        if made.left_out:
            notes.append(f"{made.left_out} generated clips left out: not every part of them can be measured")
        interval = critic_interval(found.values, made.values, found.groups, made.groups, seed=seed)
        both = np.concatenate([found.values, made.values])
        critic = fit_critic(both, np.arange(len(both)) < len(found.values))
        auc_low, auc_high = (None if math.isnan(x) else x for x in (interval.low, interval.high))
        about = CriticHeader(
            auc=interval.mean,
            auc_low=auc_low,
            auc_high=auc_high,
            generated=len(made.values),
            weights_sha256=generator.weights_sha256,
        )
    apart = float(np.median([intervals[index] for index in chosen]))
    header = reference_header(found, real.rule.length, apart, config, about)
    save_reference(path, header, critic)
    return Fitted(header, tuple(notes))


def reference_header(
    real: Measured, frames: int, interval_s: float, config: QualityFit, critic: CriticHeader | None = None
) -> QualityHeader:
    """Return what a reference says of real windows of this length and time between frames (seconds)."""
    limits = np.quantile(real.values, [config.low, config.high], axis=0)
    return QualityHeader(
        package_version=__version__,
        name=config.name,
        frames=frames,
        interval_s=interval_s,
        quantiles=(config.low, config.high),
        windows=len(real.values),
        groups=len(set(real.groups)),
        ranges={name: Range(low=limits[0, k], high=limits[1, k]) for k, name in enumerate(MEASURED)},
        critic=critic,
    )


def _notes(real: RealWindows, found: Measured, wanted: float, others: Sequence[float]) -> list[str]:
    """Return what was left out of the real clips, in lines."""
    notes = []
    if real.skipped:
        notes.append(f"{len(real.skipped)} clips give no window, for example {next(iter(real.skipped.values()))}")
    if others:
        notes.append(
            f"{len(others)} windows left out: their frames are {_apart(others)} apart instead of "
            f"{1000 * wanted:.0f} ms; up to {SAME_INTERVAL:g} times is taken for the same"
        )
    if found.left_out:
        notes.append(f"{found.left_out} windows left out: not every part of them can be measured")
    return notes


def _apart(intervals: Sequence[float]) -> str:
    low, high = (f"{1000 * limit(intervals):.0f}" for limit in (min, max))
    return f"{low} ms" if low == high else f"{low} to {high} ms"
