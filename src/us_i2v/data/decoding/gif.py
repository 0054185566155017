"""Animated GIFs through Pillow (ffmpeg-based readers get some gray GIFs wrong).

Frames are composed one after the other; only the present one is held. The rate is the mean over the file:
GIF times are whole hundredths of a second, and a time of 0 means 0.1 s, as browsers have it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image as PillowImage

from us_i2v.data.decoding.base import ClipInfo, as_declared
from us_i2v.data.limits import Deadline, check_frames
from us_i2v.data.stills import PILLOW_ERRORS, collapse_gray, damaged, open_image
from us_i2v.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from us_i2v.types import Image


class GifSource:
    """A GIF file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def scan(self) -> ClipInfo:
        """Decode all frames once, keeping none."""
        milliseconds, colour, count = 0.0, False, 0
        size = (0, 0)
        deadline = Deadline(self.path)
        for frame, duration in self._decode():
            deadline.check()
            milliseconds += duration
            count += 1
            check_frames(self.path, count)
            size = frame.shape[:2]
            colour = colour or frame.ndim == 3
        return ClipInfo(count, size, round(1000.0 * count / milliseconds, 5), colour, size)

    def stream(self, info: ClipInfo, first: int, last: int, step: int) -> Iterator[Image]:
        """Yield frames first, first + step, ... <= last."""
        for index, (frame, _) in enumerate(self._decode()):
            if index > last:
                return
            if index >= first and (index - first) % step == 0:
                yield as_declared(frame, info.colour)

    def _decode(self) -> Iterator[tuple[Image, float]]:
        with open_image(self.path) as picture:
            if picture.format != "GIF":
                raise InputError(
                    f"'{self.path}' is a {picture.format} picture, not a GIF.",
                    "Give the file its proper ending.",
                )
            index = 0
            while self._seek(picture, index):
                duration = float(picture.info.get("duration", 0)) or 100.0
                try:
                    pixels = np.array(picture.convert("RGB"), np.uint8)
                except PILLOW_ERRORS as error:
                    raise damaged(self.path, error) from error
                yield collapse_gray(pixels), duration
                index += 1

    def _seek(self, picture: PillowImage.Image, index: int) -> bool:
        """Go to frame `index`; return False after the last one."""
        try:
            picture.seek(index)
        except EOFError as error:
            if not self._ends_properly():
                raise damaged(self.path, ValueError(f"no end mark after frame {index - 1}")) from error
            return False
        except PILLOW_ERRORS as error:
            raise damaged(self.path, error) from error
        return True

    def _ends_properly(self) -> bool:
        """Tell whether the file holds the GIF trailer byte (some writers add a few bytes after it)."""
        with self.path.open("rb") as file:
            file.seek(max(0, self.path.stat().st_size - 64))
            return b"\x3b" in file.read()
