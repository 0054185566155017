"""Frechet distances over divisions of the patients, with the same divisions for every line.

One division parts the groups (patients) at random into a left and a right side with about as many clips each.
From each side `n` clips are drawn, and

    floor   = d(real left,  real right)        other real clips: what a perfect generator would score
    repeat  = d(repeat left, real right)       frame 0 repeated, of the same left clips
    fake    = d(fake left,  real right)        fakes of the same left clips

so that no patient is on both sides, all lines have one n, and what is drawn does not tell them apart. The value is
the mean over `draws` divisions.

Interval: a bootstrap over patients. Each sample draws the groups with replacement, keeps copies of a group on one
side, and repeats the estimate over a few divisions. Copies make a set look narrower than it is and raise the
distance, so the samples are shifted to the estimate: low .. high says how far it would move with other patients.

Two methods that answer the same real clips are compared on the same divisions, clips and bootstrap samples, so that the
interval of their difference (`paired_difference`) is not widened by what they have in common.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from us_i2v.metrics.frechet import frechet_distance
from us_i2v.metrics.intervals import LIMITS, Interval, group_members
from us_i2v.seeding import numpy_generator

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

REPEATS = 200
"""Bootstrap samples."""

DIVISIONS = 4
"""Divisions within one bootstrap sample."""

LARGE = 256
"""Vectors a side above which the bootstrap is cut down: the distance costs their cube."""

FEW_REPEATS = 40


@dataclass(frozen=True)
class Side:
    """Clips that are compared, real and fake, with their groups.

    Attributes:
        real: Real features (N, D) or (N, F, D).
        real_groups: Patients of the real clips.
        fake: Fake features.
        fake_groups: Their patients; those that no real clip has may be compared with any real clip.
        repeat: Features of the real clips' repeated first frames, or None.
        fake_of: For each real clip the index of its fake, -1 where it has none.
    """

    real: Array
    real_groups: tuple[str, ...]
    fake: Array
    fake_groups: tuple[str, ...]
    repeat: Array | None
    fake_of: Indices

    @property
    def paired(self) -> bool:
        """Whether every real clip has a fake."""
        return bool((self.fake_of >= 0).all())


@dataclass(frozen=True)
class Lines:
    """Frechet distances of the lines that there are, each the mean over `draws` divisions with `n` clips a side.

    Attributes:
        n: Clips a side.
        draws: Divisions.
        values: By line.
        samples: Bootstrap samples of "fake", not shifted. Which patients the k-th one is of depends on the real clips
            and the seed alone; () where not every real clip has a fake, since then it depends on the fakes too.
    """

    n: int
    draws: int
    values: dict[str, Interval]
    samples: tuple[float, ...] = ()


def divide(groups: tuple[str, ...], draws: int, seed: int) -> list[npt.NDArray[np.bool_]]:
    """Return `draws` divisions of N clips by group, each (N,), True on the left.

    Groups are taken in random order and go to the side that has fewer clips, so that both sides are about as large.
    Depends on the set of (group, number of clips) and the seed, not on the order of the clips.
    """
    members = group_members(groups, len(groups))
    rng = numpy_generator(seed, "evaluate-divisions")
    return [_divide_once(members, np.ones(len(members), np.intp), len(groups), rng) for _ in range(draws)]


def available(data: Side, draws: int, seed: int) -> int:
    """Return the number of clips that every side of every division has for every line."""
    counts = []
    for left in divide(data.real_groups, draws, seed):
        counts += [int(left.sum()), int((~left).sum()), len(_eligible(data, left)[0])]
    return min(counts)


def frames_of(features: Array) -> int:
    """Return how many vectors a clip has: 1 for (N, D), F for (N, F, D)."""
    return features.shape[1] if features.ndim == 3 else 1


def frechet_lines(data: Side, n: int, draws: int, seed: int, repeats: int = REPEATS) -> Lines:
    """Return the distances of all lines.

    "closed" among them is the share of the way from repeat to floor that the fakes cover,
    (repeat - fake) / (repeat - floor), of the mean values.

    Args:
        data: What is compared.
        n: Clips a side, at most `available`, at least 2.
        draws: Divisions.
        seed: Seed of all choices.
        repeats: Bootstrap samples; fewer are taken where vectors are many.
    """
    rng = numpy_generator(seed, "evaluate-draws")
    once = Copies(np.ones(len(data.real), np.intp), np.ones(len(data.fake), np.intp))
    points = [_lines(data, left, once, n, rng) for left in divide(data.real_groups, draws, seed)]
    values = _mean([point for point in points if point])
    large = n * frames_of(data.real) > LARGE
    count, divisions = (min(repeats, FEW_REPEATS), 1) if large else (repeats, DIVISIONS)
    drawn = [_resampled(data, n, divisions, rng) for _ in range(count)]
    samples = [sample for sample in drawn if sample]
    groups = len(set(data.real_groups))
    found = {key: _shifted(values[key], [sample[key] for sample in samples], n, groups) for key in values}
    if "repeat" in found:
        found["closed"] = _shifted(_closed(values), [_closed(sample) for sample in samples], n, groups, least=-np.inf)
    return Lines(n, draws, found, tuple(sample["fake"] for sample in samples) if data.paired else ())


def paired_difference(
    ours: Interval, theirs: Interval, samples: tuple[float, ...], others: tuple[float, ...]
) -> Interval:
    """Return our distance minus theirs with its interval over patients; no limits without shared samples.

    Args:
        ours: Distance of one method's fakes.
        theirs: Distance of another one's for the same real clips, n and seed.
        samples: `Lines.samples` of ours.
        others: Of theirs.
    """
    drawn = [a - b for a, b in zip(samples, others, strict=True)] if len(samples) == len(others) else []
    return _shifted(ours.mean - theirs.mean, drawn, ours.n, ours.groups, least=-np.inf)


@dataclass(frozen=True)
class Copies:
    """How often each real clip (N,) and each fake (M,) was drawn."""

    real: Indices
    fake: Indices


def _divide_once(members: list[Indices], times: Indices, count: int, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    left = np.zeros(count, dtype=bool)
    filled = [0.0, 0.0]
    for group in rng.permutation(len(members)):
        side = 0 if filled[0] < filled[1] or (filled[0] == filled[1] and rng.random() < 0.5) else 1
        left[members[group]] = side == 0
        filled[side] += len(members[group]) * int(times[group])
    return left


def _eligible(data: Side, left: npt.NDArray[np.bool_]) -> tuple[Indices, bool]:
    """Return the fakes that may be compared with the right side, and whether they are partners of left clips."""
    partners = data.fake_of[left]
    if data.paired:
        return partners, True
    right = {group for group, is_left in zip(data.real_groups, left, strict=True) if not is_left}
    return np.array([k for k, group in enumerate(data.fake_groups) if group not in right], dtype=np.intp), False


def _lines(
    data: Side, left: npt.NDArray[np.bool_], copies: Copies, n: int, rng: np.random.Generator
) -> dict[str, float]:
    """Return each line's distance for one division; {} if a side is left without clips."""
    rows = np.arange(len(left))
    sides = [np.repeat(rows[side], copies.real[side]) for side in (left, ~left)]
    eligible, paired = _eligible(data, left)
    fakes = np.repeat(eligible, copies.fake[eligible])
    if not all(map(len, sides)) or not (paired or len(fakes)):
        return {}
    i, j = (_take(side, n, rng) for side in sides)
    k = data.fake_of[i] if paired else _take(fakes, n, rng)
    right = _rows(data.real, j)
    found = {"floor": frechet_distance(_rows(data.real, i), right)}
    if data.repeat is not None:
        found["repeat"] = frechet_distance(_rows(data.repeat, i), right)
    return found | {"fake": frechet_distance(_rows(data.fake, k), right)}


def _resampled(data: Side, n: int, divisions: int, rng: np.random.Generator) -> dict[str, float]:
    """Return each line's mean over `divisions` for groups drawn with replacement; {} if that leaves no clips.

    Real patients are drawn with their fakes; fakes of other patients are drawn among themselves.
    """
    members = group_members(data.real_groups, len(data.real_groups))
    count = _drawn(len(members), rng)
    real = np.zeros(len(data.real), np.intp)
    for rows, times in zip(members, count, strict=True):
        real[rows] = times
    times_of = {data.real_groups[rows[0]]: times for rows, times in zip(members, count, strict=True)}
    foreign = sorted(set(data.fake_groups) - set(data.real_groups))
    times_of |= dict(zip(foreign, _drawn(len(foreign), rng), strict=True))
    fake = np.array([times_of[group] for group in data.fake_groups], np.intp)
    drawn, weights = [rows for rows, times in zip(members, count, strict=True) if times], count[count > 0]
    points = [
        _lines(data, _divide_once(drawn, weights, len(data.real), rng), Copies(real, fake), n, rng)
        for _ in range(divisions)
    ]
    kept = [point for point in points if point]
    return _mean(kept) if kept else {}


def _drawn(groups: int, rng: np.random.Generator) -> Indices:
    """Return how often each group is drawn, with replacement."""
    if groups == 0:
        return np.zeros(0, np.intp)
    return rng.multinomial(groups, np.full(groups, 1 / groups)).astype(np.intp)


def _take(rows: Indices, n: int, rng: np.random.Generator) -> Indices:
    """Draw n rows without replacement; where there are fewer, they are taken again in turn."""
    return np.resize(rng.permutation(rows), n)


def _rows(features: Array, rows: Indices) -> Array:
    return features[rows].reshape(-1, features.shape[-1])


def _mean(points: list[dict[str, float]]) -> dict[str, float]:
    return {key: float(np.mean([point[key] for point in points])) for key in points[0]}


def _closed(values: dict[str, float]) -> float:
    way = values["repeat"] - values["floor"]
    return (values["repeat"] - values["fake"]) / way if way > 0 else float("nan")


def _shifted(value: float, samples: list[float], n: int, groups: int, least: float = 0.0) -> Interval:
    """Return a value with the limits of its bootstrap samples, moved so that their mean is the value."""
    array = np.array(samples)
    array = array[np.isfinite(array)]
    if not np.isfinite(value) or len(array) < 2:
        return Interval(value, float("nan"), float("nan"), n, groups)
    low, high = np.percentile(array, LIMITS) - array.mean() + value
    return Interval(value, max(float(low), least), float(high), n, groups)
