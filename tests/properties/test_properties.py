"""What holds for all inputs: manifests, settings, prompts, plans and headers; hypothesis looks for one that breaks it.

Examples are the same in every run. `HYPOTHESIS_PROFILE=search pytest tests/properties` looks for others.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import re
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from us_i2v.augmentation.planning import Shard, Source, plan_jobs
from us_i2v.config import flatten, merge, parse_override
from us_i2v.data.manifest import MANIFEST, SPLITS, Sample, read_manifest, write_manifest
from us_i2v.errors import ConfigError, DataError, WeightsError
from us_i2v.options import GenerateOptions
from us_i2v.prompts import AMOUNTS, FIXED, Known, PromptConditions, describe, parse_prompt, vocabulary
from us_i2v.ranks import Ranks
from us_i2v.seeding import MAX_SEED, derive_seed
from us_i2v.weights import read_tensors, write_tensors

settings.register_profile("repeatable", derandomize=True, deadline=None, database=None, max_examples=60)
settings.register_profile("search", deadline=None, database=None, max_examples=3000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

SIGNS = "abzAZ09äß漢 .,;:'\"-_()#&=%+"
names = st.text(SIGNS.replace(";", ""), min_size=1, max_size=12).map(lambda text: f"n{text}n")
words = st.text(SIGNS, min_size=1, max_size=12).filter(lambda text: text == text.strip())
keys = st.text("abcxyz_", min_size=1, max_size=5)
values = st.one_of(st.booleans(), st.integers(-(2**40), 2**40), st.text(SIGNS, max_size=8))
tables = st.recursive(
    st.dictionaries(keys, values, min_size=1, max_size=4),
    lambda inner: st.dictionaries(keys, st.one_of(values, inner), min_size=1, max_size=4),
    max_leaves=8,
)


@given(
    st.dictionaries(
        names.map(lambda name: f"{name}.png"),
        st.tuples(
            st.none() | words,
            words,
            st.none() | st.sampled_from(SPLITS),
            st.lists(names, max_size=2, unique=True),
            st.none() | st.floats(0.5, 500),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_a_manifest_says_what_was_written(rows: dict[str, tuple]) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        samples = []
        for file, (label, group, split, masks, fps) in rows.items():
            mask_files = tuple(root / f"{mask}_mask.png" for mask in masks)
            for path in (root / file, *mask_files):
                path.touch()
            samples.append(Sample(root / file, "still", label, group, split, mask_files, fps))
        write_manifest(root / MANIFEST, samples)
        assert read_manifest(root / MANIFEST) == samples
        content = (root / MANIFEST).read_bytes()
        write_manifest(root / MANIFEST, read_manifest(root / MANIFEST))
        assert (root / MANIFEST).read_bytes() == content


cells = st.one_of(
    st.sampled_from(["a.png", "b.mp4", "../secret.png", "/etc/passwd", "in/../a.png", "", "train", "valid", "7", "-1"]),
    st.text(SIGNS + "\n\t/\\\x00", max_size=8),
)


@given(st.lists(st.fixed_dictionaries({name: cells for name in ("file", "label", "group", "split", "mask", "fps")})))
def test_a_manifest_never_leads_out_of_its_folder(rows: list[dict[str, str]]) -> None:
    """Whatever stands in it, it is read whole or refused by its line; and all files lie below it."""
    with tempfile.TemporaryDirectory() as name:
        outer = Path(name)
        root = outer / "data"
        root.mkdir()
        for path in (outer / "secret.png", root / "a.png", root / "b.mp4"):
            path.touch()
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, ["file", "label", "group", "split", "mask", "fps"])
        writer.writeheader()
        writer.writerows(rows)
        (root / MANIFEST).write_text(text.getvalue(), encoding="utf-8", newline="")
        try:
            samples = read_manifest(root / MANIFEST)
        except DataError as error:
            refused = error.message
        else:
            refused = ""
        if refused:
            assert MANIFEST in refused
            return
        assert len(samples) <= len(rows)
        for sample in samples:
            assert all(root.resolve() in path.resolve().parents for path in (sample.path, *sample.masks))
            assert sample.split in (None, *SPLITS)
            assert sample.group


@given(tables, tables)
def test_later_settings_win_key_by_key(base: dict, override: dict) -> None:
    merged = merge(base, override)
    assert merge(merged, override) == merged
    assert merge(base, {}) == base
    assert flatten(override).items() <= flatten(merged).items()
    replaced = flatten(override)
    for key, value in flatten(base).items():
        if not any(other.startswith(f"{key}.") or f"{key}.".startswith(f"{other}.") for other in replaced):
            assert flatten(merged).get(key) == value


@given(st.lists(keys, min_size=1, max_size=4), values)
def test_an_override_is_read_as_toml_would(path: list[str], value: object) -> None:
    text = json.dumps(value)  # TOML writes these three types alike.
    assert flatten(parse_override(f"{'.'.join(path)}={text}")) == {".".join(path): value}


ranges = {
    "frames": st.integers(2, 512),
    "steps": st.integers(1, 1000),
    "motion": st.floats(0, 3),
    "speckle": st.floats(0, 1),
    "guidance": st.floats(0, 20),
    "fps": st.floats(0.01, 200),
    "strength": st.floats(0, 4),
    "pressure": st.floats(-4, 4),
    "slide": st.floats(-4, 4),
    "loop": st.booleans(),
    "label": words,
}


@given(st.fixed_dictionaries({}, optional=ranges))
def test_options_are_written_and_read_alike(chosen: dict[str, object]) -> None:
    options = GenerateOptions.parse(chosen)
    again = GenerateOptions.parse(json.loads(options.dump()))
    assert again == options
    assert again.dump() == options.dump()


@given(st.sampled_from(["motion", "speckle", "guidance", "strength"]), st.floats())
def test_an_option_out_of_its_range_is_named(name: str, value: float) -> None:
    most = {"motion": 3, "speckle": 1, "guidance": 20, "strength": 4}[name]
    assume(not 0 <= value <= most)
    with pytest.raises(ConfigError, match=f"'{name}'"):
        GenerateOptions.parse({name: value})


KNOWN = Known(("benign", "very malignant"), ("strength", "pressure", "slide"), frozenset(GenerateOptions.model_fields))
amounts = st.sampled_from(sorted({value for value in AMOUNTS.values() if value}))
signed = st.builds(lambda amount, sign: amount * sign, amounts, st.sampled_from((-1.0, 1.0)))


@st.composite
def said(draw: st.DrawFn) -> PromptConditions:
    conditions = PromptConditions(
        label=draw(st.none() | st.sampled_from(KNOWN.labels)),
        strength=draw(st.none() | amounts),
        pressure=draw(st.none() | signed | st.just(0.0)),
        slide=draw(st.none() | signed | st.just(0.0)),
        loop=draw(st.none() | st.just(True)),
        frames=draw(st.none() | st.just(64)),
    )
    assume(conditions.given())
    return conditions


@given(said(), st.randoms(use_true_random=False), st.booleans())
def test_a_prompt_says_what_it_describes_in_any_order(conditions: PromptConditions, random, shout: bool) -> None:
    prompt = describe(conditions)
    assert parse_prompt(prompt, KNOWN) == conditions
    phrases = prompt.split(", ")
    random.shuffle(phrases)
    shuffled = " ;  ".join(phrases)
    assert parse_prompt(shuffled.upper() if shout else shuffled, KNOWN) == conditions


@given(st.lists(st.sampled_from([*vocabulary(KNOWN.labels), ",", "sideways"]), max_size=8).map(" ".join))
def test_a_prompt_is_understood_wholly_or_refused(prompt: str) -> None:
    try:
        conditions = parse_prompt(prompt, KNOWN)
    except ConfigError:
        return
    assert "sideways" not in prompt
    assert parse_prompt(f"{prompt}, {prompt}", KNOWN) == conditions
    for word, (name, value) in FIXED.items():
        if word in prompt.split():
            assert getattr(conditions, name) == value
    GenerateOptions.parse(conditions.given())


sources = st.dictionaries(names, st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 2**64)), min_size=1, max_size=6)


def plan(stills: dict[str, tuple[str, int]], clips: int = 2, *, balance: bool = False) -> list:
    found = [
        Source(f"{label}/{name}.png", Path(name), f"{content:064x}", label, name, None, ())
        for name, (label, content) in sorted(stills.items())
    ]
    return plan_jobs(found, clips_per_image=clips, balance=balance, seed=3, ending="npz")


@given(sources, st.data())
def test_a_job_does_not_depend_on_other_stills(stills: dict[str, tuple[str, int]], data: st.DataObject) -> None:
    assume(len({name.lower() for name in stills}) == len(stills))
    some = data.draw(st.sets(st.sampled_from(sorted(stills)), min_size=1))
    few = plan({name: stills[name] for name in some})
    assert [job for job in plan(stills) if job.source.group in some] == few


@given(sources, st.integers(1, 5), st.integers(1, 4))
def test_shards_and_ranks_divide_a_plan(stills: dict[str, tuple[str, int]], count: int, world: int) -> None:
    assume(len({name.lower() for name in stills}) == len(stills))
    jobs = plan(stills, balance=True)
    labels = [job.source.label for job in jobs]
    assert len({labels.count(label) for label in set(labels)}) == 1
    parts = [
        job
        for index in range(1, count + 1)
        for rank in range(world)
        for job in Ranks(rank, world).share(Shard.parse(f"{index}/{count}").select(jobs))
    ]
    assert sorted(parts, key=jobs.index) == jobs


@given(st.text("0123456789/ -+a", max_size=8))
def test_a_shard_is_i_of_n_or_refused(text: str) -> None:
    try:
        shard = Shard.parse(text)
    except ConfigError:
        assert not re.fullmatch(r"[1-9]/[1-9]", text) or text[0] > text[2]
        return
    assert 1 <= shard.index <= shard.count
    assert text.strip().split("/") == [
        part for part in text.strip().split("/") if int(part) in (shard.index, shard.count)
    ]


@given(st.lists(st.lists(st.integers() | words, max_size=3), min_size=2, max_size=5))
def test_seeds_of_other_parts_are_other_seeds(parts: list[list[int | str]]) -> None:
    seeds = {tuple(map(repr, each)): derive_seed(*each) for each in parts}
    assert len(set(seeds.values())) == len(seeds)
    assert all(0 <= seed <= MAX_SEED for seed in seeds.values())


shapes = st.lists(st.integers(0, 3), max_size=3)


@given(
    st.dictionaries(words, shapes, min_size=1, max_size=4),
    st.dictionaries(words, st.text(max_size=8), max_size=3),
    st.data(),
)
def test_weights_files_are_whole_or_refused(
    sizes: dict[str, list[int]], metadata: dict[str, str], data: st.DataObject
) -> None:
    generator = torch.Generator().manual_seed(len(sizes))
    tensors = {name: torch.rand(shape, generator=generator) for name, shape in sizes.items()}
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "w.safetensors"
        write_tensors(path, tensors, metadata)
        said, found = read_tensors(path)
        assert said == metadata
        assert found.keys() == tensors.keys()
        assert all(torch.equal(found[key], tensors[key]) for key in tensors)
        content = path.read_bytes()
        path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
        with pytest.raises(WeightsError):
            read_tensors(path)
        place = data.draw(st.integers(0, len(content) - 1))
        path.write_bytes(content[:place] + bytes([data.draw(st.integers(0, 255))]) + content[place + 1 :])
        with contextlib.suppress(WeightsError):
            read_tensors(path)
