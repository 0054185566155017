"""Comparing a measured set of fakes with a measured set of real clips, by source and all together.

Every distance stands beside two reference lines of the same clips: real against other real clips (floor) and
frame 0 repeated. Frechet distances: `evaluation.divisions`. Kernel distances and the critic use all clips.
Intervals resample patients; differences from real partners are paired. "No claim" marks Frechet distances of
fewer than 100 clips a side: their bias is larger than most differences.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from us_i2v.errors import ConfigError, DataError
from us_i2v.evaluation.divisions import Lines, Side, available, divide, frames_of, frechet_lines
from us_i2v.evaluation.measure import Measured
from us_i2v.evaluation.results import Comparison, Curve, Decorrelation, Distances, Distribution, Part, Summary
from us_i2v.metrics.critic import critic_interval
from us_i2v.metrics.frechet import LEAST_CLIPS, sample_warning
from us_i2v.metrics.intervals import LIMITS, Interval, curve_interval, mean_interval, paired_interval
from us_i2v.metrics.kernel import kernel_distance, kernel_interval

Array = npt.NDArray[np.float64]

ALL = "all"
"""Name of all sources together."""


def compare(
    real: Measured,
    fake: Measured,
    *,
    repeat: Measured | None = None,
    n: int = LEAST_CLIPS,
    draws: int = 20,
    seed: int = 0,
) -> Comparison:
    """Compare fakes with real clips.

    The divisions depend on the real clips' groups and on `seed` alone, so that fakes of several methods which
    were made for the same real clips are compared on the same draws.

    Args:
        real: Real clips.
        fake: Fakes, measured by the same networks.
        repeat: The real clips' first frames repeated, in the order of `real`; None leaves that line out.
        n: Clips a side that Frechet distances draw; fewer where there are fewer.
        draws: Divisions.
        seed: Seed of all choices.

    Raises:
        ConfigError: If n or draws is too small, or `repeat` does not belong to `real`.
    """
    if n < 2 or draws < 1:
        raise ConfigError(f"{draws} draws of {n} clips give no distance.", "Use --n 100 and --draws 20.")
    if repeat is not None and repeat.names != real.names:
        raise ConfigError("The repeated first frames are not those of the real clips.", "Measure Repeated(real).")
    # By name, so that the order in which clips were measured does not matter.
    order = np.argsort(real.names).tolist()
    real, repeat = real.select(order), None if repeat is None else repeat.select(order)
    fake = fake.select(np.argsort(fake.names).tolist())
    sources = list(dict.fromkeys(real.sources))
    parts = {}
    for source in sources:
        rows, fakes = _of(real, source), _of(fake, source)
        if rows and fakes:
            some = None if repeat is None else repeat.select(rows)
            parts[source] = _part(real.select(rows), fake.select(fakes), some, n, draws, seed)
    if len(sources) > 1 or not parts:
        parts[ALL] = _part(real, fake, repeat, n, draws, seed)
    return Comparison(parts, fake.paired_label)


def _of(measured: Measured, source: str) -> list[int]:
    return [row for row, own in enumerate(measured.sources) if own == source]


def _part(real: Measured, fake: Measured, repeat: Measured | None, n: int, draws: int, seed: int) -> Part:
    place = {name: row for row, name in enumerate(real.names)}
    mates = [place.get(name, -1) if name else -1 for name in fake.partners]
    return Part(
        n_real=len(real),
        n_fake=len(fake),
        groups=len(set(real.groups)),
        n_paired=sum(mate >= 0 for mate in mates),
        distances={
            key: _distances(key, real, fake, repeat, mates, n, draws, seed)
            for key in fake.features
            if key in real.features
        },
        distributions={name: _distribution(name, real, fake, mates) for name in fake.scalars if name in real.scalars},
        paired=_paired(fake, repeat),
        decorrelation=_decorrelation(real, fake, mates, draws, seed),
    )


def _distances(
    key: str, real: Measured, fake: Measured, repeat: Measured | None, mates: list[int], n: int, draws: int, seed: int
) -> Distances:
    network = real.networks[key]
    fake_of = np.full(len(real), -1, dtype=np.intp)
    for row in range(len(fake) - 1, -1, -1):  # Of several fakes of one clip the first is drawn.
        if mates[row] >= 0:
            fake_of[mates[row]] = row
    repeated = None if repeat is None else repeat.features[key]
    data = Side(real.features[key], real.groups, fake.features[key], fake.groups, repeated, fake_of)
    warnings: list[str] = []
    several = len(set(real.groups)) > 1
    count = min(n, available(data, draws, seed)) if several else 0
    lines = Lines(count, draws, {})
    if count >= 2:
        lines = frechet_lines(data, count, draws, seed)
    else:
        warnings.append(f"{len(set(real.groups))} group(s) cannot be divided into two sides; no distance")
    warning = sample_warning(count * frames_of(data.real), network.dimensions) if count >= 2 else None
    if 0 < count < LEAST_CLIPS:
        warning = sample_warning(count, network.dimensions)
    if warning is not None:
        warnings.append(warning)
    kernel, critic = _kernel(data, draws, seed), {}
    if data.real.ndim == 2:
        critic = _critic(data, seed)
    name = f"{network.label} ({network.description}; n={count}, mean of {draws} draws)"
    return Distances(
        name,
        network.dimensions,
        count,
        draws,
        count >= LEAST_CLIPS,
        lines.values,
        kernel,
        critic,
        tuple(warnings),
        lines.samples,
    )


def _kernel(data: Side, draws: int, seed: int) -> dict[str, Interval]:
    """Return the kernel distance's lines; those that cannot be had (one patient) are left out."""
    flat, groups = _flat(data.real, data.real_groups)
    others, other_groups = _flat(data.fake, data.fake_groups)
    if len(set(groups)) < 2 or len(set(other_groups)) < 2:
        return {}
    found = {"fake": kernel_interval(flat, others, groups, other_groups, repeats=1000)}
    sides = [(left, ~left) for left in divide(data.real_groups, draws, seed)]
    values = []
    for left, right in sides:
        (a, ga), (b, gb) = (
            _flat(data.real[side], tuple(np.array(data.real_groups)[side].tolist())) for side in (left, right)
        )
        if min(len(set(ga)), len(set(gb))) > 1:
            values.append(kernel_distance(a, b, ga, gb))
    if values:
        low, high = np.percentile(values, LIMITS)
        found["floor"] = Interval(
            float(np.mean(values)), float(low), float(high), len(data.real) // 2, len(set(data.real_groups))
        )
    if data.repeat is not None:
        found["repeat"] = kernel_interval(flat, _flat(data.repeat, data.real_groups)[0], groups, groups, repeats=1000)
    return found


def _flat(features: Array, groups: tuple[str, ...]) -> tuple[Array, list[str]]:
    """Return features (N, D) and the group of each; several frames a clip become vectors of their own."""
    if features.ndim == 2:
        return features, list(groups)
    return features.reshape(-1, features.shape[-1]), np.repeat(np.array(groups), features.shape[1]).tolist()


def _critic(data: Side, seed: int) -> dict[str, Interval]:
    """Return the critic's lines; those without enough patients are left out."""
    left = divide(data.real_groups, 1, seed)[0] if len(set(data.real_groups)) > 1 else np.zeros(len(data.real), bool)
    groups = np.array(data.real_groups)
    lines = {
        "fake": (data.real, data.fake, list(data.real_groups), list(data.fake_groups)),
        "floor": (data.real[~left], data.real[left], groups[~left].tolist(), groups[left].tolist()),
    }
    if data.repeat is not None:
        lines["repeat"] = (data.real, data.repeat, list(data.real_groups), list(data.real_groups))
    found = {}
    for line, arguments in lines.items():
        try:
            found[line] = critic_interval(*arguments, seed=seed)
        except DataError:
            continue  # Too few patients to train on some and judge others: the line is not there.
    return found


def _summary(values: Array | None) -> Summary | None:
    if values is None:
        return None
    known = values[np.isfinite(values)]
    if not len(known):
        return None
    lower, median, upper = np.percentile(known, [25, 50, 75])
    return Summary(float(median), float(lower), float(upper), float(known.mean()), len(known))


def _distribution(name: str, real: Measured, fake: Measured, mates: list[int]) -> Distribution:
    ours, theirs = fake.scalars[name], real.scalars[name]
    rows = [row for row, mate in enumerate(mates) if mate >= 0 and np.isfinite(ours[row] + theirs[mate])]
    difference = None
    if rows:
        groups = [fake.groups[row] for row in rows]
        difference = paired_interval(ours[rows], theirs[[mates[row] for row in rows]], groups)
    return Distribution(_summary(ours), _summary(theirs), difference)


def _paired(fake: Measured, repeat: Measured | None) -> dict[str, dict[str, Interval]]:
    found: dict[str, dict[str, Interval]] = {}
    for line, measured in (("fake", fake), ("repeat", repeat)):
        for name, values in (measured.paired if measured is not None else {}).items():
            rows = np.flatnonzero(np.isfinite(values))
            if len(rows) and measured is not None and (line == "fake" or name in found):
                groups = [measured.groups[row] for row in rows]
                found.setdefault(name, {})[line] = mean_interval(values[rows], groups)
    return found


def _decorrelation(real: Measured, fake: Measured, mates: list[int], draws: int, seed: int) -> Decorrelation | None:
    if "decorrelation" not in real.curves or "decorrelation" not in fake.curves:
        return None
    ours, theirs = fake.curves["decorrelation"], real.curves["decorrelation"]
    known_ours, known_theirs = (np.asarray(np.isfinite(curves).all(axis=1), np.bool_) for curves in (ours, theirs))
    if not known_ours.any() or not known_theirs.any():
        return None
    difference = None
    rows = [row for row, mate in enumerate(mates) if mate >= 0 and known_ours[row] and known_theirs[mate]]
    if rows and ours.shape[1] == theirs.shape[1]:
        gap = ours[rows] - theirs[[mates[row] for row in rows]]
        difference = _curve(gap, [fake.groups[row] for row in rows])
    kept = np.flatnonzero(known_theirs)
    groups = tuple(real.groups[row] for row in kept)
    return Decorrelation(
        fake=_curve(ours[known_ours], [g for g, known in zip(fake.groups, known_ours, strict=True) if known]),
        real=_curve(theirs[kept], list(groups)),
        difference=difference,
        patients=_halves(theirs[kept], groups, draws, seed),
        windows=_same_patient(theirs[kept], groups),
    )


def _curve(curves: Array, groups: list[str]) -> Curve:
    mean, low, high = curve_interval(curves, groups)
    return Curve(tuple(mean.tolist()), tuple(low.tolist()), tuple(high.tolist()), len(curves))


def _halves(curves: Array, groups: tuple[str, ...], draws: int, seed: int) -> Curve | None:
    if len(set(groups)) < 2:
        return None
    gaps = [curves[left].mean(0) - curves[~left].mean(0) for left in divide(groups, max(draws, 20), seed)]
    low, high = np.percentile(gaps, LIMITS, axis=0)
    return Curve(tuple(np.mean(gaps, axis=0).tolist()), tuple(low.tolist()), tuple(high.tolist()), len(curves) // 2)


def _same_patient(curves: Array, groups: tuple[str, ...]) -> Curve | None:
    """Pair clips of one patient, the first with the second, the third with the fourth, and so on."""
    waiting: dict[str, int] = {}
    pairs: list[tuple[int, int]] = []
    for row, group in enumerate(groups):
        if group in waiting:
            pairs.append((waiting.pop(group), row))
        else:
            waiting[group] = row
    if not pairs:
        return None
    first, second = (np.array(side) for side in zip(*pairs, strict=True))
    return _curve(curves[first] - curves[second], [groups[row] for row in first])
