"""Weights of the metric networks: looked for where the user keeps them, verified, never bundled.

The files are other people's networks in safetensors form. Two kinds are accepted, so that a figure named
LPIPS or FVD-X3D always comes from known numbers:

    known      the sha256 of the whole file is in the table
    converted  `us-i2v convert` wrote it: its metadata names the publishers' files that it was made from, their
               sha256 are those of `publishers` (or, where none is published, confirmed by the user), and a
               digest over all its tensors still holds

The second guards against mix-ups and damage, not against forgery.
Weights are looked for in the given file or folder, then in the folder that the environment variable
US_I2V_METRIC_WEIGHTS names, then in the cache folder. Nothing is fetched, except for a location that
is written as hf://ORG/REPO[@REVISION]/FILE (see `hub`).
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from safetensors import SafetensorError
from safetensors.torch import load

from us_i2v.errors import WeightsError
from us_i2v.metrics.hub import fetch, is_hub_location
from us_i2v.metrics.publishers import PUBLISHER_FILES, refuse_mistaken

if TYPE_CHECKING:
    from torch import Tensor, nn

Network = TypeVar("Network", bound="nn.Module")

METADATA_KEY = "us_i2v_metric"
FORMAT = 1
VARIABLE = "US_I2V_METRIC_WEIGHTS"
PUBLISHED, CONFIRMED = "published", "confirmed by the user"
"""How the sha256 of a publisher's file was checked."""
_PICKLES = (".pt", ".pth", ".pyth", ".tar")


@dataclass(frozen=True)
class Pretrained:
    """A known weights file.

    Attributes:
        file: Usual file name.
        sha256: Digest of its bytes; None if only files that the user converts are accepted.
        source: Where its numbers come from.
        made_from: Keys of `PUBLISHER_FILES` that `us-i2v convert` makes it from.
        tensors: `tensors_digest` of the known file; None if unknown.
    """

    file: str
    sha256: str | None
    source: str
    made_from: tuple[str, ...] = ()
    tensors: str | None = None


PRETRAINED: dict[str, Pretrained] = {
    "lpips-alex": Pretrained(
        "lpips_alex_v0.1.safetensors",
        "2365b738e65997b0490a66e371b56c16423f1da9599d86e032bbef338efa3b47",
        "LPIPS v0.1 linear heads (Zhang 2018) on ImageNet AlexNet features",
        ("torchvision-alexnet", "lpips-alex-heads"),
        "e6059c4a993860f23ab74fcff004a152e3590cc709e3d4a32b7dbb828bc33519",
    ),
    "lpips-squeeze": Pretrained(
        "lpips_squeeze_v0.1.safetensors",
        "06824afb7401832a0bcab5f78f3c101cad227850e6814f9a9ce5505b816e3494",
        "LPIPS v0.1 linear heads (Zhang 2018) on ImageNet SqueezeNet 1.1 features",
        ("torchvision-squeezenet", "lpips-squeeze-heads"),
        "38957170a2c90e5c39860bd998400123355fb46eae34474d53dcb89814bc9f94",
    ),
    "lpips-vgg": Pretrained(
        "lpips_vgg_v0.1.safetensors",
        None,
        "LPIPS v0.1 linear heads (Zhang 2018) on ImageNet VGG-16 features",
        ("torchvision-vgg16", "lpips-vgg-heads"),
    ),
    "x3d-xs": Pretrained(
        "x3d_xs_kinetics400.safetensors",
        "0a7f392ab420b7c4f0e9bf5c1145d879dd7b5e4fea5fda4aa66c0e615fffa7cc",
        "X3D-XS (Feichtenhofer 2020), Kinetics-400, batch norms folded into the convolutions",
        ("pytorchvideo-x3d-xs",),
        "4ef46e4f569102dd9a953c9c9fc6f81757ce185c471a420cc7795cdde4760e6f",
    ),
    "i3d-kinetics400": Pretrained(
        "i3d_kinetics400.safetensors",
        None,
        "RGB I3D (Carreira & Zisserman 2017), Kinetics-400, VideoGPT's state dict",
        ("videogpt-i3d",),
    ),
    "i3d-torchscript": Pretrained(
        PUBLISHER_FILES["styleganv-i3d"].file,
        PUBLISHER_FILES["styleganv-i3d"].sha256,
        "RGB I3D (Carreira & Zisserman 2017), Kinetics-400, StyleGAN-V's TorchScript",
    ),
    "i3d-dtdb": Pretrained(
        "i3d_dtdb.safetensors",
        None,
        "I3D trained on dynamic textures (DTDB, 18 classes), the 16-frame one of cINN (Dorkenwald 2021)",
        ("cinn-dt-i3d",),
    ),
    "inception-fid": Pretrained(
        "inception_fid.safetensors",
        None,
        "Inception v3 of 2015-12-05 (Szegedy 2016), as FID uses it (Heusel 2017)",
        ("fid-inception",),
    ),
}
"""Every metric network by name."""


@dataclass(frozen=True)
class Source:
    """One publisher's file that weights were made from: its name, sha256 and how that was checked."""

    file: str
    sha256: str
    checked: str


@dataclass(frozen=True)
class Loaded:
    """Verified weights.

    Attributes:
        tensors: Name to tensor.
        sha256: Digest of the file.
        sources: The publishers' files of a converted file; empty for the known one.
        path: The file.
    """

    tensors: dict[str, Tensor]
    sha256: str
    sources: tuple[Source, ...]
    path: Path


def cache_folder() -> Path:
    """Folder for metric weights: $XDG_CACHE_HOME or ~/.cache, then us-i2v/metrics; may not exist."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base else Path.home() / ".cache") / "us-i2v" / "metrics"


def find_metric_weights(name: str, given: Path | str | None = None) -> Path | None:
    """Return where the weights `name` lie, or None; nothing is opened yet.

    Args:
        name: Key of `PRETRAINED`.
        given: A file, a folder, or an hf:// location (which is fetched). Folders are searched for the usual
            name: this one, then $US_I2V_METRIC_WEIGHTS (a folder), then the cache folder.

    Raises:
        WeightsError: If `given` or the variable names nothing that exists, or fetching fails.
    """
    known = PRETRAINED[name]
    if is_hub_location(given):
        return fetch(str(given), known.sha256)
    folders = []
    for what, value in (("Metric weights", given), (f"{VARIABLE}, the folder", os.environ.get(VARIABLE))):
        if value:
            path = Path(value)
            if path.is_file() and value is given:
                return path
            if not path.is_dir():
                raise WeightsError(f"{what} '{path}' does not exist or is no folder.", "Check the path.")
            folders.append(path)
    for folder in (*folders, cache_folder()):
        if (folder / known.file).is_file():
            return folder / known.file
    return None


def load_verified(name: str, path: Path) -> dict[str, Tensor]:
    """Return the tensors of `load_pretrained`."""
    return load_pretrained(name, path).tensors


def load_pretrained(name: str, path: Path) -> Loaded:
    """Read and verify a weights file.

    Args:
        name: Key of `PRETRAINED`.
        path: The file, or a folder that holds it under its usual name.

    Raises:
        WeightsError: If the file is missing, unreadable, or neither the known one nor a converted one.
    """
    content, digest, file = _read(name, path)
    known = PRETRAINED[name]
    genuine = digest == known.sha256
    provenance = None if genuine else _provenance(content)
    if not genuine and provenance is None:
        raise _unknown(name, file, digest)
    try:
        tensors = load(content)
    except SafetensorError as error:
        raise WeightsError(f"'{file}' is no valid safetensors file: {error}.", "Fetch it again.") from error
    sources = () if provenance is None else _checked_sources(name, file, provenance, tensors)
    return Loaded(tensors, digest, sources, file)


def verified_bytes(name: str, path: Path) -> bytes:
    """Return the content of a file whose sha256 is the known one; raises `WeightsError` otherwise."""
    content, digest, file = _read(name, path)
    if digest != PRETRAINED[name].sha256:
        raise _unknown(name, file, digest)
    return content


def fill(network: Network, tensors: dict[str, Tensor], source: object) -> Network:
    """Put tensors into a network, strictly; batch norms' step counters (unused here) may be there or not.

    Raises:
        WeightsError: If a tensor is missing, unknown or of another shape.
    """
    own = check_shapes(network, tensors, source)
    network.load_state_dict({name: tensors[name] for name in own}, strict=False)
    return network


def check_shapes(network: nn.Module, tensors: dict[str, Tensor], source: object) -> list[str]:
    """Return the names of the tensors that go into a network, or raise as `fill` does; nothing is filled."""
    own, given = (
        {name: tuple(x.shape) for name, x in state.items() if not name.endswith("num_batches_tracked")}
        for state in (network.state_dict(), tensors)
    )
    if own != given:
        name = min(dict(own.items() ^ given.items()))
        raise WeightsError(
            f"'{source}': tensor '{name}' is {given.get(name, 'missing')}, the network has {own.get(name, 'none')}.",
            "These are another network's weights.",
        )
    return list(own)


def tensors_digest(tensors: dict[str, Tensor]) -> str:
    """Return a sha256 over names, types, shapes and values, whatever the order or the metadata."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def provenance_metadata(name: str, sources: tuple[Source, ...], tensors: dict[str, Tensor]) -> dict[str, str]:
    """Return the safetensors metadata of a converted file; one key, so that the bytes are always the same."""
    values = {
        "format": FORMAT,
        "name": name,
        "sources": [{"file": s.file, "sha256": s.sha256, "checked": s.checked} for s in sources],
        "tensors_sha256": tensors_digest(tensors),
    }
    return {METADATA_KEY: json.dumps(values, sort_keys=True)}


def _read(name: str, path: Path) -> tuple[bytes, str, Path]:
    known = PRETRAINED[name]
    file = path / known.file if path.is_dir() else path
    try:
        content = file.read_bytes()
    except OSError as error:
        raise WeightsError(
            f"Cannot read the {name} weights '{file}': {error.strerror}.", f"Give the path of {known.file}."
        ) from error
    digest = hashlib.sha256(content).hexdigest()
    refuse_mistaken(digest, file)
    return content, digest, file


def _unknown(name: str, file: Path, digest: str) -> WeightsError:
    known = PRETRAINED[name]
    expected = f"the {name} weights have {known.sha256[:12]}..." if known.sha256 else "and us-i2v did not convert it"
    ways = [f"Fetch {known.file} again ({known.source})"] if known.sha256 else []
    files = " ".join(PUBLISHER_FILES[key].file for key in known.made_from)
    ways += [f"run `us-i2v convert {name} {files}`"] if known.made_from else []
    ways += ["prepare a publisher's pickle with `us-i2v convert`"] if file.suffix in _PICKLES and not files else []
    return WeightsError(f"'{file}' has sha256 {digest[:12]}..., {expected}.", f"{' or '.join(ways)}.")


def _provenance(content: bytes) -> dict[str, Any] | None:
    """Return the provenance in a safetensors file's header, None if there is none."""
    try:
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        values = json.loads(header["__metadata__"][METADATA_KEY])
    except (ValueError, KeyError, TypeError):
        return None
    return values if isinstance(values, dict) else None


def _checked_sources(
    name: str, file: Path, provenance: dict[str, Any], tensors: dict[str, Tensor]
) -> tuple[Source, ...]:
    remedy = f"Convert it again: `us-i2v convert {name} ...`."
    if provenance.get("format") != FORMAT or provenance.get("name") != name:
        found = provenance.get("name")
        raise WeightsError(f"'{file}' holds '{found}' weights (sha256 checked), {name} is needed.", remedy)
    wanted = [PUBLISHER_FILES[key] for key in PRETRAINED[name].made_from]
    try:
        sources = tuple(Source(**entry) for entry in provenance["sources"])
    except (KeyError, TypeError) as error:
        raise WeightsError(f"'{file}' does not say what it was made from.", remedy) from error
    right = len(sources) == len(wanted) and all(
        source.sha256 == known.sha256 if known.sha256 else source.checked == CONFIRMED
        for source, known in zip(sources, wanted, strict=True)
    )
    for source in sources:
        refuse_mistaken(source.sha256, file)
    if not right or provenance.get("tensors_sha256") != tensors_digest(tensors):
        raise WeightsError(f"'{file}' is damaged, or made from other files: a sha256 in it does not hold.", remedy)
    return sources
