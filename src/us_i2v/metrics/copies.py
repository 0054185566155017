"""Copies: how alike a clip is to the most similar one of a set, by numbers that a stranger does not reach.

Two similarities, both in -1..1, both the largest over what is compared:

    Pearson      r(x, y) = <x - mean x, y - mean y> / (|x - mean x| |y - mean y|)             rows of features
    shifted      max over shifts d, |d| <= reach, and over mirroring, of r(centre of x, window of y at d)
                                                                                              pictures

A set's own scale comes from clips of people that are in no training clip: the threshold is a high quantile of their
similarity to the nearest training clip, so that about 1 - quantile of strangers are above it. Source: re-identification
by the correlation of embeddings and a threshold from real held-out data, Reynaud et al. 2024, section 3 (after Dar et
al. 2023 and Packhaeuser et al. 2022); normalised cross-correlation, Lewis 1995. Theirs takes the quantile over all
pairs; here it is taken over each held-out window's nearest, since that is what is compared with it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from us_i2v.errors import DataError
from us_i2v.metrics.intervals import Interval

Array = npt.NDArray[np.float64]

Z = 1.959963984540054
"""Standard normal quantile of 97.5 %."""

_AT_ONCE = 1 << 24  # numbers of a reference chunk's windows
_TINY = 1e-12


def pearson(a: Tensor, b: Tensor) -> Tensor:
    """Return the correlation of every row of `a` (N, D) with every row of `b` (M, D): (N, M); 0 for constant rows."""
    return _unit(a) @ _unit(b).T


def shifted_correlation(queries: Tensor, references: Tensor, reach: int) -> Tensor:
    """Return the largest correlation of pictures over shifts and mirroring, (Q, R).

    Args:
        queries: (Q, S, S); their centre, `reach` pixels away from each border, is compared.
        references: (R, S, S), as they are and mirrored left-right.
        reach: Largest shift along each axis in pixels, 0 <= reach < S / 2.

    Raises:
        DataError: The shapes do not fit.
    """
    if queries.ndim != 3 or references.ndim != 3 or queries.shape[1:] != references.shape[1:]:
        raise DataError(
            f"Pictures of {tuple(queries.shape)} and {tuple(references.shape)} cannot be compared.",
            "Pass (Q, S, S) and (R, S, S).",
        )
    side = queries.shape[-1]
    inner = side - 2 * reach
    if reach < 0 or inner < 2:
        raise DataError(f"A reach of {reach} leaves nothing of {side} pixels.", "Use a smaller one.")
    centre = _unit(queries[:, reach : side - reach, reach : side - reach].reshape(len(queries), -1))
    found = torch.full((len(queries), len(references)), -1.0, dtype=queries.dtype, device=queries.device)
    shifts = (2 * reach + 1) ** 2
    step = max(1, _AT_ONCE // (shifts * inner * inner))
    for first in range(0, len(references), step):
        part = references[first : first + step]
        for picture in (part, part.flip(-1)):
            windows = F.unfold(picture[:, None], inner).transpose(1, 2)  # (r, shifts, inner * inner)
            alike = torch.einsum("qd,rsd->qrs", centre, _unit(windows)).amax(2)
            found[:, first : first + step] = torch.maximum(found[:, first : first + step], alike)
    return found


def threshold(similarities: npt.ArrayLike, quantile: float) -> float:
    """Return the quantile of held-out similarities above which a clip counts as a copy.

    It is the value at place quantile * (N + 1) of the sorted ones, interpolated: then a stranger is above it with the
    probability 1 - quantile, whatever the distribution. Where N is too small for that place (below 19 at 0.95) it is
    the largest one, and that probability is 1 / (N + 1).

    Args:
        similarities: (N,), each held-out window's largest similarity to the training set, finite.
        quantile: 0 < quantile < 1, for example 0.95.

    Raises:
        DataError: There are none, or one is not finite.
    """
    values = np.asarray(similarities, dtype=np.float64)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all() or not 0 < quantile < 1:
        raise DataError(
            f"{values.shape} held-out similarities give no threshold at {quantile:g}.",
            "Hold out clips of other patients (column 'split', or --set clips.validation=0.3).",
        )
    return float(np.quantile(values, quantile, method="weibull"))


def share_as_high(value: float, held_out: npt.ArrayLike) -> float:
    """Return (1 + number of held-out similarities >= value) / (1 + their number): small for a copy, never 0."""
    values = np.asarray(held_out, dtype=np.float64)
    return (1 + int((values >= value).sum())) / (1 + len(values))


def share_interval(flags: Sequence[bool], groups: Sequence[str]) -> Interval:
    """Return the share of flagged clips with a 95 % Wilson interval, as if there were one clip a group.

    A bootstrap of "none of n" says 0 to 0, which would be a claim; Wilson's interval does not. Taking the number of
    groups for n is the cautious end: clips of one patient say about as much as one of them. Source: Wilson 1927.

    Raises:
        DataError: There is no clip, or another number of groups.
    """
    if not flags or len(flags) != len(groups):
        raise DataError(f"{len(flags)} clips of {len(groups)} groups have no share.", "Give one group a clip.")
    share, n = float(np.mean(np.asarray(flags, dtype=np.float64))), len(set(groups))
    middle = (share + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z / (1 + Z * Z / n) * math.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
    return Interval(share, max(0.0, middle - half), min(1.0, middle + half), len(flags), n)


def ranking_auc(higher: npt.ArrayLike, lower: npt.ArrayLike) -> float:
    """Return the share of pairs in which a value of `higher` is above one of `lower`, ties 1/2; NaN without pairs."""
    a, b = np.asarray(higher, dtype=np.float64).ravel(), np.sort(np.asarray(lower, dtype=np.float64).ravel())
    if not len(a) or not len(b):
        return math.nan
    below = np.searchsorted(b, a, "left") + np.searchsorted(b, a, "right")
    return float(below.mean() / (2 * len(b)))


def _unit(rows: Tensor) -> Tensor:
    """Subtract each row's mean and divide by its length; rows that are constant become 0."""
    centred = rows - rows.mean(-1, keepdim=True)
    length = centred.square().sum(-1, keepdim=True).sqrt()
    return torch.where(length > _TINY + 1e-6 * rows.abs().amax(-1, keepdim=True), centred / length.clamp_min(_TINY), 0)
