"""Exact and near duplicates among pictures, and the groups that they make.

| kind | found by |
|---|---|
| exact | the decoded pixels agree (SHA-256 over size and gray or RGB values; file formats do not matter) |
| the same picture | similarity of `SAME` or more: another crop, zoom, gain, calliper or caption of one picture |
| related | similarity of `RELATED` or more: also neighbouring frames of one scan |

A pair is looked at if its 64-bit difference hashes (is a cell of 8 x 8 brighter than its left neighbour?) differ
in at most `MOST_BITS`. The second picture is then laid on the first by an affine map (`alignment`), and the
similarity is the correlation of both after removing slow gray levels and evening out the local contrast: what
remains is speckle and edges, which two different breasts do not share. Mirrored copies are not looked for, and
blank pictures (gray levels that vary by less than `BLANK`) are paired with none.

The constants come from 669 breast stills (223,446 pairs, 477 of them looked at): pairs of one picture had 0.89 to
1, neighbouring frames 0.48 to 0.89, all others at most 0.35; `RELATED` stands in the empty part between. On frames of
125 clips of lungs and calves, which had no part in that choice, 267 pairs of different patients had at most 0.34.
Other shots of one lesion, from another angle, are below the threshold and not found. Groups are connected
components, so they can hold pairs below it.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from us_i2v.data.alignment import align, warp
from us_i2v.data.transforms import resize, to_gray

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Sequence

    from us_i2v.types import Image

SIDE = 96
MOST_BITS = 14
RELATED = 0.45
SAME = 0.85
BLANK = 2.0
"""Standard deviation in gray levels."""

_CELLS = 8
_SLOW = 4.0  # pixels of the SIDE x SIDE picture: what is smoother is brightness, not structure
_CONTRAST = 8.0  # pixels: window of the local contrast
_NOISE = 2.0  # gray levels: contrast below this is not evened out
_LEAST_OVERLAP = 0.5  # of the square, else the map has run away
_ROWS = 512  # of the distance matrix at a time


class Fingerprint(NamedTuple):
    """What is kept of a picture for comparing it with others.

    Attributes:
        digest: SHA-256 of the decoded pixels, hexadecimal.
        bits: (64,) bool, difference hash.
        small: (96, 96) uint8, the picture squeezed into a square.
    """

    digest: str
    bits: npt.NDArray[np.bool_]
    small: npt.NDArray[np.uint8]


class Pair(NamedTuple):
    """Two pictures that belong together.

    Attributes:
        first: Index of one.
        second: Index of the other; larger.
        similarity: 1 if exact, else the correlation.
        exact: The pixels agree.
    """

    first: int
    second: int
    similarity: float
    exact: bool


def fingerprint(picture: Image) -> Fingerprint:
    """Return the fingerprint of a picture, (H, W) or (H, W, 3) uint8."""
    digest = hashlib.sha256(f"{picture.shape}\0".encode())
    digest.update(np.ascontiguousarray(picture).data)
    gray = to_gray(picture)
    cells = resize(gray, (_CELLS, _CELLS + 1)).astype(np.int16)
    return Fingerprint(digest.hexdigest(), (np.diff(cells, axis=1) > 0).ravel(), resize(gray, (SIDE, SIDE)))


def is_blank(entry: Fingerprint) -> bool:
    """Tell whether a picture shows nothing, so that its likeness to others says nothing."""
    return float(entry.small.std()) < BLANK


def similarity(a: Fingerprint, b: Fingerprint) -> float:
    """Return how much of the structure of two pictures agrees after alignment, -1 .. 1; about 0 for strangers."""
    shift = align(a.small.astype(np.float64), b.small.astype(np.float64))
    moved, inside = warp(structure(b), shift)
    if inside.mean() < _LEAST_OVERLAP or np.abs(shift).max() > SIDE / 4:
        return 0.0
    x, y = structure(a)[inside], moved[inside]
    x, y = x - x.mean(), y - y.mean()
    scale = float(np.sqrt((x * x).sum() * (y * y).sum()))
    return float((x * y).sum()) / scale if scale > 0 else 0.0


def find_pairs(
    prints: Sequence[Fingerprint],
    *,
    sources: Sequence[Hashable] | None = None,
    least: float = RELATED,
    progress: Callable[[int, int, str], None] | None = None,
) -> list[Pair]:
    """Find the pairs of exact and near duplicates.

    Args:
        prints: Fingerprints of N pictures.
        sources: What each picture comes from, for example a clip; pictures of one source are not compared.
        least: Similarity that makes a pair, 0 .. 1.
        progress: Called with (done, candidates, "").

    Returns:
        Pairs in rising order. Memory grows with N and the number of candidates, not with N squared.
    """
    candidates = _candidates(prints)
    if sources is not None:
        candidates = [pair for pair in candidates if sources[pair[0]] != sources[pair[1]]]
    pairs = []
    for done, (first, second) in enumerate(candidates, 1):
        exact = prints[first].digest == prints[second].digest
        value = 1.0 if exact else similarity(prints[first], prints[second])
        if value >= least:
            pairs.append(Pair(first, second, value, exact))
        if progress is not None:
            progress(done, len(candidates), "")
    return pairs


def components(n: int, pairs: Iterable[tuple[int, int]]) -> list[int]:
    """Return for each of n items the smallest index of the connected component that it is in."""
    parent = list(range(n))

    def root(item: int) -> int:
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    for first, second in pairs:
        low, high = sorted((root(first), root(second)))
        parent[high] = low
    return [root(item) for item in range(n)]


def members(component_of: Sequence[int]) -> list[list[int]]:
    """Return the items of every component, both in rising order."""
    found: dict[int, list[int]] = defaultdict(list)
    for item, component in enumerate(component_of):
        found[component].append(item)
    return [found[component] for component in sorted(found)]


def in_two_classes(pairs: Iterable[Pair], labels: Sequence[str | None]) -> list[Pair]:
    """Return the pairs of one picture whose two labels are known and differ."""
    found = []
    for pair in pairs:
        two = {labels[pair.first], labels[pair.second]}
        if pair.similarity >= SAME and None not in two and len(two) == 2:
            found.append(pair)
    return found


def _candidates(prints: Sequence[Fingerprint]) -> list[tuple[int, int]]:
    """Return the pairs whose hashes differ in few bits, in rising order."""
    if not prints:
        return []
    shown = np.array([index for index, entry in enumerate(prints) if not is_blank(entry)], np.intp)
    signs = np.stack([entry.bits for entry in prints])[shown].astype(np.float32) * 2 - 1
    found: list[tuple[int, int]] = []
    for start in range(0, len(shown), _ROWS):
        distances = (signs.shape[1] - signs[start : start + _ROWS] @ signs.T) / 2
        rows, columns = np.nonzero(distances <= MOST_BITS)
        rows = rows + start
        later = columns > rows
        found += zip(shown[rows[later]].tolist(), shown[columns[later]].tolist(), strict=True)
    return found


def structure(entry: Fingerprint) -> npt.NDArray[np.float64]:
    """Return a picture's (96, 96) without slow gray levels, with even local contrast: speckle and edges."""
    levels = entry.small.astype(np.float64)
    fast = levels - ndimage.gaussian_filter(levels, _SLOW)
    contrast = np.sqrt(ndimage.gaussian_filter(fast * fast, _CONTRAST))
    return fast / (contrast + _NOISE)
