"""Clips that something makes for the first frames of real windows, to be compared with what those show.

A clip depends on a base seed, its window's name and its number alone. Conventions: `evaluation.clip_set`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Protocol

from us_i2v.data.transforms import to_gray
from us_i2v.evaluation.clip_set import at_size, middle
from us_i2v.options import nearest_rate
from us_i2v.pipeline import GenerateOptions
from us_i2v.seeding import derive_seed

if TYPE_CHECKING:
    from us_i2v.evaluation.clips import RealWindows
    from us_i2v.pipeline import GeneratedClip
    from us_i2v.types import Frames, Image
    from us_i2v.weights import Header


class Generator(Protocol):
    """The part of `pipeline.ImageToVideo` that is used here."""

    info: Header

    def __call__(
        self, image: Image, *, seed: int = 0, num_clips: int = 1, options: GenerateOptions | None = None
    ) -> list[GeneratedClip]:
        """Make clips of a still."""
        ...


class Answers(ABC):
    """Clips made for the first frame of each real window, at that window's own size; several can be had of each.

    Args:
        real: The windows.
        seed: Base seed: a clip depends on it, on the window's name and on the sample's number only.
    """

    stream = "evaluate"
    """Name of the random stream, so that different makers share no numbers."""

    def __init__(self, real: RealWindows, seed: int = 0) -> None:
        self.real, self.seed = real, seed
        self.names, self.groups, self.sources = real.names, real.groups, real.sources
        self._kept: tuple[int, int, Frames] | None = None

    @abstractmethod
    def make(self, index: int, seed: int) -> Frames:
        """Return a clip for window `index` at its own size, gray uint8 (T, H, W)."""

    def __len__(self) -> int:
        """Number of clips."""
        return len(self.real)

    def native(self, index: int, sample: int = 0) -> Frames:
        """Return sample `sample` for window `index` at its own size, gray uint8 (T, H, W)."""
        if self._kept is None or self._kept[:2] != (index, sample):
            seed = derive_seed(self.seed, self.stream, self.names[index], sample) % 2**31
            self._kept = (index, sample, self.make(index, seed))
        return self._kept[2]

    def sample(self, index: int, number: int) -> Frames:
        """Return sample `number` for window `index` at the evaluation size, uint8 (T, S, S)."""
        return at_size(self.native(index, number), self.real.rule.size)

    def frames(self, index: int) -> Frames:
        """See `ClipSet.frames`."""
        return self.sample(index, 0)

    def crop(self, index: int) -> Frames | None:
        """See `ClipSet.crop`."""
        return middle(self.native(index))


class Generated(Answers):
    """Clips that weights make, at each real window's own frame rate.

    Args:
        real: The windows.
        generator: Makes clips of stills.
        options: How; a frame rate given here holds for all clips.
        seed: See `Answers`.

    Attributes:
        retimed: How many windows have a frame rate outside of what the weights know; their clips are made at
            the nearest one that they do know.
    """

    def __init__(
        self, real: RealWindows, generator: Generator, options: GenerateOptions | None = None, seed: int = 0
    ) -> None:
        super().__init__(real, seed)
        self.generator, self.options = generator, options or GenerateOptions()
        self.retimed = sum(self._rate(index)[1] for index in range(len(real)))

    def make(self, index: int, seed: int) -> Frames:
        """See `Answers.make`."""
        length = min(self.options.frames, self.real.rule.length)
        options = self.options.model_copy(update={"fps": self._rate(index)[0], "frames": length})
        (clip,) = self.generator(self.real.native(index)[0], seed=seed, num_clips=1, options=options)
        return to_gray(clip.frames)

    def _rate(self, index: int) -> tuple[float, bool]:
        """Return the frame rate for a window, and whether it is another than the window's own."""
        own = self.options.fps or 1 / self.real.entries[index].interval_s
        rate = nearest_rate(own, self.generator.info.interval_range_s)
        return (own, False) if self.options.fps is not None else (rate, rate != own)
