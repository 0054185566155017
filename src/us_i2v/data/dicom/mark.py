"""The visible mark SYNTHETIC: letters of 5 x 7 cells, so that it looks the same wherever it is drawn."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from us_i2v.types import Frames, Mask

WORD = "SYNTHETIC"
_LETTERS = {
    "S": (".###.", "#...#", "#....", ".###.", "....#", "#...#", ".###."),
    "Y": ("#...#", "#...#", ".#.#.", "..#..", "..#..", "..#..", "..#.."),
    "N": ("#...#", "##..#", "#.#.#", "#..##", "#...#", "#...#", "#...#"),
    "T": ("#####", "..#..", "..#..", "..#..", "..#..", "..#..", "..#.."),
    "H": ("#...#", "#...#", "#...#", "#####", "#...#", "#...#", "#...#"),
    "E": ("#####", "#....", "#....", "####.", "#....", "#....", "#####"),
    "I": (".###.", "..#..", "..#..", "..#..", "..#..", "..#..", ".###."),
    "C": (".###.", "#...#", "#....", "#....", "#....", "#...#", ".###."),
}
_SHARE = 0.25
"""Share of the picture's width that the mark takes at least, where it fits."""


def word_mask() -> Mask:
    """Return the word at one pixel a cell, (9, W) bool, with one empty cell around it."""
    gap = np.zeros((7, 1), np.bool_)
    columns = [gap]
    for letter in WORD:
        columns += [np.array([[cell == "#" for cell in row] for row in _LETTERS[letter]]), gap]
    return np.pad(np.concatenate(columns, axis=1), ((1, 1), (0, 0)))


def draw_mark(frames: Frames) -> Frames:
    """Return a copy of (T, H, W[, 3]) with SYNTHETIC in white on black at the bottom left of every frame.

    Letters are whole pixels large, the mark about a quarter of the width; in pictures narrower than the word it is
    squeezed to their width.
    """
    word = word_mask()
    height, width = frames.shape[1:3]
    scale = max(1, round(_SHARE * width / word.shape[1]))
    scale = min(scale, max(1, height // word.shape[0]), max(1, width // word.shape[1]))
    block = np.kron(word, np.ones((scale, scale), np.bool_))
    if block.shape[1] > width:
        starts = (np.arange(width + 1) * block.shape[1]) // width
        block = np.stack([block[:, a:b].any(axis=1) for a, b in pairwise(starts)], axis=1)
    block = block[-height:]
    out = frames.copy()
    area = out[:, -block.shape[0] :, : block.shape[1]]
    area[...] = 0
    area[:, block] = 255
    return out
