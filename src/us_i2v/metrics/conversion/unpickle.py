"""A process of its own that turns one publisher's pickle into plain tensors; see `reading`.

    python -P -m us_i2v.metrics.conversion.unpickle SOURCE SHA256 TARGET MEMORY SECONDS [PREFIX ...]

The pickle is opened with `weights_only=True`, which builds tensors and plain containers but runs no code of
the file. Errors end the process with a traceback, whose last line `reading` shows.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

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


def tensors_of(content: bytes, prefixes: tuple[str, ...]) -> dict[str, Tensor]:
    """Return the floating-point tensors of a state dict whose names start with one of `prefixes` (none: all)."""
    state: Any = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    for key in CONTAINERS:
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict):
        raise TypeError(f"holds {type(state).__name__}, not a state dict")
    named = {str(name).removeprefix("module."): value for name, value in state.items()}
    return {
        name: value.detach().clone().contiguous()
        for name, value in named.items()
        if isinstance(value, Tensor) and value.is_floating_point() and name.startswith(prefixes or "")
    }


def main(arguments: list[str]) -> None:
    """Do what the module's head says."""
    source, expected, target, memory, seconds, *prefixes = arguments
    limit(int(memory), int(seconds))
    content = Path(source).read_bytes()
    if hashlib.sha256(content).hexdigest() != expected:
        raise ValueError("changed while it was read")
    save_file(tensors_of(content, tuple(prefixes)), target)


if __name__ == "__main__":
    main(sys.argv[1:])
