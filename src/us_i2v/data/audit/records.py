"""What the audit remembers of a file: a few hundred bytes, never pixels."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from us_i2v.types import Size

MaskState = Literal["ok", "empty", "other size", "unreadable"]


@dataclass(frozen=True)
class MaskRecord:
    """One mask file.

    Attributes:
        file: Path relative to the data set, "/" on every system.
        state: "other size" than its picture (for clips: or another number of frames).
        size: (height, width), if it could be read.
        share: Share of the picture inside it, 0..1, if it could be read.
        why: What is wrong, in one line; "" if nothing.
    """

    file: str
    state: MaskState
    size: Size | None = None
    share: float | None = None
    why: str = ""


@dataclass(frozen=True)
class Record:
    """One still or clip.

    Attributes:
        file: Path relative to the data set, "/" on every system.
        kind: What it is.
        label: Class, if known.
        group: Never divided between splits.
        split: train, val, test or None.
        error: Why it cannot be read, in one line; None if it can. What follows is then at its default.
        sha256: Of the file's bytes, or of a folder's frame names and bytes.
        size: (height, width).
        colour: True if its channels differ.
        frames: Number of frames; 1 for a still.
        fps: The clip's own rate or the data set's; None if neither says, and for stills.
        effective_fps: `fps` times the share of frames that are no repeats.
        repeats: Frames that repeat the one before (`data.repeats`).
        black_frames: Black frames at the beginning; all frames if nothing is seen at all.
        text_lines: Lines of burned-in text in the first picture that is not black.
        text_share: Share of its area inside them, 0..1.
        mark_share: Share of its area under painted strokes of any kind, 0..1.
        masks: Its masks.
    """

    file: str
    kind: Literal["still", "clip"]
    label: str | None
    group: str
    split: str | None
    error: str | None = None
    sha256: str | None = None
    size: Size | None = None
    colour: bool = False
    frames: int = 0
    fps: float | None = None
    effective_fps: float | None = None
    repeats: int = 0
    black_frames: int = 0
    text_lines: int = 0
    text_share: float = 0.0
    mark_share: float = 0.0
    masks: tuple[MaskRecord, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return plain values, in the order of the attributes."""
        return asdict(self)
