"""Fixtures that all tests share.

Real data and metric weights are not part of the project. The environment variable `US_I2V_TEST_DATA` names
the folder that holds them; tests that need it use the fixture `shared_data` and skip where it is unset.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

TEST_DATA_VARIABLE = "US_I2V_TEST_DATA"
NOT_SET = f"{TEST_DATA_VARIABLE} is not set"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with real data and metric weights; the test skips where the variable is unset."""
    value = os.environ.get(TEST_DATA_VARIABLE, "")
    if not value:
        pytest.skip(NOT_SET)
    folder = Path(value)
    if not folder.is_dir():
        pytest.fail(f"{TEST_DATA_VARIABLE} names no folder: '{value}'.")
    return folder


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many tests were skipped for lack of real data."""
    skipped = [report for report in terminalreporter.stats.get("skipped", []) if NOT_SET in str(report.longrepr)]
    if skipped:
        terminalreporter.write_line(
            f"{len(skipped)} tests were skipped for lack of real data: {NOT_SET} (see CONTRIBUTING.md)."
        )
