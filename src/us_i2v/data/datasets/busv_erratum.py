"""The erratum of BUSV, and how corrections of a data set of videos are written and applied.

Its authors published the corrections in their repository's README on 25 March 2023 (github.com/jhl-Det/CVA-Net), after
issue 12 there: one video is a copy of another in the wrong class, and four videos are of one patient, two of them
in the wrong class. A user's own corrections come as a CSV file with the columns `video`, `action` and `value`:

| action | value | effect |
|---|---|---|
| drop | the reason | the video is left out |
| label | a class | the video gets this class |
| group | a name | videos with this name belong together and are never divided between splits |

Videos are found by their name without the class folder and without a leading "x", with which the release
writes most names and its own erratum some.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from us_i2v.data.tables import read_rows

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

ACTIONS = ("drop", "label", "group")


class Correction(NamedTuple):
    """One line of an erratum: what is done to a video."""

    video: str
    action: str
    value: str


_ONE_PATIENT = "busv-patient-of-x63c9ba1377f35bf6"

ERRATUM = (
    Correction("benign/x66ef02e7f1b9a0ef", "drop", "a copy of malignant/x3b88488853e8b7d1, which has the right class"),
    Correction("benign/x63c9ba1377f35bf6", "label", "malignant"),
    Correction("benign/x5a1c46ec6377e946", "label", "malignant"),
    Correction("benign/x63c9ba1377f35bf6", "group", _ONE_PATIENT),
    Correction("benign/x5a1c46ec6377e946", "group", _ONE_PATIENT),
    Correction("malignant/2390fbea047347b", "group", _ONE_PATIENT),
    Correction("malignant/7a39ab5d4970bf89", "group", _ONE_PATIENT),
)


@dataclass(frozen=True)
class Video:
    """One video of the data set.

    Attributes:
        name: "class/id" as on disk; stays so if the class is corrected.
        folder: Its frames.
        label: Class.
        group: Never divided between splits.
        split: "train" or "val" if the annotations say so.
    """

    name: str
    folder: Path
    label: str
    group: str
    split: str | None = None


class Corrected(NamedTuple):
    """Videos after an erratum.

    Attributes:
        videos: What is left, with corrected labels and groups.
        dropped: (name, reason) of the others.
        missing: Corrections whose video is not there.
    """

    videos: list[Video]
    dropped: list[tuple[str, str]]
    missing: list[Correction]


def video_key(name: str) -> str:
    """Return what identifies a video: its name without folders and without a leading "x", in lower case."""
    return name.replace("\\", "/").rstrip("/").rpartition("/")[2].lower().removeprefix("x")


def read_corrections(path: Path) -> list[Correction]:
    """Read a CSV file of corrections; raises `DataError` naming line and column."""
    found = []
    for row in read_rows(path, "Erratum", Correction._fields):
        correction = Correction(row.text("video"), row.text("action").lower(), row.text("value"))
        if not correction.video:
            raise row.error("video", "is empty", "Name a video, or remove the line")
        if correction.action not in ACTIONS:
            raise row.error("action", "is unknown", f"Use {', '.join(ACTIONS)}")
        if not correction.value and correction.action != "drop":
            raise row.error("value", "is empty", f"Give the {correction.action}")
        found.append(correction)
    return found


def correct(videos: Iterable[Video], corrections: Iterable[Correction]) -> Corrected:
    """Apply corrections to videos, in their order; of two that set the same thing the later one counts."""
    left = {video.name: video for video in videos}
    names: dict[str, list[str]] = defaultdict(list)
    for name in left:
        names[video_key(name)].append(name)
    dropped = []
    missing = []
    for correction in corrections:
        found = names[video_key(correction.video)]
        # An id in two classes is told apart by the class that the correction names.
        found = [name for name in found if name == correction.video] or found
        if not found:
            missing.append(correction)
        for name in found:
            if name not in left:
                continue
            if correction.action == "drop":
                dropped.append((name, correction.value))
                del left[name]
            elif correction.action == "label":
                left[name] = replace(left[name], label=correction.value)
            else:
                left[name] = replace(left[name], group=correction.value)
    return Corrected(list(left.values()), dropped, missing)
