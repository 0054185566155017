"""What a comparison of fakes with real clips finds: plain records, made by `compare`, shown by `report` and `plot`."""

from __future__ import annotations

from dataclasses import dataclass

from us_i2v.metrics.intervals import Interval


@dataclass(frozen=True)
class Distances:
    """How far the fakes are from the real clips by one feature network.

    Attributes:
        name: Label, network, resize, n and number of draws.
        dimensions: Length of a feature vector.
        n: Clips a side of every division.
        draws: Divisions.
        claim: False below 100 clips a side.
        frechet: By line ("fake", "floor", "repeat", "closed"); see `evaluation.divisions`.
        kernel: Kernel distance by line; the floor's limits are the spread of divisions.
        critic: AUC of the critic by line; empty for networks of single frames.
        warnings: What the numbers are not good for.
        samples: Bootstrap samples of the fakes' Frechet distance, shared between methods; see `divisions.Lines`.
    """

    name: str
    dimensions: int
    n: int
    draws: int
    claim: bool
    frechet: dict[str, Interval]
    kernel: dict[str, Interval]
    critic: dict[str, Interval]
    warnings: tuple[str, ...]
    samples: tuple[float, ...] = ()


@dataclass(frozen=True)
class Summary:
    """One number's distribution over clips: median, quartiles, mean; `n` clips have it."""

    median: float
    lower: float
    upper: float
    mean: float
    n: int


@dataclass(frozen=True)
class Distribution:
    """A number of the fakes beside the real clips'.

    Attributes:
        fake: Distribution over fakes; None if no fake has this number.
        real: Over real clips.
        difference: Mean of fake minus real partner, paired; None without partners.
    """

    fake: Summary | None
    real: Summary | None
    difference: Interval | None


@dataclass(frozen=True)
class Curve:
    """A mean curve over time, its limits point by point (NaN where unknown), and the number of clips."""

    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    n: int


@dataclass(frozen=True)
class Decorrelation:
    """Correlation of the speckle with frame 0's.

    Attributes:
        fake: Of the fakes.
        real: Of the real clips.
        difference: Fake minus real partner, paired; None without partners.
        patients: Real minus other real clips: mean over one half of the patients minus mean over the other
            (this is about 0), limits of that over divisions. A difference within them is no difference.
        windows: One real clip minus another one of the same patient; None if no patient has two.
    """

    fake: Curve
    real: Curve
    difference: Curve | None
    patients: Curve | None
    windows: Curve | None


@dataclass(frozen=True)
class Part:
    """The comparison of one source, or of all.

    Attributes:
        n_real: Real clips.
        n_fake: Fakes.
        groups: Patients of the real clips.
        n_paired: Fakes with a real partner.
        distances: By feature network.
        distributions: By scalar.
        paired: By paired number ("lpips", ...): by line ("fake", "repeat").
        decorrelation: None if it was not measured.
    """

    n_real: int
    n_fake: int
    groups: int
    n_paired: int
    distances: dict[str, Distances]
    distributions: dict[str, Distribution]
    paired: dict[str, dict[str, Interval]]
    decorrelation: Decorrelation | None


@dataclass(frozen=True)
class Comparison:
    """All parts: by source, and "all" where there are several."""

    parts: dict[str, Part]
    paired_label: str
