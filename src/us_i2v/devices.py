"""Choice of the compute device."""

from __future__ import annotations

import os

import torch

from us_i2v.errors import ConfigError


def choose_device(name: str) -> torch.device:
    """Return the device for "auto", "cpu", "cuda", "cuda:1", "mps"; raises `ConfigError` if it is not there."""
    if name == "auto":
        local = int(os.environ.get("LOCAL_RANK", "0"))
        return torch.device("cuda", local) if torch.cuda.is_available() else torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"Device '{name}' is not known.", "Use auto, cpu, cuda, cuda:N or mps.") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"Device '{name}' is not there ({torch.cuda.device_count()} found).", "Use --device cpu.")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("Device 'mps' is not there.", "Use --device cpu.")
    return device
