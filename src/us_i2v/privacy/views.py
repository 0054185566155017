"""Clips as the privacy filter sees them: cut into windows, each as a few small pictures and a latent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from us_i2v.data.duplicates import SIDE
from us_i2v.data.transforms import resize

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from us_i2v.data.training_clips import ClipsConfig, StoredClip
    from us_i2v.models.autoencoder import Autoencoder
    from us_i2v.types import Frames

FRAMES = 3
"""Pictures of a window."""


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

    def part(self, first: int, last: int) -> Views:
        """Return windows first .. last - 1."""
        rows = slice(first, last)
        return Views(
            self.pictures[rows], self.latents[rows], self.has_latent[rows], self.clips[rows], self.groups[rows]
        )


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
