"""CSV tables with a header line: rows that know where they stand, so that errors name line and column."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

from us_i2v.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        what: What the table is called in messages, for example "Manifest".
        table: Its file.
        line: Number of the line, from 1.
        values: Text by column.
    """

    what: str
    table: Path
    line: int
    values: dict[str, str]

    def text(self, column: str) -> str:
        """Return the value without outer blanks; "" if the column is missing."""
        return (self.values.get(column) or "").strip()

    def error(self, column: str, problem: str, remedy: str) -> DataError:
        """Return the error for a wrong value."""
        where = f"{self.what} '{self.table}', line {self.line}, column '{column}'"
        return DataError(f"{where}: '{self.text(column)[:120]}' {problem}.", f"{remedy}.")

    def number(self, column: str) -> float | None:
        """Return a positive number, None if the value is empty; raises `DataError`."""
        if not self.text(column):
            return None
        try:
            value = float(self.text(column))
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value > 0):
            raise self.error(column, "is not a positive number", "Write for example 25, or leave it empty")
        return value

    def existing(self, column: str, name: str, folder: Path) -> Path:
        """Return the path `name` inside `folder`; raises `DataError` if it leads out of it or does not exist."""
        parts = PurePosixPath(name).parts
        if PurePosixPath(name).is_absolute() or PureWindowsPath(name).is_absolute() or ".." in parts:
            where = "the manifest's folder" if folder == self.table.parent else f"'{folder}'"
            raise self.error(column, f"leads out of {where}", "Use a path inside it, relative to it")
        path = folder / PurePosixPath(name)
        if not path.exists():
            shown = f"does not exist ({name})" if name != self.text(column) else "does not exist"
            raise self.error(column, shown, "Correct the name or remove the line")
        return path


def read_rows(path: Path, what: str, required: Sequence[str]) -> list[Row]:
    """Read a UTF-8 CSV file; empty lines are left out.

    Args:
        path: The file.
        what: What it is called in messages.
        required: Columns that the header must have.

    Raises:
        DataError: It cannot be read, is no UTF-8 text or no CSV, lacks a column, or a line is too long.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{what} '{path}' cannot be read: {error.strerror}.", "Check the path.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{what} '{path}' is not UTF-8 text.", "Save it as UTF-8 CSV.") from error
    reader = csv.DictReader(io.StringIO(text, newline=""), restkey="")
    rows: list[Row] = []
    try:
        columns = reader.fieldnames or []
        for column in required:
            if column not in columns:
                found = ", ".join(columns[:8]) or "nothing"
                raise DataError(
                    f"{what} '{path}', line 1: column '{column}' is missing (found: {found}).",
                    f"The header needs {','.join(required)}.",
                )
        for values in reader:
            if "" in values:
                raise DataError(
                    f"{what} '{path}', line {reader.line_num}: more values than columns.",
                    "Put names that hold a comma in quotes.",
                )
            if any(values.values()):
                rows.append(Row(what, path, reader.line_num, values))
    except csv.Error as error:
        raise DataError(f"{what} '{path}', line {reader.line_num}: {error}.", "Save it as CSV again.") from error
    return rows
