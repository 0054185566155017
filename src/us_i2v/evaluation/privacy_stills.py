"""Is a clip's first frame, the still that it was made from, a near-copy of a training picture?

Its hash is compared with those of the training windows' pictures (first, middle and last frame), as they are and
mirrored; of each training clip the nearest picture is laid on it (`data.duplicates`). That is one alignment a clip and
direction at most, so that the cost grows with stills times training clips, and nothing is kept of pairs of training
pictures. What lies between those pictures is not looked at: frame by frame the alignments would take hours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from us_i2v.data.duplicates import MOST_BITS, RELATED, Fingerprint, fingerprint, is_blank, similarity

if TYPE_CHECKING:
    import numpy.typing as npt

    from us_i2v.privacy import Views
    from us_i2v.types import Image


@dataclass(frozen=True)
class SeedMatch:
    """The training picture that a clip's first frame is a near-copy of.

    Attributes:
        similarity: See `data.duplicates.similarity`; 1 if the pixels agree.
        clip: Name of the training clip.
        group: Its group.
        mirrored: Whether the first frame is a mirror image of it.
    """

    similarity: float
    clip: str
    group: str
    mirrored: bool


def seed_matches(stills: Sequence[Image], reference: Views) -> list[SeedMatch | None]:
    """Return for each still (96, 96) the training picture that is most alike, None where none is a near-copy."""
    pictures = reference.pictures.flatten(0, 1).numpy()
    per_window = reference.pictures.shape[1]
    shown, bits = [], []
    for number, picture in enumerate(pictures):
        entry = fingerprint(picture)
        if not is_blank(entry):
            shown.append(number)
            bits.append(entry.bits)
    if not shown:
        return [None] * len(stills)
    places, known = np.array(shown), np.stack(bits)
    keys = list(zip(reference.clips, reference.groups, strict=True))
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    owner = np.array([numbers[keys[place // per_window]] for place in shown])
    found: list[SeedMatch | None] = []
    for still in stills:
        best: SeedMatch | None = None
        for mirrored in (False, True):
            entry = fingerprint(np.ascontiguousarray(still[:, ::-1]) if mirrored else still)
            if is_blank(entry):
                continue
            for row in _nearest(entry, known, owner):
                value = _similarity(entry, fingerprint(pictures[places[row]]))
                if value >= RELATED and (best is None or value > best.similarity):
                    clip, group = keys[places[row] // per_window]
                    best = SeedMatch(value, clip, group, mirrored)
        found.append(best)
    return found


def _nearest(entry: Fingerprint, bits: npt.NDArray[np.bool_], owner: npt.NDArray[np.intp]) -> list[int]:
    """Return of each clip the row whose hash is nearest, where that is near enough."""
    distances = (bits != entry.bits).sum(1)
    near = np.flatnonzero(distances <= MOST_BITS)
    near = near[np.argsort(distances[near], kind="stable")]
    return [int(row) for row in near[np.unique(owner[near], return_index=True)[1]]]


def _similarity(a: Fingerprint, b: Fingerprint) -> float:
    return 1.0 if a.digest == b.digest else similarity(a, b)
