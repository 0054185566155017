"""Which decoder, process, network, latent and number of steps? Variants trained at equal compute, and scored alike.

    python benchmarks/variants.py OUT DATA... [--test NAME] --metric-weights FOLDER [--minutes 4 2] [--size 64]
    python benchmarks/variants.py OUT --quick          # a phantom, under a minute, to see that everything works

DATA are folders whose manifest states splits, as `table1.py prepare` writes them. One thing is changed at a time; what
is trained, and for how long, stands in `variants_runs.py`. Every variant answers the same held-out stills from the same
seeds, hence from equal noise where latents have one shape.

Which variant of a part is best is decided by the energy scores on VALIDATION patients (mean over LPIPS and motion of
variant / default). FVD-X3D, paired LPIPS, decorrelation and the rest are of TEST patients and are only reported.

Stop and go on at any time by the same line: trainings go on from their last checkpoint, finished rows are kept.
OUT/{first,second}/NAME are run folders, OUT/rows/KEY a row's measurements and result.json. variants.json and
variants.md are written anew after every row, variants.png at the end. Once the default row is there, a second process
can make other parts in the same OUT.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import torch
from variants_runs import SHORTCUT_STEPS, STEPS, Settings, Workshop
from variants_scores import Bench, Row

from us_i2v.cli.progress import training_reporter
from us_i2v.config import flatten, merge, parse_override, read_mapping
from us_i2v.data.atomic import write_bytes
from us_i2v.data.phantom.dataset import write_phantom
from us_i2v.errors import ConfigError, UsI2VError

PARTS = ("decoder", "process", "network", "latent", "steps")
CHAINS = (("default", "dpm-solver"), ("default", "ddim"), ("flow", "heun"), ("flow", "euler"), ("shortcut", "euler"))

QUICK: dict[str, Any] = {
    "size": 32,
    "first_minutes": 0.005,
    "second_minutes": 0.005,
    "windows": 16,
    "stride": 1,
    "compared": 48,
    "test_windows": 6,
    "stills": 2,
    "samples": 2,
    "draws": 2,
    "checks": 1,
    # Without the residual's likelihood nothing is drawn, and no time goes into fitting the speckle's process.
    "changes": {
        "autoencoder": {"optimiser": {"batch_size": 2}, "loss": {"nll": 0.0}},
        "denoiser": {"model": {"width": 16}},
    },
}
QUICK_KEYS = (
    "default",
    "no-residual",
    "adain",
    "flow",
    "transformer",
    "latent-64",
    "default@ddim-1",
    "shortcut@euler-1",
)


def rows_of(workshop: Workshop) -> list[Row]:
    """All rows, the default and the references first."""
    named = {"decoder": ("no-residual", "adain"), "process": ("eps", "flow"), "network": ("transformer",)}
    named["latent"] = tuple(name for name in workshop.second if name.startswith("latent-"))
    rows = [Row("default", "default", "default")]
    rows += [Row(key, "reference", "default") for key in ("repeat", "random-latent")]
    rows += [Row(name, part, name) for part, names in named.items() for name in names]
    for second, sampler in CHAINS:
        known = [n for n in STEPS if second != "shortcut" or n <= SHORTCUT_STEPS]
        rows += [Row(f"{second}@{sampler}-{n}", "steps", second, sampler, n) for n in known]
    return rows


def chosen(rows: list[Row], parts: set[str], only: set[str]) -> list[Row]:
    """The default and the references, and the rows named in `only`, or, if that is empty, those of some parts."""
    unknown = only - {row.key for row in rows}
    if unknown:
        raise ConfigError(f"There is no row '{min(unknown)}'.", f"Use {', '.join(row.key for row in rows)}.")
    always = ("default", "reference")
    return [row for row in rows if row.part in always or (row.key in only if only else row.part in parts)]


def keep_settings(out: Path, settings: Settings) -> None:
    """Write the settings, or raise `ConfigError` if the folder holds rows of others."""
    path = out / "settings.json"
    if path.exists():
        old, new = flatten(read_mapping(path)), flatten(settings.model_dump(mode="json"))
        for key in sorted(old.keys() | new.keys()):
            if old.get(key) != new.get(key):
                raise ConfigError(
                    f"'{out}' was begun with {key} = {old.get(key)!r}.", "Use the same, or another folder."
                )
    write_bytes(path, settings.dump().encode())


def run(out: Path, settings: Settings, parts: set[str], only: set[str]) -> None:
    """Train and score the chosen rows, and write the report after each of them, its plot at the end or when stopped."""
    torch.set_num_threads(1)
    keep_settings(out, settings)
    workshop = Workshop(out, settings, training_reporter())
    every = rows_of(workshop)
    rows = chosen(every, parts, only)
    say(f"{len(rows)} rows: {', '.join(row.key for row in rows)}")
    bench = Bench(workshop)
    try:
        for number, row in enumerate(rows):
            if bench.result_of(row).is_file():
                continue
            say(f"row {number + 1} of {len(rows)}: {row.key}")
            taken = bench.score(row)["cpu_seconds"]
            say(f"{row.key}: training {taken['training']:.0f}, scoring {taken['scoring']:.0f} CPU seconds")
            bench.report(every, plot=False)
    finally:
        bench.report(every, plot=True)
    say(f"done: {out / 'variants.md'}")


def say(text: str) -> None:
    """Print a line with the time."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("data", type=Path, nargs="*", help="folders with stated splits")
    parser.add_argument(
        "--test", action="append", metavar="NAME", help="score this folder's held-out clips; default all"
    )
    parser.add_argument("--metric-weights", type=Path, help="folder of LPIPS and X3D weights")
    parser.add_argument(
        "--minutes", type=float, nargs="+", default=[4, 2], help="CPU minutes of first and second stages"
    )
    parser.add_argument("--parts", default=",".join(PARTS), help=f"some of {','.join(PARTS)}")
    parser.add_argument("--only", help="keys of rows, separated by commas, instead of parts")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting, e.g. windows=512")
    parser.add_argument("--quick", action="store_true", help="a few steps, of a phantom if no DATA is given; no result")
    for name in ("size", "stills", "samples", "test-windows", "stride", "seed"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--preset", choices=["tiny", "base"])
    arguments = parser.parse_args()
    try:
        parts = set(arguments.parts.split(","))
        if not parts <= set(PARTS):
            raise ConfigError(f"--parts {arguments.parts}: not all are known.", f"Use some of {','.join(PARTS)}.")
        only = set(arguments.only.split(",")) if arguments.only else set(QUICK_KEYS if arguments.quick else ())
        run(arguments.out, settings_of(arguments), parts, only)
    except UsI2VError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped; the same line goes on.", file=sys.stderr)
        return 130
    return 0


def settings_of(arguments: argparse.Namespace) -> Settings:
    """Settings of a command line; without data, of the phantom that is written."""
    values: dict[str, Any] = {"first_minutes": arguments.minutes[0], "second_minutes": arguments.minutes[-1]}
    if not (arguments.quick or arguments.data):
        raise ConfigError("DATA or --quick is needed.", "Give folders whose manifests state splits.")
    values["data"] = [str(folder) for folder in arguments.data]
    if arguments.quick:
        values |= QUICK
    if not arguments.data:
        folder = arguments.out / "phantom"
        shape: dict[str, Any] = {"videos_per_class": 6, "stills_per_class": 0, "size": 32, "n_frames": 16, "fps": 20.0}
        write_phantom(folder, seed=3, **shape)
        values["data"] = [str(folder)]
    for name in ("size", "stills", "samples", "test_windows", "stride", "seed", "preset", "test", "metric_weights"):
        given = getattr(arguments, name)
        if given is not None:
            values[name] = str(given) if isinstance(given, Path) else given
    for text in arguments.set:
        values = merge(values, parse_override(text))
    return Settings.parse(values, "settings")


if __name__ == "__main__":
    sys.exit(main())
