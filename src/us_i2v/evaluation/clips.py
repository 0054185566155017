"""Windows of real clips as a set to compare; the other sets are at hand here too.

`clip_set` says what a set is and has first frames repeated, `answers` the clips that weights make, `windows` which
frames of a file are a clip. One clip is in memory at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from us_i2v.data.clips import open_clip
from us_i2v.data.repeats import distinct_indices
from us_i2v.data.transforms import to_gray
from us_i2v.errors import DataError
from us_i2v.evaluation.answers import Answers, Generated, Generator
from us_i2v.evaluation.clip_set import CROP, ClipSet, Repeated, at_size, middle
from us_i2v.evaluation.windows import Entry, WindowRule, clip_name, list_samples, spread, windows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from us_i2v.data.manifest import Sample
    from us_i2v.types import Frames, Image

__all__ = [
    "BLANK",
    "CROP",
    "Answers",
    "ClipSet",
    "Entry",
    "Generated",
    "Generator",
    "RealWindows",
    "Repeated",
    "WindowRule",
    "at_size",
    "list_samples",
    "middle",
]

BLANK = 5.0
"""Mean gray level below which a real window's first frame shows nothing (some recordings begin black)."""


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
