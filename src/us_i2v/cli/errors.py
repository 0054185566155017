"""The one place where exceptions become messages and exit codes.

| what happened | stderr | exit code |
|---|---|---|
| `UsI2VError`: the user can fix it | one line, `error: message hint` | 2 |
| wrong usage (unknown option, missing argument) | typer's usage lines | 2 |
| Ctrl-C | `interrupted` | 130 |
| anything else: a bug | one line, traceback only with `--debug` | 1 |

No command catches errors by itself, and no `ValueError` is made friendly: that would hide bugs.
"""

from __future__ import annotations

import sys
import traceback
from types import TracebackType
from typing import Any

import typer
from typer.core import TyperGroup

from us_i2v.errors import UsI2VError

USER_ERROR = 2
INTERRUPTED = 130


class ErrorMappingGroup(TyperGroup):
    """The root command; maps the errors of all its commands."""

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command; turns user errors and Ctrl-C into one line and an exit code."""
        debug = bool(ctx.params.get("debug"))
        if debug:
            sys.excepthook = sys.__excepthook__
        try:
            return super().invoke(ctx)
        except UsI2VError as error:
            if debug:
                traceback.print_exception(error)
            typer.echo(f"error: {one_line(str(error))}", err=True)
            raise typer.Exit(USER_ERROR) from error
        except KeyboardInterrupt as error:
            typer.echo("interrupted", err=True)
            raise typer.Exit(INTERRUPTED) from error


def one_line(text: str) -> str:
    """Fold all white space of `text`, so that a message from a library cannot spread over lines."""
    return " ".join(text.split())


def report_internal_error(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """`sys.excepthook` of the program: one line for a bug; Python then exits with code 1."""
    typer.echo(
        f"internal error ({kind.__name__}: {one_line(str(error))}); this is a bug in us-i2v, "
        "run with --debug ('us-i2v --debug COMMAND ...') for the traceback",
        err=True,
    )
