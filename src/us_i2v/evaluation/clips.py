"""Sets of clips to compare: real windows, generated fakes, repeated first frames; read one at a time.

Conventions
    Compared clips are gray uint8 (T, S, S): the whole picture stretched to the evaluation size S (bars or cuts
    would differ from source to source). `crop` gives the middle 112 x 112 pixels at native size, where speckle
    is still resolved, or None where a picture is smaller.
    A set knows names, groups (patients: never divided) and sources (data sets); nothing is kept in memory but
    these and the clip that was read last.
    Which frames of a file are a clip: `evaluation.windows`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Protocol

import numpy as np

from us_i2v.data.clips import open_clip
from us_i2v.data.repeats import distinct_indices
from us_i2v.data.transforms import Fit, fit_frames, to_gray
from us_i2v.errors import DataError
from us_i2v.evaluation.windows import Entry, WindowRule, clip_name, list_samples, spread, windows
from us_i2v.pipeline import GenerateOptions
from us_i2v.seeding import derive_seed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from us_i2v.data.manifest import Sample
    from us_i2v.pipeline import GeneratedClip
    from us_i2v.types import Frames, Image
    from us_i2v.weights import Header

__all__ = [
    "BLANK",
    "CROP",
    "ClipSet",
    "Entry",
    "Generated",
    "RealWindows",
    "Repeated",
    "WindowRule",
    "at_size",
    "list_samples",
    "middle",
]

CROP = 112
"""Side of the native-size crop in pixels."""

BLANK = 5.0
"""Mean gray level below which a real window's first frame shows nothing (some recordings begin black)."""


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


class _Entries:
    """What sets of stored windows share."""

    def __init__(self, entries: Sequence[Entry], rule: WindowRule) -> None:
        self.entries, self.rule = tuple(entries), rule
        self._kept: tuple[int, Frames] | None = None

    @property
    def names(self) -> list[str]:
        """See `ClipSet`."""
        return [entry.name for entry in self.entries]

    @property
    def groups(self) -> list[str]:
        """See `ClipSet`."""
        return [entry.group for entry in self.entries]

    @property
    def sources(self) -> list[str]:
        """See `ClipSet`."""
        return [entry.source for entry in self.entries]

    def __len__(self) -> int:
        """Number of clips."""
        return len(self.entries)

    def native(self, index: int) -> Frames:
        """Return clip `index` at its own size, gray uint8 (T, H, W)."""
        if self._kept is None or self._kept[0] != index:
            entry = self.entries[index]
            self._kept = (index, to_gray(open_clip(entry.path).read(entry.indices)))
        return self._kept[1]

    def frames(self, index: int) -> Frames:
        """See `ClipSet.frames`."""
        return at_size(self.native(index), self.rule.size)

    def crop(self, index: int) -> Frames | None:
        """See `ClipSet.crop`."""
        return middle(self.native(index))


class RealWindows(_Entries):
    """Windows of real clips.

    Args:
        samples: (source, sample) pairs; stills among them are left out.
        rule: How they are cut.
        root: Folder to which names are relative.
        progress: Called with (clips done, all clips, name).

    Attributes:
        skipped: Clip -> why it gives no window (too short, or it begins black).

    Raises:
        DataError: No window is left.
        InputError: A clip cannot be read.
    """

    def __init__(
        self,
        samples: Sequence[tuple[str, Sample]],
        rule: WindowRule | None = None,
        *,
        root: Path | None = None,
        progress: Callable[[int, int, str], None] | None = None,
    ) -> None:
        rule = rule or WindowRule()
        self.skipped: dict[str, str] = {}
        entries: list[Entry] = []
        clips = [(source, sample) for source, sample in samples if sample.kind == "clip"]
        for done, (source, sample) in enumerate(clips):
            entries += self._cut(source, sample, rule, root)
            if progress is not None:
                progress(done + 1, len(clips), sample.path.name)
        if not entries:
            why = next(iter(self.skipped.values()), "there are no clips")
            raise DataError(
                f"None of {len(clips)} clips gives a window of {rule.length} frames ({why}).",
                "Lower --stride or --length, or give longer clips.",
            )
        super().__init__(entries, rule)

    @classmethod
    def of(
        cls,
        paths: Sequence[Path],
        rule: WindowRule | None = None,
        *,
        split: str | None = None,
        progress: Callable[[int, int, str], None] | None = None,
    ) -> RealWindows:
        """Cut the clips of folders, manifests or files, of any known layout.

        With several paths each is a source; with one, its immediate subfolders are, if there are several.

        Args:
            paths: What to read.
            rule: See `RealWindows`.
            split: Take only clips of this split.
            progress: See `RealWindows`.

        Raises:
            DataError: A path holds no clips, or none of that split.
            InputError: A clip cannot be read.
        """
        samples, root = list_samples(paths, split)
        return cls(samples, rule, root=root, progress=progress)

    def _cut(self, source: str, sample: Sample, rule: WindowRule, root: Path | None) -> list[Entry]:
        reader = open_clip(sample.path, sample.fps)
        name = clip_name(sample.path, root)
        whole = reader.n_frames == rule.length
        kept = distinct_indices(reader) if rule.drop_repeats and not whole else list(range(reader.n_frames))
        fps = reader.fps * len(kept) / reader.n_frames
        chosen = spread(windows(len(kept), fps, rule, whole=whole), rule.per_clip)
        if not chosen:
            self.skipped[name] = f"'{name}' has {len(kept)} distinct frames"
            return []
        found = []
        for window in chosen:
            indices = tuple(kept[index] for index in window.indices)
            if self.shows_nothing(reader.read(indices[:1])[0]):
                self.skipped[name] = f"'{name}' begins with a black frame"
                continue
            found.append(
                Entry(
                    name=f"{name}@{indices[0]}" if rule.per_clip > 1 and not whole else name,
                    group=sample.group,
                    source=source,
                    path=sample.path,
                    indices=indices,
                    interval_s=1 / fps if window.dt_s is None else window.dt_s,
                    native=reader.size,
                )
            )
        return found

    def shows_nothing(self, first: Image) -> bool:
        """Tell whether a window that begins with this frame is left out."""
        return float(to_gray(first[None])[0].mean()) < BLANK


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
        shortest, longest = self.generator.info.interval_range_s
        rate = min(max(own, 0.5 / longest), 2 / shortest)
        return (own, False) if self.options.fps is not None else (rate, rate != own)


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
