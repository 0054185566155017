"""Prompts: a closed vocabulary, read without a language model.

    prompt = phrase {"," phrase}
    phrase = class | [amount] motion [direction] | amount | "still" | "loop" | "long"

Words of a motion phrase may stand in any order; capitals do not matter, nor do "-", "_" and blanks in class names.
What every word sets stands in the tables below, and nowhere else. Amounts are in medians of the training clips'
absolute values; a clip's length in time is fixed, so what is slow is also small: "slow" and "slight" are one amount.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from pydantic import Field

from us_i2v.config import Config
from us_i2v.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

AMOUNTS: Mapping[str, float] = {
    "none": 0.0,
    "no": 0.0,
    "slight": 0.5,
    "slow": 0.5,
    "moderate": 1.0,
    "strong": 2.0,
    "fast": 2.0,
}
"""Adverb -> factor; a motion word without one takes 1."""

MOTIONS: Mapping[str, tuple[str, float]] = {
    "motion": ("strength", 1.0),
    "compression": ("pressure", 1.0),
    "release": ("pressure", -1.0),
    "slide": ("slide", 1.0),
    "breathing": ("strength", 1.0),
}
"""Motion word -> condition, and the value that an amount of 1 gives it. "breathing" also closes the clip ("loop")."""

DIRECTIONS: Mapping[str, float] = {"right": 1.0, "left": -1.0}
"""Direction of a slide, in the picture -> sign; to the right unless told otherwise."""

FIXED: Mapping[str, tuple[str, Any]] = {"still": ("motion", 0.0), "loop": ("loop", True), "long": ("frames", 64)}
"""Word that stands alone -> option, and its value."""

_CONDITIONS = ("strength", "pressure", "slide")
_CANONICAL = {0.0: "no", 0.5: "slight", 1.0: "moderate", 2.0: "strong"}


@dataclass(frozen=True)
class Known:
    """What a prompt may ask of some weights.

    Attributes:
        labels: Class names.
        controls: Trained motion conditions, of "strength", "pressure" and "slide".
        options: Names of the options that clips can be made with.
    """

    labels: tuple[str, ...] = ()
    controls: tuple[str, ...] = ()
    options: frozenset[str] = frozenset()


class PromptConditions(Config):
    """What a prompt says; empty where it says nothing. Fields are named as in `GenerateOptions`."""

    label: str | None = Field(None, description="Class name.")
    strength: float | None = Field(None, description="Motion, in medians of training clips.")
    pressure: float | None = Field(None, description="Compression, likewise; negative: release.")
    slide: float | None = Field(None, description="Slide, likewise; positive: to the right.")
    motion: float | None = Field(None, description="0: nothing moves.")
    loop: bool | None = Field(None, description="The clip closes.")
    frames: int | None = Field(None, description="Frames.")

    def given(self) -> dict[str, Any]:
        """Return what is said, by name."""
        return {name: value for name, value in self.model_dump().items() if value is not None}


def vocabulary(labels: Sequence[str] = ()) -> list[str]:
    """List the words that prompts know, class names last."""
    return [*AMOUNTS, *MOTIONS, *DIRECTIONS, *FIXED, *labels]


def parse_prompt(prompt: str, known: Known) -> PromptConditions:
    """Read a prompt.

    Args:
        prompt: For example "slow compression, malignant, slight slide left".
        known: What the weights can do.

    Raises:
        ConfigError: A word is unknown, its condition was not trained, or two phrases contradict each other.
    """
    phrases = [phrase for phrase in (" ".join(part.split()) for part in re.split(r"[,;]", prompt)) if phrase]
    if not phrases:
        raise ConfigError("The prompt is empty; at least one word is needed.", _list(known))
    said: dict[str, Any] = {}
    by: dict[str, str] = {}
    for phrase in phrases:
        for name, value in _read(phrase, known).items():
            if said.setdefault(name, value) != value:
                raise ConfigError(
                    f"Prompt: '{by[name]}' and '{phrase}' contradict each other ({name} = {said[name]} and {value}).",
                    "Keep one of them.",
                )
            by.setdefault(name, phrase)
    moving = next((by[name] for name in _CONDITIONS if said.get(name)), None)
    if said.get("motion") == 0.0 and moving is not None:
        raise ConfigError(f"Prompt: '{by['motion']}' and '{moving}' contradict each other.", "Keep one of them.")
    return PromptConditions(**said)


def describe(conditions: PromptConditions) -> str:
    """Say conditions as a prompt, so that `parse_prompt` gives them back.

    Raises:
        ConfigError: A number has no word.
    """
    breathing = bool(conditions.loop) and conditions.strength is not None and conditions.strength > 0
    words = {"strength": "breathing" if breathing else "motion", "pressure": "compression", "slide": "slide"}
    phrases = []
    for name, word in words.items():
        value = getattr(conditions, name)
        if value is None:
            continue
        if name == "strength" and value == 0:
            _wordless(name, value)
        phrase = f"{_amount(name, value)} {'release' if name == 'pressure' and value < 0 else word}"
        direction = "" if name != "slide" or value == 0 else " right" if value > 0 else " left"
        phrases.append(phrase + direction)
    if conditions.label is not None:
        phrases.append(conditions.label)
    for word, (name, value) in FIXED.items():
        said = getattr(conditions, name)
        if said is None or (word == "loop" and breathing):
            continue
        if said != value:
            _wordless(name, said)
        phrases.append(word)
    if not phrases:
        raise ConfigError("Nothing is said; there is no prompt for it.", "Set a condition.")
    return ", ".join(phrases)


def _read(phrase: str, known: Known) -> dict[str, Any]:
    """What one phrase sets."""
    words = phrase.lower().split()
    label = _label(phrase, known.labels)
    strange = next((word for word in words if word not in vocabulary()), None)
    if label is not None:
        if strange is None:
            raise ConfigError(f"Prompt: '{phrase}' is a class of these weights and a word.", "Use the options.")
        return {"label": label}
    if strange is not None:
        _unknown(phrase, strange, known)
    if len(words) == 1 and words[0] in FIXED:
        name, value = FIXED[words[0]]
        return _checked({name: value}, words[0], known)
    return _motion(phrase, words, known)


def _motion(phrase: str, words: list[str], known: Known) -> dict[str, Any]:
    parts = {kind: [word for word in words if word in table] for kind, table in _KINDS.items()}
    if parts["alone"]:
        raise ConfigError(f"Prompt: '{parts['alone'][0]}' in '{phrase}' stands alone.", "Separate phrases by commas.")
    for kind, found in parts.items():
        if len(found) > 1:
            raise ConfigError(
                f"Prompt: '{phrase}' holds {' and '.join(map(repr, found))}; a phrase takes one {kind}.",
                "Separate phrases by commas.",
            )
    motion = (parts["motion"] or ["motion"])[0]
    if parts["direction"] and motion != "slide":
        raise ConfigError(f"Prompt: '{phrase}' has a direction, which only 'slide' takes.", "Write 'slide left'.")
    amount = AMOUNTS[parts["amount"][0]] if parts["amount"] else 1.0
    sign = DIRECTIONS[parts["direction"][0]] if parts["direction"] else 1.0
    name, factor = MOTIONS[motion]
    if amount == 0 and name == "strength":
        if motion != "motion":
            raise ConfigError(f"Prompt: '{phrase}' says nothing.", "Leave it out, or write 'still'.")
        return {"motion": 0.0}
    # + 0.0: no negative zero.
    said: dict[str, Any] = {name: amount * factor * sign + 0.0}
    if motion == "breathing":
        said["loop"] = True
    return _checked(said, motion if parts["motion"] else words[0], known)


_KINDS: Mapping[str, Mapping[str, Any]] = {
    "amount": AMOUNTS,
    "motion": MOTIONS,
    "direction": DIRECTIONS,
    "alone": FIXED,
}


def _checked(said: dict[str, Any], word: str, known: Known) -> dict[str, Any]:
    for name in said:
        if name in _CONDITIONS and name not in known.controls:
            raise ConfigError(
                f"Prompt: '{word}' needs the condition '{name}', which these weights were trained without "
                f"(known: {', '.join(known.controls) or 'none'}).",
                f"Leave '{word}' out, or use weights that know it.",
            )
        if name not in _CONDITIONS and name not in known.options:
            raise ConfigError(f"Prompt: '{word}' needs the option '{name}', which is not there.", "Leave it out.")
    return said


def _label(phrase: str, labels: Sequence[str]) -> str | None:
    if phrase in labels:
        return phrase
    found = [label for label in labels if _plain(label) == _plain(phrase)]
    if len(found) > 1:
        raise ConfigError(f"Prompt: '{phrase}' may be any of the classes {', '.join(found)}.", "Write it exactly.")
    return found[0] if found else None


def _plain(text: str) -> str:
    return " ".join(re.split(r"[\s_-]+", text.strip().casefold()))


def _amount(name: str, value: float) -> str:
    word = _CANONICAL.get(abs(value))
    if word is None:
        _wordless(name, value)
    return word


def _wordless(name: str, value: Any) -> NoReturn:
    raise ConfigError(f"There is no word for {name} = {value}.", "Use the option itself.")


def _unknown(phrase: str, word: str, known: Known) -> NoReturn:
    choices = vocabulary(known.labels)
    near = difflib.get_close_matches(phrase.lower(), [c.lower() for c in choices], 1) or difflib.get_close_matches(
        word, [c.lower() for c in choices], 1
    )
    guess = f" Did you mean '{near[0]}'?" if near else ""
    raise ConfigError(f"Prompt: '{word}' is not a known word.{guess}", _list(known))


def _list(known: Known) -> str:
    classes = f"; classes: {', '.join(known.labels)}" if known.labels else "; these weights know no classes"
    return f"Known words: {', '.join(vocabulary())}{classes}."
