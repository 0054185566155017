"""Sets of clips in memory, and a feature extractor without a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from us_i2v.types import Frames

SIDE, FRAMES = 64, 16


@dataclass
class Arrays:
    """A `ClipSet` of arrays; records which clips were read."""

    clips: list[Frames]
    names: list[str]
    groups: list[str]
    sources: list[str]
    crops: bool = False
    read: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.clips)

    def frames(self, index: int) -> Frames:
        self.read.append(index)
        return self.clips[index]

    def crop(self, index: int) -> Frames | None:
        return self.clips[index] if self.crops else None

    def reordered(self, order: Sequence[int]) -> Arrays:
        def pick(values: list) -> list:
            return [values[k] for k in order]

        return Arrays(pick(self.clips), pick(self.names), pick(self.groups), pick(self.sources), self.crops)

    def changed(self, change) -> Arrays:
        """The same set with `change(clip, index)` in place of every clip."""
        clips = [change(clip, index) for index, clip in enumerate(self.clips)]
        return Arrays(clips, self.names, self.groups, self.sources, self.crops)


def drifting(seed: int, side: int = SIDE, frames: int = FRAMES) -> Frames:
    """Speckle that moves steadily and changes a little; brightness, speed and direction depend on the seed."""
    rng = np.random.default_rng(seed)
    base = ndimage.gaussian_filter(rng.standard_normal((side, side)), 1.2)
    base /= base.std()
    step = rng.uniform(-0.7, 0.7, 2)
    level, noise = rng.uniform(90, 140), rng.uniform(0.05, 0.15)
    out = []
    for t in range(frames):
        fresh = ndimage.gaussian_filter(rng.standard_normal((side, side)), 1.2) * (t > 0)
        out.append(ndimage.shift(base, t * step, order=1, mode="wrap") + noise * fresh / max(fresh.std(), 1e-9))
    return np.clip(level + 30 * np.stack(out), 0, 255).astype(np.uint8)


def real_set(count: int = 24, per_group: int = 2, sources: int = 1) -> Arrays:
    """`count` clips, `per_group` a patient, in equal parts from each source."""
    clips = [drifting(k) for k in range(count)]
    groups = [f"p{k // per_group:02d}" for k in range(count)]
    names = [f"clip{k:02d}" for k in range(count)]
    return Arrays(clips, names, groups, [f"source{k * sources // count}" for k in range(count)])


def frozen(clip: Frames, index: int) -> Frames:
    return np.repeat(clip[:1], len(clip), axis=0)


def shuffled(clip: Frames, index: int) -> Frames:
    """Frame 0 stays, the others change places."""
    order = np.random.default_rng(index).permutation(len(clip) - 1) + 1
    return clip[[0, *order]]


def noisy(sd: float):
    def change(clip: Frames, index: int) -> Frames:
        noise = sd * np.random.default_rng(1000 + index).standard_normal(clip.shape)
        noise[0] = 0
        return np.clip(clip + noise, 0, 255).round().astype(np.uint8)

    return change


@dataclass(frozen=True)
class Statistics:
    """Six numbers a clip (or a frame): brightness, contrast, fine texture and how they change."""

    label: str = "FVD-Test"
    description: str = "six statistics, no resize"
    dimensions: int = 6
    least_frames: int = 2
    per_frame: bool = False

    def features(self, clips: Sequence[Frames]) -> npt.NDArray[np.float64]:
        rows = [self._frames(clip) if self.per_frame else self._clip(clip)[None] for clip in clips]
        return np.concatenate(rows) if rows else np.zeros((0, self.dimensions))

    def _clip(self, clip: Frames) -> npt.NDArray[np.float64]:
        video = clip.astype(np.float64)
        steps, changes = np.abs(np.diff(video, axis=0)), np.abs(video - video[0])
        fine = np.abs(np.diff(video, axis=2)).mean()
        second = np.abs(np.diff(video, 2, axis=0)).mean()
        return np.array([video.mean() / 20, video.std() / 10, fine / 5, steps.mean(), changes.mean(), second])

    def _frames(self, clip: Frames) -> npt.NDArray[np.float64]:
        video = clip.astype(np.float64)
        rows = [[f.mean(), f.std(), f.min(), f.max(), np.median(f), f[0, 0]] for f in video]
        return np.array(rows)
