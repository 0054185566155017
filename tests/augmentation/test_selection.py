"""Which clips stay: decided by class at the end, alike in any order, after any kill and in any number of parts."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path, PurePosixPath

import pytest

from tests.fakes import WEIGHTS_SHA256, FakeGenerator, tree, write_busi
from us_i2v.augmentation import selection
from us_i2v.augmentation.planning import Job, Shard, Source, collect_sources, plan_jobs, sources_sha256
from us_i2v.augmentation.selection import Candidate, QualitySelection, decide, numbers_kept
from us_i2v.augmentation.settings import AugmentSettings
from us_i2v.augmentation.synthesis import Outcome, synthesise
from us_i2v.data.datasets import find_samples
from us_i2v.errors import ConfigError
from us_i2v.pipeline import GenerateOptions
from us_i2v.quality import MEASURED, QualityHeader, QualityReference, Range, Score

COUNTS = {"benign": 3, "malignant": 1, "normal": 1}
CLIPS = 2
BEST = QualitySelection(keep_best=0.5, reference="test", reference_sha256="cd" * 32)


def judge() -> QualityReference:
    """Everything is plausible but flow: the fake generator's clips move by 1 to 5 px a frame, by their seed."""
    ranges = {name: Range(low=-1e6, high=1e6) for name in MEASURED} | {"flow": Range(low=0, high=1)}
    about = {"frames": 4, "interval_s": 0.05, "quantiles": (0.025, 0.975), "windows": 30, "groups": 10}
    return QualityReference(QualityHeader(package_version="0", name="test", ranges=ranges, **about), None, "cd" * 32)


def run(
    data: Path,
    out: Path,
    *,
    shard: Shard = Shard(),  # noqa: B008
    chosen: QualitySelection | None = BEST,
    generator: FakeGenerator | None = None,
) -> Outcome:
    sources = collect_sources(find_samples(data), data)
    settings = AugmentSettings(
        clips_per_image=CLIPS,
        ending="npz",
        options=GenerateOptions(frames=4),
        weights_sha256=WEIGHTS_SHA256,
        sources_sha256=sources_sha256(sources),
        quality=chosen,
    )
    jobs = plan_jobs(sources, clips_per_image=CLIPS, balance=False, seed=0, ending="npz")
    given = None if chosen is None else judge()
    return synthesise(generator or FakeGenerator(), jobs, out, settings, fps=20.0, shard=shard, judge=given)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_busi(tmp_path_factory.mktemp("data") / "busi", COUNTS)


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "out"
    run(data, out)
    return out


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_best_half_of_each_class_stays(whole: Path) -> None:
    decided, manifest = rows(whole / "quality.csv"), rows(whole / "manifest.csv")
    assert len(decided) == CLIPS * sum(COUNTS.values())
    assert Counter(row["label"] for row in manifest) == COUNTS  # half of twice as many
    kept = {row["file"]: row["quality"] for row in decided if row["kept"] == "yes"}
    assert {row["file"]: row["quality"] for row in manifest} == kept
    for row in decided:
        clip = whole / row["file"]
        assert clip.exists() == (row["kept"] == "yes")
        assert (row["reason"] == "") == (row["kept"] == "yes")
        assert clip.with_name(clip.name + ".json").exists() == clip.exists()
        if row["label"] != "normal":
            assert clip.with_name(f"{clip.stem}_mask.npz").exists() == clip.exists()
    for label in COUNTS:
        own = [row for row in decided if row["label"] == label]
        worst_kept = min(float(row["quality"]) for row in own if row["kept"] == "yes")
        assert all(float(row["quality"]) <= worst_kept for row in own if row["kept"] == "no")
    assert len({row["quality"] for row in decided}) > 2
    assert not list(whole.glob(".*"))
    assert "| clips rejected for their quality, see `quality.csv` | 5 |" in (whole / "README.md").read_text()
    assert {sample.path.name for sample in find_samples(whole)} == {PurePosixPath(name).name for name in kept}


def test_running_again_makes_nothing(data: Path, whole: Path) -> None:
    before, generator = tree(whole), FakeGenerator()
    outcome = run(data, whole, generator=generator)
    assert (outcome.made, generator.calls) == (0, [])
    assert tree(whole) == before


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2)])
def test_parts_in_any_order_decide_alike(data: Path, whole: Path, tmp_path: Path, order: tuple[int, ...]) -> None:
    for index in order:
        assert not (tmp_path / "out" / "quality.csv").exists()
        run(data, tmp_path / "out", shard=Shard(index, 3))
    found = tree(tmp_path / "out")
    parts = [name for name in found if name.startswith("manifest-")]
    listed = [row["file"] for name in parts for row in rows(tmp_path / "out" / name)]
    assert sorted(listed) == sorted(row["file"] for row in rows(whole / "manifest.csv"))
    assert {name: found[name] for name in found if name not in parts} == tree(whole)
    run(data, tmp_path / "out", shard=Shard(2, 3))
    assert tree(tmp_path / "out") == found


@pytest.mark.parametrize("moment", ["making", "deciding", "removing"])
def test_kill_and_continue_gives_the_same_folder(data: Path, whole: Path, tmp_path: Path, moment: str) -> None:
    out = tmp_path / "killed"
    code = (
        "from pathlib import Path\n"
        "from tests.augmentation.test_selection import killed_run\n"
        f"killed_run(Path({str(data)!r}), Path({str(out)!r}), {moment!r})\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(root)}, cwd=root, check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert (out / "quality.csv").exists() == (moment == "removing")
    assert not (out / "manifest.csv").exists()
    outcome = run(data, out)
    assert outcome.made == (7 if moment == "making" else 0)
    assert tree(out) == tree(whole)
    assert not list(out.glob(".*"))


def killed_run(data: Path, out: Path, moment: str) -> None:
    """Die as by kill -9: after three clips, before the decision is written, or after two clips are removed."""
    remove, write, removed = selection._remove, selection.write_text, []

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def counted_remove(clip: Path) -> None:
        if moment == "removing" and len(removed) == 2:
            die()
        remove(clip)
        removed.append(clip)

    def watched_write(path: Path, text: str, staging: Path) -> None:
        made = sum(1 for _ in out.rglob("*_?.npz"))
        if (moment == "making" and made == 3) or (moment == "deciding" and path.name == "quality.csv"):
            die()
        write(path, text, staging)

    selection._remove, selection.write_text = counted_remove, watched_write
    run(data, out)


def test_below_a_score_is_rejected_with_its_reason(data: Path, tmp_path: Path) -> None:
    chosen = QualitySelection(reject_below=0.15, reference="test", reference_sha256="cd" * 32)
    run(data, tmp_path / "out", chosen=chosen)
    decided = rows(tmp_path / "out" / "quality.csv")
    assert {(float(row["quality"]) < 0.15) == (row["kept"] == "no") for row in decided} == {True}
    rejected = [row for row in decided if row["kept"] == "no"]
    assert 0 < len(rejected) < len(decided)
    assert all(row["reason"].startswith("below 0.15: flow ") for row in rejected)


def test_other_selection_in_the_same_folder_is_refused(data: Path, whole: Path) -> None:
    with pytest.raises(ConfigError, match=r"quality\.keep_best"):
        run(data, whole, chosen=BEST.model_copy(update={"keep_best": 0.9}))
    with pytest.raises(ConfigError, match="quality"):
        run(data, whole, chosen=None)


def candidates(values: dict[str, list[float]]) -> list[Candidate]:
    found = []
    for label, scores in values.items():
        source = Source(label, Path(label), "", label, label, None, ())
        jobs = [Job(source, k, 100 - k, PurePosixPath(f"{label}_{k}.npz"), None) for k in range(len(scores))]
        found += [Candidate(job, Score(value, {}, "why")) for job, value in zip(jobs, scores, strict=True)]
    return found


def test_numbers_are_rounded_and_never_nothing() -> None:
    assert [numbers_kept(n, 0.5) for n in (1, 2, 3, 4, 5)] == [1, 1, 2, 2, 3]
    assert numbers_kept(10, 0.01) == 1
    assert numbers_kept(10, 1.0) == 10


def test_ties_go_to_the_smaller_seed_and_zeros_always_go() -> None:
    reasons = decide(candidates({"a": [0.5, 0.5, 0.5, 0.9], "b": [0.0, 0.0], "c": [0.1]}), BEST)
    assert [reason == "" for reason in reasons] == [False, False, True, True, False, False, True]
    assert reasons[0] == "rank 4 of 4 in class 'a', 2 kept: why"
    assert reasons[4] == "why"


def test_both_rules_together() -> None:
    both = QualitySelection(keep_best=0.5, reject_below=0.6)
    reasons = decide(candidates({"a": [0.9, 0.7, 0.5, 0.4], "b": [0.5, 0.4]}), both)
    assert [reason == "" for reason in reasons] == [True, True, False, False, False, False]
