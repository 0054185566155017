"""Real lung clips, X3D-XS and LPIPS: copies rank as they should."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.evaluation.sets import Arrays, noisy, shuffled
from tests.metrics.real import lung_clips
from us_i2v.evaluation.clips import Repeated, at_size
from us_i2v.evaluation.compare import compare
from us_i2v.evaluation.measure import measure
from us_i2v.evaluation.networks import choose

COUNT = 6


def test_copies_of_lung_clips_rank_as_they_should(shared_data: Path) -> None:
    names = [f"lung{k}" for k in range(COUNT)]
    clips = Arrays([at_size(clip, 96) for clip in lung_clips(shared_data, COUNT)], names, names, ["lung"] * COUNT)
    wanted, _ = choose(["fvd-x3d", "lpips"], shared_data / "weights", "alex", 16, torch.device("cpu"))
    real = measure(clips, wanted.networks, describe=False)
    repeat = measure(Repeated(clips), wanted.networks, lpips=wanted.lpips, partner=clips, describe=False, curves=False)
    found = {}
    for name, change in {"same": lambda clip, _: clip, "shuffled": shuffled, "noisy": noisy(15)}.items():
        made = measure(clips.changed(change), wanted.networks, lpips=wanted.lpips, partner=clips, describe=False)
        found[name] = compare(real, made, repeat=repeat, n=3, draws=6).parts["lung"]
    distances = {name: part.distances["fvd-x3d"].frechet for name, part in found.items()}
    assert distances["same"]["fake"] == distances["same"]["floor"]
    assert distances["same"]["repeat"].mean > distances["same"]["floor"].mean
    for name in ("shuffled", "noisy"):
        assert distances[name]["fake"].mean > distances["same"]["fake"].mean
        lpips = found[name].paired["lpips"]
        assert lpips["fake"].mean > found["same"].paired["lpips"]["fake"].mean == 0
    same = found["same"].decorrelation
    assert same is not None
    assert 0 < same.real.mean[15] < same.real.mean[1] < 1
    noise = found["noisy"].decorrelation
    assert noise is not None
    assert noise.difference is not None
    assert noise.difference.high[1] < 0
    assert "n=3" in found["same"].distances["fvd-x3d"].name
