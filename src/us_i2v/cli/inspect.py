"""`us-i2v inspect`: what is in a data set, and what is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from us_i2v.data.audit import Audit, Finding

PROBLEMS_FOUND = 1
"""Exit code of `--strict` when there is a problem."""
LISTED = 10
"""Findings of a kind that are printed; files that cannot be read are all printed."""


def command(
    data: Annotated[Path, typer.Argument(metavar="DIR", help="A data set of any known layout, or its manifest.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="REPORT.json", help="Write everything as JSON.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="REPORT.png", help="Draw the counts; needs the extra 'plot'.")
    ] = None,
    sample: Annotated[
        int | None, typer.Option("--sample", min=1, metavar="N", help="Read N samples only, drawn at random.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of that draw.")] = 0,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with code 1 if there are problems.")] = False,
) -> None:
    """Read a data set and list what is in it and what is wrong with it.

    Problems spoil a training or a measurement: files that cannot be read, duplicates in different groups, one
    picture in two classes or splits, masks that do not fit, black pictures. Notes are good to know. Nothing
    in DIR is changed.
    """
    from us_i2v.cli.progress import counting
    from us_i2v.data.atomic import check_writable
    from us_i2v.data.audit import audit, require_matplotlib, summary, write_plot, write_report
    from us_i2v.data.datasets import find_samples

    for path in (output, plot):
        if path is not None:
            check_writable(path)
    if plot is not None:
        require_matplotlib()
    root = data.parent if data.suffix.lower() == ".csv" else data
    found = audit(find_samples(data, check_groups=False), root, at_most=sample, seed=seed, stage=counting)
    if output is not None:
        write_report(output, found)
    if plot is not None:
        write_plot(plot, found)
    console = Console(highlight=False, markup=False, soft_wrap=True)
    print_summary(console, summary(found))
    print_findings(console, found)
    if strict and found.problems:
        raise typer.Exit(PROBLEMS_FOUND)


def print_summary(console: Console, report: dict[str, Any]) -> None:
    """Print the counts of `audit.summary` as tables."""
    samples = report["samples"]
    console.print(
        f"{samples['stills']} stills, {samples['clips']} clips, {report['masks']['n']} masks; "
        f"{report['read']} samples read, {report['unreadable']} of them unreadable"
    )
    for name, title in (("classes", "class"), ("splits", "split")):
        table = Table(title, "stills", "clips", "masks", "groups")
        for value, counts in report[name].items():
            table.add_row(value, *(str(counts[key]) for key in ("stills", "clips", "masks", "groups")))
        console.print(table)
    table = Table("", "least", "median", "greatest", "remark")
    for row in _spreads(report):
        table.add_row(*row)
    console.print(table)
    burned = report["burned_in"]
    table = Table("burned in", "pictures", "with text", "with any mark")
    for label, counts in burned["by_class"].items():
        table.add_row(label, *(str(counts[key]) for key in ("n", "text", "marks")))
    console.print(table)
    pairs = report["duplicates"]
    console.print(
        f"pairs of duplicates: {pairs['exact_pairs']} exact, {pairs['same_picture_pairs']} of the same picture, "
        f"{pairs['related_pairs']} related"
    )
    if report["other_files"]:
        listed = ", ".join(f"{n} {ending or 'without ending'}" for ending, n in report["other_files"].items())
        console.print(f"other files, passed over: {listed}")


def print_findings(console: Console, found: Audit) -> None:
    """Print how many findings of each kind there are, and the first of them, problems with their files."""
    from us_i2v.data.audit import NOTES, PROBLEMS

    kinds = {kind: [finding for finding in found.findings if finding.kind == kind] for kind in (*PROBLEMS, *NOTES)}
    table = Table("", "n", "findings")
    for kind, what in (*PROBLEMS.items(), *NOTES.items()):
        if kinds[kind]:
            table.add_row("problem" if kind in PROBLEMS else "note", str(len(kinds[kind])), what)
    if not found.findings:
        console.print("nothing was found")
        return
    console.print(table)
    for kind, what in PROBLEMS.items():
        _print_kind(console, what, kinds[kind], len(kinds[kind]) if kind == "unreadable" else LISTED)
    console.print(f"problems: {len(found.problems)}, notes: {len(found.findings) - len(found.problems)}")


def _print_kind(console: Console, what: str, findings: list[Finding], at_most: int) -> None:
    if not findings:
        return
    console.print(f"{what}:")
    for finding in findings[:at_most]:
        console.print(f"  {finding.text}")
    if len(findings) > at_most:
        console.print(f"  and {len(findings) - at_most} more; -o REPORT.json lists them all")


def _spreads(report: dict[str, Any]) -> list[tuple[str, ...]]:
    """Rows (what, least, median, greatest, remark) of everything that was measured."""
    sizes, clips, burned, groups = report["sizes"], report["clips"], report["burned_in"], report["groups"]
    rows: list[tuple[str, dict[str, float] | None, str]] = []
    for kind in ("stills", "clips"):
        different = f"{sizes[kind]['different']} sizes"
        rows += [
            (f"width of {kind}", sizes[kind]["width"], different),
            (f"height of {kind}", sizes[kind]["height"], ""),
        ]
    rows += [
        ("frames a clip", clips["frames"], f"{clips['beginning_black']} begin black"),
        ("frames a second", clips["fps"], f"{clips['fps_unknown']} unknown"),
        ("  without repeats", clips["effective_fps"], f"{clips['with_repeats']} clips with repeats"),
        ("samples a group", groups["sizes"], f"{groups['n']} groups, {groups['single']} of one sample"),
        ("text, % of area", _percent(burned["text_share"]), f"{burned['text']} pictures"),
        ("marks, % of area", _percent(burned["mark_share"]), f"{burned['marks']} pictures"),
    ]
    return [
        (what, *(f"{spread[key]:.4g}" for key in ("min", "median", "max")), remark)
        for what, spread, remark in rows
        if spread is not None
    ]


def _percent(spread: dict[str, float] | None) -> dict[str, float] | None:
    return None if spread is None else {key: 100 * value for key, value in spread.items()}
