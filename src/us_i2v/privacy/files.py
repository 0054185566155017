"""Files of a privacy filter: `privacy.safetensors` and `reference.safetensors`, both with checked headers."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from pydantic import Field, ValidationError
from torch import Tensor

from us_i2v.config import Config
from us_i2v.data.training_clips import ClipsConfig
from us_i2v.errors import WeightsError
from us_i2v.metrics.pretrained import fill, tensors_digest
from us_i2v.models.siamese import SiameseConfig, SiameseNetwork
from us_i2v.privacy.calibration import Held
from us_i2v.privacy.comparing import MEASURES
from us_i2v.privacy.views import Views
from us_i2v.weights import read_tensors, write_tensors

if TYPE_CHECKING:
    from pathlib import Path

FILTER = "privacy.safetensors"
REFERENCE = "reference.safetensors"
METADATA_KEY = "us_i2v_privacy"
REFERENCE_KEY = "us_i2v_privacy_reference"
FORMAT_VERSION = 2
"""1 knew the held-out windows and not whose they were, from which no threshold for a whole clip follows."""

_REMEDY = "Run `us-i2v privacy fit` again."
_HELD = ("held", "held_clip", "held_group")
_MOST_SIMILAR = 1.001  # rounding


class PrivacyHeader(Config):
    """What a privacy filter's file says about itself."""

    format_version: int = Field(FORMAT_VERSION, description="Version of this format.")
    package_version: str = Field(description="Version of us-i2v that wrote it.")
    network: SiameseConfig
    clips: ClipsConfig = Field(description="How clips are fitted and cut into windows.")
    size: int = Field(ge=32, le=512, description="Side of the auto-encoder's frames, pixels.")
    n_frames: int = Field(ge=2, le=512, description="Frames of a window.")
    windows: int = Field(ge=1, le=64, description="Windows a clip.")
    latent_space: str = Field(description="Hash of the auto-encoder, see `latents_file.latent_space`.")
    quantile: float = Field(gt=0, lt=1, description="Share of held-out clips below the thresholds.")
    held_auc: float | None = Field(None, description="Held-out pairs of one clip against pairs of two groups: AUC.")
    training_groups: tuple[str, ...] = Field(description="Groups (patients) of the training clips.")
    clip_sha256: tuple[str, ...] = Field(description="Hashes of the training files.")
    held_groups: tuple[str, ...] = Field(description="Groups (patients) of the held-out clips.")
    held_sha256: tuple[str, ...] = Field(description="Hashes of the held-out files.")
    reference_sha256: str = Field(description="Digest of the training set as the filter sees it.")
    notes: str = Field("", description="Free text: data and licences.")


@dataclass(frozen=True)
class PrivacyFilter:
    """A fitted filter.

    Attributes:
        header: See `PrivacyHeader`.
        network: In evaluation mode.
        held: By measure, the held-out windows, which give the thresholds; see `Held`.
        centre: float32 (D,), the mean training latent.
    """

    header: PrivacyHeader
    network: SiameseNetwork
    held: dict[str, Held]
    centre: Tensor


def save_filter(path: Path, fitted: PrivacyFilter) -> None:
    """Write a filter's file atomically; raises `OutputError`."""
    tensors = {f"siamese.{name}": value for name, value in fitted.network.state_dict().items()}
    tensors["latent.centre"] = fitted.centre
    out = {name: value.detach().to("cpu", torch.float32).contiguous() for name, value in tensors.items()}
    for name, held in fitted.held.items():
        out[f"held.{name}"] = torch.from_numpy(held.similarities.astype(np.float32))
        out[f"held_clip.{name}"] = torch.from_numpy(held.clips.astype(np.int64))
        out[f"held_group.{name}"] = torch.from_numpy(held.groups.astype(np.int64))
    write_tensors(path, out, {METADATA_KEY: fitted.header.model_dump_json()})


def load_filter(path: Path) -> PrivacyFilter:
    """Open a filter's file or run folder.

    Raises:
        WeightsError: Missing, damaged, of another format, or something else.
    """
    file = path / FILTER if path.is_dir() else path
    metadata, tensors = read_tensors(file)
    values = _mapping(metadata.get(METADATA_KEY), file, "privacy filter")
    try:
        header = PrivacyHeader.model_validate(values)
    except ValidationError as error:
        raise WeightsError(f"'{file}' has a damaged header ({str(error).splitlines()[0]}).", _REMEDY) from error
    network = SiameseNetwork(header.network)
    fill(network, {k.removeprefix("siamese."): v for k, v in tensors.items() if k.startswith("siamese.")}, file)
    held = {name: _held(tensors, name, file) for name in MEASURES if f"held.{name}" in tensors}
    centre = tensors.get("latent.centre")
    known = {"latent.centre", *(f"{kind}.{name}" for kind in _HELD for name in held)}
    extra = sorted(name for name in tensors if name not in known and not name.startswith("siamese."))
    if "siamese" not in held or centre is None or centre.ndim != 1:
        raise WeightsError(f"'{file}' lacks a part of the filter.", _REMEDY)
    if extra:
        raise WeightsError(f"'{file}' has an unknown tensor '{extra[0]}'.", _REMEDY)
    return PrivacyFilter(header, network.eval().requires_grad_(False), held, centre.float())


def _held(tensors: dict[str, Tensor], name: str, file: Path) -> Held:
    """Take the held-out windows of a measure out of a file's tensors; raises `WeightsError` if they do not fit."""
    parts = [tensors.get(f"{kind}.{name}") for kind in _HELD]
    shapes = [None if part is None else tuple(part.shape) for part in parts]
    similarities, clips, groups = parts
    if similarities is None or clips is None or groups is None or len(set(shapes)) > 1 or not similarities.numel():
        raise WeightsError(f"'{file}': held-out windows of '{name}' are of shapes {shapes}.", _REMEDY)
    whole = clips.dtype == groups.dtype == torch.int64 and int(torch.stack([clips, groups]).min()) >= 0
    if similarities.ndim != 1 or not whole or float(similarities.abs().max()) > _MOST_SIMILAR:
        raise WeightsError(f"'{file}': held-out windows of '{name}' are no similarities of numbered clips.", _REMEDY)
    return Held(similarities.double().numpy(), clips.numpy(), groups.numpy())


def save_reference(path: Path, views: Views) -> str:
    """Write the training set as the filter sees it; returns its digest."""
    tensors = {
        "pictures": views.pictures.to(torch.float16),  # whole numbers up to 2048 are exact
        "latents": views.latents.to(torch.float16),
        "has_latent": views.has_latent.to(torch.int64),
    }
    names = json.dumps({"clips": views.clips, "groups": views.groups})
    write_tensors(path, tensors, {REFERENCE_KEY: names})
    return _digest(tensors, names)


def load_reference(path: Path, digest: str) -> Views:
    """Read what `save_reference` wrote; raises `WeightsError` if it is missing, damaged or another set."""
    if not path.is_file():
        raise WeightsError(f"'{path}', the training set as the filter sees it, is missing.", "Give --train DATA.")
    metadata, tensors = read_tensors(path)
    names = metadata.get(REFERENCE_KEY, "")
    if _digest(tensors, names) != digest:
        raise WeightsError(f"'{path}' is not the training set that the filter was fitted on.", "Give --train DATA.")
    known = json.loads(names)
    return Views(
        tensors["pictures"].to(torch.uint8),
        tensors["latents"].float(),
        tensors["has_latent"].bool(),
        tuple(known["clips"]),
        tuple(known["groups"]),
    )


def _digest(tensors: dict[str, Tensor], names: str) -> str:
    return hashlib.sha256(f"{tensors_digest(tensors)}\n{names}".encode()).hexdigest()


def _mapping(text: str | None, file: Path, what: str) -> dict[str, object]:
    if text is None:
        raise WeightsError(f"'{file}' holds no {what}.", "Give the run folder of `us-i2v privacy fit`.")
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"'{file}' has a damaged header ({type(error).__name__}).", _REMEDY) from error
    version = values.get("format_version") if isinstance(values, dict) else None
    if version != FORMAT_VERSION:
        raise WeightsError(
            f"'{file}' has {what} format {version!r}; this version of us-i2v reads {FORMAT_VERSION}.",
            "Install the version of us-i2v that wrote it, or fit again.",
        )
    return dict(values)
