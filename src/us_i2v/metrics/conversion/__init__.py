"""Metric weights from the publishers' own files, for `us-i2v convert`.

recipes    which tensors go where, batch norms folded where our network has none
reading    publishers' pickles opened in a process of their own, weights only, with limits
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from us_i2v.errors import ConfigError, WeightsError
from us_i2v.metrics.conversion.reading import read_state_dict
from us_i2v.metrics.conversion.recipes import RECIPES
from us_i2v.metrics.pretrained import (
    CONFIRMED,
    PRETRAINED,
    PUBLISHED,
    Source,
    fill,
    provenance_metadata,
    tensors_digest,
)
from us_i2v.metrics.publishers import PUBLISHER_FILES, refuse_mistaken, sha256_of

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Converted:
    """Weights ready to be written.

    Attributes:
        tensors: Name to float32 tensor, as our network names them.
        metadata: safetensors metadata: where they come from.
        sources: The publishers' files, in the table's order.
        like_known: Whether the tensors equal those of the known file; None if there is none.
    """

    tensors: dict[str, Tensor]
    metadata: dict[str, str]
    sources: tuple[Source, ...]
    like_known: bool | None


def usual_file(name: str) -> str:
    """Return the usual name of the file that `name` becomes; raises `ConfigError` for what cannot be converted."""
    if name not in RECIPES:
        raise ConfigError(f"'{name}' cannot be converted.", f"Use one of {', '.join(RECIPES)}.")
    return PRETRAINED[name].file


def convert(name: str, files: Sequence[Path], confirmed: Collection[str] = ()) -> Converted:
    """Make the weights of one metric network from the publishers' files.

    Args:
        name: Key of `recipes.RECIPES`.
        files: The publishers' files, in any order; told apart by their sha256.
        confirmed: sha256 that the user vouches for, for files of which none is published.

    Raises:
        ConfigError: Unknown name.
        WeightsError: A file is missing, not the publisher's, known to be a wrong one, unreadable, or holds
            other tensors than the network needs.
    """
    usual_file(name)
    recipe, keys = RECIPES[name], PRETRAINED[name].made_from
    found = _identify(name, files, {digest.lower() for digest in confirmed})
    states = {
        key: read_state_dict(path, source.sha256, recipe.prefixes.get(key, ())) for key, (path, source) in found.items()
    }
    try:
        made = recipe.build(*(states[key] for key in keys))
    except KeyError as error:
        raise WeightsError(
            f"{' and '.join(str(path) for path, _ in found.values())}: tensor {error} is missing.",
            f"Give the files that {name} is made from.",
        ) from error
    tensors = {key: value.float().contiguous() for key, value in made.items()}
    bad = sorted(key for key, value in tensors.items() if not bool(torch.isfinite(value).all()))
    if bad:
        raise WeightsError(f"Tensor '{bad[0]}' holds NaN or infinity.", "Fetch the publisher's file again.")
    fill(recipe.network(), tensors, " + ".join(path.name for path, _ in found.values()))
    sources = tuple(found[key][1] for key in keys)
    known = PRETRAINED[name].tensors
    like_known = None if known is None else tensors_digest(tensors) == known
    return Converted(tensors, provenance_metadata(name, sources, tensors), sources, like_known)


def _identify(name: str, files: Sequence[Path], confirmed: set[str]) -> dict[str, tuple[Path, Source]]:
    """Assign each file to the publisher's file that it is: by its published sha256, or by the user's word."""
    open_keys = list(PRETRAINED[name].made_from)
    wanted = " and ".join(PUBLISHER_FILES[key].file for key in open_keys)
    if len(files) != len(open_keys):
        raise WeightsError(
            f"{name} is made from {len(open_keys)} file(s), {wanted}; {len(files)} given.",
            "Name each publisher's file once.",
        )
    found: dict[str, tuple[Path, Source]] = {}
    for path in files:
        digest = sha256_of(path)
        refuse_mistaken(digest, path)
        key = next((k for k in open_keys if PUBLISHER_FILES[k].sha256 == digest), None)
        how = PUBLISHED
        if key is None:
            key, how = _vouched(path, digest, [k for k in open_keys if PUBLISHER_FILES[k].sha256 is None], confirmed)
        if key is None:
            expected = ", ".join(
                f"{PUBLISHER_FILES[k].file} {(PUBLISHER_FILES[k].sha256 or '')[:12]}..." for k in open_keys
            )
            raise WeightsError(
                f"'{path}' has sha256 {digest[:12]}..., needed: {expected}.", "Fetch the publisher's file again."
            )
        open_keys.remove(key)
        found[key] = (path, Source(PUBLISHER_FILES[key].file, digest, how))
    return found


def _vouched(path: Path, digest: str, keys: list[str], confirmed: set[str]) -> tuple[str | None, str]:
    """Return the file without published sha256 that this one is by the user's word."""
    if not keys:
        return None, ""
    if digest not in confirmed:
        file, size = PUBLISHER_FILES[keys[0]].file, path.stat().st_size
        given = f"; --sha256 says {', '.join(sorted(confirmed))}" if confirmed else ""
        raise WeightsError(
            f"No sha256 of {file} is published; '{path}' has {size:,} bytes and sha256 {digest}{given}.",
            "If that is the publisher's file, for instance by the page you had it from, add --sha256 with this digest.",
        )
    return keys[0], CONFIRMED
