"""Measuring shared by the ranks that torchrun has started: each takes whole batches, and all get the result.

The batches are those of one process, so the result is that of one process, too: to the last bit where all compute with
as many CPU threads. Ranks with different numbers of threads are refused. Numbers, not clips, pass between ranks: a few
kilobytes a clip.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch

from us_i2v.errors import ConfigError, UsI2VError
from us_i2v.evaluation.clip_set import Some
from us_i2v.evaluation.energy import EnergyScores, energy_scores
from us_i2v.evaluation.measure import BATCH, Measured, measure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from us_i2v.evaluation.clips import ClipSet
    from us_i2v.metrics.extractors import Extractor
    from us_i2v.ranks import Ranks
    from us_i2v.types import Frames

T = TypeVar("T")

_PATIENCE = timedelta(hours=24)
"""Ranks wait for the slowest one; one that ends with an error tells the others."""


def check_joinable(ranks: Ranks) -> None:
    """Raise `ConfigError` if there are several ranks that do not know where to meet; looks at the environment only."""
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    if ranks.world > 1 and missing:
        raise ConfigError(
            f"WORLD_SIZE is {ranks.world}, and {' and '.join(missing)} unset: the processes cannot meet.",
            "Start with torchrun, or set them alike for all (host of rank 0, a free port of it).",
        )


@contextmanager
def joined(ranks: Ranks, weights_sha256: str | None = None) -> Iterator[None]:
    """Connect the ranks for the body; needs what torchrun sets (MASTER_ADDR, MASTER_PORT) if there are several.

    Args:
        ranks: This process's place.
        weights_sha256: Digest of the weights that it makes clips with, if it does.

    Raises:
        ConfigError: The ranks do not know where to meet, compute with different numbers of threads, or hold different
            weights (a branch on the hub may have moved between them).
    """
    check_joinable(ranks)
    if ranks.world == 1:
        yield
        return
    torch.distributed.init_process_group("gloo", timeout=_PATIENCE)
    try:
        found = _gather((torch.get_num_threads(), weights_sha256))
        threads, weights = [count for count, _ in found], sorted({str(digest) for _, digest in found})
        if len(set(threads)) > 1:
            raise ConfigError(
                f"The processes compute with {min(threads)} to {max(threads)} CPU threads; sums depend on it.",
                "Give --threads.",
            )
        if len(weights) > 1:
            raise ConfigError(
                f"The processes hold different weights: sha256 {' and '.join(digest[:12] for digest in weights)}.",
                "Name one commit or digest: ORG/NAME@COMMIT, or ORG/NAME?sha256=DIGEST.",
            )
        yield
    finally:
        torch.distributed.destroy_process_group()


def measure_shared(
    ranks: Ranks,
    clips: ClipSet,
    extractors: Mapping[str, Extractor],
    *,
    partner: ClipSet | None = None,
    pairs: Sequence[int | None] | None = None,
    batch: int = BATCH,
    **given: Any,
) -> Measured:
    """Do what `measure` does, which see; every rank returns all of it.

    Raises:
        UsI2VError: What any of the ranks met.
    """
    if ranks.world == 1:
        return measure(clips, extractors, partner=partner, pairs=pairs, batch=batch, **given)
    mates = list(range(len(clips)) if pairs is None else pairs)

    def some(own: list[int]) -> Measured:
        chosen = [mates[index] for index in own] if partner is not None else None
        return measure(Some(clips, own), extractors, partner=partner, pairs=chosen, batch=batch, **given)

    def merged(parts: list[Measured]) -> Measured:
        return Measured(
            names=sum((part.names for part in parts), ()),
            groups=sum((part.groups for part in parts), ()),
            sources=sum((part.sources for part in parts), ()),
            networks=parts[0].networks,
            features=_joined([part.features for part in parts]),
            scalars=_joined([part.scalars for part in parts]),
            curves=_joined([part.curves for part in parts]),
            paired=_joined([part.paired for part in parts]),
            partners=sum((part.partners for part in parts), ()),
            paired_label=parts[0].paired_label,
        )

    parts, order = _shared(ranks, len(clips), max(1, batch), some)
    return merged(parts).select(order)


def energy_scores_shared(
    ranks: Ranks, real: ClipSet, sample: Callable[[int, int], Frames], **given: Any
) -> EnergyScores:
    """Do what `energy_scores` does, which see; every rank returns all of it.

    Raises:
        UsI2VError: What any of the ranks met.
    """
    if ranks.world == 1:
        return energy_scores(real, sample, **given)

    def some(own: list[int]) -> EnergyScores:
        return energy_scores(Some(real, own), lambda index, number: sample(own[index], number), **given)

    parts, order = _shared(ranks, len(real), 1, some)
    scores = _joined([part.scores for part in parts])
    return replace(
        parts[0],
        names=tuple(real.names),
        groups=tuple(real.groups),
        sources=tuple(real.sources),
        scores={key: values[order] for key, values in scores.items()},
    )


def _shared(ranks: Ranks, total: int, batch: int, some: Callable[[list[int]], T]) -> tuple[list[T], list[int]]:
    """Have each rank do its batches; gives the parts of those that had any, and where each clip is in them."""
    batches = [range(start, min(start + batch, total)) for start in range(0, total, batch)]

    def own(rank: int) -> list[int]:
        return [index for each in ranks.share(batches, rank) for index in each]

    mine, found = own(ranks.rank), None
    try:
        found = some(mine) if mine else None
    except UsI2VError as error:
        _gather(error)
        raise
    everything = _gather(found)
    for part in everything:
        if isinstance(part, UsI2VError):
            raise part
    places = [index for rank in range(ranks.world) for index in own(rank)]
    return [part for part in everything if part is not None], np.argsort(places).tolist()


def _gather(value: object) -> list[Any]:
    found: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(found, value)
    return found


def _joined(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
