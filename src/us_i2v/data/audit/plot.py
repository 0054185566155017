"""One figure of an audit: counts, sizes, lengths, rates, groups, burned-in marks. It shows numbers, no pictures."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from us_i2v.data.atomic import publish, temporary_beside, unwritable
from us_i2v.data.audit.report import NO_LABEL
from us_i2v.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from us_i2v.data.audit.auditing import Audit
    from us_i2v.data.audit.records import Record


def require_matplotlib() -> Any:
    """Return matplotlib's `Figure`; raises `ConfigError` with the remedy where it is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError(
            "Plots need matplotlib, which is not installed.", "Install it: pip install 'us-i2v[plot]'."
        ) from error
    return Figure


def write_plot(path: Path, audit: Audit) -> None:
    """Draw the audit into a PNG, atomically.

    Raises:
        ConfigError: matplotlib is not installed.
        OutputError: The file cannot be written.
    """
    figure = require_matplotlib()(figsize=(12, 7), layout="constrained")
    axes = figure.subplots(2, 3)
    readable = [record for record in audit.records if record.error is None]
    clips = [record for record in readable if record.kind == "clip"]
    _counts(axes[0, 0], audit)
    _sizes(axes[0, 1], readable)
    _groups(axes[0, 2], audit)
    _histogram(axes[1, 0], [[record.frames for record in clips]], [""], "frames a clip")
    _rates(axes[1, 1], clips)
    _burned_in(axes[1, 2], readable)
    figure.suptitle(f"{len(audit.samples)} samples, {len(audit.records)} read, {len(audit.problems)} problems")
    with temporary_beside(path) as part:
        try:
            figure.savefig(part, format="png", dpi=100)
        except OSError as error:
            raise unwritable(path, error) from error
        publish(part, path)


def _counts(axes: Any, audit: Audit) -> None:
    labels = sorted({sample.label or NO_LABEL for sample in audit.samples})
    bottom = [0] * len(labels)
    for kind in ("still", "clip"):
        counts = Counter(sample.label or NO_LABEL for sample in audit.samples if sample.kind == kind)
        heights = [counts[label] for label in labels]
        if any(heights):
            axes.bar(labels, heights, bottom=bottom, label=f"{kind}s")
            bottom = [low + high for low, high in zip(bottom, heights, strict=True)]
    axes.set(title="samples by class", ylabel="samples")
    axes.tick_params(axis="x", labelrotation=30)
    axes.legend()


def _sizes(axes: Any, readable: list[Record]) -> None:
    for kind, marker in (("still", "o"), ("clip", "s")):
        sizes = [record.size for record in readable if record.kind == kind and record.size is not None]
        if sizes:
            axes.scatter([size[1] for size in sizes], [size[0] for size in sizes], s=9, marker=marker, label=f"{kind}s")
    axes.set(title="picture sizes", xlabel="width", ylabel="height")
    if readable:
        axes.legend()


def _groups(axes: Any, audit: Audit) -> None:
    sizes = Counter(Counter(sample.group for sample in audit.samples).values())
    axes.bar(list(sizes), list(sizes.values()))
    axes.set(title=f"{sum(sizes.values())} groups", xlabel="samples a group", ylabel="groups")


def _rates(axes: Any, clips: list[Record]) -> None:
    stated = [record.fps for record in clips if record.fps is not None]
    effective = [record.effective_fps for record in clips if record.effective_fps is not None]
    _histogram(axes, [stated, effective], ["stated", "without repeats"], "frames a second")
    if stated:
        axes.legend()


def _histogram(axes: Any, series: list[Any], names: list[str], what: str) -> None:
    if any(series):
        axes.hist(series, bins=20, label=names)
    else:
        axes.text(0.5, 0.5, "none", ha="center", transform=axes.transAxes)
    axes.set(title=what, xlabel=what, ylabel="clips")


def _burned_in(axes: Any, readable: list[Record]) -> None:
    labels = sorted({record.label or NO_LABEL for record in readable})
    places = range(len(labels))
    for offset, name, test in ((-0.2, "text", "text_share"), (0.2, "any mark", "mark_share")):
        shares = []
        for label in labels:
            own = [record for record in readable if (record.label or NO_LABEL) == label]
            shares.append(100 * sum(getattr(record, test) > 0 for record in own) / len(own))
        axes.bar([place + offset for place in places], shares, width=0.4, label=name)
    axes.set(title="burned-in marks", ylabel="% of the pictures", ylim=(0, 100))
    axes.set_xticks(list(places), labels, rotation=30)
    axes.legend()
