"""Lossless JPEG (processes 14 and 14 SV1), which many scanners write, through the ffmpeg that is there for videos.

ffmpeg runs as a process of its own: a damaged stream can end that process, not this one. It hands out the components as
they are stored, three as BGR; anything else than 8-bit gray or three full components is refused.
"""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

import numpy as np

from us_i2v.data.decoding.ffmpeg import ffmpeg_exe, first_error
from us_i2v.data.limits import limits

if TYPE_CHECKING:
    import numpy.typing as npt

_FORMAT = re.compile(r"Video: mjpeg \(Lossless\), (\w+)")
_CHANNELS = {"gray": 1, "bgr24": 3}
_SECONDS = 60


def decode_lossless(encoded: bytes, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Decode one stream.

    Args:
        encoded: A whole JPEG stream.
        size: (rows, columns) that its frame header states.

    Returns:
        Components as stored, (rows, columns) or (rows, columns, 3).

    Raises:
        ValueError: The stream is damaged, not lossless, or of another kind.
    """
    command = [
        *(ffmpeg_exe(), "-hide_banner", "-nostdin", "-nostats", "-v", "level+info", "-threads", "1"),
        *("-protocol_whitelist", "pipe", "-max_pixels", str(limits().pixels), "-err_detect", "explode"),
        *("-f", "mjpeg", "-i", "pipe:0", "-frames:v", "1", "-f", "rawvideo", "pipe:1"),
    ]
    try:
        done = subprocess.run(command, input=encoded, capture_output=True, check=False, timeout=_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise ValueError(f"a lossless JPEG stream takes longer than {_SECONDS} s") from error
    report = done.stderr.decode("utf-8", "replace")
    found = _FORMAT.search(report)
    channels = _CHANNELS.get(found.group(1), 0) if found else 0
    if channels == 0:
        raise ValueError(f"a frame is no lossless JPEG of 8-bit gray or colour ({first_error(report) or 'other kind'})")
    problem = first_error(report)
    if problem or done.returncode != 0 or len(done.stdout) != size[0] * size[1] * channels:
        raise ValueError(problem or "a lossless JPEG stream ends early")
    values = np.frombuffer(done.stdout, np.uint8)
    return values.reshape(size) if channels == 1 else np.ascontiguousarray(values.reshape(*size, 3)[..., ::-1])
