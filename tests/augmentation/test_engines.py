"""Who does the jobs changes nothing: ranks and actors give the bytes of one process, whoever of them dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.augmentation.test_kill import ROOT, finish
from tests.factories import small_weights
from tests.fakes import FakeGenerator, tree, write_busi
from us_i2v.augmentation.engines import ENGINES, Ranked, Serial, choose_engine
from us_i2v.augmentation.planning import Shard, collect_sources, plan_jobs, sources_sha256
from us_i2v.augmentation.settings import AugmentSettings
from us_i2v.augmentation.synthesis import Outcome, synthesise
from us_i2v.augmentation.work import handover_folder
from us_i2v.cli.app import app
from us_i2v.data.datasets import find_samples
from us_i2v.errors import ConfigError, OutputError
from us_i2v.pipeline import GenerateOptions
from us_i2v.ranks import Ranks

WHOLE = Shard()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_busi(tmp_path / "busi", {"benign": 3, "normal": 2})


def run(data: Path, out: Path, engine=None, generator=None, shard: Shard = WHOLE) -> Outcome:
    sources = collect_sources(find_samples(data), data)
    settings = AugmentSettings(ending="npz", options=GenerateOptions(frames=3), sources_sha256=sources_sha256(sources))
    jobs = plan_jobs(sources, clips_per_image=2, balance=False, seed=0, ending="npz")
    return synthesise(generator or FakeGenerator(), jobs, out, settings, fps=20.0, shard=shard, engine=engine)


def run_ranks(data: Path, out: Path, ranks: list[int], world: int, **given) -> dict[int, Outcome | Exception]:
    """Run some of the ranks in threads."""
    found: dict[int, Outcome | Exception] = {}

    def one(rank: int) -> None:
        try:
            found[rank] = run(data, out, Ranked(Ranks(rank, world), patience_s=1.0), **given)
        except OutputError as error:
            found[rank] = error

    threads = [threading.Thread(target=one, args=(rank,)) for rank in ranks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


@pytest.mark.parametrize("shard", [WHOLE, Shard(2, 2)])
def test_ranks_give_the_folder_of_one_process(data: Path, tmp_path: Path, shard: Shard) -> None:
    (data / "benign" / "benign (1).png").write_bytes(b"not a picture")
    run(data, tmp_path / "one", shard=shard)
    found = run_ranks(data, tmp_path / "three", [0, 1, 2], 3, shard=shard)
    assert tree(tmp_path / "three") == tree(tmp_path / "one")
    assert list(found[0].unreadable) == ["benign/benign (1).png"]
    assert found[0].made == {WHOLE: 8, Shard(2, 2): 4}[shard]
    again = run_ranks(data, tmp_path / "three", [0, 1, 2], 3, shard=shard)
    assert (again[0].made, again[0].present) == (0, found[0].made)


def test_rank_0_does_what_a_dead_rank_leaves(data: Path, tmp_path: Path) -> None:
    run(data, tmp_path / "one")
    out = tmp_path / "two"
    handover_folder(out, WHOLE).mkdir(parents=True)
    (handover_folder(out, WHOLE) / "1.json").write_text('{"error": "of another run", "hint": ""}')
    (handover_folder(out, WHOLE) / "1.beat").write_text("7")
    found = run_ranks(data, out, [0], 2)
    assert found[0] == Outcome(made=10)
    assert tree(out) == tree(tmp_path / "one")


def test_another_rank_writes_no_manifest(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = run_ranks(data, out, [1], 2)
    assert found[1] == Outcome(made=5)
    assert not (out / "manifest.csv").exists()
    assert not list(out.glob(".partial*"))


def test_an_error_of_a_rank_is_told_by_rank_0(data: Path, tmp_path: Path) -> None:
    class Failing(FakeGenerator):
        def __call__(self, image, **given):
            if threading.current_thread() is failing:
                raise OutputError("Disk is full.", "Make room.")
            time.sleep(0.05)
            return super().__call__(image, **given)

    out, generator = tmp_path / "out", Failing()
    said: list[Exception] = []

    def second() -> None:
        with pytest.raises(OutputError):
            run(data, out, Ranked(Ranks(1, 2)), generator)

    failing = threading.Thread(target=second)
    starter = threading.Timer(0.1, failing.start)
    starter.start()
    try:
        run(data, out, Ranked(Ranks(0, 2)), generator)
    except OutputError as error:
        said.append(error)
    starter.join()
    failing.join()
    assert str(said[0]) == "Rank 1 stopped: Disk is full. Make room."
    assert not (out / "manifest.csv").exists()


def test_choice_of_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert isinstance(choose_engine("auto", None, "cpu"), Serial)
    with pytest.raises(ConfigError, match="not one of auto, serial, torchrun, ray"):
        choose_engine("dask", None, "cpu")
    with pytest.raises(ConfigError, match="--workers 2"):
        choose_engine("auto", None, "cpu", 2)
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "3")
    engine = choose_engine("auto", None, "cpu")
    assert isinstance(engine, Ranked)
    assert (engine.ranks, engine.first) == (Ranks(3, 4), False)
    for name in set(ENGINES) - {"auto", "torchrun"}:
        with pytest.raises(ConfigError, match="one of 4 processes"):
            choose_engine(name, None, "cpu")
    monkeypatch.setenv("RANK", "4")
    with pytest.raises(ConfigError, match="RANK below WORLD_SIZE"):
        choose_engine("auto", None, "cpu")


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """`us-i2v augment` of six stills with untrained weights, without the output folder."""
    folder = tmp_path_factory.mktemp("inputs")
    write_busi(folder / "busi", {"benign": 4, "normal": 2})
    small_weights(folder / "w.safetensors")
    line = ["augment", str(folder / "busi"), "--weights", str(folder / "w.safetensors"), "--device", "cpu"]
    return [*line, "--frames", "4", "--steps", "1", "--ext", "npz"]


def in_this_process(command: list[str], out: Path) -> None:
    done = CliRunner().invoke(app, [*command, str(out)])
    assert done.exit_code == 0, done.output


@pytest.fixture(scope="module")
def whole(command: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Files that one process makes."""
    out = tmp_path_factory.mktemp("whole") / "out"
    in_this_process(command, out)
    return tree(out)


def test_torchrun_gives_the_bytes_of_one_process(command: list[str], whole: dict[str, bytes], tmp_path: Path) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = finish([*launcher, "-m", "us_i2v", *command], tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path / 'out'}: 6 clips made, 0 already there\n"
    assert tree(tmp_path / "out") == whole
    assert not [path for path in (tmp_path / "out").rglob("*") if path.name.startswith(".")]


def test_a_killed_rank_costs_its_unfinished_clips_only(
    command: list[str], whole: dict[str, bytes], tmp_path: Path
) -> None:
    """Started without torchrun, as srun does: rank 1 is killed, and the next run makes what it had left."""
    out = tmp_path / "out"
    environment = os.environ | {"WORLD_SIZE": "2"}
    second = subprocess.Popen(
        [sys.executable, "-m", "us_i2v", *command, str(out)],
        cwd=ROOT,
        env=environment | {"RANK": "1"},
        stdout=subprocess.DEVNULL,
    )
    while second.poll() is None and not list(out.glob("*/*_0.npz")):
        time.sleep(0.005)
    second.send_signal(signal.SIGKILL)
    second.wait()
    before = {name: data for name, data in tree(out).items() if not name.startswith(".")}
    assert before.items() <= whole.items()
    in_this_process(command, out)
    assert tree(out) == whole
    assert not [path for path in out.rglob("*") if path.name.startswith(".")]
