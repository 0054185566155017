"""Which clips stay: decided by class at the end, alike in any order, after any kill and in any number of parts."""

from __future__ import annotations

import csv
import errno
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from tests.fakes import WEIGHTS_SHA256, FakeGenerator, tree, write_busi
from us_i2v.augmentation import manifest, once, selection, synthesis, work
from us_i2v.augmentation.planning import Job, Shard, Source, collect_sources, plan_jobs, sources_sha256
from us_i2v.augmentation.selection import Candidate, QualitySelection, decide, numbers_kept
from us_i2v.augmentation.settings import AugmentSettings
from us_i2v.augmentation.synthesis import Outcome, synthesise
from us_i2v.data.datasets import find_samples
from us_i2v.errors import ConfigError, InputError, OutputError
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


class Together:
    """Two shards in two threads, held so that one has seen no decision while the other takes it to its end.

    Both begin to look for clips when all are there. The `slow` one is held at the first score that it reads, until
    the `fast` one has removed clips ("removed"), or has cleared the scores as well ("cleared").
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
        self.moment, self.all_made = moment, threading.Barrier(2)
        self.slow_inside, self.fast_far, self.slow_ended = (threading.Event() for _ in range(3))
        self.begun: set[str] = set()
        self.errors: list[BaseException] = []
        self.read: Callable[..., Any] = selection._score
        self.part: Callable[..., Any] = manifest._write_part
        self.clear: Callable[..., Any] = synthesis.clear_scores
        monkeypatch.setattr(selection, "_score", self._score)
        monkeypatch.setattr(manifest, "_write_part", self._write_part)
        monkeypatch.setattr(synthesis, "clear_scores", self._clear_scores)

    def run(self, data: Path, out: Path) -> None:
        def shard(index: int) -> None:
            try:
                run(data, out, shard=Shard(index, 2))
            except BaseException as error:
                self.errors.append(error)
            finally:
                (self.slow_ended if index == 2 else self.fast_far).set()

        threads = [threading.Thread(target=shard, args=(k + 1,), name=name) for k, name in enumerate(("fast", "slow"))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        assert not any(thread.is_alive() for thread in threads)

    def _first(self, what: str) -> str:
        """Return who is here for the first time, else nothing."""
        name = threading.current_thread().name
        key = f"{what} {name}"
        if key in self.begun:
            return ""
        self.begun.add(key)
        return name

    def _write_part(self, *given: Any) -> None:
        self.part(*given)
        if self._first("part"):
            self.all_made.wait(60)

    def _score(self, out: Path, job: Job) -> Score:
        name = self._first("score")
        if name == "slow":
            self.slow_inside.set()
            assert self.fast_far.wait(60)
        elif name == "fast":
            assert self.slow_inside.wait(60)
        return self.read(out, job)

    def _clear_scores(self, out: Path) -> None:
        if threading.current_thread().name == "fast" and self.moment == "removed":
            self.fast_far.set()
            assert self.slow_ended.wait(60)
        self.clear(out)


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("moment", ["removed", "cleared"])
def test_shards_that_finish_together_decide_once(
    data: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, links: bool
) -> None:
    def refuse(*_given: object) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    if not links:
        monkeypatch.setattr(once.os, "link", refuse)
    together = Together(monkeypatch, moment)
    together.run(data, tmp_path / "out")
    assert together.errors == []
    assert together.begun >= {"score fast", "score slow"}, "both were about to decide"
    found = tree(tmp_path / "out")
    parts = [name for name in found if name.startswith("manifest-")]
    listed = [row["file"] for name in parts for row in rows(tmp_path / "out" / name)]
    assert sorted(listed) == sorted(row["file"] for row in rows(whole / "manifest.csv"))
    assert {name: found[name] for name in found if name not in parts} == tree(whole)
    assert not list((tmp_path / "out").glob(".*"))


def unreadable(patch: pytest.MonkeyPatch, names: Callable[[str], bool]) -> None:
    """Stills of these names cannot be read while `patch` lasts."""
    read = work.read_still

    def refuse(path: Path, **options: Any) -> Any:
        if names(path.name):
            raise InputError(f"'{path.name}' cannot be decoded.", "Install the extra.")
        return read(path, **options)

    patch.setattr(work, "read_still", refuse)


@pytest.mark.parametrize("count", [1, 2])
def test_still_that_comes_after_the_decision_is_refused(data: Path, tmp_path: Path, count: int) -> None:
    out, name = tmp_path / "out", "benign/benign (2).png"
    with pytest.MonkeyPatch.context() as patch:
        unreadable(patch, lambda found: found == "benign (2).png")
        for index in range(1, count + 1):
            run(data, out, shard=Shard(index, count))
        assert len(rows(out / "quality.csv")) == CLIPS * (sum(COUNTS.values()) - 1)
        before = tree(out)
        for index in range(1, count + 1):
            run(data, out, shard=Shard(index, count))
        assert tree(out) == before, "still unreadable: nothing changes"
    for index in range(1, count + 1):
        generator = FakeGenerator()
        outcome = run(data, out, shard=Shard(index, count), generator=generator)
        assert (generator.calls, outcome.made) == ([], 0)
        assert outcome.unreadable == {name: selection.LATE}
    after = tree(out)
    assert {path for path in before if after[path] != before[path]} == {p for p in before if p.startswith("unreadable")}
    assert before.keys() == after.keys()


def test_clip_that_was_not_decided_on_is_refused(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(data, out)
    lines = (out / "quality.csv").read_text().splitlines(keepends=True)
    kept = next(line for line in lines if ",yes," in line)
    (out / "quality.csv").write_text("".join(line for line in lines if line != kept))
    with pytest.raises(OutputError, match=r"does not stand in quality\.csv: it was made after the decision"):
        run(data, out)
    assert (out / kept.split(",")[0]).exists(), "nothing is removed that was not judged"
    (out / "quality.csv").write_text("".join(lines).replace(",yes,", ",,"))
    with pytest.raises(OutputError, match="is damaged"):
        run(data, out)


def test_without_clips_nothing_is_decided_until_there_are_some(data: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.MonkeyPatch.context() as patch:
        unreadable(patch, lambda found: True)
        run(data, out)
    assert not (out / "quality.csv").exists()
    assert rows(out / "manifest.csv") == []
    assert "| clips rejected for their quality, see `quality.csv` | 0 |" in (out / "README.md").read_text()
    assert selection.summary(out, judge()) == "quality: no clip was made, so none was judged"
    run(data, out)
    assert tree(out) == tree(whole)


def test_summary_of_an_unfinished_part(data: Path, tmp_path: Path) -> None:
    run(data, tmp_path / "out", shard=Shard(2, 3))
    assert selection.summary(tmp_path / "out", judge()).startswith("quality: not decided yet, other shards have clips")


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
        if moment == "making" and made == 3:
            die()
        write(path, text, staging)

    selection._remove, selection.write_text = counted_remove, watched_write
    if moment == "deciding":
        selection.write_once = lambda *_given: die()
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
