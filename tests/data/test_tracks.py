"""Box tracks: one lesion, no gap, at rest."""

from __future__ import annotations

import pytest

from us_i2v.data.boxes import BoundingBox
from us_i2v.data.tracks import single_box_frames, split_at_gaps, stable_runs


def at(x: float, y: float = 50.0) -> list[BoundingBox]:
    return [BoundingBox(x - 10, y - 5, 20, 10)]


def test_frames_with_no_box_or_two_are_left_out() -> None:
    boxes = {3: at(1), 1: at(2), 2: [*at(1), *at(7)], 4: [], 5: [*at(9), *at(9)]}
    assert single_box_frames(boxes) == {1: at(2)[0], 3: at(1)[0], 5: at(9)[0]}
    assert list(single_box_frames(boxes)) == [1, 3, 5]


def test_runs_end_at_gaps() -> None:
    assert split_at_gaps([1, 2, 3, 5, 6, 9]) == [[1, 2, 3], [5, 6], [9]]
    assert split_at_gaps([]) == []


def test_fifteen_frames_are_needed() -> None:
    assert stable_runs({frame: at(100) for frame in range(15)}) == [list(range(15))]
    assert stable_runs({frame: at(100) for frame in range(14)}) == []
    assert stable_runs({frame: at(100) for frame in range(14)}, least_frames=14) == [list(range(14))]


def test_a_frame_with_two_lesions_divides() -> None:
    boxes = {frame: at(100) for frame in range(40)}
    boxes[20] = [*at(100), *at(30)]
    assert stable_runs(boxes) == [list(range(20)), list(range(21, 40))]


@pytest.mark.parametrize(("step", "runs"), [(49.9, [list(range(32))]), (50.0, [list(range(16)), list(range(16, 32))])])
def test_a_jump_of_fifty_pixels_divides(step: float, runs: list[list[int]]) -> None:
    assert stable_runs({frame: at(100 + step * (frame >= 16)) for frame in range(32)}) == runs


def test_slow_wandering_divides_too() -> None:
    """3 px a frame: 17 frames span 48 px, the 18th is 51 px from the first."""
    runs = stable_runs({frame: at(100, 3.0 * frame) for frame in range(40)})
    assert runs == [list(range(17)), list(range(17, 34))]


def test_there_and_back_again_counts_the_largest_distance() -> None:
    """Left by 30 px, then right by 30 px of the start: 60 px apart, though each within 30 px of the start."""
    boxes = {0: at(100)} | {frame: at(70) for frame in range(1, 16)} | {frame: at(130) for frame in range(16, 31)}
    assert stable_runs(boxes) == [list(range(16)), list(range(16, 31))]
