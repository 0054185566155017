"""Runs that are killed at random moments, full disks and folders that cannot be written to, with the real program."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.factories import small_weights
from tests.fakes import tree, write_busi

ROOT = Path(__file__).parents[2]
KILLS = 2


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """`us-i2v augment` of six stills with untrained weights, without the output folder."""
    folder = tmp_path_factory.mktemp("inputs")
    write_busi(folder / "busi", {"benign": 4, "normal": 2})
    small_weights(folder / "w.safetensors")
    line = ["augment", str(folder / "busi"), "--weights", str(folder / "w.safetensors"), "--device", "cpu"]
    return [sys.executable, "-m", "us_i2v", *line, "--frames", "4", "--steps", "1", "--ext", "npz"]


@pytest.fixture(scope="module")
def whole(command: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Files of a run that was left alone."""
    out = tmp_path_factory.mktemp("whole") / "out"
    assert finish(command, out).returncode == 0
    return tree(out)


def finish(command: list[str], out: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*command, str(out)], capture_output=True, text=True, check=False, cwd=ROOT)


def clips_in(out: Path) -> int:
    """Count the clips; staging folders come and go meanwhile and are not looked into."""
    return sum(1 for folder in ("benign", "normal") for _ in (out / folder).glob("*_0.npz"))


def kill_after_clips(command: list[str], out: Path, clips: int, delay: float) -> None:
    """Start a run, wait until so many more clips lie there and a moment longer, and kill it with its children."""
    before = clips_in(out)
    process = subprocess.Popen([*command, str(out)], cwd=ROOT, start_new_session=True, stdout=subprocess.DEVNULL)
    while process.poll() is None and clips_in(out) < before + clips:
        time.sleep(0.002)
    time.sleep(delay)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_killed_at_random_moments_and_continued_gives_the_same_folder(
    command: list[str], whole: dict[str, bytes], tmp_path: Path
) -> None:
    rng = random.Random(5)
    out = tmp_path / "killed"
    for number in range(KILLS):
        kill_after_clips(command, out, clips=number > 0, delay=rng.random() * 0.1)
        left = {name: data for name, data in tree(out).items() if not name.startswith(".partial")}
        assert left.items() <= whole.items(), "only whole files lie there"
    assert finish(command, out).returncode == 0
    assert tree(out) == whole
    assert not [path for path in out.rglob("*") if path.name.startswith(".")]


def in_namespace(script: str) -> subprocess.CompletedProcess[str]:
    """Run a script where file systems can be mounted; the test skips where that is not allowed."""
    unshare = shutil.which("unshare")
    allowed = unshare and subprocess.run([unshare, "-rm", "true"], capture_output=True, check=False).returncode == 0
    if not unshare or not allowed:
        pytest.skip("mounting is not allowed here")
    return subprocess.run([unshare, "-rm", "sh", "-c", script], capture_output=True, text=True, check=False, cwd=ROOT)


@pytest.mark.parametrize("what", ["full", "read-only"])
def test_full_and_read_only_file_systems(
    command: list[str], whole: dict[str, bytes], tmp_path: Path, what: str
) -> None:
    """One line, exit code 2, whole files only; what was made before the disk was full can be continued."""
    disk = tmp_path / "disk"
    disk.mkdir()
    size = "30k" if what == "full" else "10m"
    mount = f"mount -t tmpfs -o size={size} tmpfs '{disk}'"
    if what == "read-only":
        mount += f" && mount -o remount,ro '{disk}'"
    line = " ".join(f"'{part}'" for part in command)
    kept = tmp_path / "kept"
    done = in_namespace(f"{mount} && {line} '{disk}/out'; code=$?; cp -a '{disk}' '{kept}'; exit $code")
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    (message,) = done.stderr.splitlines()
    assert message.startswith("error: ")
    assert ("No space left" if what == "full" else "Read-only file system") in message
    if what == "read-only":
        assert tree(kept) == {}
        return
    files = tree(kept / "out")
    assert not [name for name in files if "/." in name or name.startswith(".")]
    assert "manifest.csv" not in files
    assert files.items() <= whole.items()
    assert finish(command, kept / "out").returncode == 0
    assert tree(kept / "out") == whole


@pytest.mark.parametrize("name", ["c.mp4", "c.gif", "c.npz", "c"])
def test_a_full_disk_leaves_no_half_of_a_clip(tmp_path: Path, name: str) -> None:
    script = (
        "import sys; from pathlib import Path; import numpy as np; from us_i2v.errors import OutputError\n"
        "from us_i2v.data.writers import write_clip\n"
        "frames = np.random.default_rng(0).integers(0, 256, (20, 100, 100), np.uint8)\n"
        "try:\n    write_clip(Path(sys.argv[1]), frames, 20.0)\n"
        "except OutputError as error:\n    print(error)\n"
    )
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f"mount -t tmpfs -o size=32k tmpfs '{disk}'"
    done = in_namespace(
        f"{mount} && '{sys.executable}' -c \"$0\" '{disk}/{name}'; ls -A '{disk}'".replace("$0", script)
    )
    assert done.returncode == 0, done.stderr
    (message,) = done.stdout.splitlines()
    assert f"{name}' " in message
    assert "space" in message.lower()
