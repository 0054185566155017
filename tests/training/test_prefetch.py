"""Batches made ahead are the same as those made on demand, in any order, and errors arrive where they are asked for."""

from __future__ import annotations

import threading

import pytest

from us_i2v.training.prefetch import Prefetch


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_every_step_gets_its_own_item(workers: int) -> None:
    made = Prefetch(lambda step: step * step, 12, workers)
    assert [made.take(step) for step in range(3, 12)] == [step * step for step in range(3, 12)]
    assert made.take(12) == 144  # beyond the last step nothing is made ahead, but it can be had
    assert 0 <= made.share_waited() <= 1
    made.restart()
    made.close()


def test_the_next_items_are_made_while_the_present_one_is_used() -> None:
    next_made = threading.Event()

    def make(step: int) -> int:
        if step == 1:
            next_made.set()
        return step

    made = Prefetch(make, 10, 1)
    assert made.take(0) == 0
    assert next_made.wait(timeout=30)
    made.close()


def test_nothing_is_made_ahead_of_the_last_step() -> None:
    asked: list[int] = []

    def make(step: int) -> int:
        asked.append(step)
        return step

    made = Prefetch(make, 3, 2)
    assert [made.take(step) for step in range(3)] == [0, 1, 2]
    made.close()
    assert sorted(asked) == [0, 1, 2]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_is_raised_at_its_step(workers: int) -> None:
    def make(step: int) -> int:
        if step == 2:
            raise ValueError("step 2")
        return step

    made = Prefetch(make, 5, workers)
    assert [made.take(0), made.take(1)] == [0, 1]
    with pytest.raises(ValueError, match="step 2"):
        made.take(2)
    made.close()
