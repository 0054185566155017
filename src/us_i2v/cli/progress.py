"""Progress on the terminal: a bar with loss, steps a second and time left; plain lines where there is none.

Everything goes to stderr, so that stdout holds results only. Under torchrun the first process alone reports.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from us_i2v.training.report import Reporter

PLAIN_LINES = 20
"""How many progress lines a task prints where stderr is not a terminal."""


def training_reporter() -> Reporter:
    """Return the reporter for this process."""
    from us_i2v.training.report import Silent

    if os.environ.get("RANK", "0") != "0":
        return Silent()
    return RichReporter(Console(stderr=True))


class RichReporter:
    """A `training.report.Reporter` that draws on a console."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._name = ""
        self._total = 0

    def start(self, name: str, total_steps: int, done_steps: int) -> None:
        """A task of `total_steps` begins or resumes after `done_steps`."""
        self.stop()
        self._name, self._total = name, total_steps
        if done_steps:
            self.message(f"{name}: going on after step {done_steps} of {total_steps}")
        if self.console.is_terminal:
            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("loss {task.fields[loss]}"),
                TextColumn("{task.fields[rate]} steps/s"),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=self.console,
            )
            self._task = self._progress.add_task(name, total=total_steps, completed=done_steps, loss="-", rate="-")
            self._progress.start()

    def step(self, step: int, loss: float, values: dict[str, float]) -> None:
        """Step number `step` (1-based) is done."""
        if self._progress is not None and self._task is not None:
            speed = self._progress.tasks[0].speed
            self._progress.update(
                self._task, completed=step, loss=f"{loss:.4g}", rate="-" if speed is None else f"{speed:.3g}"
            )
        elif step == self._total or step % max(1, self._total // PLAIN_LINES) == 0:
            self.message(f"{self._name}: step {step}/{self._total}, loss {loss:.4g}")

    def message(self, text: str) -> None:
        """Something worth a line happened."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def stop(self) -> None:
        """The task ended or was interrupted."""
        if self._progress is not None:
            self._progress.stop()
        self._progress = self._task = None


@contextmanager
def counting(what: str) -> Iterator[Callable[[int, int, str], None]]:
    """Yield a function `progress(done, total, name)` that draws a bar on the first process's terminal, else nothing."""
    console = Console(stderr=True)
    if not console.is_terminal or os.environ.get("RANK", "0") != "0":
        yield lambda done, total, name: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[name]}"),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(what, total=None, name="")

        def progress(done: int, total: int, name: str) -> None:
            bar.update(task, completed=done, total=total, name=name)

        yield progress
    sys.stderr.flush()
