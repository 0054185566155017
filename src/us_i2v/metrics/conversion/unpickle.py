"""A process of its own that turns one publisher's pickle into plain tensors; see `reading`.

    python -P -m us_i2v.metrics.conversion.unpickle SOURCE SHA256 TARGET MEMORY SECONDS [PREFIX ...]

The pickle is opened with `weights_only=True`, which builds tensors and plain containers but runs no code of
the file. TARGET's metadata name what is not in it, see `reading.Taken`. Errors end the process with a traceback, whose
last line `reading` shows.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from us_i2v.metrics.conversion.reading import LEFT_OUT, STRIPPED, WRAPPER, Taken

CONTAINERS = ("state_dict", "model_state")
"""Keys under which training scripts put the state dict."""


def limit(memory: int, seconds: int) -> None:
    """Bound this process's memory (bytes of data) and CPU time, where the system can (not on Windows)."""
    try:
        resource = importlib.import_module("resource")
    except ImportError:
        return
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))


def tensors_of(content: bytes, prefixes: tuple[str, ...]) -> Taken:
    """Take the tensors of a state dict whose names start with one of `prefixes` (none: all).

    Raises:
        TypeError: It is no state dict.
        ValueError: Two tensors have the same name without `WRAPPER`.
    """
    state: Any = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    for key in CONTAINERS:
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict):
        raise TypeError(f"holds {type(state).__name__}, not a state dict")
    tensors: dict[str, Tensor] = {}
    left_out: list[str] = []
    stripped = 0
    for given, value in state.items():
        name = str(given).removeprefix(WRAPPER)
        if not name.startswith(prefixes or ""):
            continue
        if not (isinstance(value, Tensor) and value.is_floating_point()):
            left_out.append(str(given))
            continue
        if name in tensors:
            raise ValueError(f"two tensors would be named '{name}', with and without '{WRAPPER}' before it")
        tensors[name] = value.detach().clone().contiguous()
        stripped += name != given
    return Taken(tensors, tuple(left_out), stripped)


def main(arguments: list[str]) -> None:
    """Do what the module's head says."""
    source, expected, target, memory, seconds, *prefixes = arguments
    limit(int(memory), int(seconds))
    content = Path(source).read_bytes()
    if hashlib.sha256(content).hexdigest() != expected:
        raise ValueError("changed while it was read")
    taken = tensors_of(content, tuple(prefixes))
    save_file(taken.tensors, target, {LEFT_OUT: json.dumps(taken.left_out), STRIPPED: str(taken.stripped)})


if __name__ == "__main__":
    main(sys.argv[1:])
