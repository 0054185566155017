"""Results of `us-i2v evaluate`: JSON, and the lines of the printed table.

Both come from one `Result`. JSON holds no NaN: unknown limits are null. The table writes "no claim" in place of
Frechet distances of fewer than 100 clips a side; JSON keeps their values, with `claim` false.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from us_i2v import __version__
from us_i2v.data.atomic import write_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from us_i2v.evaluation.results import Comparison, Curve, Decorrelation, Distances, Distribution, Part, Summary
    from us_i2v.metrics.intervals import Interval

FORMAT_VERSION = 1

NAMES = {
    "motion_energy": "motion energy, gray levels",
    "flow": "block flow, px",
    "explained_share": "explained by motion, own block",
    "explained_held_out": "explained by motion, held out",
    "highpass_ratio": "high-pass ratio, last frame/frame 0",
    "local_deviation": "local deviation, gray levels",
    "flicker": "flicker, gray levels",
    "lpips": "LPIPS",
    "ssim": "SSIM",
    "psnr": "PSNR, dB",
    "l1": "L1, gray levels",
    "frame0": "frame 0 against the still, gray levels",
    "motion": "motion",
}
"""Names of the numbers in the table."""

LINES = ("fake", "floor", "repeat")
SHOWN_TIMES = (1, 3, 7, 15)

FEW_GROUPS = 10
"""Groups below which a bootstrap over them is too narrow, see `metrics.intervals`."""


@dataclass(frozen=True)
class Energy:
    """Energy scores of one part: by distance, of fakes, of repeated first frames, and fake minus repeat, paired."""

    samples: int
    fake: dict[str, Interval]
    repeat: dict[str, Interval]
    difference: dict[str, Interval]


@dataclass(frozen=True)
class Result:
    """Everything that a run of `evaluate` finds.

    Attributes:
        settings: Inputs and options.
        comparison: See `compare`.
        energy: By part; empty without weights.
        left_out: What was not measured, and why.
        notes: What the reader must know.
    """

    settings: dict[str, Any]
    comparison: Comparison
    energy: dict[str, Energy]
    left_out: tuple[str, ...]
    notes: tuple[str, ...]


def document(result: Result) -> dict[str, Any]:
    """Return what the JSON file holds."""
    parts: dict[str, Any] = {}
    for name, part in result.comparison.parts.items():
        energy = result.energy.get(name)
        parts[name] = dataclasses.asdict(part) | {"energy": None if energy is None else dataclasses.asdict(energy)}
    found: dict[str, Any] = finite(
        {
            "format_version": FORMAT_VERSION,
            "package_version": __version__,
            "settings": result.settings,
            "lpips": result.comparison.paired_label or None,
            "left_out": list(result.left_out),
            "notes": list(result.notes),
            "parts": parts,
        }
    )
    return found


def write_json(path: Path, result: Result) -> None:
    """Write the JSON file atomically; raises `OutputError`."""
    write_bytes(path, (json.dumps(document(result), indent=1, allow_nan=False) + "\n").encode())


def table(result: Result) -> list[str]:
    """Return the lines of the printed table."""
    lines: list[str] = []
    for name, part in result.comparison.parts.items():
        lines += [_heading(name, part), *_part(part, result.energy.get(name), result), ""]
    lines += [f"left out: {text}" for text in result.left_out]
    lines += [f"note: {text}" for text in result.notes]
    lines.append("[...]: 95 % intervals over groups; of distributions the quartiles.")
    return lines


def _heading(name: str, part: Part) -> str:
    pairs = f"{part.n_paired} of them paired" if part.n_paired else "none paired"
    few = f"; intervals over fewer than {FEW_GROUPS} groups are too narrow" if part.groups < FEW_GROUPS else ""
    return f"{name}: {part.n_real} real clips of {part.groups} groups, {part.n_fake} fakes, {pairs}{few}"


def _part(part: Part, energy: Energy | None, result: Result) -> list[str]:
    size = result.settings.get("size")
    rows: list[Sequence[str]] = []
    for distances in part.distances.values():
        rows += _distance_rows(distances)
    if part.paired:
        rows.append(
            (f"Paired with the real clip, frames 1.. at {size} px (mean over clips)", "fake", "", "repeat frame 0")
        )
        for name, lines in part.paired.items():
            label = result.comparison.paired_label if name == "lpips" else NAMES[name]
            rows.append((f"  {label}", interval_text(lines.get("fake")), "", interval_text(lines.get("repeat"))))
    if energy is not None:
        title = f"Energy score of {energy.samples} samples a still (smaller is better)"
        rows.append((title, "fake", "fake - repeat", "repeat frame 0"))
        for name, value in energy.fake.items():
            label = f"root of {result.comparison.paired_label or 'LPIPS'}" if name == "lpips" else NAMES[name]
            others = (interval_text(energy.difference.get(name)), interval_text(energy.repeat.get(name)))
            rows.append((f"  {label}", interval_text(value), *others))
    if part.distributions:
        rows.append(
            (f"Over clips: median [quartiles], whole frames at {size} px", "fake", "real", "fake - real (mean)")
        )
        rows += [
            _distribution_row(name, part.distributions[name]) for name in part.distributions if "_crop" not in name
        ]
        rows.append(("The same on native-size 112 px crops", "fake", "real", "fake - real (mean)"))
        rows += [_distribution_row(name, part.distributions[name]) for name in part.distributions if "_crop" in name]
    if part.decorrelation is not None:
        rows += _decorrelation_rows(part.decorrelation)
    return _aligned(rows)


def _distance_rows(distances: Distances) -> list[Sequence[str]]:
    rows: list[Sequence[str]] = [(distances.name, "fake", "real/real floor", "repeat frame 0")]
    label = distances.name.split(" (")[0]
    if distances.claim:
        rows.append((f"  {label}", *(interval_text(distances.frechet.get(line)) for line in LINES)))
        if "closed" in distances.frechet:
            rows.append(
                ("  share of the way from repeat to floor", interval_text(distances.frechet["closed"]), "1", "0")
            )
    else:
        rows.append((f"  {label}", f"no claim (n={distances.n})", "", ""))
    if distances.kernel:
        kernel = (interval_text(distances.kernel.get(line), 1000) for line in LINES)
        rows.append(("  kernel distance x 1000, all clips", *kernel))
    if distances.critic:
        rows.append(
            ("  critic AUC (0.5: not told apart)", *(interval_text(distances.critic.get(line)) for line in LINES))
        )
    return rows + [(f"  warning: {text}", "", "", "") for text in distances.warnings]


def _distribution_row(name: str, found: Distribution) -> Sequence[str]:
    label = NAMES[name.removesuffix("_crop")]
    return (f"  {label}", _summary(found.fake), _summary(found.real), interval_text(found.difference))


def _decorrelation_rows(found: Decorrelation) -> list[Sequence[str]]:
    title = f"Speckle's correlation with frame 0 (n={found.fake.n} fake, {found.real.n} real)"
    rows: list[Sequence[str]] = [(title, "fake", "real", "fake - real")]
    last = len(found.real.mean) - 1
    for t in [t for t in SHOWN_TIMES if t <= last]:
        rows.append((f"  frame {t}", *(_at(curve, t) for curve in (found.fake, found.real, found.difference))))
    shown = max(t for t in SHOWN_TIMES if t <= last)
    if found.patients is not None:
        rows.append((f"  real/real, halves of the patients, frame {shown}", "", "", _at(found.patients, shown)))
    if found.windows is not None:
        rows.append((f"  real/real, two clips of a patient, frame {shown}", "", "", _at(found.windows, shown)))
    return rows


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lay rows of four cells in columns; titles and warnings may run over into empty cells."""
    first = max((len(row[0]) for row in rows if row[0].startswith("  ") and any(row[1:])), default=0)
    widths = [max((len(row[k]) for row in rows), default=0) for k in (1, 2, 3)]
    lines = []
    for row in rows:
        cells = "  ".join(cell.ljust(width) for cell, width in zip(row[1:], widths, strict=True))
        if len(row[0]) > first and any(row[1:]):
            lines.append(row[0])
            lines.append(f"{'':{first}}  {cells}".rstrip())
        else:
            lines.append(f"{row[0]:{first}}  {cells}".rstrip())
    return lines


def interval_text(found: Interval | None, factor: float = 1.0) -> str:
    """Write an estimate times `factor` with its limits; "-" for None, "[?]" where the limits are not known."""
    if found is None:
        return "-"
    return _with_range(factor * found.mean, factor * found.low, factor * found.high)


def _summary(found: Summary | None) -> str:
    return "-" if found is None else _with_range(found.median, found.lower, found.upper)


def _at(curve: Curve | None, t: int) -> str:
    return "-" if curve is None else _with_range(curve.mean[t], curve.low[t], curve.high[t])


def _with_range(value: float, low: float, high: float) -> str:
    if not math.isfinite(value):
        return "-"
    if not (math.isfinite(low) and math.isfinite(high)):
        return f"{_number(value)} [?]"
    return f"{_number(value)} [{_number(low)}, {_number(high)}]"


def _number(value: float) -> str:
    """Write about three digits: 1234, 12.3, 1.23, 0.123; never more than three decimals."""
    decimals = 0 if abs(value) >= 1000 else 1 if abs(value) >= 100 else 2 if abs(value) >= 1 else 3
    text = f"{value:.{decimals}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def finite(value: Any) -> Any:
    """Replace NaN and infinity by None, and tuples by lists, throughout."""
    if isinstance(value, dict):
        return {key: finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
