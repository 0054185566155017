"""Batches made ahead by threads, so that the trainer need not wait for data; and how long it waited all the same."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Item = TypeVar("Item")


class Prefetch(Generic[Item]):
    """Makes the items of the next steps while the present one is in use.

    What `make(step)` returns may depend on the step alone, so an item is the same whether or not it was made ahead.

    Args:
        make: Called in other threads.
        last: Steps from this one on are not made ahead.
        workers: Threads; 0 makes every item when it is asked for.
    """

    def __init__(self, make: Callable[[int], Item], last: int, workers: int) -> None:
        self._make, self._last, self._ahead = make, last, 2 * workers
        self._pool = ThreadPoolExecutor(workers) if workers else None
        self._waiting: dict[int, Future[Item]] = {}
        self._began = time.perf_counter()
        self._waited = 0.0

    def take(self, step: int) -> Item:
        """Return the item of a step; raises what `make` raised."""
        begin = time.perf_counter()
        if self._pool is None:
            item = self._make(step)
        else:
            for later in range(step, min(step + self._ahead + 1, self._last)):
                if later not in self._waiting:
                    self._waiting[later] = self._pool.submit(self._make, later)
            future = self._waiting.pop(step, None)
            item = self._make(step) if future is None else future.result()
        self._waited += time.perf_counter() - begin
        return item

    def share_waited(self) -> float:
        """Return the share of the time since the start or the last `restart` that `take` took, 0..1."""
        return self._waited / max(time.perf_counter() - self._began, 1e-9)

    def restart(self) -> None:
        """Measure from now on; for use after work that is no part of a step."""
        self._began, self._waited = time.perf_counter(), 0.0

    def close(self) -> None:
        """Stop; items that nobody asked for are thrown away."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        self._waiting.clear()
