"""A thousand damaged files: every reader takes them or refuses them in one line, soon and in little memory.

`benchmarks/fuzz.py` tries ten thousand.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.engine import mutate
from tests.fuzz.subjects import safetensors_header

ROOT = Path(__file__).parents[2]
INPUTS = 1000
MOST_MB = 1000


def test_a_thousand_damaged_files() -> None:
    line = [sys.executable, "-m", "tests.fuzz.engine", str(INPUTS), "2026"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["findings"] == []
    assert report["inputs"] == INPUTS
    assert report["peak_mb"] < MOST_MB
    assert report["peak_mb_of_programs"] < MOST_MB
    refused = sum(count for _, count in report["tried_and_refused"].values())
    assert INPUTS // 3 < refused < INPUTS, "most damage is noticed, some does no harm"


def test_mutations_are_repeatable_and_change_something() -> None:
    content = bytes(range(256)) * 4
    once = [mutate(content, random.Random(seed)) for seed in range(50)]
    assert once == [mutate(content, random.Random(seed)) for seed in range(50)]
    assert sum(data != content for data in once) > 40


@pytest.mark.parametrize("content", [b"", b"\xff" * 20, (5).to_bytes(8, "little") + b"[1,2]"])
def test_what_is_no_safetensors_file_has_no_header(content: bytes) -> None:
    assert safetensors_header(content) is None
