"""Video files (mp4, mov, avi, mkv, webm, mpeg ...) through the ffmpeg that imageio-ffmpeg brings.

Every coded frame is delivered exactly once (`-fps_mode passthrough`): ffmpeg would otherwise repeat or drop
frames to fill a constant rate. Limited-range video is expanded to 0..255, full-range gray passes unchanged.
Only the listed demuxers and local files are allowed, so that a playlist in disguise opens nothing else.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from threading import Event, Timer
from typing import IO, TYPE_CHECKING

import imageio_ffmpeg
import numpy as np

from us_i2v.data.decoding.base import ClipInfo, as_declared
from us_i2v.data.limits import Deadline, check_frames, limits
from us_i2v.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from us_i2v.types import Image, Size

VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg"})
DEMUXERS = "mov,mp4,m4a,3gp,3g2,mj2,avi,matroska,webm,mpeg,mpegvideo,mpegts"
SWS_FLAGS = "accurate_rnd+full_chroma_int+full_chroma_inp+bitexact"
MAX_ALLOCATION = 512 << 20
"""Largest piece of memory that ffmpeg may ask for, bytes."""
NEUTRAL_SATURATION = 12
"""Chroma up to this distance from gray (of 127) is codec noise: gray clips reach 9, coloured marks 50."""

_STREAM = re.compile(r"Stream #\d+:\d+.*?: Video: (\w+).*?, (\w+)(?=[(,]).*?, (\d{1,5})x(\d{1,5})\b")
_FPS = re.compile(r"([\d.]+k?) (?:fps|tbr)\b")
_SIZE_NOTE = re.compile(r"comment\s*: us-i2v size=(\d+)x(\d+)", re.IGNORECASE)
_HARMLESS = re.compile(r"\bdts\b|timestamp|\bpts\b", re.IGNORECASE)


class FfmpegSource:
    """A video file. `scan` decodes it once, `stream` from its start up to the last frame asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def scan(self) -> ClipInfo:
        """Count the frames, take their times, and find out whether any is coloured."""
        command = [
            *_input(self.path, "level+info"),
            *("-vf", "signalstats,metadata=print:file=-", "-fps_mode", "passthrough", "-f", "null", "-"),
        ]
        deadline, late = Deadline(self.path), Event()
        with tempfile.TemporaryFile() as log, _start(command, log) as process:

            def stop() -> None:
                late.set()
                process.kill()

            timer = Timer(deadline.seconds, stop)
            timer.start()
            try:
                times, saturation = _read_statistics(_stdout(process), self.path)
                process.wait()
            finally:
                timer.cancel()
                process.kill()
            report = _text(log)
        if late.is_set():
            raise deadline.error()
        self._check(report, process.returncode, len(times))
        inputs, _, outputs = report.partition("Output #0")
        source, target = _STREAM.search(inputs), _STREAM.search(outputs)
        if source is None or target is None:
            raise self._unreadable("no video stream")
        padded = (int(target.group(4)), int(target.group(3)))
        return ClipInfo(
            n_frames=len(times),
            size=_true_size(inputs, padded),
            fps=_frame_rate(inputs[source.start() :], times),
            colour=saturation > NEUTRAL_SATURATION,
            padded=padded,
            planar=source.group(2).startswith(("yuv", "gray", "nv")),
        )

    def stream(self, info: ClipInfo, first: int, last: int, step: int) -> Iterator[Image]:
        """Yield frames first, first + step, ... <= last; only those pass through the pipe."""
        gray = not info.colour and info.planar
        height, width = info.padded
        wanted = len(range(first, last + 1, step))
        chosen = f"select=between(n\\,{first}\\,{last})*not(mod(n-{first}\\,{step}))"
        command = [
            *_input(self.path, "error"),
            *("-vf", f"{chosen},scale=out_range=pc:flags={SWS_FLAGS}", "-fps_mode", "passthrough"),
            *("-frames:v", str(wanted), "-pix_fmt", "gray" if gray else "rgb24", "-f", "rawvideo", "-"),
        ]
        shape = (height, width) if gray else (height, width, 3)
        count = height * width * (1 if gray else 3)
        with tempfile.TemporaryFile() as log, _start(command, log) as process:
            try:
                pipe = _stdout(process)
                for index in range(wanted):
                    raw = pipe.read(count)
                    if len(raw) < count:
                        reason = first_error(_text(log)) or "the file changed while it was read"
                        raise self._unreadable(f"frame {first + index * step}: {reason}")
                    frame = np.frombuffer(raw, np.uint8).reshape(shape)[: info.size[0], : info.size[1]]
                    yield as_declared(frame, info.colour)
            finally:
                process.kill()

    def _check(self, report: str, returncode: int, n_frames: int) -> None:
        error = first_error(report)
        if n_frames == 0 or returncode != 0:
            raise self._unreadable(error or "no frame can be decoded")
        if error:
            raise InputError(
                f"Clip '{self.path}' is damaged ({error}; {n_frames} frames can be decoded).",
                "Copy it again, or re-encode what is left of it with ffmpeg.",
            )

    def _unreadable(self, reason: str) -> InputError:
        return InputError(
            f"Clip '{self.path}' cannot be decoded as video ({reason}).",
            "Check that the file is complete and is what its name says.",
        )


def ffmpeg_exe() -> str:
    """Return the path of the ffmpeg program; raises `InputError` where there is none."""
    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError as error:
        raise InputError(
            "No ffmpeg program was found; video files need one.",
            "Reinstall imageio-ffmpeg, or set IMAGEIO_FFMPEG_EXE to an ffmpeg program.",
        ) from error


def _input(path: Path, level: str) -> list[str]:
    return [
        *(
            ffmpeg_exe(),
            "-hide_banner",
            "-nostdin",
            "-nostats",
            "-max_alloc",
            str(MAX_ALLOCATION),
            "-v",
            level,
            "-threads",
            "1",
            "-filter_threads",
            "1",
        ),
        *("-protocol_whitelist", "file,pipe", "-format_whitelist", DEMUXERS, "-max_pixels", str(limits().pixels)),
        *("-i", f"file:{path}", "-map", "0:v:0"),
    ]


def _start(command: list[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log)


def _stdout(process: subprocess.Popen[bytes]) -> IO[bytes]:
    if process.stdout is None:
        raise RuntimeError("ffmpeg was started without a pipe")
    return process.stdout


def _text(log: IO[bytes]) -> str:
    log.seek(0)
    return log.read().decode("utf-8", "replace")


def _read_statistics(pipe: IO[bytes], path: Path) -> tuple[list[float | None], float]:
    """Return each frame's time in seconds and the largest chroma of all frames, line by line."""
    times: list[float | None] = []
    saturation = 0.0
    for line in pipe:
        if line.startswith(b"frame:"):
            found = re.search(rb"pts_time:(-?[\d.]+(?:e[+-]?\d+)?)", line)
            times.append(float(found.group(1)) if found else None)
            check_frames(path, len(times))
        elif b"signalstats.SATMAX=" in line:
            saturation = max(saturation, float(line.rpartition(b"=")[2]))
    return times, saturation


def _frame_rate(report: str, times: list[float | None]) -> float | None:
    """Return frames per second from the frames' own times, corrected by the header's rounded figure.

    The header's value has two decimals, the times may be coarse (Matroska: 1 ms): where they differ by
    no more than the header's rounding the times win, where by less than 0.5 % the header, else the times.
    """
    found = _FPS.search(report)
    text = found.group(1) if found else ""
    header = float(text[:-1]) * 1000 if text.endswith("k") else float(text or 0)
    known = [time for time in times if time is not None]
    measured = (len(known) - 1) / (known[-1] - known[0]) if len(known) > 1 and known[-1] > known[0] else 0.0
    if measured == 0:
        return header or None
    if header and 0.0051 < abs(measured - header) < 0.005 * header:
        return header
    nearest = round(measured)
    return float(nearest) if abs(measured - nearest) < 1e-4 * measured else round(measured, 5)


def _true_size(report: str, padded: Size) -> Size:
    """Return the size that our own writer noted, if it is the stored one less at most one edge line."""
    found = _SIZE_NOTE.search(report)
    if found is None:
        return padded
    noted = (int(found.group(1)), int(found.group(2)))
    fits = all(0 <= stored - true <= 1 for stored, true in zip(padded, noted, strict=True))
    return noted if fits else padded


def first_error(report: str) -> str:
    """Return the first error that ffmpeg reported, without its address prefix; "" if there was none."""
    for line in report.splitlines():
        marked = re.search(r"\[(?:error|fatal|panic)\] (.*)", line)
        if marked is None and "[info]" not in line and not re.search(r"\[\w+\] ", line):
            marked = re.search(r"^(?:\[[^\]]*@[^\]]*\] )(.*)", line)
        if marked and not _HARMLESS.search(marked.group(1)):
            text = " ".join(marked.group(1).split())[:120].rstrip(".")
            return "its content is of another kind" if text.startswith("Format not on whitelist") else text
    return ""
