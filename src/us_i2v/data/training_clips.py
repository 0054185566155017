"""Training clips: a disk cache of fitted frames, and windows drawn from it.

Videos are decoded once, fitted to the model's square, converted to gray and kept as memory-mapped uint8
files, so that a training step touches only the frames it needs and memory does not grow with the data set.
Which windows a step sees is a function of (seed, step, position), so that a resumed run replays it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from us_i2v.config import Config
from us_i2v.data.atomic import publish, temporary_beside, write_bytes
from us_i2v.data.clips import ClipReader, open_clip
from us_i2v.data.repeats import distinct_indices
from us_i2v.data.splits import check_disjoint, split_by_group
from us_i2v.data.transforms import Fit, Policy, fit_frames, to_gray
from us_i2v.errors import DataError
from us_i2v.seeding import derive_seed, numpy_generator

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from us_i2v.data.manifest import Sample
    from us_i2v.types import FloatArray

_CACHE_VERSION = 2
FLOW_STRIDE = 4


class ClipsConfig(Config):
    """Which windows of which frames are drawn."""

    fit: Policy = Field("stretch", description="How frames are fitted to the model's square.")
    stride: int | None = Field(None, ge=1, description="Frame stride; 3 is the paper's. Empty: by time.")
    dt_ms: tuple[float, float] = Field((40.0, 125.0), description="Range of time between frames, if by time.")
    drop_repeats: bool = Field(True, description="Drop repeated frames before windowing.")
    flip: bool = Field(True, description="Mirror left-right at random.")
    reverse: bool = Field(True, description="Play backwards at random.")
    brightness: float = Field(0.1, ge=0, le=0.5, description="Random change of gray scale (gain), +- this.")
    validation: float = Field(0.2, ge=0, lt=1, description="Share of groups held out, if no split is given.")


@dataclass(frozen=True)
class StoredClip:
    """One decoded video in the cache."""

    name: str
    frames: Path
    flow: Path | None
    n_frames: int
    interval: float
    label: str | None
    group: str
    source: str
    sha256: str


@dataclass(frozen=True)
class Window:
    """One training item: frames float32 (T, S, S) in 0..1, and what is known about them."""

    frames: FloatArray
    flow: FloatArray | None
    interval: float
    label: str | None
    name: str


def store_clips(
    samples: Sequence[tuple[str, Sample]],
    cache: Path,
    size: int,
    config: ClipsConfig,
    progress: Callable[[int, int], None] | None = None,
) -> list[StoredClip]:
    """Decode, fit and cache every clip of `samples` (pairs of source name and sample).

    Args:
        samples: Clips; stills are ignored.
        cache: Folder of the cache; finished clips in it are reused.
        size: Side of the model's square in pixels.
        config: Fit policy and whether repeated frames are dropped.
        progress: Called with (done, total).

    Returns:
        Stored clips with at least two frames, in the order of `samples`.
    """
    cache.mkdir(parents=True, exist_ok=True)
    clips = [(source, sample) for source, sample in samples if sample.kind == "clip"]
    stored = []
    for done, (source, sample) in enumerate(clips):
        stored.append(_store(source, sample, cache, size, config))
        if progress is not None:
            progress(done + 1, len(clips))
    return stored


def _store(source: str, sample: Sample, cache: Path, size: int, config: ClipsConfig) -> StoredClip:
    reader = open_clip(sample.path)
    sha256 = reader.source_hash()
    key = f"{sha256[:20]}-{size}-{config.fit}-{int(config.drop_repeats)}-v{_CACHE_VERSION}"
    frames_path, flow_path, meta_path = (cache / f"{key}{end}" for end in (".npy", ".flow.npy", ".json"))
    if not meta_path.exists():
        indices = distinct_indices(reader) if config.drop_repeats else list(range(reader.n_frames))
        fps = (sample.fps or reader.fps) * len(indices) / reader.n_frames
        _write_frames(reader, indices, frames_path, Fit(policy=config.fit, size=size))
        _write_flow(sample.path, flow_path, size)
        meta = {"n_frames": len(indices), "interval": 1.0 / fps}
        write_bytes(meta_path, json.dumps(meta).encode())
    meta = json.loads(meta_path.read_text(encoding="utf-8"))
    return StoredClip(
        name=sample.path.name,
        frames=frames_path,
        flow=flow_path if flow_path.exists() else None,
        n_frames=int(meta["n_frames"]),
        interval=float(meta["interval"]),
        label=sample.label,
        group=sample.group,
        source=source,
        sha256=sha256,
    )


def _write_frames(reader: ClipReader, indices: list[int], path: Path, fit: Fit) -> None:
    wanted = {index: place for place, index in enumerate(indices)}
    shape = (len(indices), fit.size, fit.size)
    with temporary_beside(path) as part:
        out = np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=shape)
        for index, frame in enumerate(reader.frames()):
            if index in wanted:
                fitted, _ = fit_frames(to_gray(frame[None]), fit)
                out[wanted[index]] = fitted[0]
        out.flush()
        del out
        publish(part, path)


def _write_flow(source: Path, path: Path, size: int) -> None:
    """Keep a clip's known flow (array `flow`, (T, 2, S, S) in pixels) at 1/4 of the model's size."""
    if source.suffix != ".npz":
        return
    with np.load(source, allow_pickle=False) as arrays:
        if "flow" not in arrays.files:
            return
        flow = arrays["flow"].astype(np.float32)
    cells = size // FLOW_STRIDE
    if flow.ndim != 4 or flow.shape[1] != 2 or flow.shape[2] != flow.shape[3] or flow.shape[2] % cells:
        raise DataError(
            f"'{source.name}': flow of shape {flow.shape} does not fit a square of {size} px.",
            f"Store it as (T, 2, S, S) with S a multiple of {cells}.",
        )
    block = flow.shape[2] // cells
    pooled = flow.reshape(*flow.shape[:2], cells, block, cells, block).mean(axis=(3, 5)) * (size / flow.shape[2])
    with temporary_beside(path) as part:
        np.save(part, pooled.astype(np.float16))
        publish(part, path)


def split_clips(
    clips: Sequence[StoredClip], splits: Sequence[str | None], config: ClipsConfig, seed: int
) -> tuple[list[StoredClip], list[StoredClip]]:
    """Divide clips into training and validation: by their stated split, else by group, seeded.

    "test" clips are in neither part. Raises `DataError` if no training clip is left, or a group is on both sides.
    """
    if any(splits):
        train = [c for c, s in zip(clips, splits, strict=True) if s in (None, "", "train")]
        held = [c for c, s in zip(clips, splits, strict=True) if s in ("val", "validation")]
    elif config.validation > 0 and len({c.group for c in clips}) > 1:
        items = [(clip.label or clip.source, clip.group) for clip in clips]
        fractions = {"train": 1 - config.validation, "val": config.validation}
        parts = split_by_group(items, fractions, seed)
        train = [clips[k] for k in range(len(clips)) if parts[k] == "train"]
        held = [clips[k] for k in range(len(clips)) if parts[k] == "val"]
    else:
        train, held = list(clips), []
    check_disjoint((c.group for c in train), (c.group for c in held), ("training", "validation"))
    if not train:
        raise DataError("No training clip is left after splitting.", "Add clips or lower the validation share.")
    return train, held


class ClipSampler:
    """Draws windows: first a source (equal shares or `weights`), then a clip, then a window.

    Args:
        clips: Cached clips.
        config: Windowing and augmentation.
        length: Frames a window.
        seed: Base seed; the window at (step, position) is a function of it.
        augment: Mirror, reverse and change brightness at random.
        weights: Relative share by source; missing sources weigh 1.
    """

    def __init__(
        self,
        clips: Sequence[StoredClip],
        config: ClipsConfig,
        *,
        length: int,
        seed: int,
        augment: bool = True,
        weights: dict[str, float] | None = None,
    ) -> None:
        self.config, self.length, self.seed, self.augment = config, length, seed, augment
        self.clips = [clip for clip in clips if self.strides(clip)]
        if not self.clips:
            shortest = min((clip.n_frames for clip in clips), default=0)
            raise DataError(
                f"No clip is long enough: {length} frames at the wanted spacing are needed; "
                f"the shortest has {shortest}.",
                "Lower the stride or dt_ms, or add longer clips.",
            )
        self.sources = sorted({clip.source for clip in self.clips})
        shares = np.array([(weights or {}).get(source, 1.0) for source in self.sources], np.float64)
        self.shares = shares / shares.sum()
        self.by_source = {s: [c for c in self.clips if c.source == s] for s in self.sources}

    def strides(self, clip: StoredClip) -> list[int]:
        """Frame strides that fit the clip and the wanted spacing."""
        longest = (clip.n_frames - 1) // (self.length - 1)
        if self.config.stride is not None:
            return [self.config.stride] if self.config.stride <= longest else []
        low, high = self.config.dt_ms[0] / 1000, self.config.dt_ms[1] / 1000
        fitting = [s for s in range(1, longest + 1) if low * 0.9 <= s * clip.interval <= high * 1.1]
        # A source slower than the range is taken frame by frame.
        return fitting or ([1] if longest >= 1 and clip.interval > high else [])

    def draw(self, step: int, position: int) -> Window:
        """Return the window of batch place `position` in step `step`."""
        rng = numpy_generator(self.seed, "window", step, position)
        source = self.sources[int(rng.choice(len(self.sources), p=self.shares))]
        clips = self.by_source[source]
        clip = clips[int(rng.integers(len(clips)))]
        strides = self.strides(clip)
        stride = strides[int(rng.integers(len(strides)))]
        start = int(rng.integers(clip.n_frames - (self.length - 1) * stride))
        return self._load(clip, start, stride, rng if self.augment else None)

    def grid(self, per_clip: int, stride: int | None = None) -> list[tuple[StoredClip, int, int]]:
        """List (clip, start, stride) of up to `per_clip` evenly spread windows a clip, for measuring."""
        rows = []
        for clip in self.clips:
            strides = self.strides(clip)
            chosen = stride if stride in strides else strides[-1]
            last = clip.n_frames - 1 - (self.length - 1) * chosen
            count = min(per_clip, 1 + last // (self.length * chosen))
            rows += [(clip, int(start), chosen) for start in np.linspace(0, last, count).round()]
        return rows

    def typical_interval(self) -> float:
        """Median time between frames of the windows that are drawn, seconds."""
        intervals = [float(np.median(self.strides(clip))) * clip.interval for clip in self.clips]
        return float(np.median(intervals))

    def interval_range(self) -> tuple[float, float]:
        """Shortest and longest time between frames of the windows that are drawn, seconds."""
        intervals = [stride * clip.interval for clip in self.clips for stride in self.strides(clip)]
        return min(intervals), max(intervals)

    def load(self, clip: StoredClip, start: int, stride: int) -> Window:
        """Return one window as it is."""
        return self._load(clip, start, stride, None)

    def _load(self, clip: StoredClip, start: int, stride: int, rng: np.random.Generator | None) -> Window:
        indices = start + stride * np.arange(self.length)
        stored = np.load(clip.frames, mmap_mode="r", allow_pickle=False)
        frames = stored[indices].astype(np.float32) / 255
        flow: FloatArray | None = None
        if clip.flow is not None and start == 0:
            flow = np.load(clip.flow, mmap_mode="r", allow_pickle=False)[indices].astype(np.float32)
        interval = clip.interval * stride
        if rng is not None:
            frames, flow = self._augment(frames, flow, rng)
        return Window(frames, flow, interval, clip.label, clip.name)

    def _augment(
        self, frames: FloatArray, flow: FloatArray | None, rng: np.random.Generator
    ) -> tuple[FloatArray, FloatArray | None]:
        mirror, reverse = rng.random(2) < 0.5
        gain = 1 + self.config.brightness * rng.uniform(-1, 1)
        if mirror and self.config.flip:
            frames = frames[:, :, ::-1]
            if flow is not None:
                flow = flow[:, :, :, ::-1] * np.array([-1, 1], np.float32)[None, :, None, None]
        if reverse and self.config.reverse and flow is None:  # A known flow starts at frame 0.
            frames = frames[::-1]
        return np.ascontiguousarray(np.clip(frames * gain, 0, 1)), None if flow is None else np.ascontiguousarray(flow)


def batch_seed(seed: int, step: int) -> int:
    """Seed of everything else that a step draws (diffusion times, noise)."""
    return derive_seed(seed, "step", step)
