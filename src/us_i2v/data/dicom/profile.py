"""The basic application level confidentiality profile: PS3.15 Table E.1-1, edition 2026c, as a table of facts.

`basic_profile.csv` holds tag, action and name of each attribute. Actions:

| action | meaning |
|---|---|
| D | replace by a dummy of the same representation |
| Z | empty, or a dummy |
| X | remove |
| U | replace a UID by another one, the same everywhere |
| X/Z, X/D, Z/D, X/Z/D | whichever the object's definition allows: here the last, so that objects stay valid |
| X/Z/U* | a sequence of references: kept, its UIDs replaced |

Actions K (keep) and C (clean) occur in the options of the profile only, of which none is used here. An X in a tag
stands for any digit.
"""

from __future__ import annotations

import csv
from functools import cache
from importlib import resources
from typing import Literal, NamedTuple

Action = Literal["D", "Z", "X", "U", "references"]

_CHOSEN: dict[str, Action] = {
    "D": "D",
    "Z": "Z",
    "X": "X",
    "U": "U",
    "X/Z": "Z",
    "X/D": "D",
    "Z/D": "D",
    "X/Z/D": "D",
    "X/Z/U*": "references",
}


class Profile(NamedTuple):
    """Actions by tag.

    Attributes:
        actions: Tag (group * 65536 + element) -> action.
        repeating: Tags with any digit in some places: (mask, value, action).
    """

    actions: dict[int, Action]
    repeating: tuple[tuple[int, int, Action], ...]

    def action(self, tag: int) -> Action | None:
        """Return what is to be done with an attribute, None if the table does not name it."""
        for mask, value, action in self.repeating:
            if tag & mask == value:
                return action
        return self.actions.get(tag)


@cache
def basic_profile() -> Profile:
    """Read the table."""
    text = resources.files("us_i2v.data.dicom").joinpath("basic_profile.csv").read_text(encoding="utf-8")
    actions: dict[int, Action] = {}
    repeating = []
    for row in csv.DictReader(text.splitlines()):
        tag, action = row["tag"], _CHOSEN[row["action"]]
        if "X" in tag:
            mask = int("".join("0" if digit == "X" else "F" for digit in tag), 16)
            repeating.append((mask, int(tag.replace("X", "0"), 16), action))
        else:
            actions[int(tag, 16)] = action
    return Profile(actions, tuple(repeating))
