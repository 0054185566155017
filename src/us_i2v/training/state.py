"""Checkpoints: everything that a resumed run needs to go on as if it had never stopped."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open

from us_i2v.errors import WeightsError
from us_i2v.weights import read_tensors, write_tensors

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import nn

    from us_i2v.training.ema import EMA
    from us_i2v.training.loop import Companion

CHECKPOINT_VERSION = 1
_KEY = "us_i2v_checkpoint"


def save_checkpoint(
    path: Path,
    step: int,
    fingerprint: str,
    module: nn.Module,
    ema: EMA,
    optimiser: torch.optim.Optimizer,
    companion: Companion | None = None,
) -> None:
    """Write weights, their average, the optimiser's and the companion's state after `step` steps, atomically."""
    tensors = {f"model.{k}": v for k, v in module.state_dict().items()}
    tensors |= {f"ema.{k}": v for k, v in ema.module.state_dict().items()}
    tensors |= {f"optimiser.{k}": v for k, v in optimiser_tensors(optimiser).items()}
    if companion is not None:
        tensors |= {f"companion.{k}": v for k, v in companion.state().items()}
    header = {"format_version": CHECKPOINT_VERSION, "step": step, "fingerprint": fingerprint}
    out = {k: v.detach().cpu().clone().contiguous() for k, v in tensors.items()}
    write_tensors(path, out, {_KEY: json.dumps(header)})


def load_checkpoint(
    path: Path,
    fingerprint: str,
    module: nn.Module,
    ema: EMA,
    optimiser: torch.optim.Optimizer,
    companion: Companion | None = None,
) -> int:
    """Restore a checkpoint in place; returns the step it was written after.

    Raises:
        WeightsError: Damaged, of another version, or written by a run with other settings.
    """
    metadata, tensors = read_tensors(path)
    try:
        header = json.loads(metadata[_KEY])
        version, step, written = header["format_version"], int(header["step"]), header["fingerprint"]
    except (KeyError, ValueError, TypeError) as error:
        raise WeightsError(f"'{path}' is not a training checkpoint.", "Start a new run folder.") from error
    if version != CHECKPOINT_VERSION:
        raise WeightsError(
            f"'{path}' is a checkpoint of format {version}, {CHECKPOINT_VERSION} is read.",
            "Start a new run folder.",
        )
    if written != fingerprint:
        raise WeightsError(
            f"'{path}' was written with other settings or data than this run's.",
            "Resume with the settings in its config.json, or start a new run folder.",
        )

    def part(prefix: str) -> dict[str, torch.Tensor]:
        return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

    module.load_state_dict(part("model."))
    ema.module.load_state_dict(part("ema."))
    restore_optimiser(optimiser, part("optimiser."))
    if companion is not None:
        companion.load_state(part("companion."))
    return step


def averaged_weights(path: Path) -> dict[str, torch.Tensor]:
    """Return the averaged weights in a checkpoint, by the module's own names; raises `WeightsError`."""
    _, tensors = read_tensors(path)
    return {k.removeprefix("ema."): v for k, v in tensors.items() if k.startswith("ema.")}


def checkpoint_step(path: Path) -> int | None:
    """Return the step that a checkpoint was written after, without its tensors; None if it is not there or damaged."""
    try:
        with safe_open(path, "pt") as file:
            return int(json.loads((file.metadata() or {})[_KEY])["step"])
    except (OSError, SafetensorError, KeyError, ValueError, TypeError):
        return None


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Return an optimiser's state by "parameter number.name"."""
    state = optimiser.state_dict()["state"]
    return {f"{k}.{name}": torch.as_tensor(value) for k, entry in state.items() for name, value in entry.items()}


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]) -> None:
    """Put back what `optimiser_tensors` gave."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
