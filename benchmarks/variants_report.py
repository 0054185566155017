"""Results of `variants.py` as JSON, Markdown and a plot: all three are made of the rows' result.json alone."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from us_i2v import __version__
from us_i2v.data.atomic import write_bytes
from us_i2v.evaluation.divisions import paired_difference
from us_i2v.evaluation.report import finite, interval_text
from us_i2v.metrics.intervals import Interval, paired_interval

Result = dict[str, Any]

TITLES = {
    "reference": "References",
    "decoder": "Decoder",
    "process": "Process",
    "network": "Network of the second stage",
    "latent": "Size of the latent",
    "steps": "Sampler and steps",
}

NAMES = {
    "default": "**default**: warp, 8 x 2 frames, v, U-Net",
    "repeat": "frame 0 repeated",
    "random-latent": "random training latent, decoded by the default",
    "no-residual": "warp without residual",
    "adain": "AdaIN",
    "eps": "noise (eps)",
    "flow": "flow matching (velocity)",
    "transformer": "space-time transformer",
}

BLUE, RED, GREY = "#2c3e50", "#c0392b", "#7f8c8d"


def write_report(
    out: Path, results: Sequence[Result], settings: dict[str, Any], left_out: Sequence[str], *, plot: bool
) -> None:
    """Write variants.json, variants.md and, if asked, variants.png; raises `OutputError`."""
    chosen = {part: selected(results, part) for part in TITLES if part != "reference"}
    document = {
        "package_version": __version__,
        "settings": settings,
        "left_out": list(left_out),
        "judged_on": judge(results),
        "selected": chosen,
        "rows": [result | {"selection_score": selection(result, results)} for result in results],
    }
    write_bytes(out / "variants.json", (json.dumps(finite(document), indent=1, allow_nan=False) + "\n").encode())
    write_bytes(out / "variants.md", markdown(results, settings, left_out, chosen).encode())
    if plot:
        write_bytes(out / "variants.png", picture(results))


def judge(results: Sequence[Result]) -> str:
    """Whose energy scores decide: "validation", or "test" where there are no validation patients."""
    return "validation" if results[0]["validation"] is not None else "test"


def energies(result: Result, split: str) -> dict[str, Any] | None:
    """Energy scores of a split."""
    found: dict[str, Any] | None = result["validation"] if split == "validation" else result["test"]["energy"]
    return found


def selection(result: Result, results: Sequence[Result]) -> float | None:
    """Mean over distances of a row's energy score / the default's; below 1 is better. None if it was not measured."""
    split = judge(results)
    own, default = energies(result, split), energies(results[0], split)
    if own is None or default is None:
        return None
    ratios = [own["mean"][name]["mean"] / default["mean"][name]["mean"] for name in default["mean"]]
    return float(sum(ratios) / len(ratios))


def of_part(results: Sequence[Result], part: str) -> list[Result]:
    """The rows of a part; the default is in each of them."""
    return [results[0], *(result for result in results if result["part"] == part)]


def selected(results: Sequence[Result], part: str) -> str | None:
    """Key of a part's row with the least selection score; None for parts without rows."""
    known = {r["key"]: score for r in of_part(results, part) if (score := selection(r, results)) is not None}
    return min(known, key=known.__getitem__) if len(known) > 1 else None


def interval(found: dict[str, Any] | None) -> Interval | None:
    """An interval out of JSON, whose unknown limits are null."""
    if found is None:
        return None
    values: dict[str, Any] = {name: math.nan if value is None else value for name, value in found.items()}
    return Interval(**values)


def energy_minus_default(result: Result, results: Sequence[Result], name: str) -> Interval | None:
    """A row's energy score minus the default's, paired by still."""
    own, default = (energies(r, judge(results)) for r in (result, results[0]))
    if own is None or default is None or result is results[0]:
        return None
    return paired_interval(own["scores"][name], default["scores"][name], own["groups"])


def fvd_minus_default(result: Result, results: Sequence[Result]) -> Interval | None:
    """A row's FVD-X3D minus the default's, on the same divisions and resampled patients."""
    ours, theirs = (r["test"]["fvd"] for r in (result, results[0]))
    if result is results[0] or ours is None or theirs is None or "fake" not in ours["frechet"]:
        return None
    a, b = (interval(found["frechet"]["fake"]) for found in (ours, theirs))
    return None if a is None or b is None else paired_difference(a, b, tuple(ours["samples"]), tuple(theirs["samples"]))


def cells(result: Result, results: Sequence[Result]) -> dict[str, str]:
    """Cells of a row by column title."""
    test, own = result["test"], energies(result, judge(results))
    fvd = (test["fvd"] or {}).get("frechet", {})
    score, nearest = selection(result, results), result.get("latents")
    parameters, training = result.get("parameters"), result.get("training")
    found = {
        "parameters, M": "-" if parameters is None else " + ".join(f"{n / 1e6:.2f}" for n in parameters.values()),
        "latent": "x".join(map(str, result["latent"])) if "latent" in result else "-",
        "training steps": "-" if training is None else " + ".join(f"{t['steps']:.0f}" for t in training.values()),
        "CPU s": "-" if training is None else " + ".join(f"{t['cpu_seconds']:.0f}" for t in training.values()),
        "sampler": f"{result['sampler']} {result['steps']} ({result['evaluations']})" if "sampler" in result else "-",
    }
    for name in (own or {"mean": {}})["mean"]:
        found[f"{judge(results)}: energy, {name}"] = interval_text(interval(own["mean"][name]) if own else None)
        found[f"minus default, {name}"] = interval_text(energy_minus_default(result, results, name))
    found["of default's"] = "-" if score is None else f"{score:.3f}"
    found["test: FVD-X3D"] = interval_text(interval(fvd.get("fake")))
    found["minus default"] = interval_text(fvd_minus_default(result, results))
    found["way closed"] = interval_text(interval(fvd.get("closed")))
    found["LPIPS"] = interval_text(interval(test["paired"].get("lpips")))
    if judge(results) == "validation":
        for name, value in (test["energy"] or {"mean": {}})["mean"].items():
            found[f"test: energy, {name}"] = interval_text(interval(value))
    found["decorrelation error"] = interval_text(interval(test["decorrelation_error"]))
    found["CPU s a clip"] = f"{result['seconds_a_clip']:.2f}" if "seconds_a_clip" in result else "-"
    near = [interval(nearest[name]) for name in ("generated", "held_out")] if nearest else []
    found["nearest training latent, sd: generated / held out"] = (
        " / ".join(interval_text(value) for value in near) or "-"
    )
    return found


def name_of(key: str) -> str:
    """A row's name in tables and plots."""
    run, _, how = key.partition("@")
    if how:
        sampler, _, steps = how.rpartition("-")
        return f"{'v' if run == 'default' else run}: {sampler}, {steps} step{'s' * (steps != '1')}"
    return f"{key.removeprefix('latent-')} numbers" if key.startswith("latent-") else NAMES.get(key, key)


def markdown(
    results: Sequence[Result], settings: dict[str, Any], left_out: Sequence[str], chosen: dict[str, str | None]
) -> str:
    """The tables."""
    first = results[0]
    test, split = first["test"], judge(results)
    own = energies(first, split) or {"groups": []}
    refined = any(r["key"].startswith("shortcut") for r in results)
    lines = [
        "# Variants at equal compute",
        "",
        f"Picture size {settings['size']}, preset `{settings['preset']}`; {settings['first_minutes']:g} CPU minutes of "
        f"one thread for every first stage, {settings['second_minutes']:g} for every second one (steps = time / cost "
        f"of a step){'; shortcuts refine flow matching for half of that more' if refined else ''}.",
        "One thing is changed at a time; all rows answer the same stills from the same seeds.",
        "",
        f"Selection (bold) by the energy scores of {len(own['groups'])} {split} stills of {len(set(own['groups']))} "
        f"patients, {settings['samples']} clips a still: least mean of row / default over the distances.",
        "There are no validation patients in these data: **the selection was made on the test patients.**"
        if split == "test"
        else "Nothing was selected by the test patients' numbers.",
        f"Test: {test['windows']} windows of {test['groups']} patients. [95 % intervals over patients]; from fewer "
        "than ten patients they are too narrow.",
    ]
    if test["fvd"] is not None and "floor" in test["fvd"]["frechet"]:
        lines += ["", f"{test['fvd']['name']}: {lines_of(test['fvd'])}."]
        lines += [f"- {warning}" for warning in test["fvd"]["warnings"]]
    for part, title in TITLES.items():
        some = of_part(results, part)
        if len(some) < 2:
            continue
        table = [cells(result, results) for result in some]
        columns = list(dict.fromkeys(name for row in table for name in row))
        columns = [name for name in columns if any(row.get(name, "-") != "-" for row in table)]
        lines += ["", f"## {title}", "", f"| variant | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
        for result, row in zip(some, table, strict=True):
            name = name_of(result["key"])
            name = f"**{name.replace('**', '')}**" if result["key"] == chosen.get(part) else name.replace("**", "")
            lines.append(f"| {name} | {' | '.join(row.get(column, '-') for column in columns)} |")
    lines += ["", *(f"- left out: {text}" for text in left_out)]
    return "\n".join(lines).rstrip() + "\n"


def lines_of(fvd: dict[str, Any]) -> str:
    """Reference lines of a Frechet distance."""
    floor, repeat = (interval_text(interval(fvd["frechet"].get(name))) for name in ("floor", "repeat"))
    return f"real/real floor {floor}, frame 0 repeated {repeat}"


def measure_of(result: Result, results: Sequence[Result]) -> tuple[Interval | None, str]:
    """What the plots show of a row: FVD-X3D, else the motion's energy score."""
    fvd = (result["test"]["fvd"] or {}).get("frechet", {})
    if "fake" in fvd:
        return interval(fvd["fake"]), "FVD-X3D, test"
    own = energies(result, judge(results))
    return (None if own is None else interval(own["mean"]["motion"])), f"energy score, motion, {judge(results)}"


def picture(results: Sequence[Result]) -> bytes:
    """Draw test distances and selection scores of the variants, and distance against evaluations and latent size."""
    figure = Figure(figsize=(14, 9), layout="constrained")
    FigureCanvasAgg(figure)
    (left, right), (below, last) = figure.subplots(2, 2)
    rows = [result for result in results if result["part"] != "steps"]
    label = measure_of(rows[0], results)[1]
    for y, result in enumerate(rows):
        value, score = measure_of(result, results)[0], selection(result, results)
        if value is not None:
            left.plot([value.low, value.high], [y, y], color=BLUE, lw=2)
            left.plot(value.mean, y, "o", color=RED)
        if score is not None:
            right.plot(score, y, "o", color=RED)
    floor = (rows[0]["test"]["fvd"] or {}).get("frechet", {}).get("floor")
    if floor is not None:
        left.axvline(floor["mean"], color="black", lw=1, ls="--", label="real/real floor")
        left.legend(fontsize=8)
    right.axvline(1.0, color=GREY, lw=1)
    names = [name_of(result["key"]).replace("**", "") for result in rows]
    for axis in (left, right):
        axis.set_yticks(range(len(rows)), names, fontsize=8)
        axis.invert_yaxis()
    left.set_xlabel(label)
    right.set_xlabel(f"energy score / default's, {judge(results)} (less is better)")
    chains: dict[str, list[Result]] = {}
    for result in results:
        if result["part"] == "steps":
            chains.setdefault(result["key"].rsplit("-", 1)[0], []).append(result)
    for chain, some in chains.items():
        _line(below, some, [r["evaluations"] for r in some], results, chain.replace("@", ", "))
    below.set_xlabel("evaluations of the network")
    sizes = sorted(of_part(results, "latent"), key=lambda r: math.prod(r["latent"]))
    _line(last, sizes, [math.prod(r["latent"]) for r in sizes], results, label)
    last.set_xlabel("numbers in the latent")
    for axis in (below, last):
        axis.set_xscale("log", base=2)
        axis.set_ylabel(label)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=8)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110, metadata={"Software": None})
    return content.getvalue()


def _line(axis: Any, some: Sequence[Result], x: Sequence[float], results: Sequence[Result], label: str) -> None:
    points = [(a, value) for a, r in zip(x, some, strict=True) if (value := measure_of(r, results)[0]) is not None]
    if points:
        axis.plot([a for a, _ in points], [value.mean for _, value in points], "o-", lw=1, label=label)
