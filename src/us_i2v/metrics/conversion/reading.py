"""Publishers' pickles, opened at arm's length.

A pickle can run code and fill the memory when it is opened. The reader is therefore another process, with
`torch.load(weights_only=True)`, a bound on memory and time, and a safetensors file as its only way to answer.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from us_i2v.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

LEFT_OUT, STRIPPED = "left_out", "stripped"
"""Keys of the metadata: names that were left out, as JSON; how many names lost their `WRAPPER`."""
WRAPPER = "module."
"""What data-parallel training puts before every name."""
_REMEDY = "Fetch the publisher's file again."


@dataclass(frozen=True)
class Taken:
    """What was found in a state dict.

    Attributes:
        tensors: The floating-point tensors, by name without `WRAPPER`.
        left_out: Names of all else: integer tensors, numbers, texts.
        stripped: How many of the tensors had `WRAPPER` before their name.
    """

    tensors: dict[str, Tensor]
    left_out: tuple[str, ...]
    stripped: int


@dataclass(frozen=True)
class Limits:
    """Bounds of the reading process.

    Attributes:
        memory: Bytes of data beyond four times the file's own size.
        seconds: Time, of the CPU and of the clock.
    """

    memory: int = 4 << 30
    seconds: int = 300


def read_state_dict(
    path: Path, sha256: str, prefixes: tuple[str, ...] = (), limits: Limits | None = None
) -> dict[str, Tensor]:
    """Return the floating-point tensors of a pickled state dict; see `take_state_dict`."""
    return take_state_dict(path, sha256, prefixes, limits).tensors


def take_state_dict(path: Path, sha256: str, prefixes: tuple[str, ...] = (), limits: Limits | None = None) -> Taken:
    """Return the floating-point tensors of a pickled state dict, and what was left out.

    Args:
        path: The file: a state dict, or a dictionary with one under "state_dict" or "model_state".
        sha256: Digest that it must still have.
        prefixes: Starts of the wanted names; none means all.
        limits: Bounds of the process.

    Raises:
        WeightsError: If it is no such file, runs code, has a name twice, or needs more than the limits allow.
    """
    bounds = limits or Limits()
    memory = bounds.memory + 4 * path.stat().st_size
    with tempfile.TemporaryDirectory(prefix="us-i2v-convert-") as folder:
        target = Path(folder) / "tensors.safetensors"
        module = "us_i2v.metrics.conversion.unpickle"
        command = [sys.executable, "-P", "-m", module, str(path.resolve()), sha256, str(target)]
        command += [str(memory), str(bounds.seconds), *prefixes]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=bounds.seconds, env=environment, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise WeightsError(f"Reading '{path}' took more than {bounds.seconds} s.", _REMEDY) from error
        if done.returncode != 0:
            raise WeightsError(f"'{path}' cannot be read as a state dict: {_reason(done)}.", _REMEDY)
        try:
            with safe_open(target, "pt") as file:
                about = file.metadata()
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return Taken(tensors, tuple(json.loads(about[LEFT_OUT])), int(about[STRIPPED]))
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"'{path}' gave no tensors: {error}.", _REMEDY) from error


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    """Return the start of the exception's message, or the exit code."""
    if done.returncode < 0:
        return f"the reading process was stopped by signal {-done.returncode} (memory or time limit)"
    lines = [line for line in done.stderr.splitlines() if line and not line[0].isspace()]
    messages = [line for line in lines if ": " in line and line.partition(":")[0].replace(".", "").isidentifier()]
    return (messages or lines or [f"exit code {done.returncode}"])[-1].strip().rstrip(".")[:300]
