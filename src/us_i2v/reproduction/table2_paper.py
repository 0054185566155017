"""The paper's Table 2, as printed (Chen et al. 2024): F1 and accuracy on BUSV's test videos, in per cent.

Which F1 it is, how many seeds there were and what the spread was is not said. Accuracies are multiples of 1/56, 1/93
and 1/130 in most columns; in most cells of the synthetic-only columns accuracy repeats F1 and is no such multiple. So
these numbers stand beside ours to be seen, and nothing is tested against them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from us_i2v.reproduction.table2_settings import Diet

SOURCE = "Chen et al. 2024, Table 2 (BUSV and BUSI; F1's average, seeds and spread are not stated)"


class Printed(NamedTuple):
    """One cell pair, per cent."""

    f1: float
    accuracy: float


class _Line(NamedTuple):
    real: Printed
    cinn_synthetic: Printed
    lddm_synthetic: Printed
    cinn_both: Printed
    lddm_both: Printed


def _line(*values: float) -> _Line:
    return _Line(*(Printed(*values[k : k + 2]) for k in range(0, 10, 2)))


# real only | synthetic only: cINN, LDDM | real + synthetic: cINN, LDDM; each F1, accuracy.
PAPER: dict[tuple[str, str], _Line] = {
    ("c3d", "7:3"): _line(70.96, 73.21, 32.89, 44.64, 59.08, 58.93, 74.15, 75.00, 75.20, 75.00),
    ("c3d", "5:5"): _line(64.85, 68.81, 45.42, 49.46, 62.58, 64.52, 66.67, 67.74, 67.92, 67.74),
    ("c3d", "3:7"): _line(60.12, 64.61, 44.47, 49.23, 57.75, 57.69, 64.56, 65.38, 66.08, 66.15),
    ("tsm", "7:3"): _line(78.91, 78.57, 67.86, 67.86, 72.83, 72.83, 76.03, 76.79, 80.96, 80.36),
    ("tsm", "5:5"): _line(73.10, 73.21, 66.59, 66.59, 72.30, 72.30, 76.77, 76.34, 77.52, 77.42),
    ("tsm", "3:7"): _line(72.96, 73.07, 57.30, 57.30, 72.59, 72.59, 71.83, 72.31, 78.96, 79.23),
    ("tdn", "7:3"): _line(83.03, 83.93, 69.21, 69.21, 71.93, 71.93, 78.62, 78.57, 83.66, 83.93),
    ("tdn", "5:5"): _line(72.96, 72.73, 69.79, 69.79, 71.93, 71.93, 76.87, 77.21, 80.40, 78.66),
    ("tdn", "3:7"): _line(63.92, 65.38, 69.07, 69.07, 69.65, 69.65, 72.15, 72.67, 75.00, 75.38),
    ("atm", "7:3"): _line(72.08, 73.21, 69.52, 69.52, 70.24, 70.24, 73.34, 75.00, 78.70, 78.57),
    ("atm", "5:5"): _line(72.70, 74.19, 73.31, 73.31, 77.64, 77.64, 75.12, 75.27, 75.62, 76.34),
    ("atm", "3:7"): _line(66.91, 66.92, 56.19, 56.19, 64.97, 64.97, 66.91, 66.92, 70.72, 72.31),
}
"""By classifier and ratio of training to test videos."""


def printed(model: str, split: str, diet: Diet, source: str) -> Printed | None:
    """Return the paper's cell; None where it has none. Both LDDM methods stand beside its LDDM."""
    line = PAPER.get((model, split))
    if line is None or diet == "real":
        return None if line is None else line.real
    method = {"cinn": "cinn", "lddm-paper": "lddm", "lddm-base": "lddm"}.get(source)
    return None if method is None else getattr(line, f"{method}_{diet}")
