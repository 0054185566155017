"""Weights files: safetensors with a versioned, checked header; never pickle.

One file holds everything that a stage needs: the header (JSON under the key `us_i2v` of the safetensors
metadata) and the tensors `autoencoder.*`, `denoiser.*` or `cinn.*`, `latent.mean`, `latent.sd`. safetensors
itself does not look at values, so shapes, dtypes and finiteness are checked here before anything is used.
"""

from __future__ import annotations

import hashlib
import json
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypeVar

import torch
from pydantic import Field, model_validator
from safetensors import SafetensorError
from safetensors.torch import load, save

from us_i2v.config import Config
from us_i2v.data.atomic import publish, temporary_beside
from us_i2v.data.limits import limits
from us_i2v.data.transforms import Policy
from us_i2v.diffusion.prediction import Prediction
from us_i2v.diffusion.schedule import Cosine, Rectified, Schedule
from us_i2v.diffusion.shortcut import Shortcut
from us_i2v.errors import OutputError, WeightsError
from us_i2v.models.autoencoder import Autoencoder, AutoencoderConfig
from us_i2v.models.cinn import CINNConfig, ConditionalFlow
from us_i2v.models.denoiser import Denoiser, DenoiserConfig, build_denoiser
from us_i2v.models.speckle_config import SpeckleConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor, nn

Module = TypeVar("Module", bound="nn.Module")

FORMAT_VERSION = 1
METADATA_KEY = "us_i2v"
CLASSIFIER_KEY = "us_i2v_classifier"
"""Key of the header of another kind of file, see `classifier`."""
BUNDLED = "base.safetensors"
_PICKLES = (".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".bin")
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


class ProcessConfig(Config):
    """The diffusion process that a denoiser was trained for."""

    schedule: Schedule = Field(default_factory=Cosine, description="t -> (alpha, sigma).")
    prediction: Prediction = Field("v", description="What the denoiser predicts; flow matching: velocity.")
    min_snr: float | None = Field(None, gt=0, le=1000, description="Gamma of min-SNR weighting; empty: off.")
    shortcut: Shortcut | None = Field(None, description="Few-step refinement of flow matching; empty: none.")

    later: ClassVar[tuple[str, ...]] = ("min_snr", "shortcut")

    @property
    def flow_matching(self) -> bool:
        """Whether the path from data to noise is straight."""
        return isinstance(self.schedule, Rectified)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.flow_matching and self.prediction not in ("velocity", "x0"):
            raise ValueError(f"schedule 'rectified' needs prediction 'velocity' or 'x0', not '{self.prediction}'")
        if self.flow_matching and self.min_snr is not None:
            raise ValueError("min_snr does not fit schedule 'rectified', whose times are drawn by weight already")
        if self.shortcut is not None and not (self.flow_matching and self.prediction == "velocity"):
            raise ValueError("shortcut needs schedule 'rectified' and prediction 'velocity'")
        return self


class Header(Config):
    """What a weights file says about itself."""

    format_version: int = Field(FORMAT_VERSION, description="Version of this format.")
    kind: Literal["autoencoder", "lddm", "cinn"] = Field(description="Which stages the file holds.")
    package_version: str = Field(description="Version of us-i2v that wrote it.")
    autoencoder: AutoencoderConfig
    fit: Policy = Field("stretch", description="How stills were fitted to the model's square in training.")
    denoiser: DenoiserConfig | None = None
    process: ProcessConfig | None = None
    cinn: CINNConfig | None = None
    speckle: SpeckleConfig = SpeckleConfig()
    labels: tuple[str, ...] = Field((), description="Class names that can be given as a condition.")
    frame_interval_s: float = Field(gt=0, description="Median time between frames in training, seconds.")
    interval_range_s: tuple[float, float] = Field((0.04, 0.125), description="Range of it in training.")
    motion_median_px: float = Field(1.0, gt=0, description="Median flow of training clips; unit of the strength.")
    strength_condition: bool = Field(True, description="Whether the motion's strength was a condition in training.")
    pressure_median: float | None = Field(None, gt=0, description="Unit of the pressure: median |compression|.")
    slide_median: float | None = Field(None, gt=0, description="Unit of the slide: median |displacement|, share.")
    training_groups: tuple[str, ...] = Field((), description="Groups (patients) seen in training.")
    clip_sha256: tuple[str, ...] = Field((), description="sha256 of the training files.")
    notes: str = Field("", description="Free text: data and licences.")

    # Files without these stay as they were before, so that older versions read them.
    later: ClassVar[tuple[str, ...]] = ("cinn", "strength_condition", "pressure_median", "slide_median")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.kind == "lddm" and (self.denoiser is None or self.process is None):
            raise ValueError("kind 'lddm' needs a denoiser and its process")
        if self.kind == "cinn" and self.cinn is None:
            raise ValueError("kind 'cinn' needs a flow")
        if self.denoiser is not None:
            for name in ("pressure", "slide"):
                if getattr(self.denoiser, name) and getattr(self, f"{name}_median") is None:
                    raise ValueError(f"condition '{name}' needs its median")
        return self

    @property
    def controls(self) -> tuple[str, ...]:
        """Motion conditions that the second stage was trained with: of "strength", "pressure" and "slide"."""
        network = self.denoiser
        if self.kind != "lddm" or network is None or network.dropout == 1:
            return ()
        # Files that say nothing are older: those always had the strength, which is 0 where the decoder paints.
        strength = self.strength_condition and self.autoencoder.decoder != "adain"
        known = {"strength": strength, "pressure": network.pressure, "slide": network.slide}
        return tuple(name for name, trained in known.items() if trained)


class Weights:
    """An open weights file: header, content hash, and the networks built from it.

    Attributes:
        header: See `Header`.
        sha256: Hex digest of the file.
        tensors: All tensors, as stored.
    """

    def __init__(self, header: Header, sha256: str, tensors: Mapping[str, Tensor], source: str) -> None:
        self.header, self.sha256, self.tensors, self.source = header, sha256, tensors, source

    def autoencoder(self) -> Autoencoder:
        """Build the auto-encoder in evaluation mode, float32."""
        return self._fill(lambda: Autoencoder(self.header.autoencoder), "autoencoder.")

    def denoiser(self) -> Denoiser:
        """Build the denoiser in evaluation mode, float32; raises `WeightsError` if there is none."""
        config = self.header.denoiser
        if config is None:
            raise self._lacks("denoiser", "train-ldm")
        return self._fill(lambda: build_denoiser(config, self.header.autoencoder.latent_shape), "denoiser.")

    def cinn(self) -> ConditionalFlow:
        """Build the flow in evaluation mode, float32; raises `WeightsError` if there is none."""
        config = self.header.cinn
        if config is None:
            raise self._lacks("cINN", "train-cinn")
        return self._fill(lambda: ConditionalFlow(config, self.header.autoencoder.latent_shape), "cinn.")

    def _lacks(self, what: str, command: str) -> WeightsError:
        held = {"autoencoder": "an auto-encoder only", "lddm": "an LDDM", "cinn": "a cINN"}[self.header.kind]
        return WeightsError(
            f"'{self.source}' holds {held}; a {what} is needed to generate.",
            f"Train one with `us-i2v {command} DATA --ae RUN -o RUN2`.",
        )

    def latent_statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the latent, each (1, C_z, 1, 1, 1), float32."""
        channels = self.header.autoencoder.latent_channels
        found = [self.tensors.get(f"latent.{name}") for name in ("mean", "sd")]
        if any(x is None or x.shape != (channels,) for x in found):
            raise WeightsError(f"'{self.source}' lacks latent statistics for {channels} channels.", _REMEDY)
        mean, sd = (x.float().reshape(1, -1, 1, 1, 1) for x in found if x is not None)
        return mean, sd

    def _fill(self, build: Callable[[], Module], prefix: str) -> Module:
        # Names and shapes first: a damaged header may ask for any number of gigabytes.
        own = without_memory(build, self.source).state_dict()
        given = {k.removeprefix(prefix): v for k, v in self.tensors.items() if k.startswith(prefix)}
        missing, extra = sorted(own.keys() - given.keys()), sorted(given.keys() - own.keys())
        if missing or extra:
            name = (missing or extra)[0]
            state = "lacks" if missing else "has an unknown"
            raise WeightsError(f"'{self.source}' {state} tensor '{prefix}{name}'.", _REMEDY)
        for name, tensor in given.items():
            if tensor.shape != own[name].shape:
                raise WeightsError(
                    f"'{self.source}': tensor '{prefix}{name}' is {tuple(tensor.shape)}, "
                    f"its header asks for {tuple(own[name].shape)}.",
                    _REMEDY,
                )
        module = build()
        module.load_state_dict({k: v.float() for k, v in given.items()})
        return module.eval().requires_grad_(False)


RAISE_BYTES = "Raise --max-bytes if you trust it."
_REMEDY = "The file is damaged or not of this package: download or train it again."


def without_memory(build: Callable[[], Module], source: str) -> Module:
    """Build a network whose tensors have shapes and no content; raises `WeightsError` if it cannot be built."""
    try:
        with torch.device("meta"):
            return build()
    except (RuntimeError, ValueError, ArithmeticError, IndexError) as error:
        reason = " ".join(str(error).split())[:120].rstrip(".")
        raise WeightsError(f"'{source}' describes no network ({reason}).", _REMEDY) from error


def save_weights(path: Path, header: Header, tensors: Mapping[str, Tensor], *, half: bool = False) -> None:
    """Write a weights file atomically.

    Args:
        path: Target, ends in .safetensors.
        header: Its header.
        tensors: Names as in the module's head.
        half: Store float16 instead of float32.

    Raises:
        OutputError: The file cannot be written.
    """
    dtype = torch.float16 if half else torch.float32
    out = {name: x.detach().to("cpu", dtype).contiguous() for name, x in tensors.items()}
    write_tensors(path, out, {METADATA_KEY: header.model_dump_json()})


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file under a temporary name and rename it; raises `OutputError`."""
    with temporary_beside(path) as part:
        try:
            part.write_bytes(save(tensors, metadata))  # save_file would ignore the umask
        except (OSError, SafetensorError) as error:
            raise OutputError(f"Cannot write '{path}': {error}.", "Choose a folder that you can write to.") from error
        publish(part, path)


def read_tensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Read a safetensors file: metadata and tensors, all floating ones checked to be finite.

    Raises:
        WeightsError: Missing, a pickle, damaged, of a dtype that is not used here, or holding NaN or infinity.
    """
    return _parsed(_content(path), path)


def _content(path: Path) -> bytes:
    if path.suffix.lower() in _PICKLES:
        raise WeightsError(
            f"'{path}' looks like a pickle ({path.suffix}), which can run code when opened; only .safetensors is read.",
            f"Convert it: us-i2v convert state-dict {path.name} -o {path.stem}.safetensors.",
        )
    if not path.is_file():
        raise WeightsError(f"Weights '{path}' do not exist.", "Check the path, or leave --weights out.")
    cap = limits().bytes
    if path.stat().st_size > cap:
        raise WeightsError(f"'{path}' has {path.stat().st_size:,} bytes; at most {cap:,} are read.", RAISE_BYTES)
    try:
        return path.read_bytes()
    except OSError as error:
        raise WeightsError(f"'{path}' cannot be read: {error.strerror}.", "Check the path and its rights.") from error


def _parsed(content: bytes, path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    try:
        tensors = load(content)
        # Eight bytes of length, then JSON, which `load` has checked and keeps to itself.
        head = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        metadata = dict(head.get("__metadata__") or {})
    except (SafetensorError, ValueError, KeyError, RuntimeError, AssertionError) as error:
        reason = " ".join(str(error).split())[:120].rstrip(".") or type(error).__name__
        raise WeightsError(f"'{path}' is not a readable safetensors file ({reason}).", _REMEDY) from error
    for name, tensor in tensors.items():
        if tensor.dtype not in (*_DTYPES, torch.int64):
            raise WeightsError(f"'{path}': tensor '{name}' has dtype {tensor.dtype}, floats are needed.", _REMEDY)
        if not bool(torch.isfinite(tensor).all()):
            raise WeightsError(f"'{path}': tensor '{name}' holds NaN or infinity.", _REMEDY)
    return metadata, tensors


def load_weights(path: str | Path | None = None) -> Weights:
    """Open a weights file; None takes the bundled weights.

    Raises:
        WeightsError: See `read_tensors`; also a missing or invalid header or another format version.
    """
    file = bundled_path() if path is None else Path(path)
    if file.is_dir():
        file = file / "weights.safetensors"
    content = _content(file)  # One reading, so that the digest is that of the tensors.
    metadata, tensors = _parsed(content, file)
    header = parse_header(metadata, str(file))
    return Weights(header, hashlib.sha256(content).hexdigest(), tensors, str(file))


def parse_header(metadata: Mapping[str, str], source: str) -> Header:
    """Validate the header in a file's metadata; raises `WeightsError`."""
    if CLASSIFIER_KEY in metadata:
        raise WeightsError(f"'{source}' holds a classifier, no generator.", "Give it to `us-i2v classify`.")
    if METADATA_KEY not in metadata:
        raise WeightsError(f"'{source}' has no us-i2v header.", "Use weights that us-i2v wrote.")
    try:
        values: Any = json.loads(metadata[METADATA_KEY])
        version = values.get("format_version")
        if version != FORMAT_VERSION:
            raise WeightsError(
                f"'{source}' has weights format {version!r}; this version of us-i2v reads format {FORMAT_VERSION}.",
                "Install the version of us-i2v that wrote it, or train again.",
            )
        return Header.model_validate(values)
    except (ValueError, AttributeError, RecursionError) as error:
        text = str(error).splitlines()[0]
        raise WeightsError(f"'{source}' has a damaged header ({text}).", _REMEDY) from error


def bundled_path() -> Path:
    """Path of the weights in the installed package."""
    return Path(str(resources.files("us_i2v") / "bundled" / BUNDLED))
