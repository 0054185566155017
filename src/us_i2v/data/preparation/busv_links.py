"""Which videos belong together: shared frames, near-duplicate frames, and what the erratum says."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from us_i2v.data.clips import open_clip
from us_i2v.data.datasets.busv import own_group
from us_i2v.data.decoding.folders import frame_files
from us_i2v.data.duplicates import SAME, Fingerprint, components, find_pairs, fingerprint, is_blank
from us_i2v.data.stills import read_still

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from us_i2v.data.datasets.busv_erratum import Video
    from us_i2v.types import Size

_PROBES = 3


@dataclass(frozen=True)
class ReadVideo:
    """A video whose frames have been looked at.

    Attributes:
        video: What it is.
        files: Its frames in natural order.
        size: (height, width) of all frames.
        digests: SHA-256 of each frame's file.
        prints: Fingerprints of the first, the middle and the last frame.
    """

    video: Video
    files: tuple[Path, ...]
    size: Size
    digests: tuple[str, ...]
    prints: tuple[Fingerprint, ...]


class VideoLink(NamedTuple):
    """Two videos, by index, that belong together.

    Attributes:
        first: The one.
        second: The other; larger.
        shared: Number of different frames that are in both, byte for byte.
        similarity: Of their most similar probe frames, 0 if below the threshold of `duplicates`.
    """

    first: int
    second: int
    shared: int
    similarity: float

    @property
    def same_picture(self) -> bool:
        """Whether a picture of the one occurs in the other."""
        return self.shared > 0 or self.similarity >= SAME

    @property
    def reason(self) -> str:
        """The evidence in words."""
        parts = [f"{self.shared} frames in common"] if self.shared else []
        parts += [f"similarity {self.similarity:.2f}"] if self.similarity else []
        return ", ".join(parts)


def read_video(video: Video) -> ReadVideo:
    """Hash all frames and look at three; raises `InputError` if they are no clip or one of the three is damaged."""
    reader = open_clip(video.folder)
    files = tuple(frame_files(video.folder))
    digests = tuple(hashlib.sha256(file.read_bytes()).hexdigest() for file in files)
    probes = sorted({round(place * (len(files) - 1) / (_PROBES - 1)) for place in range(_PROBES)})
    return ReadVideo(video, files, reader.size, digests, tuple(fingerprint(read_still(files[at])) for at in probes))


def find_links(videos: Sequence[ReadVideo], progress: Callable[[int, int, str], None] | None = None) -> list[VideoLink]:
    """Return the pairs of videos that share a frame or have near-duplicate probe frames, in rising order."""
    shared = _shared_frames(videos)
    prints = [entry for video in videos for entry in video.prints]
    owners = [index for index, video in enumerate(videos) for _ in video.prints]
    alike: dict[tuple[int, int], float] = defaultdict(float)
    for pair in find_pairs(prints, sources=owners, progress=progress):
        key = owners[pair.first], owners[pair.second]
        alike[key] = max(alike[key], pair.similarity)
    return [VideoLink(*key, shared.get(key, 0), alike.get(key, 0.0)) for key in sorted({*shared, *alike})]


def group_names(videos: Sequence[ReadVideo], links: Sequence[VideoLink]) -> list[str]:
    """Return the group of every video: linked ones and those of one group in the erratum share it."""
    by_name: dict[str, int] = {}
    pairs = [(link.first, link.second) for link in links]
    for index, entry in enumerate(videos):
        pairs.append((by_name.setdefault(entry.video.group, index), index))
    component = components(len(videos), pairs)
    names: dict[int, str] = {}
    for index, entry in enumerate(videos):
        names.setdefault(component[index], entry.video.group)
    for index, entry in enumerate(videos):
        if entry.video.group != own_group(entry.video.name):
            names[component[index]] = entry.video.group
    return [names[root] for root in component]


def _shared_frames(videos: Sequence[ReadVideo]) -> dict[tuple[int, int], int]:
    """Return how many different frames every two videos share; blank ones do not count."""
    holders: dict[str, dict[int, Path]] = defaultdict(dict)
    for index, video in enumerate(videos):
        for file, digest in zip(video.files, video.digests, strict=True):
            holders[digest].setdefault(index, file)
    counts: dict[tuple[int, int], int] = defaultdict(int)
    for found in holders.values():
        if len(found) > 1 and not is_blank(fingerprint(read_still(next(iter(found.values()))))):
            indices = sorted(found)
            for place, first in enumerate(indices):
                for second in indices[place + 1 :]:
                    counts[first, second] += 1
    return dict(counts)
