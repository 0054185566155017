"""Feature extractors of the Frechet and kernel distances: one table, one way to load them.

| key     | label   | network                             | a row is | D    | frames |
|---------|---------|-------------------------------------|----------|------|--------|
| fvd-x3d | FVD-X3D | X3D-XS, Kinetics-400, pool432       | a clip   | 432  | 1      |
| fvd     | FVD     | I3D, Kinetics-400, logits           | a clip   | 400  | 9      |
| dtfvd   | DTFVD   | I3D, DTDB, pooled                   | a clip   | 1024 | 16     |
| fid     | FID     | Inception v3 of 2015-12-05          | a frame  | 2048 | 1      |

Labels say more than the table where several files may serve: a figure of one file is not a figure of another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt
import torch

from us_i2v.errors import ConfigError, WeightsError
from us_i2v.metrics import i3d, inception, x3d
from us_i2v.metrics.embedding import embed
from us_i2v.metrics.pretrained import (
    CONFIRMED,
    PRETRAINED,
    VARIABLE,
    Loaded,
    cache_folder,
    fill,
    find_metric_weights,
    load_pretrained,
    verified_bytes,
)
from us_i2v.types import Frames

if TYPE_CHECKING:
    from torch import Tensor, nn


class Extractor(Protocol):
    """What turns clips into rows of features, independent of batch and order."""

    @property
    def label(self) -> str:
        """Name of a distance on these features, for instance "FVD-X3D"."""

    @property
    def description(self) -> str:
        """Network, weights file, resize and range, in one line."""

    @property
    def dimensions(self) -> int:
        """Width D of a row."""

    @property
    def least_frames(self) -> int:
        """Shortest clip."""

    @property
    def per_frame(self) -> bool:
        """True if a clip gives T rows, one a frame; its n then counts frames, not clips."""

    def features(self, clips: Sequence[Frames]) -> npt.NDArray[np.float64]:
        """Return float64 (N, D), or (sum of T, D) if `per_frame`; raises `InputError` for what is no such clip."""


@dataclass(frozen=True)
class NetworkExtractor:
    """An `Extractor` made of a network and the preparation of its input."""

    label: str
    description: str
    dimensions: int
    least_frames: int
    per_frame: bool
    network: nn.Module
    embedding: Callable[[Tensor], Tensor]
    prepare: Callable[[Frames], Tensor]
    device: torch.device

    def features(self, clips: Sequence[Frames]) -> npt.NDArray[np.float64]:
        """See `Extractor`."""
        return embed((self.prepare(clip) for clip in clips), self.embedding, self.device, self.dimensions)


@dataclass(frozen=True)
class Kind:
    """A row of the table: which weights serve (first found first), and how they become an extractor."""

    weights: tuple[str, ...]
    build: Callable[[str, Path, torch.device], NetworkExtractor]


def _x3d(name: str, path: Path, device: torch.device) -> NetworkExtractor:
    loaded = load_pretrained(name, path)
    network = fill(x3d.X3DXS(), loaded.tensors, path).to(device)
    # The known file was dequantised from 8 bits; what is made from the float file gives other numbers.
    label = f"FVD-X3D[{loaded.sources[0].file}]" if loaded.sources else "FVD-X3D"
    what = f"X3D-XS Kinetics-400 pool432, {x3d.SIDE} px bilinear, {_origin(loaded)}"
    return NetworkExtractor(label, what, x3d.FEATURES, 1, False, network, network.pool432, x3d.prepare, device)


def _fvd(name: str, path: Path, device: torch.device) -> NetworkExtractor:
    least = i3d.LEAST_FRAMES
    if name == "i3d-torchscript":
        content = verified_bytes(name, path)
        detector = i3d.StyleGANVDetector(content).to(device)
        what = f"I3D Kinetics-400 logits, {i3d.SIDE} px and range by the file itself, {PRETRAINED[name].file}"
        return NetworkExtractor(
            "FVD[i3d_torchscript]", what, i3d.LOGITS, least, False, detector, detector, i3d.prepare_styleganv, device
        )
    loaded = load_pretrained(name, path)
    network = fill(i3d.I3D(), loaded.tensors, path).to(device)
    what = f"I3D Kinetics-400 logits, shorter side {i3d.SIDE} px bilinear, centre crop, [-1, 1], {_origin(loaded)}"
    return NetworkExtractor(
        "FVD[i3d_pretrained_400]", what, i3d.LOGITS, least, False, network, network, i3d.prepare_videogpt, device
    )


def _dtfvd(name: str, path: Path, device: torch.device) -> NetworkExtractor:
    loaded = load_pretrained(name, path)
    network = fill(i3d.I3D(i3d.DT_CLASSES), loaded.tensors, path).to(device)
    what = f"I3D DTDB pooled, first {i3d.DT_FRAMES} frames, {i3d.SIDE} px bilinear, [-1, 1], {_origin(loaded)}"
    return NetworkExtractor(
        "DTFVD", what, i3d.POOLED, i3d.DT_FRAMES, False, network, network.pooled_mean, i3d.prepare_dt, device
    )


def _fid(name: str, path: Path, device: torch.device) -> NetworkExtractor:
    loaded = load_pretrained(name, path)
    network = fill(inception.InceptionV3(), loaded.tensors, path).to(device)
    what = f"Inception v3 2015-12-05 pool, every frame, {inception.SIDE} px bilinear, [-1, 1], {_origin(loaded)}"
    return NetworkExtractor("FID", what, inception.FEATURES, 1, True, network, network, inception.prepare, device)


def _origin(loaded: Loaded) -> str:
    """Name the file that the numbers come from, and whether only the user vouches for it."""
    if not loaded.sources:
        return f"{loaded.path.name} sha256 {loaded.sha256[:8]}"
    source = loaded.sources[0]
    note = f" {CONFIRMED}" if source.checked == CONFIRMED else ""
    return f"{source.file} sha256 {source.sha256[:8]}{note}"


EXTRACTORS: dict[str, Kind] = {
    "fvd-x3d": Kind(("x3d-xs",), _x3d),
    "fvd": Kind(("i3d-kinetics400", "i3d-torchscript"), _fvd),
    "dtfvd": Kind(("i3d-dtdb",), _dtfvd),
    "fid": Kind(("inception-fid",), _fid),
}
"""Every extractor by key."""


def load_extractor(key: str, location: Path | str | None = None, *, device: str | torch.device = "cpu") -> Extractor:
    """Find, verify and load an extractor.

    Args:
        key: Key of `EXTRACTORS`.
        location: File, folder or hf:// location; see `pretrained.find_metric_weights`.
        device: Where the network runs.

    Raises:
        ConfigError: If the key is unknown.
        WeightsError: If the weights are missing, not the known ones, or damaged.
    """
    kind = EXTRACTORS.get(key)
    if kind is None:
        raise ConfigError(f"'{key}' is no feature extractor.", f"Use one of {', '.join(EXTRACTORS)}.")
    for name in _candidates(kind, location):
        path = find_metric_weights(name, location)
        if path is not None:
            return kind.build(name, path, torch.device(device))
    files = " or ".join(PRETRAINED[name].file for name in kind.weights)
    raise WeightsError(
        f"The weights of {key}, {files}, are in no folder that was searched"
        f" ({', '.join(str(place) for place in (location, f'${VARIABLE}', cache_folder()) if place)}).",
        "docs/metric-weights.md says where to get them; `us-i2v convert` prepares them.",
    )


def _candidates(kind: Kind, location: Path | str | None) -> list[str]:
    """Return the names to try: for a file (not a folder) only those with its ending."""
    path = str(location or "").partition("?")[0]
    if location is None or Path(path).is_dir():
        return list(kind.weights)
    ending = Path(path).suffix
    return [name for name in kind.weights if Path(PRETRAINED[name].file).suffix == ending] or [kind.weights[0]]
