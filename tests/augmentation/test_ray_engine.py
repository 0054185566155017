"""Actors of a local Ray cluster; skipped where Ray is not installed."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.factories import small_weights
from tests.fakes import tree, write_busi
from us_i2v.augmentation import ray_engine
from us_i2v.augmentation.planning import Shard, collect_sources, plan_jobs, sources_sha256
from us_i2v.augmentation.ray_engine import RayEngine, Recipe, Share, Worker
from us_i2v.augmentation.settings import AugmentSettings
from us_i2v.augmentation.synthesis import Outcome, synthesise
from us_i2v.augmentation.work import Work
from us_i2v.data.datasets import find_samples
from us_i2v.errors import ConfigError, OutputError, WeightsError
from us_i2v.pipeline import GenerateOptions, ImageToVideo
from us_i2v.provenance import Provenance


@pytest.mark.parametrize(
    ("resources", "workers", "jobs", "device", "expected"),
    [
        ({"CPU": 2.0}, 2, 100, "auto", Share(2, 0.5, 0)),
        ({"CPU": 2.0}, None, 100, "auto", Share(1, 1.0, 0)),
        ({"CPU": 64.0, "GPU": 8.0}, None, 100, "auto", Share(8, 1.0, 1.0)),
        ({"CPU": 64.0, "GPU": 8.0}, None, 3, "auto", Share(3, 1.0, 1.0)),
        ({"CPU": 64.0, "GPU": 8.0}, 16, 100, "auto", Share(16, 1.0, 0.5)),
        ({"CPU": 64.0, "GPU": 8.0}, None, 100, "cpu", Share(32, 1.0, 0)),
        ({"CPU": 3.0}, 7, 100, "auto", Share(7, 0.21, 0)),
    ],
)
def test_share_of_the_cluster(
    resources: dict[str, float], workers: int | None, jobs: int, device: str, expected: Share
) -> None:
    share = Share.of(resources, workers, jobs, device)
    assert share == expected
    assert share.workers * share.cpus <= resources["CPU"]
    assert share.workers * share.gpus <= resources.get("GPU", 0)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_engine, "import_module", lambda name: __import__("a_package_that_is_not_there"))
    with pytest.raises(ConfigError, match=r"us-i2v\[ray\]"):
        RayEngine(Recipe(None, "cpu"))


class Case:
    """Stills, weights and a plan."""

    def __init__(self, folder: Path) -> None:
        data = write_busi(folder / "busi", {"benign": 5, "normal": 3})
        (data / "benign" / "benign (2).png").write_bytes(b"not a picture")
        sources = collect_sources(find_samples(data), data)
        self.weights = small_weights(folder / "w.safetensors")
        self.generator = ImageToVideo.from_pretrained(self.weights, "cpu")
        self.jobs = plan_jobs(sources, clips_per_image=1, balance=False, seed=0, ending="npz")
        self.record = Provenance(
            command="augment", still_sha256=None, weights_sha256=self.generator.weights_sha256, seed=0, options={}
        )
        self.settings = AugmentSettings(
            ending="npz",
            options=GenerateOptions(frames=4, steps=1),
            weights_sha256=self.generator.weights_sha256,
            sources_sha256=sources_sha256(sources),
        )

    def run(self, out: Path, engine: RayEngine | None = None) -> Outcome:
        return synthesise(self.generator, self.jobs, out, self.settings, fps=10.0, engine=engine, record=self.record)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(tmp_path_factory.mktemp("ray"))


@pytest.fixture(scope="module")
def engine(case: Case) -> object:
    """Two actors a run, in one cluster for all tests."""
    ray = pytest.importorskip("ray", reason="ray is not installed")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=ray_engine.STORE_BYTES)
    yield RayEngine(Recipe(str(case.weights), "cpu"), workers=2)
    ray.shutdown()


def actors() -> list[int]:
    """Process ids of this test's actors: children of the raylet, which is a child of this process."""

    def parent(pid: str) -> str:
        return (Path("/proc") / pid / "stat").read_text().rpartition(")")[2].split()[1]

    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (folder / "cmdline").read_bytes().startswith(b"ray::Worker") and parent(parent(folder.name)) == str(
                os.getpid()
            ):
                found.append(int(folder.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked for in /proc")
def test_actors_give_the_bytes_of_one_process_though_one_is_killed(
    case: Case, engine: RayEngine, tmp_path: Path
) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    case.run(whole)
    killed: list[int] = []

    def kill_one_at_work() -> None:
        while not list(out.glob("*/*.npz")):
            time.sleep(0.002)
        killed.append(actors()[0])
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_one_at_work)
    killer.start()
    outcome = case.run(out, engine)
    killer.join()
    assert killed
    assert (outcome.made, outcome.present) == (7, 0)
    assert list(outcome.unreadable) == ["benign/benign (2).png"]
    assert tree(out) == tree(whole)
    assert not [path for path in out.rglob("*") if path.name.startswith(".")]


def test_what_an_actor_raises_stops_the_run(case: Case, engine: RayEngine) -> None:
    @engine.ray.remote
    def raises() -> None:
        raise WeightsError("Other weights.", "Use one file.")

    crew = ray_engine._Crew(engine.ray, Share(1, 0.1, 0))
    crew._running[raises.remote()] = 0, ray_engine._Batch()
    with pytest.raises(WeightsError, match=r"Other weights\. Use one file\."):
        crew.next_answer()


def test_an_actor_checks_that_it_sees_the_same(case: Case, tmp_path: Path) -> None:
    work = Work(tmp_path, case.settings.model_copy(update={"weights_sha256": "ab" * 32}), (), case.record)
    worker = Worker(Recipe(str(case.weights), "cpu"), work, Shard())
    with pytest.raises(OutputError, match="does not see the output folder"):
        worker.ready()
    (tmp_path / ".partial").mkdir()
    (tmp_path / ".partial" / ray_engine._SEEN).touch()
    with pytest.raises(WeightsError, match="has other weights"):
        worker.ready()


def test_batches_that_kill_their_actors_stop_the_run() -> None:
    batch = ray_engine._Batch((SimpleNamespace(output="benign/b_0.npz"),))
    died = RuntimeError("The actor died.\nmore")
    for deaths in range(1, ray_engine.MOST_DEATHS):
        batch = batch.after_death(died)
        assert batch.deaths == deaths
    with pytest.raises(OutputError, match=r"3 workers died making 'benign/b_0\.npz'.*\(The actor died\.\)"):
        batch.after_death(died)
