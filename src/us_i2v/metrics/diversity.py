"""DIV: how much several clips from one still differ.

    DIV = mean over stills of  1 / (R (R - 1)) sum_{i != j} mean_k (f_ik - f_jk)^2

with f_i the features of realisation i, k over their entries. The mean over pairs equals twice the unbiased
variance over realisations, which is how it is computed. 0 for a deterministic method; larger is not better
by itself (noise is diverse), so print the same number for real clips beside it where there is one.

cINN's evaluation, whose code defines DIV, takes R = 5 and three kinds of f: VGG maps of the frames, I3D
logits, and features of the DTDB-trained I3D, the last times `DTI3D_SCALE`. Here f is whatever the caller has;
with X3D-XS features call it DIV-X3D. Source: Dorkenwald 2021 and its evaluation; formula in our words.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from us_i2v.errors import DataError

DTI3D_SCALE = 1000.0
"""What DIV on features of the DTDB-trained I3D is multiplied by."""


def diversity(realisations: Sequence[npt.ArrayLike]) -> float:
    """Return DIV.

    Args:
        realisations: One array a still, (R, ...): the features of its R >= 2 realisations. R and the rest
            of the shape may differ between stills.

    Raises:
        DataError: If there is no still, a still has fewer than two realisations, or a value is not finite.
    """
    values = diversity_per_still(realisations)
    if not len(values):
        raise DataError("DIV of no still is undefined.", "Pass the realisations of one still at least.")
    return float(values.mean())


def diversity_per_still(realisations: Sequence[npt.ArrayLike]) -> npt.NDArray[np.float64]:
    """Return each still's own mean over pairs, (N,), from which intervals are made; errors as `diversity`."""
    return np.array([_of_still(np.asarray(item, dtype=np.float64)) for item in realisations], dtype=np.float64)


def _of_still(features: npt.NDArray[np.float64]) -> float:
    if features.ndim < 2 or len(features) < 2 or 0 in features.shape:
        raise DataError(
            f"Features of shape {features.shape} hold no two realisations.", "Pass (R, ...) with R of 2 or more."
        )
    if not np.isfinite(features).all():
        raise DataError("Features hold NaN or infinity.", "Check the clips that they come from.")
    # Relative to the first realisation, so that equal ones give exactly 0.
    return 2.0 * float((features - features[0]).var(axis=0, ddof=1).mean())
