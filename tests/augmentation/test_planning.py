"""Plans: deterministic, independent of other stills, balanced, sharded."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import pytest

from us_i2v.augmentation.planning import (
    Shard,
    Source,
    check_apart,
    clips_of_each,
    collect_sources,
    plan_jobs,
    sources_sha256,
)
from us_i2v.data.manifest import Sample
from us_i2v.errors import ConfigError, DataError, OutputError
from us_i2v.seeding import derive_seed


def source(name: str, label: str | None = "benign", masks: tuple[Path, ...] = ()) -> Source:
    digest = hashlib.sha256(name.encode()).hexdigest()
    return Source(name, Path("/data") / name, digest, label, f"group of {name}", None, masks)


def jobs_of(sources: list[Source], **changes: object):
    settings = {"clips_per_image": 1, "balance": False, "seed": 0, "ending": "mp4"} | changes
    return plan_jobs(sources, **settings)


def test_names_keep_folders_and_count_clips() -> None:
    jobs = jobs_of([source("benign/a (1).png"), source("normal/b.png")], clips_per_image=2)
    assert [str(job.output) for job in jobs] == [
        "benign/a (1)_0.mp4",
        "benign/a (1)_1.mp4",
        "normal/b_0.mp4",
        "normal/b_1.mp4",
    ]


@pytest.mark.parametrize(
    ("ending", "output", "mask"),
    [
        ("mp4", "c/a.1_0.mp4", "c/a.1_0_mask.mkv"),
        ("npz", "c/a.1_0.npz", "c/a.1_0_mask.npz"),
        ("png", "c/a_1_0", "c/a_1_0_mask"),
    ],
)
def test_mask_lies_beside_its_clip(ending: str, output: str, mask: str) -> None:
    (job,) = jobs_of([source("c/a.1.png", masks=(Path("m.png"),))], ending=ending)
    assert (str(job.output), str(job.mask_output)) == (output, mask)


def test_no_mask_no_mask_output() -> None:
    (job,) = jobs_of([source("a.png")])
    assert job.mask_output is None


def test_seed_depends_on_base_still_and_clip_only() -> None:
    alone = jobs_of([source("b/x.png")], clips_per_image=2, seed=7)
    among = jobs_of([source("a/y.png"), source("b/x.png")], clips_per_image=2, seed=7)
    assert [job.seed for job in alone] == [job.seed for job in among[2:]]
    assert alone[1].seed == derive_seed(7, source("b/x.png").sha256, 1)
    seeds = {job.seed for job in [*among, *jobs_of([source("b/x.png")], seed=8)]}
    assert len(seeds) == 5


def test_stills_that_differ_in_ending_only_get_names_of_their_own() -> None:
    jobs = jobs_of([source("c/a.jpg"), source("c/a.png"), source("c/b.png")])
    assert [str(job.output) for job in jobs] == ["c/a_jpg_0.mp4", "c/a_png_0.mp4", "c/b_0.mp4"]


def test_names_that_differ_in_case_only_do_not_collide() -> None:
    with pytest.raises(DataError, match=r"'c/A\.png' and 'c/a\.png'"):
        jobs_of([source("c/A.png"), source("c/a.png")])


def test_names_that_still_collide_are_refused() -> None:
    with pytest.raises(DataError, match=r"c/a_1_0"):
        jobs_of([source("c/a.1.png"), source("c/a_1.png")], ending="png")


def test_unknown_ending_is_refused() -> None:
    with pytest.raises(ConfigError, match="'wmv'"):
        jobs_of([source("a.png")], ending="wmv")


def test_balance_gives_every_class_as_many_clips_as_the_largest() -> None:
    sources = [source(f"b/{i}.png", "benign") for i in range(7)]
    sources += [source(f"m/{i}.png", "malignant") for i in range(3)] + [source("n/0.png", "normal")]
    counts = clips_of_each(sources, 2, balance=True, seed=0)
    assert counts[:7] == [2] * 7
    assert sorted(counts[7:10]) == [4, 5, 5]
    assert counts[10] == 14
    per_class = Counter(job.source.label for job in jobs_of(sources, clips_per_image=2, balance=True))
    assert set(per_class.values()) == {14}


def test_without_balance_every_still_gets_the_same() -> None:
    assert clips_of_each([source("a.png"), source("b.png", "x")], 3, balance=False, seed=0) == [3, 3]


def test_which_still_gets_one_more_is_drawn_from_the_seed() -> None:
    sources = [source(f"b/{i}.png", "benign") for i in range(9)]
    sources += [source(f"m/{i}.png", "malignant") for i in range(8)]
    drawn = {tuple(clips_of_each(sources, 1, balance=True, seed=seed)) for seed in range(20)}
    assert len(drawn) > 1
    assert clips_of_each(sources, 1, balance=True, seed=3) == clips_of_each(sources, 1, balance=True, seed=3)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_shards_are_disjoint_and_together_the_whole(count: int) -> None:
    jobs = jobs_of([source(f"{i}.png") for i in range(5)])
    parts = [Shard(index, count).select(jobs) for index in range(1, count + 1)]
    assert sorted(str(job.output) for part in parts for job in part) == [str(job.output) for job in jobs]
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_shard_is_read_from_text() -> None:
    assert Shard.parse("2/8") == Shard(2, 8)
    assert Shard.parse("2/8").suffix == "-2-of-8"
    assert Shard.parse("1/1").suffix == ""


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2", "1/2/3", ""])
def test_bad_shard_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="i/n"):
        Shard.parse(text)


def test_sources_are_the_hashed_stills_in_order(tmp_path: Path) -> None:
    for name, data in (("b.png", b"bb"), ("a.png", b"aa"), ("v.mp4", b"vv")):
        (tmp_path / name).write_bytes(data)
    samples = [
        Sample(path=tmp_path / name, kind=kind, label="x", group="g", split="train", masks=())
        for name, kind in (("b.png", "still"), ("v.mp4", "clip"), ("a.png", "still"))
    ]
    sources = collect_sources(samples, tmp_path)
    assert [item.name for item in sources] == ["a.png", "b.png"]
    assert sources[0].sha256 == hashlib.sha256(b"aa").hexdigest()
    assert (sources[0].label, sources[0].group, sources[0].split) == ("x", "g", "train")


def test_clips_only_is_no_source(tmp_path: Path) -> None:
    sample = Sample(path=tmp_path / "v.mp4", kind="clip", label=None, group="g", split=None, masks=())
    with pytest.raises(DataError, match="no stills"):
        collect_sources([sample], tmp_path)


def test_hash_of_sources_sees_every_change(tmp_path: Path) -> None:
    still, mask = tmp_path / "a.png", tmp_path / "m.png"
    still.write_bytes(b"a")
    mask.write_bytes(b"m")

    def digest(label: str = "x", group: str = "g") -> str:
        sample = Sample(path=still, kind="still", label=label, group=group, split=None, masks=(mask,))
        return sources_sha256(collect_sources([sample], tmp_path))

    digests = [digest(), digest(label="y"), digest(group="h")]
    mask.write_bytes(b"n")
    digests.append(digest())
    still.write_bytes(b"b")
    digests.append(digest())
    assert len(set(digests)) == 5
    assert digest() == digests[-1]


@pytest.mark.parametrize(("data", "out"), [("d", "d"), ("d", "d/out"), ("d/in", "d"), ("d", "d/x/../y")])
def test_output_and_data_must_not_contain_each_other(tmp_path: Path, data: str, out: str) -> None:
    with pytest.raises(OutputError, match="must not contain each other"):
        check_apart(tmp_path / data, tmp_path / out)


def test_output_beside_data_is_fine(tmp_path: Path) -> None:
    check_apart(tmp_path / "d", tmp_path / "d_clips")
