"""Burned-in marks and text: what a scanner or an annotator painted into a picture.

`hold.overlays` finds painted pixels: coloured ones, and thin bright strokes with edges sharper than speckle. Here its
regions are told apart:

- flat streaks (bright fascia, the transducer's edge) and specks are left out;
- text is a row of characters: glyphs of one height on one line, at most `WORD_GAP` heights apart, together wider than
  high, crossed by at least two strokes. Plus signs (callipers) are no characters. A single character is no text but
  counts among the marks, as do callipers, body markers and rulers.

Text whose strokes rise less than 90 gray levels above their surroundings or are thicker than 8 pixels is not seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from us_i2v.data.hold import overlays

if TYPE_CHECKING:
    from collections.abc import Sequence

    from us_i2v.types import Image, Mask

MIN_GLYPH = 6
"""Least height of a character, pixels."""
MAX_GLYPH = 0.08
"""Greatest height of a character as a share of the picture's height (at least 24 pixels are allowed)."""
WORD_GAP = 1.2
"""Greatest gap between two characters of a line, in heights of a character."""
_LEVEL = 0.75
"""A glyph's pixels have at least this share of the brightest value around."""
_GROWN = 2
"""Pixels by which `overlays` widens what it finds."""


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels: rows top .. bottom - 1, columns left .. right - 1."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def height(self) -> int:
        """Number of rows."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.right - self.left

    def union(self, other: Box) -> Box:
        """Return the smallest box around both."""
        return Box(
            min(self.top, other.top),
            min(self.left, other.left),
            max(self.bottom, other.bottom),
            max(self.right, other.right),
        )


@dataclass(frozen=True)
class BurnedIn:
    """What is painted into a picture.

    Attributes:
        lines: Lines of text, from top to bottom.
        text_share: Share of the picture's area inside them, 0..1.
        mark_share: Share of the picture's area that painted strokes cover, text included, 0..1.
    """

    lines: tuple[Box, ...]
    text_share: float
    mark_share: float


def find_burned_in(image: Image) -> BurnedIn:
    """Find marks and text in a picture.

    Args:
        image: uint8, (H, W) or (H, W, 3).
    """
    gray = image.astype(np.float32).mean(axis=2) if image.ndim == 3 else image.astype(np.float32)
    marks = _without_streaks(overlays(image, gray))
    if not marks.any():
        return BurnedIn((), 0.0, 0.0)
    values = image.max(axis=2) if image.ndim == 3 else image
    brightest = ndimage.maximum_filter(np.where(marks, values, 0), 7)
    ink = marks & (values >= _LEVEL * brightest)
    lines = _lines(_glyphs(ink), ink)
    area = np.zeros(gray.shape, np.bool_)
    for line in lines:
        area[line.top : line.bottom, line.left : line.right] = True
    return BurnedIn(tuple(lines), float(area.mean()), float(marks.mean()))


def _without_streaks(painted: Mask) -> Mask:
    """Drop regions that are flat or tiny: (H, W) -> (H, W)."""
    labels, count = ndimage.label(painted, np.ones((3, 3)))
    kept = np.zeros(count + 1, np.bool_)
    for index, place in enumerate(ndimage.find_objects(labels), start=1):
        height = place[0].stop - place[0].start - 2 * _GROWN
        kept[index] = height >= MIN_GLYPH - 1
    return np.asarray(kept[labels], np.bool_)


def _glyphs(ink: Mask) -> list[Box]:
    """Boxes of connected strokes as high as characters, plus signs left out; touching letters share one."""
    labels, _ = ndimage.label(ink, np.ones((3, 3)))
    highest = max(24.0, MAX_GLYPH * ink.shape[0])
    glyphs = []
    for index, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
        box = Box(rows.start, columns.start, rows.stop, columns.stop)
        if MIN_GLYPH <= box.height <= highest and not _is_plus(labels[rows, columns] == index):
            glyphs.append(box)
    return glyphs


def _is_plus(glyph: Mask) -> bool:
    """Tell whether nearly all of a glyph lies in the bands around its fullest row and column."""
    height, width = glyph.shape
    if not 0.6 < height / width < 1.7:
        return False
    row, column = int(glyph.sum(axis=1).argmax()), int(glyph.sum(axis=0).argmax())
    central = 0.2 < row / height < 0.8 and 0.2 < column / width < 0.8
    rest = glyph.copy()
    rest[max(0, row - 2) : row + 3] = False
    rest[:, max(0, column - 2) : column + 3] = False
    return central and bool(rest.sum() <= 0.1 * glyph.sum())


def _lines(glyphs: Sequence[Box], ink: Mask) -> list[Box]:
    """Join glyphs to lines and keep those that read like text."""
    lines: list[tuple[Box, Box, int]] = []
    for glyph in sorted(glyphs, key=lambda box: (box.left, box.top)):
        for index, (line, last, count) in enumerate(lines):
            if _follows(last, glyph):
                lines[index] = (line.union(glyph), glyph, count + 1)
                break
        else:
            lines.append((glyph, glyph, 1))
    found = [line for line, _, count in lines if _reads_like_text(line, count, ink)]
    return sorted(found, key=lambda box: (box.top, box.left))


def _follows(last: Box, glyph: Box) -> bool:
    """Tell whether `glyph` stands right of `last` on the same line."""
    height = max(last.height, glyph.height)
    overlap = min(last.bottom, glyph.bottom) - max(last.top, glyph.top)
    return overlap >= 0.7 * height and -0.5 * height <= glyph.left - last.right <= WORD_GAP * height


def _reads_like_text(line: Box, count: int, ink: Mask) -> bool:
    """Tell whether a row of `count` glyphs is text; one glyph may be touching letters, or an outline that is cut."""
    if count == 1:
        density = ink[line.top : line.bottom, line.left : line.right].mean()
        if line.width < 1.5 * line.height or density < 0.25:
            return False
    return line.width >= 1.2 * line.height and _strokes(line, ink) >= 2


def _strokes(line: Box, ink: Mask) -> float:
    """Mean number of strokes that a row through the middle of a line crosses."""
    margin = line.height // 5
    rows = ink[line.top + margin : line.bottom - margin, line.left : line.right]
    starts = rows[:, 1:] & ~rows[:, :-1]
    return float((starts.sum(axis=1) + rows[:, 0]).mean())
