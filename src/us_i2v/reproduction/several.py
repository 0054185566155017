"""Several answers to one still: energy scores, and how much the answers differ (DIV)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from us_i2v.data.splits import in_turn
from us_i2v.evaluation.clip_set import Some
from us_i2v.evaluation.energy import EnergyScores, energy_scores
from us_i2v.metrics.diversity import diversity_per_still

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from us_i2v.evaluation.clips import Answers, ClipSet
    from us_i2v.metrics.extractors import Extractor
    from us_i2v.metrics.lpips import LPIPS
    from us_i2v.types import Frames

REALISATIONS = 5
"""Answers a still that DIV is measured on, as in cINN's evaluation."""


@dataclass(frozen=True)
class Several:
    """What several answers to each of N stills gave.

    Attributes:
        energy: Energy scores.
        diversity: DIV by feature network: (N,), one number a still.
    """

    energy: EnergyScores
    diversity: dict[str, npt.NDArray[np.float64]]


def answer_several(
    real: ClipSet,
    row: Answers,
    indices: Sequence[int],
    samples: int,
    extractors: Mapping[str, Extractor],
    lpips: LPIPS | None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Several:
    """Answer some stills `samples` times and score the answers.

    Args:
        real: The real clips.
        row: Makes the answers.
        indices: Which of the real clips.
        samples: Answers a still, at least 2.
        extractors: Networks for DIV, on the first `REALISATIONS` answers; those of single frames are left out.
        lpips: Network of the energy score's first distance.
        progress: Called with (stills done, all, name).

    Raises:
        ConfigError: `samples` is below 2.
    """
    networks = {key: network for key, network in extractors.items() if not getattr(network, "per_frame", False)}
    found: dict[str, list[list[npt.NDArray[np.float64]]]] = {key: [] for key in networks}

    def sample(index: int, number: int) -> Frames:
        frames = row.sample(indices[index], number)
        for key, network in networks.items():
            if number == 0:
                found[key].append([])
            if number < REALISATIONS:
                found[key][-1].append(network.features([frames])[0])
        return frames

    energy = energy_scores(Some(real, indices), sample, samples=samples, lpips=lpips, progress=progress)
    return Several(energy, {key: diversity_per_still([np.stack(f) for f in rows]) for key, rows in found.items()})


def spread_indices(groups: Sequence[str], count: int) -> list[int]:
    """Return up to `count` clips, taking one of each group in turn, in ascending order."""
    return sorted(in_turn(groups)[:count])
