"""Diets: what is refused, what is chosen, and how often it is drawn."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.classifier_clips import RECORD, phantom_clips, write_real, write_synthetic
from tests.fakes import still_pixels, write_png
from us_i2v.augmentation.manifest import COLUMNS
from us_i2v.config import Config
from us_i2v.data.datasets import find_samples
from us_i2v.data.manifest import Sample
from us_i2v.data.mixing import (
    GENERATED_COLUMNS,
    HeldOut,
    MixConfig,
    SyntheticClip,
    carries_record,
    choose_synthetic,
    content_sha256,
    find_leaks,
    find_seen,
    is_generated,
    read_synthetic,
    refuse_leaks,
    stratum_weights,
)
from us_i2v.data.writers import write_clip
from us_i2v.errors import ConfigError, DataError


@dataclass(frozen=True)
class Weights:
    training_groups: tuple[str, ...] = ()
    clip_sha256: tuple[str, ...] = ()


def clip(number: int, *, label: str = "benign", still: str = "s", group: str = "g", split: str | None = None):
    sample = Sample(Path(f"{label}_{still}_{number}.mp4"), "clip", label, group, split)
    return SyntheticClip(sample, f"{still}.png", f"{still}-sha256", "made-by")


HELD = HeldOut(frozenset({"held", "other"}), frozenset({"file-sha256", "test-still-sha256"}))
KNOWN = {"made-by": Weights(("train-1",), ("aa",))}


def test_the_columns_are_those_of_augment() -> None:
    assert set(GENERATED_COLUMNS) < set(COLUMNS)


def test_an_innocent_clip_passes() -> None:
    assert find_leaks([clip(0)], HELD, KNOWN) == {}
    refuse_leaks({})


@pytest.mark.parametrize(
    ("leak", "generators", "reason"),
    [
        (clip(0, split="test"), KNOWN, "still 's.png' is of split test"),
        (clip(0, split="val"), KNOWN, "still 's.png' is of split val"),
        (clip(0, group="held"), KNOWN, "group 'held' is held out"),
        (clip(0, still="test-still"), KNOWN, "still 'test-still.png' is held out"),
        (clip(0), {}, "nobody knows on what its generator made-by"),
        (clip(0), {"made-by": Weights(("a", "other", "held"))}, "trained on group 'held', group 'other', which"),
        (clip(0), {"made-by": Weights((), ("file-sha256",))}, r"trained on file file-sha256\.\.\., which"),
    ],
)
def test_leaks_are_refused_by_name(leak: SyntheticClip, generators, reason: str) -> None:
    found = find_leaks([clip(1, still="fine"), leak], HELD, {"fine": Weights(), **generators})
    assert leak in found
    with pytest.raises(DataError, match=reason) as error:
        refuse_leaks({leak: found[leak]})
    assert leak.sample.path.name in error.value.message
    assert "--drop-leaks" in error.value.hint
    assert ("--generator" in error.value.hint) == ("nobody knows" in reason)


def test_many_leaks_are_counted_in_one_line() -> None:
    many = {clip(k, still=f"s{k}"): "its still is held out" for k in range(9)}
    with pytest.raises(DataError, match=r"9 synthetic clips.*'benign_s0_0.mp4' and 8 more: its still is held out"):
        refuse_leaks(many)
    several = {clip(k): f"reason {k}" for k in range(7)}
    with pytest.raises(DataError, match="and 2 more reasons"):
        refuse_leaks(several)


def test_seen_groups_and_files_are_listed() -> None:
    weights = Weights(("b", "a", "c"), ("ff" * 32,))
    assert find_seen(weights, ["c", "b", "z"], ["ff" * 32]) == ["group 'b'", "group 'c'", "file ffffffffffff..."]


def test_held_out_side_knows_the_bytes_of_stills_and_clips(tmp_path: Path) -> None:
    real = write_real(tmp_path / "real")
    still = write_png(tmp_path / "still.png", still_pixels(1))
    samples = [s for s in find_samples(real) if s.split == "test"] + [Sample(still, "still", "benign", "g")]
    held = HeldOut.of(samples)
    assert held.groups == {"p3", "p7", "g"}
    assert content_sha256(still) in held.sha256
    assert len(held.sha256) == 3


def test_augments_manifest_is_told_from_a_data_sets(tmp_path: Path) -> None:
    real = write_real(tmp_path / "real")
    made = write_synthetic(tmp_path / "made", [{"label": "benign", "group": "p0"}])
    assert [is_generated(path) for path in (real, made, made / "manifest.csv", tmp_path)] == [False, True, True, False]
    (only,) = read_synthetic(made)
    assert (only.source, only.source_sha256, only.weights_sha256) == ("still0.png", "still0.png-sha256", "ab" * 32)
    assert (only.sample.label, only.sample.group, only.sample.path.name) == ("benign", "p0", "benign_0.mp4")
    for path in (real, tmp_path):
        with pytest.raises(DataError, match="no manifest that says what its clips were made from"):
            read_synthetic(path)
    gap = write_synthetic(tmp_path / "gap", [{"label": "benign", "group": "p0", "source_sha256": ""}])
    with pytest.raises(DataError, match="line 2, column 'source_sha256'"):
        read_synthetic(gap)


@pytest.mark.parametrize("ending", ["npz", "mp4"])
def test_a_generated_clip_says_so_itself(tmp_path: Path, ending: str) -> None:
    frames = phantom_clips()[0][1]
    plain = write_clip(tmp_path / f"plain.{ending}", frames, 20.0)
    generated = write_clip(tmp_path / f"made.{ending}", frames, 20.0, record=RECORD)
    assert [carries_record(path) for path in (plain, generated)] == [False, True]


def made(benign: int, malignant: int, per_still: int = 1) -> list[SyntheticClip]:
    return [
        clip(k % per_still, label=label, still=f"{label}{k // per_still}")
        for label, count in (("benign", benign), ("malignant", malignant))
        for k in range(count)
    ]


def counts(clips: list[SyntheticClip]) -> dict[str, int]:
    return dict(Counter(str(c.sample.label) for c in clips))


def test_all_clips_a_ratio_or_none() -> None:
    clips = made(30, 20)
    real = {"benign": 10, "malignant": 6}
    assert choose_synthetic(clips, real, MixConfig(), 0) == []
    assert choose_synthetic(clips, real, MixConfig(diet="both"), 0) == clips
    assert choose_synthetic(clips, real, MixConfig(diet="synthetic"), 0) == clips
    half = choose_synthetic(clips, real, MixConfig(diet="both", ratio=0.5), 0)
    assert counts(half) == {"benign": 5, "malignant": 3}
    more = choose_synthetic(clips, real, MixConfig(diet="both", ratio=2), 0)
    assert counts(more) == {"benign": 20, "malignant": 12}
    assert set(half) < set(more)
    assert choose_synthetic(clips, real, MixConfig(diet="both", ratio=0.5), 1) != half
    assert choose_synthetic(clips[::-1], real, MixConfig(diet="both", ratio=0.5), 0)[::-1] == half
    with pytest.raises(DataError, match="30 synthetic clips of class 'malignant' are asked for, 20 are there"):
        choose_synthetic(clips, {"benign": 3, "malignant": 6}, MixConfig(diet="both", ratio=5), 0)


def test_balancing_fills_up_rarer_classes_only() -> None:
    chosen = choose_synthetic(made(9, 9), {"benign": 7, "malignant": 2}, MixConfig(diet="both", balance=True), 0)
    assert counts(chosen) == {"malignant": 5}


def test_every_still_gives_a_clip_before_any_gives_a_second() -> None:
    clips = made(12, 0, per_still=3)
    real = {"benign": 4}
    first = choose_synthetic(clips, real, MixConfig(diet="both", ratio=1), 0)
    assert len({c.source for c in first}) == 4
    second = choose_synthetic(clips, real, MixConfig(diet="both", ratio=2), 0)
    assert Counter(Counter(c.source for c in second).values()) == {2: 4}


NUMBERS = {("real", "a"): 6, ("real", "b"): 2, ("synthetic", "a"): 4, ("synthetic", "b"): 12}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [6 / 24, 2 / 24, 4 / 24, 12 / 24]),
        ({"share": 0.25}, [0.75 * 6 / 8, 0.75 * 2 / 8, 0.25 * 4 / 16, 0.25 * 12 / 16]),
        ({"equal_classes": True}, [0.5 * 6 / 10, 0.5 * 2 / 14, 0.5 * 4 / 10, 0.5 * 12 / 14]),
        ({"share": 0.25, "equal_classes": True}, [0.375, 0.375, 0.125, 0.125]),
    ],
)
def test_strata_weights(changes: dict[str, object], expected: list[float]) -> None:
    found = stratum_weights(NUMBERS, MixConfig.parse({"diet": "both"} | changes))
    assert list(found) == ["real: a", "real: b", "synthetic: a", "synthetic: b"]
    np.testing.assert_allclose(list(found.values()), expected)
    assert sum(found.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    "values",
    [
        {"diet": "both", "balance": True, "ratio": 1.0},
        {"diet": "real", "ratio": 1.0},
        {"diet": "synthetic", "share": 0.5},
        {"balance": True},
        {"diet": "both", "ratio": 0},
        {"diet": "fake"},
    ],
)
def test_mixes_that_contradict_themselves_are_refused(values: dict[str, object]) -> None:
    assert issubclass(MixConfig, Config)
    with pytest.raises(ConfigError):
        MixConfig.parse(values)
