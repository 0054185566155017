"""The plot of `us-i2v evaluate`: a row a source with distances, decorrelation and distributions."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from us_i2v.data.atomic import write_bytes
from us_i2v.errors import ConfigError
from us_i2v.evaluation.report import NAMES

if TYPE_CHECKING:
    from pathlib import Path

    from us_i2v.evaluation.report import Result
    from us_i2v.evaluation.results import Curve, Part

COLOURS = {"fake": "#c0392b", "real": "#2c3e50", "floor": "#2c3e50", "repeat": "#7f8c8d"}
TITLES = {"fake": "fake", "floor": "real/real", "repeat": "repeat frame 0"}


def check_plot() -> None:
    """Raise `ConfigError` if matplotlib is not there."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ConfigError("A plot needs matplotlib, which is not installed.", "pip install 'us-i2v[plot]'") from error


def write_plot(path: Path, result: Result) -> None:
    """Draw a PNG and write it atomically.

    Raises:
        ConfigError: matplotlib is not installed.
        OutputError: The file cannot be written.
    """
    check_plot()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    parts = result.comparison.parts
    figure = Figure(figsize=(15, 4.2 * len(parts)), layout="constrained")
    FigureCanvasAgg(figure)
    rows = figure.subplots(len(parts), 3, squeeze=False, width_ratios=(1, 1, 1.25))
    for (name, part), axes in zip(parts.items(), rows, strict=True):
        _distances(axes[0], part)
        _decorrelation(axes[1], part)
        _distributions(axes[2], part)
        axes[0].set_title(f"{name}: {part.n_real} real, {part.n_fake} fake", loc="left", fontweight="bold")
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110, metadata={"Software": None})
    write_bytes(path, content.getvalue())


def _distances(axis: Any, part: Part) -> None:
    """Draw each network's lines relative to repeating frame 0."""
    labels = []
    for row, distances in enumerate(part.distances.values()):
        scale = distances.frechet["repeat"].mean if "repeat" in distances.frechet else 0.0
        label = f"{distances.name.split(' (')[0]}\nn={distances.n}"
        labels.append(label if distances.claim else f"{label}\nno claim")
        if not distances.claim or scale <= 0:
            continue
        for offset, line in enumerate(("floor", "fake", "repeat")):
            value = distances.frechet[line]
            y = row + 0.2 * (offset - 1)
            axis.plot([value.low / scale, value.high / scale], [y, y], color=COLOURS[line], lw=2)
            axis.plot(value.mean / scale, y, "o", color=COLOURS[line], label=TITLES[line] if row == 0 else None)
            axis.annotate(f"{value.mean:.3g}", (value.mean / scale, y), (0, 5), textcoords="offset points", fontsize=8)
    axis.set_yticks(range(len(labels)), labels)
    axis.set_ylim(len(labels) - 0.5 if labels else 0.5, -0.5)
    axis.set_xlim(left=0)
    axis.set_xlabel("Frechet distance / that of repeating frame 0")
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=8)


def _decorrelation(axis: Any, part: Part) -> None:
    found = part.decorrelation
    axis.set_xlabel("frame")
    axis.set_ylabel("correlation of speckle with frame 0")
    if found is None:
        return
    _band(axis, found.real, "real", COLOURS["real"])
    _band(axis, found.fake, "fake", COLOURS["fake"])
    if found.patients is not None:
        _band(axis, found.patients, "real/real, halves of the patients", COLOURS["repeat"])
    if found.difference is not None:
        _band(axis, found.difference, "fake - real, paired", "#e67e22")
    axis.axhline(0, color="black", lw=0.5)
    axis.legend(fontsize=8)


def _band(axis: Any, curve: Curve, label: str, colour: str) -> None:
    times = range(len(curve.mean))
    axis.plot(times, curve.mean, color=colour, label=label)
    axis.fill_between(times, curve.low, curve.high, color=colour, alpha=0.2, lw=0)


def _distributions(axis: Any, part: Part) -> None:
    """Draw quartiles relative to the real median, real above fake."""
    labels = []
    for row, (name, found) in enumerate(part.distributions.items()):
        crop = ", native crop" if name.endswith("_crop") else ""
        labels.append(NAMES[name.removesuffix("_crop")].removesuffix(", gray levels").removesuffix(", px") + crop)
        scale = found.real.median if found.real is not None else 0.0
        for offset, line, summary in ((-0.18, "real", found.real), (0.18, "fake", found.fake)):
            if summary is None or scale <= 0:
                continue
            y = row + offset
            axis.plot([summary.lower / scale, summary.upper / scale], [y, y], color=COLOURS[line], lw=4, alpha=0.5)
            axis.plot(
                summary.median / scale, y, "|", color=COLOURS[line], ms=9, mew=2, label=line if row == 0 else None
            )
    axis.set_yticks(range(len(labels)), labels, fontsize=8)
    axis.set_ylim(len(labels) - 0.5 if labels else 0.5, -0.5)
    axis.axvline(1, color="black", lw=0.5)
    axis.set_xlabel("median and quartiles / real median")
    if labels:
        axis.legend(fontsize=8)
