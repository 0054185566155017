"""The strip of frames: which frames, in which colours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from us_i2v.cli.preview import OUTLINE, strip, write_strip
from us_i2v.errors import OutputError


def numbered(n_frames: int) -> np.ndarray:
    """Frames whose gray value is their number."""
    return np.broadcast_to(np.arange(n_frames, dtype=np.uint8)[:, None, None], (n_frames, 4, 5)).copy()


@pytest.mark.parametrize(
    ("n_frames", "shown"),
    [(16, [0, 2, 4, 6, 9, 11, 13, 15]), (8, list(range(8))), (3, [0, 1, 2]), (2, [0, 1])],
)
def test_first_and_last_frame_are_shown(n_frames: int, shown: list[int]) -> None:
    picture = strip(numbered(n_frames), None)
    assert picture.shape == (4, 5 * len(shown))
    assert picture[0, ::5].tolist() == shown


def test_outline_of_the_mask_is_drawn_and_its_inside_kept() -> None:
    masks = np.zeros((2, 9, 9), bool)
    masks[:, 2:7, 2:7] = True
    picture = strip(np.full((2, 9, 9), 50, np.uint8), masks)
    assert picture.shape == (9, 18, 3)
    outline = (picture == OUTLINE).all(axis=2)
    assert outline.sum() == 2 * 16
    assert picture[4, 4].tolist() == [50, 50, 50]


def test_unwritable_strip_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "strip.png").mkdir()
    with pytest.raises(OutputError, match=r"strip\.png"):
        write_strip(tmp_path / "strip.png", numbered(2))
    assert [path.name for path in tmp_path.iterdir()] == ["strip.png"]
