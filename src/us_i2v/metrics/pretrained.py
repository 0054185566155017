"""Weights of the metric networks: found at a path that the caller gives, verified, never bundled.

The files are other people's networks in safetensors form. Their sha256 is checked before use, so
that a figure named LPIPS or FVD-X3D always comes from the same numbers.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from us_i2v.errors import WeightsError


@dataclass(frozen=True)
class Pretrained:
    """A known weights file.

    Attributes:
        file: Usual file name.
        sha256: Digest of its bytes.
        source: Where its numbers come from.
    """

    file: str
    sha256: str
    source: str


PRETRAINED: dict[str, Pretrained] = {
    "lpips-alex": Pretrained(
        "lpips_alex_v0.1.safetensors",
        "2365b738e65997b0490a66e371b56c16423f1da9599d86e032bbef338efa3b47",
        "LPIPS v0.1 linear heads (Zhang 2018) on ImageNet AlexNet features",
    ),
    "lpips-squeeze": Pretrained(
        "lpips_squeeze_v0.1.safetensors",
        "06824afb7401832a0bcab5f78f3c101cad227850e6814f9a9ce5505b816e3494",
        "LPIPS v0.1 linear heads (Zhang 2018) on ImageNet SqueezeNet 1.1 features",
    ),
    "x3d-xs": Pretrained(
        "x3d_xs_kinetics400.safetensors",
        "0a7f392ab420b7c4f0e9bf5c1145d879dd7b5e4fea5fda4aa66c0e615fffa7cc",
        "X3D-XS (Feichtenhofer 2020), Kinetics-400, batch norms folded into the convolutions",
    ),
}
"""Every metric network by name."""


def load_verified(name: str, path: Path) -> dict[str, Tensor]:
    """Return the tensors of a known weights file.

    Args:
        name: Key of `PRETRAINED`.
        path: The file, or a folder that holds it under its usual name.

    Raises:
        WeightsError: If the file is missing, unreadable, or not the known one.
    """
    known = PRETRAINED[name]
    file = path / known.file if path.is_dir() else path
    try:
        content = file.read_bytes()
    except OSError as error:
        raise WeightsError(
            f"Cannot read the {name} weights '{file}': {error.strerror}.", f"Give the path of {known.file}."
        ) from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != known.sha256:
        raise WeightsError(
            f"'{file}' has sha256 {digest[:12]}..., the {name} weights have {known.sha256[:12]}...",
            f"Fetch {known.file} again ({known.source}).",
        )
    try:
        return load(content)
    except SafetensorError as error:
        raise WeightsError(f"'{file}' is no valid safetensors file: {error}.", "Fetch it again.") from error
