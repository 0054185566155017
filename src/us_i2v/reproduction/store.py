"""Measurements on disk: a row of a table that is measured once is read back, not measured again.

One .npz a row: arrays under "kind/name" and one JSON text for names, groups and networks; nothing is pickled. A file
tells the key (a hash of weights, settings and windows) that it was measured under, and is used for that key only.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from us_i2v.data.atomic import write_bytes
from us_i2v.evaluation.energy import EnergyScores
from us_i2v.evaluation.measure import Measured, Network
from us_i2v.reproduction.several import Several

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    Array = npt.NDArray[np.float64]

_TABLES = ("features", "scalars", "curves", "paired")


def row_key(*parts: object) -> str:
    """Return a hash of anything that JSON can say."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def save_measured(path: Path, measured: Measured, key: str) -> None:
    """Write measurements atomically; raises `OutputError`."""
    arrays = {f"{table}/{name}": array for table in _TABLES for name, array in getattr(measured, table).items()}
    head = {
        "names": measured.names,
        "groups": measured.groups,
        "sources": measured.sources,
        "partners": measured.partners,
        "paired_label": measured.paired_label,
        "networks": {name: asdict(network) for name, network in measured.networks.items()},
    }
    _save(path, key, head, arrays)


def load_measured(path: Path, key: str) -> Measured | None:
    """Read measurements back; None if there are none, or of another key, or the file is damaged."""
    found = _load(path, key)
    if found is None:
        return None
    head, arrays = found
    tables: dict[str, dict[str, Array]] = {table: {} for table in _TABLES}
    for name, array in arrays.items():
        table, _, inner = name.partition("/")
        tables[table][inner] = array
    return Measured(
        names=tuple(head["names"]),
        groups=tuple(head["groups"]),
        sources=tuple(head["sources"]),
        networks={name: Network(**values) for name, values in head["networks"].items()},
        partners=tuple(head["partners"]),
        paired_label=head["paired_label"],
        **tables,
    )


def save_several(path: Path, several: Several, key: str) -> None:
    """Write what several answers a still gave, atomically; raises `OutputError`."""
    scores = several.energy
    head = {"names": scores.names, "groups": scores.groups, "sources": scores.sources, "samples": scores.samples}
    arrays = {f"energy/{name}": values for name, values in scores.scores.items()}
    arrays |= {f"diversity/{name}": values for name, values in several.diversity.items()}
    _save(path, key, head, arrays)


def load_several(path: Path, key: str) -> Several | None:
    """Read it back; None as in `load_measured`."""
    found = _load(path, key)
    if found is None:
        return None
    head, arrays = found
    tables: dict[str, dict[str, Array]] = {"energy": {}, "diversity": {}}
    for name, array in arrays.items():
        table, _, inner = name.partition("/")
        tables[table][inner] = array
    texts = {name: tuple(head[name]) for name in ("names", "groups", "sources")}
    return Several(EnergyScores(**texts, samples=int(head["samples"]), scores=tables["energy"]), tables["diversity"])


def _save(path: Path, key: str, head: dict[str, Any], arrays: dict[str, Array]) -> None:
    out = io.BytesIO()
    text = json.dumps({"key": key, **head})
    np.savez_compressed(out, allow_pickle=False, head=np.array(text), **arrays)
    write_bytes(path, out.getvalue())


def _load(path: Path, key: str) -> tuple[dict[str, Any], dict[str, Array]] | None:
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            head = json.loads(str(file["head"]))
            if head.pop("key", None) != key:
                return None
            return head, {name: file[name] for name in file.files if name != "head"}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None
