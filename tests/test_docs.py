"""Documentation is checked: commands parse, pages exist, tables are up to date, examples run."""

from __future__ import annotations

import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from tests.fakes import FakeGenerator, still_pixels, write_busi, write_png
from us_i2v.cli.app import app
from us_i2v.data.clips import open_clip
from us_i2v.pipeline import ImageToVideo

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.DOTALL | re.MULTILINE)


def shell_lines(page: Path) -> list[str]:
    """Lines of a page's shell blocks, continued ones joined."""
    blocks = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]


def documented_commands() -> list[tuple[str, str]]:
    """(page, command line) of every `us-i2v` command that the pages show."""
    found = []
    for page in PAGES:
        for line in shell_lines(page):
            for part in line.split("&&"):
                match = re.match(r"\s*(?:\S*/us-i2v|us-i2v|torchrun .*-m us_i2v)\s+(.*)", part)
                if match:
                    found.append((page.name, match[1].split("#")[0].strip()))
    return found


COMMANDS = documented_commands()


def test_pages_show_every_command() -> None:
    shown = {shlex.split(line)[0] for _, line in COMMANDS}
    assert shown >= set(typer.main.get_command(app).commands)


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=[f"{page}: {line}" for page, line in COMMANDS])
def test_documented_command_parses(page: str, line: str) -> None:
    name, *arguments = shlex.split(line)
    if name.startswith("-"):
        return
    command = typer.main.get_command(app).commands[name]
    if hasattr(command, "commands"):
        name, *arguments = arguments
        command = command.commands[name]
    command.make_context(name, arguments)


def test_readme_holds_the_two_commands_that_ci_runs() -> None:
    lines = [line for line in shell_lines(ROOT / "README.md") if line.startswith("python3 -m venv")]
    assert lines == [
        "python3 -m venv .venv && .venv/bin/pip install . && "
        ".venv/bin/us-i2v generate examples/breast_benign.png -o clip.mp4",
        "python3 -m venv .venv && .venv/bin/pip install '.[dev]' && .venv/bin/pytest",
    ]


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_links_and_pictures_lead_to_files(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} points to {target}"


def test_configuration_tables_are_up_to_date() -> None:
    """Remedy: python docs/make_configuration.py."""
    script = ROOT / "docs" / "make_configuration.py"
    done = subprocess.run([sys.executable, str(script), "--check"], check=False)
    assert done.returncode == 0


def test_example_generate_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageToVideo, "from_pretrained", FakeGenerator)
    still = write_png(tmp_path / "still.png", still_pixels(1))
    script = str(ROOT / "examples" / "generate_clip.py")
    monkeypatch.setattr(sys, "argv", [script, str(still), str(tmp_path / "clips")])
    runpy.run_path(script, run_name="__main__")
    assert {path.name for path in (tmp_path / "clips").iterdir()} == {"gentle.mp4", "strong.mp4"}


def test_examples_augment_and_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ImageToVideo, "from_pretrained", FakeGenerator)
    write_busi(tmp_path / "stills", {"benign": 2, "normal": 1})
    script = str(ROOT / "examples" / "augment_folder.py")
    monkeypatch.setattr(sys, "argv", [script, str(tmp_path / "stills"), str(tmp_path / "clips")])
    runpy.run_path(script, run_name="__main__")
    assert open_clip(tmp_path / "clips" / "normal" / "normal (1)_1.npz").n_frames == 8
    assert "4 clips made" in capsys.readouterr().out
    script = str(ROOT / "examples" / "look_at_clips.py")
    monkeypatch.setattr(sys, "argv", [script, str(tmp_path / "clips")])
    runpy.run_path(script, run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert "8 frames of 48x40, 20 fps" in lines[0]
