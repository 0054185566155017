from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from tests.cli.conftest import one_line_error

Run = Callable[..., Result]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "needs either --videos DIR or --quick"),
        (("--quick", "--videos", "somewhere"), "needs either --videos DIR or --quick"),
        (("--quick", "--metric-weights", "nowhere"), "--metric-weights 'nowhere' is no folder"),
        (("--quick", "--set", "n=1"), "'n' = 1"),
        (("--quick", "--set", "nonsense"), "not of the form key=value"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(us_i2v: Run, tmp_path: Path, arguments: tuple, said: str) -> None:
    out = tmp_path / "out"
    result = us_i2v("reproduce", "table1", "-o", out, *arguments)
    assert said in one_line_error(result)
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--row", "gan"), "Table 1 has no row 'gan'"),
        (("--weights", "gan=x"), "'gan=x' is not METHOD=PATH"),
    ],
)
def test_what_needs_metric_weights_to_get_that_far(
    us_i2v: Run, tmp_path: Path, shared_data: Path, arguments: tuple, said: str
) -> None:
    out = tmp_path / "out"
    result = us_i2v(
        "reproduce", "table1", "--quick", "-o", out, "--metric-weights", shared_data / "weights", *arguments
    )
    assert said in one_line_error(result)
    assert not out.exists()
