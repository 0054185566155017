"""A trained classifier: its file, and its answer for a whole video.

The file is safetensors with a checked header (JSON under the key `us_i2v_classifier`) and the network's tensors
`classifier.*`. The header says which network it is, its classes in the order of the logits, how clips are brought
before it, and what it was trained on. The answer for a video is the mean of the softmax over windows that are spread
evenly over it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from pydantic import Field

from us_i2v.config import Config
from us_i2v.data.training_clips import ClipsConfig
from us_i2v.errors import WeightsError
from us_i2v.metrics.pretrained import check_shapes, fill
from us_i2v.models.classifiers import Classifier, ClassifierConfig, build_classifier
from us_i2v.weights import CLASSIFIER_KEY, METADATA_KEY, read_tensors, without_memory, write_tensors

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import nn

    from us_i2v.data.training_clips import ClipSampler, StoredClip

FORMAT_VERSION = 1
WEIGHTS = "weights.safetensors"
PREFIX = "classifier."
BATCH = 8
"""Windows that run together."""


class TrainedOn(Config):
    """What weights were trained on."""

    training_groups: tuple[str, ...] = Field((), description="Groups (patients).")
    clip_sha256: tuple[str, ...] = Field((), description="Hashes of files.")


class ClassifierHeader(Config):
    """What a classifier's file says about itself."""

    format_version: int = Field(FORMAT_VERSION, description="Version of this format.")
    package_version: str = Field(description="Version of us-i2v that wrote it.")
    model: ClassifierConfig
    classes: tuple[str, ...] = Field(min_length=2, description="Classes in the order of the logits.")
    clips: ClipsConfig
    crf: int = Field(ge=0, le=51, description="Quality of the codec that all clips go through; 0: none.")
    frame_interval_s: float = Field(gt=0, description="Median time between frames in training, seconds.")
    diet: str = Field(description="real, synthetic or both.")
    real_clips: int = Field(ge=0, description="Real training clips.")
    synthetic_clips: int = Field(ge=0, description="Synthetic training clips.")
    training_groups: tuple[str, ...] = Field(
        description="Groups (patients) seen in training, those of stills included."
    )
    clip_sha256: tuple[str, ...] = Field(description="Hashes of the training files and of the stills behind them.")
    generators: tuple[str, ...] = Field((), description="Hashes of the weights that made the synthetic clips.")
    behind: TrainedOn = Field(TrainedOn(), description="What those generators were trained on, taken together.")
    pretrained: str = Field("", description="Hash of the pretrained weights that training began with.")
    notes: str = Field("", description="Free text: data and licences.")


@dataclass(frozen=True)
class TrainedClassifier:
    """A classifier read from a file.

    Attributes:
        header: See `ClassifierHeader`.
        network: In evaluation mode, float32.
        sha256: Hash of the file.
        path: The file.
    """

    header: ClassifierHeader
    network: Classifier
    sha256: str
    path: Path


def save_classifier(path: Path, header: ClassifierHeader, network: nn.Module) -> None:
    """Write a classifier's file atomically; raises `OutputError`."""
    tensors = {
        PREFIX + name: value.detach().to("cpu", torch.float32).clone().contiguous()
        for name, value in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    write_tensors(path, tensors, {CLASSIFIER_KEY: header.model_dump_json()})


def load_classifier(path: Path) -> TrainedClassifier:
    """Open a classifier's file or run folder.

    Raises:
        WeightsError: Missing, damaged, of another format, or of something else than a classifier.
    """
    file = path / WEIGHTS if path.is_dir() else path
    metadata, tensors = read_tensors(file)
    if CLASSIFIER_KEY not in metadata:
        found = "a generator's weights" if METADATA_KEY in metadata else "no header of a classifier"
        raise WeightsError(f"'{file}' holds {found}.", "Give weights of `us-i2v train-classifier`.")
    header = _header(metadata[CLASSIFIER_KEY], file)
    given = {name.removeprefix(PREFIX): value for name, value in tensors.items()}

    def build() -> Classifier:
        return build_classifier(header.model, len(header.classes))

    # Names and shapes first: a damaged header may ask for gigabytes.
    check_shapes(without_memory(build, str(file)), given, file)
    network = fill(build(), given, file)
    network.eval().requires_grad_(False)
    return TrainedClassifier(header, network, hashlib.sha256(file.read_bytes()).hexdigest(), file)


def _header(text: str, file: Path) -> ClassifierHeader:
    try:
        values = json.loads(text)
        version = values.get("format_version")
        if version != FORMAT_VERSION:
            raise WeightsError(
                f"'{file}' has classifier format {version!r}; this version of us-i2v reads {FORMAT_VERSION}.",
                "Install the version of us-i2v that wrote it, or train again.",
            )
        return ClassifierHeader.model_validate(values)
    except (ValueError, AttributeError, RecursionError) as error:
        words = str(error).splitlines()[0]
        raise WeightsError(f"'{file}' has a damaged header ({words}).", "Train it again.") from error


def spread_windows(sampler: ClipSampler, clip: StoredClip, interval: float, count: int) -> list[tuple[int, int]]:
    """Return (start, stride) of up to `count` windows, evenly from a clip's first frame to its last.

    Args:
        sampler: Knows the length of windows and the allowed strides.
        clip: A clip that is long enough.
        interval: Wanted time between frames in seconds; the nearest allowed stride is taken.
        count: Windows; they overlap where the clip is short, and one is the middle one.
    """
    stride = min(sampler.strides(clip), key=lambda s: (abs(s * clip.interval - interval), s))
    last = clip.n_frames - 1 - (sampler.length - 1) * stride
    count = min(count, last + 1)
    starts = [last / 2] if count == 1 else np.linspace(0, last, count)
    return [(round(float(start)), stride) for start in starts]


@torch.no_grad()
def video_probabilities(
    network: nn.Module, sampler: ClipSampler, clip: StoredClip, interval: float, count: int
) -> npt.NDArray[np.float64]:
    """Return the mean class probabilities over a clip's windows, (K,).

    Args:
        network: In evaluation mode.
        sampler: See `spread_windows`.
        clip: A clip of `sampler.clips`.
        interval: See `spread_windows`.
        count: Windows.
    """
    device = next(network.parameters()).device
    rows = spread_windows(sampler, clip, interval, count)
    found = []
    for first in range(0, len(rows), BATCH):
        frames = np.stack([sampler.load(clip, start, stride).frames for start, stride in rows[first : first + BATCH]])
        logits = network(torch.from_numpy(frames)[:, None].to(device))
        found.append(logits.double().softmax(-1).cpu().numpy())
    mean: npt.NDArray[np.float64] = np.concatenate(found).mean(0)
    return mean
