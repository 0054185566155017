"""One codec for all clips that a classifier sees, so that it cannot tell real from synthetic by compression.

Real clips bear the marks of their scanners' and archives' codecs, synthetic ones those of the writer that wrote them.
After fitting, every clip therefore goes through H.264 once more, at one quality, one nominal rate and one size. A
coded clip begins with a frame that is coded alone and looks different; synthetic clips would always show theirs, real
ones almost never. So the clip's first frames, played backwards, are coded in front of it and thrown away, and no
later frame is coded alone.
"""

from __future__ import annotations

import dataclasses
import subprocess
from typing import TYPE_CHECKING

import numpy as np

from us_i2v.data.atomic import publish, temporary_beside
from us_i2v.data.decoding.ffmpeg import ffmpeg_exe
from us_i2v.data.training_clips import store_clips
from us_i2v.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from us_i2v.data.manifest import Sample
    from us_i2v.data.training_clips import ClipsConfig, StoredClip
    from us_i2v.types import Frames

LEAD = 8
"""Frames coded in front of a clip and thrown away."""
_VERSION = 1
_RATE = "25"
_QUIET = ("-hide_banner", "-nostdin", "-v", "error", "-threads", "1")


def store_alike(
    samples: Sequence[tuple[str, Sample]],
    cache: Path,
    size: int,
    config: ClipsConfig,
    crf: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[StoredClip]:
    """Decode, fit and cache clips as `store_clips` does, then put all of them through one codec.

    Args:
        samples: See `store_clips`; also `cache`, `size`, `config` and `progress`.
        cache: Folder of the cache.
        size: Side of the frames.
        config: Fit policy and whether repeated frames are dropped.
        crf: Constant rate factor of H.264, 1..51; 0 leaves clips as they are.
        progress: Called with (done, total).

    Returns:
        Stored clips in the order of `samples`.
    """
    stored = store_clips(samples, cache, size, config, progress)
    return stored if crf == 0 else [_recoded(clip, crf) for clip in stored]


def through_codec(frames: Frames, crf: int) -> Frames:
    """Encode gray frames as H.264 and decode them again: (T, H, W) uint8 -> same.

    Raises:
        OutputError: ffmpeg fails.
    """
    lead = frames[1 : LEAD + 1][::-1]
    given = np.concatenate([lead, frames])
    height, width = frames.shape[1:]
    raw = ("-f", "rawvideo", "-pix_fmt", "gray")
    coded = _ffmpeg(
        (*raw, "-video_size", f"{width}x{height}", "-framerate", _RATE, "-i", "pipe:0"),
        ("-c:v", "libx264", "-pix_fmt", "gray", "-crf", str(crf), "-preset", "veryfast"),
        ("-x264-params", "keyint=infinite:scenecut=0", "-threads", "1", "-f", "matroska", "pipe:1"),
        given=given.tobytes(),
    )
    # A plain gray stream is stored and read back without a change of range.
    decoded = _ffmpeg(("-f", "matroska", "-i", "pipe:0"), ("-fps_mode", "passthrough", *raw, "pipe:1"), given=coded)
    if len(decoded) != given.size:
        raise OutputError(f"ffmpeg gave {len(decoded)} bytes back for {given.size}.", "Use another crf, or 0.")
    return np.frombuffer(decoded, np.uint8).reshape(given.shape)[len(lead) :]


def _recoded(clip: StoredClip, crf: int) -> StoredClip:
    path = clip.frames.with_name(f"{clip.frames.stem}-crf{crf}-v{_VERSION}.npy")
    if not path.exists():
        frames = through_codec(np.load(clip.frames, mmap_mode="r", allow_pickle=False), crf)
        with temporary_beside(path) as part:
            np.save(part, frames)
            publish(part, path)
    return dataclasses.replace(clip, frames=path)


def _ffmpeg(*options: tuple[str, ...], given: bytes) -> bytes:
    command = [ffmpeg_exe(), *_QUIET, *(text for group in options for text in group)]
    done = subprocess.run(command, input=given, capture_output=True, check=False)
    if done.returncode != 0:
        words = done.stderr.decode("utf-8", "replace").strip().splitlines() or [f"exit status {done.returncode}"]
        raise OutputError(f"ffmpeg could not code a clip ({words[0][:160]}).", "Set crf to 0.")
    return done.stdout
