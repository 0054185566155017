"""The program as a whole: help without torch, version, and the one error map."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from us_i2v import __version__
from us_i2v.cli import app as app_module
from us_i2v.cli.errors import one_line, report_internal_error
from us_i2v.errors import InputError

COMMANDS = ["generate", "augment", "phantom", "train-ae", "train-ldm", "devices"]


@pytest.fixture(scope="module")
def help_texts() -> dict[str, str]:
    """All help texts, printed by one process that must not have imported torch."""
    code = f"""
import sys
from typer.testing import CliRunner
from us_i2v.cli.app import app
for command in [None, *{COMMANDS!r}]:
    result = CliRunner().invoke(app, [] if command is None else [command, "--help"])
    print(f"== {{command}} {{result.exit_code}}")
    print(result.output)
heavy = sorted({{"torch", "scipy", "imageio", "matplotlib"}} & set(sys.modules))
print("== heavy", heavy)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    parts = done.stdout.split("== ")[1:]
    return {part.split()[0]: part for part in parts}


def test_help_does_not_import_torch(help_texts: dict[str, str]) -> None:
    assert help_texts["heavy"].strip() == "heavy []"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(help_texts: dict[str, str], command: str) -> None:
    assert help_texts[command].split("\n")[0] == f"{command} 0"
    assert "Usage: " in help_texts[command]
    assert command in help_texts["None"]


def test_messages_name_only_options_that_exist() -> None:
    """A remedy that tells of an option nobody has is worse than none."""
    root = typer.main.get_command(app_module.app)
    known = {"--help", "--nproc-per-node"}  # click's own; torchrun's
    commands = [root, *root.commands.values()]
    commands += [inner for command in commands[1:] for inner in getattr(command, "commands", {}).values()]
    for command in commands:
        for parameter in command.params:
            known |= {*parameter.opts, *parameter.secondary_opts}
    source = Path(app_module.__file__).parents[1]
    named = {
        option
        for file in source.rglob("*.py")
        for option in re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", file.read_text(encoding="utf-8"))
    }
    assert len(named) > 30
    assert named - known == set()


def test_version(us_i2v: Callable[..., Result]) -> None:
    result = us_i2v("--version")
    assert (result.exit_code, result.stdout) == (0, f"us-i2v {__version__}\n")


@pytest.mark.parametrize("line", [["generate"], ["nonsense"], ["generate", "a.png", "-o", "b.mp4", "--nonsense"]])
def test_wrong_usage_exits_with_2(us_i2v: Callable[..., Result], line: list[str]) -> None:
    result = us_i2v(*line)
    assert result.exit_code == 2
    assert "Usage: " in result.stderr
    assert result.stdout == ""


def test_user_error_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    def fail() -> int:
        raise InputError("Still 'a.png' is\nempty.", "Choose another.")

    monkeypatch.setattr(torch, "get_num_threads", fail)
    result = CliRunner().invoke(app_module.app, ["devices"])
    assert result.exit_code == 2
    assert result.stderr == "error: Still 'a.png' is empty. Choose another.\n"
    result = CliRunner().invoke(app_module.app, ["--debug", "devices"])
    assert result.exit_code == 2
    assert result.stderr.endswith("error: Still 'a.png' is empty. Choose another.\n")


def test_ctrl_c_exits_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    def interrupt() -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "get_num_threads", interrupt)
    result = CliRunner().invoke(app_module.app, ["devices"])
    assert (result.exit_code, result.stderr) == (130, "interrupted\n")


@pytest.mark.parametrize("debug", [False, True])
def test_a_bug_exits_with_1_and_its_traceback_shows_with_debug_only(debug: bool) -> None:
    arguments = ["us-i2v", "--debug", "devices"] if debug else ["us-i2v", "devices"]
    code = f"""
import sys
from us_i2v.cli import app, devices
sys.argv = {arguments!r}
sys.modules["torch"] = None  # `import torch` raises ModuleNotFoundError: not a user's error
app.main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert ("Traceback" in done.stderr) is debug
    if not debug:
        assert len(done.stderr.splitlines()) == 1
        assert done.stderr.startswith("internal error (ModuleNotFoundError: ")
        assert "--debug" in done.stderr


def test_internal_error_line(capsys: pytest.CaptureFixture[str]) -> None:
    report_internal_error(ValueError, ValueError("a\nb"), None)
    assert capsys.readouterr().err.startswith("internal error (ValueError: a b); ")


def test_one_line_folds_white_space() -> None:
    assert one_line(" a\n\tb  c ") == "a b c"


def test_devices_lists_the_cpu(us_i2v: Callable[..., Result]) -> None:
    result = us_i2v("devices")
    assert result.exit_code == 0
    assert "\ncpu " in result.stdout


def test_program_runs_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "us_i2v", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"us-i2v {__version__}\n"


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, "1000"), ({"GOMP_SPINCOUNT": "5"}, "5"), ({"OMP_WAIT_POLICY": "active"}, None)],
)
def test_waiting_threads_sleep_soon_unless_the_environment_says_otherwise(
    given: dict[str, str], expected: str | None
) -> None:
    """In a new process, by its entry: what it sets, and that it sets it before torch is there."""
    code = (
        "import os, sys; from us_i2v.cli import app\n"
        "sys.argv[1:] = ['--version']\n"
        "try:\n    app.main()\n"
        "finally:\n    print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules)\n"
    )
    kept = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**kept, **given}, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == f"{expected} False"
