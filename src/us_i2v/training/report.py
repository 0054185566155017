"""How training loops report; what is shown, and where, is the caller's business."""

from __future__ import annotations

from typing import Protocol


class Reporter(Protocol):
    """Receives progress of a long task."""

    def start(self, name: str, total_steps: int, done_steps: int) -> None:
        """A task of `total_steps` begins or resumes after `done_steps`."""

    def step(self, step: int, loss: float, values: dict[str, float]) -> None:
        """Step number `step` (1-based) is done."""

    def message(self, text: str) -> None:
        """Something worth a line happened."""

    def stop(self) -> None:
        """The task ended or was interrupted."""


class Silent:
    """A reporter that says nothing."""

    def start(self, name: str, total_steps: int, done_steps: int) -> None:
        """Ignore."""

    def step(self, step: int, loss: float, values: dict[str, float]) -> None:
        """Ignore."""

    def message(self, text: str) -> None:
        """Ignore."""

    def stop(self) -> None:
        """Ignore."""
