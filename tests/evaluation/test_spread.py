"""Measuring by several ranks: the numbers of one process, bit for bit; errors of one reach all."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from tests.cli.conftest import one_line_error
from tests.evaluation.conftest import WriteClips
from tests.evaluation.sets import Statistics, drifting, noisy, real_set
from tests.factories import small_weights
from us_i2v.cli.app import app
from us_i2v.errors import ConfigError, InputError, UsI2VError
from us_i2v.evaluation import spread
from us_i2v.evaluation.clips import RealWindows
from us_i2v.evaluation.energy import energy_scores
from us_i2v.evaluation.measure import Measured, measure
from us_i2v.ranks import Ranks

ROOT = Path(__file__).parents[2]


@pytest.fixture
def by_ranks(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[object]]:
    """Run a function of `Ranks` once a rank, in threads that exchange values as processes would."""

    def run(world: int, function: Callable[[Ranks], object]) -> list[object]:
        meeting, values, place = threading.Barrier(world), [None] * world, threading.local()

        def gather(value: object) -> list[object]:
            values[place.rank] = value
            meeting.wait()
            found = list(values)
            meeting.wait()
            return found

        results: list[object] = [None] * world

        def one(rank: int) -> None:
            place.rank = rank
            try:
                results[rank] = function(Ranks(rank, world))
            except UsI2VError as error:
                results[rank] = error

        monkeypatch.setattr(spread, "_gather", gather)
        threads = [threading.Thread(target=one, args=(rank,)) for rank in range(world)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results

    return run


def assert_same(a: Measured, b: Measured) -> None:
    for name in ("names", "groups", "sources", "networks", "partners", "paired_label"):
        assert getattr(a, name) == getattr(b, name), name
    for name in ("features", "scalars", "curves", "paired"):
        ours, theirs = getattr(a, name), getattr(b, name)
        assert list(ours) == list(theirs)
        for key in ours:
            assert np.array_equal(ours[key], theirs[key], equal_nan=True), (name, key)


@pytest.mark.parametrize("world", [2, 3, 7])
def test_ranks_measure_what_one_process_does(by_ranks: Callable[..., list[object]], world: int) -> None:
    """Seven ranks for five batches: two have nothing to do."""
    real = real_set(9)
    fakes = real.changed(noisy(4))
    networks = {"fvd": Statistics(), "fid": Statistics(per_frame=True)}
    given = {"partner": real, "pairs": [3, None, *range(2, 9)], "batch": 2}
    expected = measure(fakes, networks, **given)
    assert expected.paired
    for found in by_ranks(world, lambda ranks: spread.measure_shared(ranks, fakes, networks, **given)):
        assert_same(found, expected)


def test_each_clip_is_measured_once(by_ranks: Callable[..., list[object]]) -> None:
    sets = [real_set(6) for _ in range(2)]
    by_ranks(2, lambda ranks: spread.measure_shared(ranks, sets[ranks.rank], {}, curves=False, batch=2))
    assert [clips.read for clips in sets] == [[0, 1, 4, 5], [2, 3]]


def test_energy_scores_of_ranks(by_ranks: Callable[..., list[object]]) -> None:
    real = real_set(4)

    def sample(index: int, number: int) -> np.ndarray:
        return drifting(100 + 10 * index + number)

    expected = energy_scores(real, sample, samples=2)
    for found in by_ranks(3, lambda ranks: spread.energy_scores_shared(ranks, real, sample, samples=2)):
        assert (found.names, found.groups, found.samples) == (expected.names, expected.groups, 2)
        assert np.array_equal(found.scores["motion"], expected.scores["motion"])


def test_what_one_rank_meets_stops_all(by_ranks: Callable[..., list[object]]) -> None:
    real = real_set(4)
    frames = real.frames

    def damaged(index: int) -> np.ndarray:
        if index == 3:
            raise InputError("'clip03' is damaged.")
        return frames(index)

    real.frames = damaged
    found = by_ranks(2, lambda ranks: spread.measure_shared(ranks, real, {}, describe=False, curves=False, batch=1))
    assert [str(error) for error in found] == ["'clip03' is damaged."] * 2


def test_processes_that_cannot_meet_are_told_before_clips_are_read(
    write_clips: WriteClips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("MASTER_PORT", "29500")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    monkeypatch.setattr(RealWindows, "of", lambda *_given, **_named: pytest.fail("clips were read"))
    real = write_clips("real", {"c.npz": drifting(0)}, {"c.npz": "p"})
    line = one_line_error(CliRunner().invoke(app, ["evaluate", str(real), "bundled", "-o", str(tmp_path / "r.json")]))
    assert "WORLD_SIZE is 2, and MASTER_ADDR unset" in line


@pytest.mark.parametrize(
    ("values", "word"),
    [([(1, "a" * 64), (1, "b" * 64)], "aaaaaaaaaaaa and bbbbbbbbbbbb"), ([(1, None), (2, None)], "1 to 2 CPU threads")],
)
def test_processes_must_hold_the_same_weights(
    monkeypatch: pytest.MonkeyPatch, values: list[tuple[int, str | None]], word: str
) -> None:
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "29500")
    ended: list[bool] = []
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda *_given, **_named: None)
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: ended.append(True))
    monkeypatch.setattr(spread, "_gather", lambda value: [value, values[1]])
    monkeypatch.setattr(torch, "get_num_threads", lambda: values[0][0])
    with pytest.raises(ConfigError, match=word), spread.joined(Ranks(0, 2), values[0][1]):
        pytest.fail("the body ran")
    assert ended == [True]


def test_evaluate_under_torchrun(write_clips: WriteClips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights as fakes, so that clips are made, measured and scored by both ranks."""
    real = write_clips("real", {f"c{k}.npz": drifting(k) for k in range(3)}, {f"c{k}.npz": f"p{k}" for k in range(3)})
    weights = small_weights(tmp_path / "w.safetensors")
    line = [str(real), str(weights), "--size", "64", "--metrics", "paired,motion,decorrelation", "--threads", "1"]
    line += ["--batch", "1", "--samples", "2", "--device", "cpu", "-o"]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    alone = CliRunner().invoke(app, ["evaluate", *line, str(tmp_path / "one.json")])
    assert alone.exit_code == 0, alone.output
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    together = subprocess.run(
        [*torchrun, "-m", "us_i2v", "evaluate", *line, str(tmp_path / "two.json")],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert together.returncode == 0, together.stderr
    assert together.stdout == alone.stdout
    one, two = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("one", "two"))
    assert two == one
    assert one["parts"]["real"]["energy"] is not None
