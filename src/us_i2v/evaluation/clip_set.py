"""What a set of compared clips is, their two sizes, and two sets made of others: some clips, and frame 0 repeated.

Conventions
    Compared clips are gray uint8 (T, S, S): the whole picture stretched to the evaluation size S (bars or cuts
    would differ from source to source). `crop` gives the middle 112 x 112 pixels at native size, where speckle
    is still resolved, or None where a picture is smaller.
    A set knows names, groups (patients: never divided) and sources (data sets); nothing is kept in memory but
    these and the clip that was read last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from us_i2v.data.transforms import Fit, fit_frames

if TYPE_CHECKING:
    from collections.abc import Sequence

    from us_i2v.types import Frames

CROP = 112
"""Side of the native-size crop in pixels."""


class ClipSet(Protocol):
    """Clips that can be measured, one at a time.

    Attributes:
        names: Name of each clip, unique within the set.
        groups: What is never divided: the patient, else the recording.
        sources: Data set that each clip comes from.
    """

    @property
    def names(self) -> Sequence[str]: ...  # noqa: D102

    @property
    def groups(self) -> Sequence[str]: ...  # noqa: D102

    @property
    def sources(self) -> Sequence[str]: ...  # noqa: D102

    def __len__(self) -> int: ...  # noqa: D105

    def frames(self, index: int) -> Frames:
        """Return clip `index` at the evaluation size, uint8 (T, S, S)."""
        ...

    def crop(self, index: int) -> Frames | None:
        """Return its middle at native size, uint8 (T, 112, 112), or None if it is smaller."""
        ...


class Some:
    """Some of the clips of a set, in the given order."""

    def __init__(self, clips: ClipSet, indices: Sequence[int]) -> None:
        self.clips, self.indices = clips, list(indices)
        self.names = [clips.names[i] for i in indices]
        self.groups = [clips.groups[i] for i in indices]
        self.sources = [clips.sources[i] for i in indices]

    def __len__(self) -> int:
        """Number of clips."""
        return len(self.indices)

    def frames(self, index: int) -> Frames:
        """See `ClipSet.frames`."""
        return self.clips.frames(self.indices[index])

    def crop(self, index: int) -> Frames | None:
        """See `ClipSet.crop`."""
        return self.clips.crop(self.indices[index])


class Repeated:
    """Frame 0 of each clip of another set, repeated: the trivial answer."""

    def __init__(self, real: ClipSet) -> None:
        self.real = real
        self.names, self.groups, self.sources = list(real.names), list(real.groups), list(real.sources)

    def __len__(self) -> int:
        """Number of clips."""
        return len(self.real)

    def frames(self, index: int) -> Frames:
        """See `ClipSet.frames`."""
        return _repeat_first(self.real.frames(index))

    def crop(self, index: int) -> Frames | None:
        """See `ClipSet.crop`."""
        crop = self.real.crop(index)
        return None if crop is None else _repeat_first(crop)


def at_size(frames: Frames, size: int) -> Frames:
    """Stretch gray frames (T, H, W) to (T, size, size), antialiased."""
    return fit_frames(frames, Fit("stretch", size))[0]


def middle(frames: Frames) -> Frames | None:
    """Return the middle 112 x 112 pixels of gray frames (T, H, W); None if they are smaller."""
    height, width = frames.shape[1:]
    if min(height, width) < CROP:
        return None
    top, left = (height - CROP) // 2, (width - CROP) // 2
    return np.ascontiguousarray(frames[:, top : top + CROP, left : left + CROP])


def _repeat_first(frames: Frames) -> Frames:
    return np.repeat(frames[:1], len(frames), axis=0)
