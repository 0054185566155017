"""Energy scores: K clips drawn from each still, judged against the real clip that began with it.

Distances: the square root of LPIPS (mean over three frames, 5, 10 and 15 of 16: a still takes K (K + 1) / 2 pairs), and
the distance of motion vectors (`metrics.energy_score`). Smaller is better. A method that always gives one answer
has no spread to be credited for: its score is its plain distance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from us_i2v.errors import ConfigError
from us_i2v.metrics.energy_score import energy_score, motion_vector
from us_i2v.metrics.intervals import Interval, mean_interval, paired_interval

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from us_i2v.evaluation.clips import ClipSet
    from us_i2v.metrics.lpips import LPIPS
    from us_i2v.types import Frames

SAMPLES = 8

FRAMES = 3
"""Frames of a pair that LPIPS is averaged over, evenly spread up to the last."""

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class EnergyScores:
    """Energy scores of N stills.

    Attributes:
        names: Of the stills' windows.
        groups: Their patients.
        sources: Their data sets.
        samples: Clips drawn a still.
        scores: By distance ("lpips", "motion"): (N,).
    """

    names: tuple[str, ...]
    groups: tuple[str, ...]
    sources: tuple[str, ...]
    samples: int
    scores: dict[str, Array]

    def intervals(self, source: str | None = None) -> dict[str, Interval]:
        """Return the mean score by distance, of one source or of all, with intervals over patients."""
        rows = self._rows(source)
        groups = [self.groups[row] for row in rows]
        return {key: mean_interval(values[rows], groups) for key, values in self.scores.items()}

    def less(self, other: EnergyScores, source: str | None = None) -> dict[str, Interval]:
        """Return the mean of own minus other scores of the same stills; below 0 this method is the better one.

        Raises:
            ConfigError: The stills are others.
        """
        if self.names != other.names:
            raise ConfigError("Energy scores of different stills cannot be paired.", "Use the same real windows.")
        rows = self._rows(source)
        groups = [self.groups[row] for row in rows]
        return {
            key: paired_interval(values[rows], other.scores[key][rows], groups)
            for key, values in self.scores.items()
            if key in other.scores
        }

    def _rows(self, source: str | None) -> list[int]:
        return [row for row, own in enumerate(self.sources) if source is None or own == source]


def energy_scores(
    real: ClipSet,
    sample: Callable[[int, int], Frames],
    *,
    samples: int = SAMPLES,
    lpips: LPIPS | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> EnergyScores:
    """Draw clips for every real window and score them.

    Args:
        real: The real clips, uint8 (T, S, S).
        sample: (index, number) -> clip `number` for the still of window `index`, uint8 (T, S, S).
        samples: K, at least 2.
        lpips: Network of the first distance; without it only motion is scored.
        progress: Called with (stills done, all, name).

    Raises:
        ConfigError: If `samples` is below 2.
    """
    if samples < 2:
        raise ConfigError(f"An energy score of {samples} samples has no spread.", "Use --samples 8, or 0 for none.")
    scores: dict[str, list[float]] = {"motion": []} if lpips is None else {"lpips": [], "motion": []}
    for index, name in enumerate(real.names):
        clips = [real.frames(index), *(sample(index, number) for number in range(samples))]
        vectors = np.stack([motion_vector(clip) for clip in clips])
        scores["motion"].append(_score(np.linalg.norm(vectors[:, None] - vectors[None], axis=-1)))
        if lpips is not None:
            scores["lpips"].append(_score(np.sqrt(_lpips_matrix(lpips, clips))))
        if progress is not None:
            progress(index + 1, len(real), name)
    return EnergyScores(
        names=tuple(real.names),
        groups=tuple(real.groups),
        sources=tuple(real.sources),
        samples=samples,
        scores={key: np.array(values) for key, values in scores.items()},
    )


def _score(distances: Array) -> float:
    """Return the energy score of distances (1 + K, 1 + K), the real clip first."""
    return energy_score(distances[0, 1:], distances[1:, 1:])


@torch.no_grad()
def _lpips_matrix(lpips: LPIPS, clips: Sequence[Frames]) -> Array:
    """Return LPIPS of each pair of clips, symmetric with a zero diagonal."""
    some = np.linspace(0, len(clips[0]) - 1, FRAMES + 1).round().astype(int)[1:]  # Frame 0 is given.
    found = np.zeros((len(clips), len(clips)))
    for t in some:
        pictures = torch.from_numpy(np.stack([clip[t] for clip in clips]))[:, None].to(lpips.shift.device)
        vectors = lpips.embed(pictures).double()
        for i, vector in enumerate(vectors):
            found[i] += (vectors - vector).square().sum(1).cpu().numpy() / len(some)
    return found
