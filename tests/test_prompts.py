"""Prompts: every word and what it sets, what is refused, and conditions said as a prompt and read again."""

from __future__ import annotations

from itertools import product

import pytest

from us_i2v.errors import ConfigError
from us_i2v.prompts import AMOUNTS, DIRECTIONS, FIXED, MOTIONS, Known, PromptConditions, describe, parse_prompt

ALL = Known(
    labels=("benign", "malignant", "no finding"),
    controls=("strength", "pressure", "slide"),
    options=frozenset({"motion", "loop", "frames", "label"}),
)


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("slow compression, malignant, slight slide", {"pressure": 0.5, "label": "malignant", "slide": 0.5}),
        ("Fast RELEASE", {"pressure": -2.0}),
        ("compression", {"pressure": 1.0}),
        ("slide left", {"slide": -1.0}),
        ("strong slide right", {"slide": 2.0}),
        ("left slide slight", {"slide": -0.5}),
        ("no slide; none compression", {"slide": 0.0, "pressure": 0.0}),
        ("no release", {"pressure": 0.0}),
        ("moderate motion", {"strength": 1.0}),
        ("slow", {"strength": 0.5}),
        ("still", {"motion": 0.0}),
        ("no motion", {"motion": 0.0}),
        ("none", {"motion": 0.0}),
        ("still, benign, no slide", {"motion": 0.0, "label": "benign", "slide": 0.0}),
        ("slight breathing", {"strength": 0.5, "loop": True}),
        ("breathing, loop", {"strength": 1.0, "loop": True}),
        ("long, loop", {"frames": 64, "loop": True}),
        ("no_finding", {"label": "no finding"}),
        ("  No-Finding ,, slow  motion ", {"label": "no finding", "strength": 0.5}),
        ("slow motion, slight motion", {"strength": 0.5}),
    ],
)
def test_what_a_prompt_sets(prompt: str, expected: dict[str, object]) -> None:
    assert parse_prompt(prompt, ALL).given() == expected


@pytest.mark.parametrize("word", sorted({*AMOUNTS, *MOTIONS, *FIXED}))
def test_every_word_is_understood(word: str) -> None:
    assert parse_prompt(word, ALL).given()


@pytest.mark.parametrize(("amount", "motion"), list(product(AMOUNTS, MOTIONS)))
def test_every_pair_means_its_product(amount: str, motion: str) -> None:
    name, factor = MOTIONS[motion]
    value = AMOUNTS[amount] * factor
    if value == 0 and name == "strength":
        if motion == "motion":
            assert parse_prompt(f"{amount} {motion}", ALL).motion == 0
        else:
            with pytest.raises(ConfigError, match="says nothing"):
                parse_prompt(f"{amount} {motion}", ALL)
        return
    assert getattr(parse_prompt(f"{amount} {motion}", ALL), name) == value


def test_unknown_words_are_an_error_with_the_list_and_the_nearest() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_prompt("slow compresion", ALL)
    assert "'compresion' is not a known word. Did you mean 'compression'?" in caught.value.message
    for word in [*AMOUNTS, *MOTIONS, *DIRECTIONS, *FIXED, *ALL.labels]:
        assert word in caught.value.hint
    with pytest.raises(ConfigError, match="Did you mean 'malignant'"):
        parse_prompt("malignent", ALL)
    with pytest.raises(ConfigError, match=r"'xqzw' is not a known word\. Known words"):
        parse_prompt("xqzw", ALL)
    with pytest.raises(ConfigError, match="know no classes"):
        parse_prompt("malignant", Known(controls=ALL.controls))


@pytest.mark.parametrize(
    ("prompt", "match"),
    [
        ("compression, release", "'compression' and 'release' contradict"),
        ("slow compression, fast compression", "contradict"),
        ("slide left, slide right", "contradict"),
        ("benign, malignant", "contradict"),
        ("still, slow compression", "'still' and 'slow compression' contradict"),
        ("slow motion, no motion", "contradict"),
        ("still, breathing", "contradict"),
        ("slow strong compression", "'slow' and 'strong'; a phrase takes one amount"),
        ("compression slide", "one motion"),
        ("slide left right", "one direction"),
        ("compression left", "only 'slide'"),
        ("left", "only 'slide'"),
        ("slow still", "'still' in 'slow still' stands alone"),
        ("benign compression", "'benign' is not a known word"),
        ("", "empty"),
        (" , ;", "empty"),
    ],
)
def test_contradictions_are_errors(prompt: str, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        parse_prompt(prompt, ALL)


@pytest.mark.parametrize(
    ("prompt", "word", "condition"),
    [
        ("malignant, slow compression", "compression", "pressure"),
        ("release", "release", "pressure"),
        ("slight slide left", "slide", "slide"),
        ("strong motion", "motion", "strength"),
        ("fast", "fast", "strength"),
        ("breathing", "breathing", "strength"),
    ],
)
def test_words_that_the_weights_were_not_trained_for_are_named(prompt: str, word: str, condition: str) -> None:
    with pytest.raises(ConfigError, match=f"'{word}' needs the condition '{condition}'"):
        parse_prompt(prompt, Known(labels=ALL.labels, options=ALL.options))


def test_words_of_options_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ConfigError, match="'loop' needs the option 'loop'"):
        parse_prompt("loop", Known(options=frozenset({"motion"})))


def test_a_class_named_like_a_word_is_ambiguous() -> None:
    with pytest.raises(ConfigError, match="a class of these weights and a word"):
        parse_prompt("still", Known(labels=("still",), options=ALL.options))
    with pytest.raises(ConfigError, match="any of the classes a_b, A b"):
        parse_prompt("a B", Known(labels=("a_b", "A b")))
    assert parse_prompt("A b", Known(labels=("a_b", "A b"))).label == "A b"


def test_described_conditions_are_read_back() -> None:
    scale = (None, 0.0, 0.5, 1.0, 2.0, -0.5, -1.0, -2.0)
    seen = set()
    for strength, pressure, slide, label, loop, frames in product(
        (None, 0.5, 1.0, 2.0), scale, scale, (None, "no finding"), (None, True), (None, 64)
    ):
        conditions = PromptConditions(
            strength=strength, pressure=pressure, slide=slide, label=label, loop=loop, frames=frames
        )
        if not conditions.given():
            continue
        prompt = describe(conditions)
        assert parse_prompt(prompt, ALL) == conditions, prompt
        seen.add(prompt)
    assert len(seen) == 4 * 8 * 8 * 2 * 2 * 2 - 1
    assert describe(PromptConditions(motion=0.0)) == "still"
    assert describe(parse_prompt("slow compression, malignant, slight slide", ALL)) == (
        "slight compression, slight slide right, malignant"
    )


@pytest.mark.parametrize("given", [{"pressure": 0.7}, {"strength": 0.0}, {"frames": 32}, {"motion": 0.5}, {}])
def test_numbers_without_a_word_are_refused(given: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        describe(PromptConditions(**given))
