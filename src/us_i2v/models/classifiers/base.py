"""What all classifiers share: their configuration, their input, and how channels are scaled down.

A classifier maps a window of gray frames, (B, 1, T, S, S) in 0..1, to logits (B, K). The published networks take
RGB: gray is repeated to three channels and standardised, x = (v - mean) / sd, with ImageNet's numbers unless
pretrained weights bring others. Mean and sd are buffers and travel with the weights.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

import torch
from pydantic import Field
from torch import Tensor, nn

from us_i2v.config import Config

if TYPE_CHECKING:
    from collections.abc import Sequence

ClassifierName = Literal["c3d", "tsm", "tdn", "atm"]
NAMES: tuple[str, ...] = get_args(ClassifierName)

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_SD = (0.229, 0.224, 0.225)
MULTIPLE = 8
"""Scaled channel counts are multiples of this."""


class ClassifierConfig(Config):
    """Which classifier, and how large."""

    name: ClassifierName = Field("tsm", description="c3d, tsm, tdn or atm.")
    width: float = Field(1.0, gt=0, le=1, description="Factor on all channels; 1 is the published network.")
    size: int | None = Field(None, ge=64, le=512, description="Side of the frames in pixels; empty: the paper's.")
    n_frames: int = Field(16, ge=16, le=64, description="Frames of a window.")
    segments: int = Field(8, ge=2, le=32, description="Parts of a window of which tsm, tdn and atm see one each.")
    dropout: float | None = Field(
        None, ge=0, lt=1, description="Before the last layer, for atm of whole branches; empty: the paper's."
    )


class Standardise(nn.Module):
    """Gray 0..1 to standardised RGB."""

    mean: Tensor
    sd: Tensor

    def __init__(self, mean: Sequence[float] = IMAGENET_MEAN, sd: Sequence[float] = IMAGENET_SD) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("sd", torch.tensor(sd))

    def forward(self, video: Tensor) -> Tensor:
        """(B, 1, T, S, S) -> (B, 3, T, S, S)."""
        return (video - self.mean[:, None, None, None]) / self.sd[:, None, None, None]


class Classifier(nn.Module, ABC):
    """A classifier of windows.

    Args:
        config: See `ClassifierConfig`.
        n_classes: K.
        size: Side of the frames.
    """

    last_layer: ClassVar[str] = "fc"
    """Name of the last layer, which pretrained weights of other classes do not fill."""

    def __init__(self, config: ClassifierConfig, n_classes: int, size: int) -> None:
        super().__init__()
        self.config, self.n_classes, self.size = config, n_classes, size
        self.standardise = Standardise()

    @abstractmethod
    def logits(self, video: Tensor) -> Tensor:
        """Standardised RGB (B, 3, T, S, S) -> (B, K)."""

    def forward(self, video: Tensor) -> Tensor:
        """Gray (B, 1, T, S, S) in 0..1 -> logits (B, K)."""
        return self.logits(self.standardise(video))


def scaled(channels: int, width: float) -> int:
    """Return a channel count times the width, as a multiple of `MULTIPLE`; unchanged for width 1."""
    return channels if width == 1 else max(MULTIPLE, round(channels * width / MULTIPLE) * MULTIPLE)


def segment_starts(frames: int, segments: int, length: int = 1) -> list[int]:
    """Return where the middle snippet of `length` frames of each of `segments` equal parts begins.

        start_k = floor((k + 1/2) (frames - length + 1) / segments)

    Snippets of more than one frame overlap where frames are few. Source: sparse sampling at test time, Wang et al.
    2016 (TSN).
    """
    return [int((k + 0.5) * (frames - length + 1) / segments) for k in range(segments)]


def take_segments(video: Tensor, segments: int) -> Tensor:
    """(B, C, T, S, S) -> the middle frame of each segment, folded: (B*segments, C, S, S)."""
    frames = video[:, :, segment_starts(video.shape[2], segments)]
    return frames.transpose(1, 2).flatten(0, 1)


def average_segments(logits: Tensor, segments: int) -> Tensor:
    """(B*segments, K) -> their mean over segments, (B, K)."""
    return logits.reshape(-1, segments, logits.shape[-1]).mean(1)
