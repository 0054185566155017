"""Latent files: the motion of a clip, kept to be used on other stills.

A safetensors file with a checked header (JSON under the key `us_i2v_latent`) and the tensors

    latent      float32 (K, C_z, T_z, H_z, W_z), in the auto-encoder's units: one a segment of the clip, or one (K = 1)
                longer than T_z, whose overlapping windows make the clip together

A latent means something to its own first stage only. The header therefore names the latent space: a hash of that
stage's shape and numbers, which weights with another second stage, or stored at half precision, share.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from pydantic import Field

from us_i2v import __version__
from us_i2v.config import Config
from us_i2v.errors import InputError, WeightsError
from us_i2v.weights import read_tensors, write_tensors

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from us_i2v.models.autoencoder import Autoencoder

METADATA_KEY = "us_i2v_latent"
FORMAT_VERSION = 1
_TENSOR = "latent"
_REMEDY = "Write it again with --save-latent."


class LatentHeader(Config):
    """What a latent file says about itself."""

    format_version: int = Field(FORMAT_VERSION, description="Version of this format.")
    package_version: str = Field(description="Version of us-i2v that wrote it.")
    latent_space: str = Field(description="Hash of the first stage, see `latent_space`.")
    weights_sha256: str = Field(description="Hash of the weights file that drew or encoded it.")
    shape: tuple[int, int, int, int, int] = Field(description="(K, C_z, T_z, H_z, W_z).")
    frames: int = Field(ge=2, description="Frames of the clip that it was written with.")
    fps: float = Field(gt=0, description="Frames a second of that clip.")
    loop: bool = Field(False, description="Whether that clip closes.")
    seed: int | None = Field(None, ge=0, description="Seed of that clip; empty: taken from a clip.")
    mean: float = Field(description="Mean of its numbers.")
    sd: float = Field(ge=0, description="Their standard deviation.")


@dataclass(frozen=True)
class SavedLatent:
    """A latent read from a file.

    Attributes:
        latent: float32 (K, C_z, T_z, H_z, W_z), in the auto-encoder's units.
        header: See `LatentHeader`.
    """

    latent: Tensor
    header: LatentHeader


def latent_space(autoencoder: Autoencoder) -> str:
    """Hash the first stage: its configuration, and its numbers rounded to float16 (16 hex digits)."""
    digest = hashlib.sha256(autoencoder.config.dump().encode())
    for name, tensor in sorted(autoencoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().to("cpu", torch.float16).contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def save_latent(
    path: Path,
    latent: Tensor,
    *,
    space: str,
    weights_sha256: str,
    frames: int,
    fps: float,
    loop: bool = False,
    seed: int | None = None,
) -> None:
    """Write a latent file atomically.

    Args:
        path: Target, ends in .safetensors.
        latent: (K, C_z, T_z, H_z, W_z) in the auto-encoder's units, finite.
        space: `latent_space` of the first stage.
        weights_sha256: Hash of the weights file.
        frames: Frames of the clip.
        fps: Frames a second of the clip.
        loop: Whether the clip closes.
        seed: Its seed, if it was drawn.

    Raises:
        InputError: The latent is of another form, or not finite.
        OutputError: The file cannot be written.
    """
    values = latent.detach().to("cpu", torch.float32).contiguous()
    if values.ndim != 5 or not values.numel() or not bool(torch.isfinite(values).all()):
        raise InputError(
            f"The latent is of shape {tuple(values.shape)}; finite numbers (K, C, T, H, W) are needed.",
            "Take it from a clip.",
        )
    header = LatentHeader(
        package_version=__version__,
        latent_space=space,
        weights_sha256=weights_sha256,
        shape=tuple(values.shape),
        frames=frames,
        fps=fps,
        loop=loop,
        seed=seed,
        mean=float(values.double().mean()),
        sd=float(values.double().std(correction=0)),
    )
    write_tensors(path, {_TENSOR: values}, {METADATA_KEY: header.model_dump_json()})


def load_latent(path: Path, *, space: str, shape: tuple[int, int, int, int]) -> SavedLatent:
    """Read a latent file and check that it fits the weights.

    Args:
        path: The file.
        space: `latent_space` of the first stage that shall decode it.
        shape: Its (C_z, T_z, H_z, W_z).

    Raises:
        InputError: Missing, damaged, of another format, not finite, or of another first stage.
    """
    if not path.is_file():
        raise InputError(f"Latent '{path}' does not exist.", "Check the path.")
    try:
        metadata, tensors = read_tensors(path)
    except WeightsError as error:
        raise InputError(error.message.replace("Weights", "Latent", 1), _REMEDY) from error
    header = _parse(metadata, path)
    if header.latent_space != space:
        raise InputError(
            f"Latent '{path}' belongs to another first stage ({header.latent_space}) than these weights ({space}).",
            f"Use the weights that it was made with (sha256 {header.weights_sha256[:12]}...).",
        )
    found = tensors.get(_TENSOR)
    if set(tensors) != {_TENSOR} or found is None or found.dtype != torch.float32:
        raise InputError(f"'{path}' holds {sorted(tensors)}; one float32 tensor 'latent' is needed.", _REMEDY)
    count, channels, length, *place = header.shape
    fits = length == shape[1] or (count == 1 and length > shape[1])
    if tuple(found.shape) != header.shape or (channels, *place) != (shape[0], *shape[2:]) or count < 1 or not fits:
        raise InputError(
            f"Latent '{path}' is of shape {tuple(found.shape)}; these weights need (K, {', '.join(map(str, shape))}).",
            _REMEDY,
        )
    return SavedLatent(found, header)


def _parse(metadata: dict[str, str], path: Path) -> LatentHeader:
    if METADATA_KEY not in metadata:
        raise InputError(f"'{path}' is no latent file of us-i2v.", "Give a file that --save-latent wrote.")
    try:
        values: Any = json.loads(metadata[METADATA_KEY])
        version = values.get("format_version")
        if version != FORMAT_VERSION:
            raise InputError(
                f"'{path}' has latent format {version!r}; this version of us-i2v reads format {FORMAT_VERSION}.",
                "Install the version of us-i2v that wrote it.",
            )
        return LatentHeader.model_validate(values)
    except (ValueError, AttributeError, RecursionError) as error:
        raise InputError(f"'{path}' has a damaged header ({str(error).splitlines()[0]}).", _REMEDY) from error
