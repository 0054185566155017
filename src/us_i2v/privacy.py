"""The privacy filter: what a clip looks like to it, its file, and how alike two sets of clips are.

A clip is cut into windows. A window is seen as `FRAMES` pictures of 96 x 96 px, spread over it, and as the latent that
the video auto-encoder gives it. Windows are compared in three ways (`metrics.copies`), each the largest over pictures:

| measure | compares | finds |
|---|---|---|
| siamese | embeddings of `models.siamese` | the same anatomy, another frame, mirrored or recoded |
| correlation | pictures without slow gray levels, shifted by up to 8 % and mirrored | the same picture |
| latent | latents less the training set's mean latent | the same motion |

Two files: `privacy.safetensors` (network, thresholds, hashes; no pictures) and `reference.safetensors`, the training
set as the filter sees it. The second one holds pictures of patients; the first names its digest.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, ValidationError
from torch import Tensor

from us_i2v.config import Config
from us_i2v.data.duplicates import SIDE, fingerprint, structure
from us_i2v.data.training_clips import ClipsConfig
from us_i2v.data.transforms import resize
from us_i2v.errors import WeightsError
from us_i2v.metrics.copies import pearson, shifted_correlation
from us_i2v.metrics.pretrained import fill, tensors_digest
from us_i2v.models.siamese import SiameseConfig, SiameseNetwork
from us_i2v.weights import read_tensors, write_tensors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import numpy.typing as npt

    from us_i2v.data.training_clips import StoredClip
    from us_i2v.models.autoencoder import Autoencoder
    from us_i2v.types import Frames

FILTER = "privacy.safetensors"
REFERENCE = "reference.safetensors"
METADATA_KEY = "us_i2v_privacy"
REFERENCE_KEY = "us_i2v_privacy_reference"
FORMAT_VERSION = 1

MEASURES = ("siamese", "correlation", "latent")
FRAMES = 3
"""Pictures of a window."""
COARSE, REACH = 48, 4
"""Side of the pictures that are correlated, and how far they are shifted, pixels."""

_BATCH = 64
_REMEDY = "Run `us-i2v privacy fit` again."


class Threshold(Config):
    """Where a measure parts copies from strangers."""

    value: float = Field(description="Similarity above which a window counts as a copy.")
    windows: int = Field(ge=1, description="Held-out windows that it comes from.")
    groups: int = Field(ge=1, description="Their groups (patients).")


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
    quantile: float = Field(gt=0, lt=1, description="Share of held-out windows below the thresholds.")
    thresholds: dict[str, Threshold] = Field(description="By measure.")
    held_auc: float | None = Field(None, description="Held-out pairs of one clip against pairs of two groups: AUC.")
    training_groups: tuple[str, ...] = Field(description="Groups (patients) of the training clips.")
    clip_sha256: tuple[str, ...] = Field(description="Hashes of the training files.")
    reference_sha256: str = Field(description="Digest of the training set as the filter sees it.")
    notes: str = Field("", description="Free text: data and licences.")


@dataclass(frozen=True)
class Views:
    """Windows of clips as the filter sees them.

    Attributes:
        pictures: uint8 (M, FRAMES, 96, 96).
        latents: float32 (M, D), zeros where there is none; D is 0 if none was asked for.
        has_latent: bool (M,).
        clips: Name of each window's clip, (M,).
        groups: Its group (patient), (M,).
    """

    pictures: Tensor
    latents: Tensor
    has_latent: Tensor
    clips: tuple[str, ...]
    groups: tuple[str, ...]

    def __len__(self) -> int:
        """Number of windows."""
        return len(self.clips)


@dataclass(frozen=True)
class Window:
    """A window to look at: `frames` uint8 (T, S, S), or None where only a latent (D,) is known."""

    name: str
    group: str
    frames: Frames | None
    latent: Tensor | None = None


def windows_of(clip: StoredClip, config: ClipsConfig, length: int, count: int) -> list[list[int]]:
    """Return the frames of up to `count` windows without overlap, evenly spread over a clip.

    The stride is the configured one, or the largest within `dt_ms`, and at least 1; where the clip is too short for it,
    the largest that fits. A clip shorter than `length` is one window of all its frames.
    """
    if clip.n_frames < length:
        return [list(range(clip.n_frames))]
    longest = (clip.n_frames - 1) // (length - 1)
    wanted = config.stride or int(config.dt_ms[1] * 1.1 / 1000 / clip.interval)
    stride = min(max(1, wanted), longest)
    last = clip.n_frames - 1 - (length - 1) * stride
    starts = np.linspace(0, last, min(count, 1 + last // (length * stride))).round()
    return [[int(start) + stride * k for k in range(length)] for start in starts]


def stored_windows(clips: Sequence[StoredClip], config: ClipsConfig, length: int, count: int) -> Iterator[Window]:
    """Read the windows of stored clips, see `windows_of`."""
    for clip in clips:
        stored = np.load(clip.frames, mmap_mode="r", allow_pickle=False)
        for indices in windows_of(clip, config, length, count):
            yield Window(clip.name, clip.group, np.ascontiguousarray(stored[indices]))


@torch.no_grad()
def look(
    windows: Iterable[Window],
    autoencoder: Autoencoder,
    device: torch.device,
    *,
    progress: Callable[[int], None] | None = None,
) -> Views:
    """Turn windows into what the filter compares.

    Args:
        windows: Frames at the auto-encoder's size; those of its own length are encoded unless a latent is given.
        autoencoder: Of the weights that the filter belongs to, on `device`.
        device: Where to encode.
        progress: Called with the number of windows done.
    """
    numbers = int(np.prod(autoencoder.config.latent_shape))
    pictures, latents, has, clips, groups = [], [], [], [], []
    for done, window in enumerate(windows, 1):
        latent = window.latent
        if latent is None and window.frames is not None and len(window.frames) == autoencoder.config.n_frames:
            video = torch.from_numpy(window.frames).to(device).float()[None, None] / 255
            latent = autoencoder.encode(video).mean
        pictures.append(_pictures(window.frames))
        latents.append(torch.zeros(numbers) if latent is None else latent.float().flatten().cpu())
        has.append(latent is not None)
        clips.append(window.name)
        groups.append(window.group)
        if progress is not None:
            progress(done)
    return Views(torch.stack(pictures), torch.stack(latents), torch.tensor(has), tuple(clips), tuple(groups))


def _pictures(frames: Frames | None) -> Tensor:
    """Return (FRAMES, 96, 96) uint8: first, middle and last frame; black where only the latent is known."""
    if frames is None:
        return torch.zeros((FRAMES, SIDE, SIDE), dtype=torch.uint8)
    chosen = np.linspace(0, len(frames) - 1, FRAMES).round().astype(int)
    return torch.from_numpy(np.stack([resize(frames[index], (SIDE, SIDE)) for index in chosen]))


@dataclass(frozen=True)
class PrivacyFilter:
    """A fitted filter.

    Attributes:
        header: See `PrivacyHeader`.
        network: In evaluation mode.
        held: By measure, float32 (N,): each held-out window's largest similarity to the training set.
        centre: float32 (D,), the mean training latent.
    """

    header: PrivacyHeader
    network: SiameseNetwork
    held: dict[str, Tensor]
    centre: Tensor


@dataclass(frozen=True)
class _Features:
    """Embeddings (M * FRAMES, E), structures (M * FRAMES, COARSE, COARSE), centred latents (M, D)."""

    embeddings: Tensor
    structures: Tensor
    latents: Tensor


class Comparer:
    """Compares windows with those of a reference set, whose features are computed once.

    Args:
        network: The siamese network, in evaluation mode.
        centre: Mean training latent, (D,).
        reference: The training windows.
        device: Where to compute.
    """

    def __init__(self, network: SiameseNetwork, centre: Tensor, reference: Views, device: torch.device) -> None:
        self.network, self.centre, self.reference, self.device = network.to(device), centre, reference, device
        self._features = self._of(reference)

    def similarities(self, views: Views) -> dict[str, npt.NDArray[np.float64]]:
        """Return, by measure, the similarity (Q, M) of each window to each reference window; NaN without a latent."""
        ours, theirs = self._of(views), self._features
        shape = (len(views), FRAMES, len(self.reference), FRAMES)
        by_picture = {
            "siamese": pearson(ours.embeddings, theirs.embeddings),
            "correlation": shifted_correlation(ours.structures, theirs.structures, REACH),
        }
        found = {name: values.reshape(shape).amax((1, 3)) for name, values in by_picture.items()}
        known = views.has_latent[:, None] & self.reference.has_latent[None]
        alike = pearson(ours.latents, theirs.latents).cpu()
        found["latent"] = torch.where(known, alike, torch.nan)
        return {name: values.double().cpu().numpy() for name, values in found.items()}

    @torch.no_grad()
    def _of(self, views: Views) -> _Features:
        pictures = views.pictures.flatten(0, 1)
        starts = range(0, len(pictures), _BATCH)
        embeddings = [self._embed(pictures[start : start + _BATCH]) for start in starts]
        fine = np.stack([structure(fingerprint(picture)) for picture in pictures.numpy()])
        structures = F.adaptive_avg_pool2d(torch.from_numpy(fine).float().to(self.device), COARSE)
        return _Features(torch.cat(embeddings), structures, (views.latents - self.centre).to(self.device))

    def _embed(self, pictures: Tensor) -> Tensor:
        embeddings: Tensor = self.network(pictures[:, None].to(self.device).float() / 255)
        return embeddings


def nearest(similarities: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.intp]]:
    """Return each row's largest similarity and where it is; NaN and 0 in rows without any."""
    known = np.where(np.isnan(similarities), -np.inf, similarities)
    where = known.argmax(1)
    best = known[np.arange(len(known)), where]
    return np.where(np.isinf(best), np.nan, best), where


def save_filter(path: Path, fitted: PrivacyFilter) -> None:
    """Write a filter's file atomically; raises `OutputError`."""
    tensors = {f"siamese.{name}": value for name, value in fitted.network.state_dict().items()}
    tensors |= {f"held.{name}": value for name, value in fitted.held.items()} | {"latent.centre": fitted.centre}
    out = {name: value.detach().to("cpu", torch.float32).contiguous() for name, value in tensors.items()}
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
    held = {k.removeprefix("held."): v for k, v in tensors.items() if k.startswith("held.")}
    if set(held) != set(header.thresholds) or "latent.centre" not in tensors or "siamese" not in held:
        raise WeightsError(f"'{file}' lacks a part of the filter.", _REMEDY)
    return PrivacyFilter(header, network.eval().requires_grad_(False), held, tensors["latent.centre"])


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
