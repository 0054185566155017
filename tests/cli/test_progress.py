"""Progress: a bar on a terminal, a few plain lines elsewhere, nothing on the other ranks."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from us_i2v.cli.progress import RichReporter, counting, training_reporter
from us_i2v.training.report import Reporter, Silent


def report_run(reporter: Reporter, total: int, done: int = 0) -> None:
    reporter.start("auto-encoder", total, done)
    for step in range(done + 1, total + 1):
        reporter.step(step, 1 / step, {"l1": 0.1})
    reporter.message("saved [x]")
    reporter.stop()
    reporter.stop()


def test_plain_lines_are_few_and_end_with_the_last_step() -> None:
    text = io.StringIO()
    report_run(RichReporter(Console(file=text, force_terminal=False)), 1000)
    lines = text.getvalue().splitlines()
    assert len(lines) == 21
    assert lines[0] == "auto-encoder: step 50/1000, loss 0.02"
    assert lines[-2:] == ["auto-encoder: step 1000/1000, loss 0.001", "saved [x]"]


def test_resumed_run_says_where_it_goes_on() -> None:
    text = io.StringIO()
    report_run(RichReporter(Console(file=text, force_terminal=False)), 3, done=2)
    assert text.getvalue().splitlines()[:2] == [
        "auto-encoder: going on after step 2 of 3",
        "auto-encoder: step 3/3, loss 0.3333",
    ]


def test_bar_shows_loss_and_count() -> None:
    text = io.StringIO()
    report_run(RichReporter(Console(file=text, force_terminal=True, width=120)), 5)
    assert "5/5" in text.getvalue()
    assert "loss 0.2" in text.getvalue()
    assert "steps/s" in text.getvalue()


@pytest.mark.parametrize(("rank", "kind"), [(None, RichReporter), ("0", RichReporter), ("1", Silent)])
def test_only_the_first_process_reports(monkeypatch: pytest.MonkeyPatch, rank: str | None, kind: type) -> None:
    if rank is None:
        monkeypatch.delenv("RANK", raising=False)
    else:
        monkeypatch.setenv("RANK", rank)
    assert isinstance(training_reporter(), kind)


@pytest.mark.parametrize("terminal", [False, True])
def test_counting(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], terminal: bool) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1") if terminal else monkeypatch.delenv("FORCE_COLOR", raising=False)
    with counting("augment") as progress:
        progress(1, 2, "a.mp4")
        progress(2, 2, "b.mp4")
    assert ("2/2" in capsys.readouterr().err) is terminal
