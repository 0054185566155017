from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.evaluation.sets import Statistics, noisy, real_set
from us_i2v.evaluation.clips import Repeated
from us_i2v.evaluation.compare import compare
from us_i2v.evaluation.measure import measure
from us_i2v.evaluation.plot import write_plot
from us_i2v.evaluation.report import Energy, Result, document, table, write_json
from us_i2v.metrics.intervals import Interval

INTERVAL = {"mean", "low", "high", "n", "groups"}
SUMMARY = {"median", "lower", "upper", "mean", "n"}
CURVE = {"mean", "low", "high", "n"}


@pytest.fixture(scope="module")
def result() -> Result:
    clips = real_set(8)
    extractors = {"stats": Statistics()}
    real = measure(clips, extractors)
    repeat = measure(Repeated(clips), extractors, partner=clips, describe=False, curves=False)
    fake = measure(clips.changed(noisy(10)), extractors, partner=clips)
    number = {"motion": Interval(1.5, 1.0, float("nan"), 8, 4)}
    return Result(
        settings={"size": 64, "n": 4, "stride": 3},
        comparison=compare(real, fake, repeat=repeat, n=4, draws=2),
        energy={"source0": Energy(8, number, number, number)},
        left_out=("fvd: no file",),
        notes=("a note",),
    )


def test_json_keeps_its_shape(result: Result, tmp_path: Path) -> None:
    write_json(tmp_path / "out" / "r.json", result)
    found = json.loads((tmp_path / "out" / "r.json").read_text())
    assert set(found) == {"format_version", "package_version", "settings", "lpips", "left_out", "notes", "parts"}
    assert found["format_version"] == 1
    part = found["parts"]["source0"]
    assert set(part) == {
        *("n_real", "n_fake", "groups", "n_paired", "distances", "distributions", "paired", "decorrelation", "energy"),
    }
    distances = part["distances"]["stats"]
    assert set(distances) == {
        *("name", "dimensions", "n", "draws", "claim", "frechet", "kernel", "critic", "warnings", "samples"),
    }
    assert set(distances["frechet"]) == {"fake", "floor", "repeat", "closed"}
    assert set(distances["frechet"]["fake"]) == INTERVAL
    assert set(part["distributions"]["flow"]) == {"fake", "real", "difference"}
    assert set(part["distributions"]["flow"]["fake"]) == SUMMARY
    assert part["distributions"]["flow_crop"] == {"fake": None, "real": None, "difference": None}
    assert set(part["decorrelation"]) == {"fake", "real", "difference", "patients", "windows"}
    assert set(part["decorrelation"]["fake"]) == CURVE
    assert len(part["decorrelation"]["fake"]["mean"]) == 16
    assert set(part["energy"]) == {"samples", "fake", "repeat", "difference"}
    assert part["energy"]["fake"]["motion"]["high"] is None
    assert json.loads(json.dumps(document(result), allow_nan=False)) == found


def test_table_says_no_claim_what_was_left_out_and_every_name(result: Result) -> None:
    lines = table(result)
    text = "\n".join(lines)
    assert lines[0] == (
        "source0: 8 real clips of 4 groups, 8 fakes, 8 of them paired; "
        "intervals over fewer than 10 groups are too narrow"
    )
    assert "FVD-Test (six statistics, no resize; n=4, mean of 2 draws)" in text
    assert "no claim (n=4)" in text
    value = result.comparison.parts["source0"].distances["stats"].frechet["fake"].mean
    assert f"{value:.2f}" not in text
    assert "left out: fvd: no file" in lines
    assert "note: a note" in lines
    assert "1.50 [?]" in text
    for name in ("kernel distance", "critic AUC", "SSIM", "block flow", "held out", "flicker", "frame 15", "real/real"):
        assert name in text
    assert max(map(len, lines)) < 160


def test_plot_is_a_picture(result: Result, tmp_path: Path) -> None:
    write_plot(tmp_path / "plot.png", result)
    with Image.open(tmp_path / "plot.png") as picture:
        pixels = np.asarray(picture.convert("L"))
    assert pixels.shape[1] > pixels.shape[0] > 300
    assert (pixels < 128).mean() > 0.005
    assert [path.name for path in tmp_path.iterdir()] == ["plot.png"]
