"""Errors that a user can act on.

Every error names the value, what was required, and a remedy. The command line prints one line
and exits with code 2; anything that is not a `UsI2VError` is a bug and keeps its traceback.
"""

from __future__ import annotations


class UsI2VError(Exception):
    """A problem that the user can fix.

    Args:
        message: What was found and what was required, in one line.
        hint: What to do about it, in one line; may be empty.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        """Return the message and the hint in one line."""
        return f"{self.message} {self.hint}".strip()


class InputError(UsI2VError):
    """A still, clip or mask cannot be read or has the wrong shape."""


class DataError(UsI2VError):
    """A data set's layout, manifest or split is not usable."""


class ConfigError(UsI2VError):
    """A configuration value is out of range or unknown."""


class WeightsError(UsI2VError):
    """A weights file or checkpoint is missing, corrupt or of another format version."""


class ScheduleError(UsI2VError):
    """A diffusion time or schedule is out of order or range."""


class TrainingError(UsI2VError):
    """Training cannot go on (no data, NaN loss, mismatching checkpoint)."""


class OutputError(UsI2VError):
    """A result cannot be written where it was asked for."""
