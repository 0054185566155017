"""Where strangers end: thresholds for clips of any number of windows, from held-out clips.

A clip is flagged if the largest similarity among its k windows is above a threshold, and the largest of many is larger
than one alone. So it is measured against held-out clips of as many windows:

    s_i(k) = max over k windows of held-out clip i,        t(k) = quantile of s_1(k) .. s_N(k)

The k windows are the first k of one drawn order, so that t does not fall with k. Where a held-out clip has fewer than
k, drawn windows of the others fill up; windows of different clips vary more than those of one, so this raises t(k) if
it does anything. The quantile is that of `metrics.copies.threshold`: a stranger of k windows is above t(k) with the
probability `Held.strangers`, provided that clips are drawn from one population.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from us_i2v.errors import DataError
from us_i2v.metrics.copies import threshold
from us_i2v.seeding import numpy_generator

if TYPE_CHECKING:
    import numpy.typing as npt


@dataclass(frozen=True)
class Held:
    """Held-out windows by one measure.

    Attributes:
        similarities: (W,), each window's largest similarity to the training set, finite.
        clips: (W,), number of the clip that it is of.
        groups: (W,), number of that clip's group (patient).
    """

    similarities: npt.NDArray[np.float64]
    clips: npt.NDArray[np.int64]
    groups: npt.NDArray[np.int64]

    @property
    def n_clips(self) -> int:
        """Number of held-out clips."""
        return len(np.unique(self.clips))

    @property
    def n_groups(self) -> int:
        """Number of their groups."""
        return len(np.unique(self.groups))

    def maxima(self, windows: int) -> npt.NDArray[np.float64]:
        """Return each held-out clip's largest similarity among `windows` windows, (N,); see the module's head.

        Raises:
            DataError: `windows` is not positive.
        """
        if windows < 1:
            raise DataError(f"A clip of {windows} windows has no similarity.", "Give 1 or more.")
        found = []
        for clip in np.unique(self.clips):
            rng = numpy_generator(0, "held-out windows", int(clip))
            own, others = np.flatnonzero(self.clips == clip), np.flatnonzero(self.clips != clip)
            order = np.concatenate([rng.permutation(own), rng.permutation(others)])
            found.append(self.similarities[order[:windows]].max())
        return np.array(found, dtype=np.float64)

    def threshold(self, windows: int, quantile: float) -> float:
        """Return the similarity above which a clip of `windows` windows counts as a copy."""
        return threshold(self.maxima(windows), quantile)

    def strangers(self, windows: int, quantile: float) -> float:
        """Return the share of strangers of `windows` windows that is above the threshold, by construction.

        It is 1 - quantile, or 1 / (n + 1) where that is more: n is the number of held-out clips, or that of sets of
        `windows` windows without a common one where there are fewer.
        """
        sets = min(self.n_clips, len(self.similarities) // windows)
        return max(1 - quantile, 1 / (sets + 1))
