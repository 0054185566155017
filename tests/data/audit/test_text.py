from __future__ import annotations

import numpy as np
import pytest
from PIL import Image as PillowImage
from PIL import ImageDraw

from tests.data.audit.planted import picture, with_text
from tests.factories import textured_still
from us_i2v.data.audit.text import find_burned_in


def test_nothing_in_tissue() -> None:
    for seed in range(12):
        found = find_burned_in(picture(seed))
        assert (found.lines, found.text_share, found.mark_share) == ((), 0.0, 0.0)


@pytest.mark.parametrize("text", ["LT AX", "RT 9", "lt axilla", "1.5 cm", "L C"])
@pytest.mark.parametrize("level", [235, (255, 255, 0), (255, 60, 60)])
def test_text_is_found_where_it_stands(text: str, level: int | tuple[int, int, int]) -> None:
    still = picture(1)
    written = with_text(still, text, (14, 40), level)
    changed = np.argwhere((written if written.ndim == 2 else written[..., 0]) != still)
    (top, left), (bottom, right) = changed.min(axis=0), changed.max(axis=0) + 1
    (line,) = find_burned_in(written).lines
    assert abs(line.left - left) <= 4
    assert abs(line.right - right) <= 4
    assert top - 3 <= line.top
    assert line.bottom <= bottom + 3
    assert line.height >= 0.5 * (bottom - top)


def test_share_is_the_boxes_area() -> None:
    found = find_burned_in(with_text(picture(1), "LT AX", (14, 40)))
    (line,) = found.lines
    assert found.text_share == line.height * line.width / (96 * 120)
    assert 0 < found.mark_share < 0.2


def test_two_lines() -> None:
    written = with_text(with_text(picture(2), "LEFT", (10, 10)), "6 MHz", (50, 60))
    assert len(find_burned_in(written).lines) == 2


def test_callipers_are_marks_but_no_text() -> None:
    canvas = PillowImage.fromarray(picture(3))
    drawing = ImageDraw.Draw(canvas)
    for column, row in ((20, 30), (90, 50)):
        drawing.line((column - 6, row, column + 6, row), fill=235, width=2)
        drawing.line((column, row - 6, column, row + 6), fill=235, width=2)
    for step in range(10, 62, 4):
        drawing.rectangle((20 + step, 30 + step * 2 // 7, 21 + step, 31 + step * 2 // 7), fill=235)
    found = find_burned_in(np.array(canvas))
    assert found.lines == ()
    assert found.mark_share > 0.005


def test_bright_streaks_are_neither() -> None:
    still = picture(4)
    still[40:43, 20:90] = 240
    found = find_burned_in(still)
    assert found.lines == ()
    assert found.mark_share == 0


def test_tinted_picture_has_no_marks() -> None:
    assert find_burned_in(textured_still(96, 120, colour=True)).mark_share == 0
