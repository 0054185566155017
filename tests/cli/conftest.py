"""The program in process, with a generator that needs no model."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from typer.testing import CliRunner, Result

from tests.fakes import FakeGenerator
from us_i2v.cli.app import app
from us_i2v.pipeline import ImageToVideo


@pytest.fixture
def us_i2v() -> Callable[..., Result]:
    """Run a command line in process; anything but an exit is raised, as it would be a bug."""

    def run(*arguments: object) -> Result:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


@pytest.fixture
def generator(monkeypatch: pytest.MonkeyPatch) -> FakeGenerator:
    """What `ImageToVideo.from_pretrained` returns in this test."""
    fake = FakeGenerator()
    monkeypatch.setattr(ImageToVideo, "from_pretrained", lambda *_given, **_named: fake)
    return fake


def one_line_error(result: Result) -> str:
    """Check that a run ended with one line on stderr, nothing on stdout and exit code 2; return the line."""
    assert result.exit_code == 2, result.output
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    assert result.stdout == ""
    return lines[0]
