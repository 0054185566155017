"""Mixes of the best synthetic clips: what is kept, and what scores come from."""

import csv

import numpy as np
import pytest

from tests.classifier_clips import phantom_clips, write_real, write_synthetic
from us_i2v.data.mixing import read_synthetic
from us_i2v.data.writers import write_clip
from us_i2v.errors import DataError
from us_i2v.reproduction import table2_quality
from us_i2v.reproduction.table2_quality import judge, keep_best
from us_i2v.training.classifier import ClassifierTraining

CONFIG = ClassifierTraining.parse(
    {"model": {"name": "tsm", "size": 64, "width": 0.125}, "clips": {"stride": None, "drop_repeats": False}}, "test"
)


def quiet(done, total, name):
    pass


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(table2_quality, "LEAST", 4)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    return write_real(tmp_path_factory.mktemp("quality") / "videos")


def listed(labels, seeds):
    return [
        {"label": label, "group": f"s{k}", "seed": str(seed)}
        for k, (label, seed) in enumerate(zip(labels, seeds, strict=True))
    ]


@pytest.mark.usefixtures("few")
def test_clips_like_the_training_videos_score_higher_than_repeated_and_shaken_ones(tmp_path, videos):
    made = write_synthetic(tmp_path / "made", listed(["benign"] * 4, range(4)))
    frames = dict(phantom_clips())["benign"][:16]
    shaken = np.stack([np.roll(frame, 9 * (k % 2), 0) for k, frame in enumerate(frames)])
    write_clip(made / "benign_2.mp4", frames[:1].repeat(16, axis=0), 20.0)
    write_clip(made / "benign_3.mp4", shaken, 20.0)
    found = judge(made, videos, tmp_path / "cache", CONFIG, quiet)
    assert set(found) == {f"benign_{k}.mp4" for k in range(4)}
    plausible = min(found["benign_0.mp4"], found["benign_1.mp4"])
    assert plausible > 0.5 > found["benign_3.mp4"] > found["benign_2.mp4"] == 0


def test_too_few_training_videos_are_no_reference(tmp_path, videos):
    made = write_synthetic(tmp_path / "made", listed(["benign"], [0]))
    with pytest.raises(DataError, match=r"12 windows .* quality needs 20"):
        judge(made, videos, tmp_path / "cache", CONFIG, quiet)


def test_the_best_share_of_every_class_is_kept(tmp_path):
    made = write_synthetic(tmp_path / "made", listed(["benign"] * 4 + ["malignant"] * 3, [3, 2, 1, 0, 0, 1, 2]))
    names = [clip.sample.path.name for clip in read_synthetic(made)]
    quality = dict(zip(names, [0.2, 0.9, 0.5, 0.5, 0.1, 0.0, 0.3], strict=True))
    # Of equal scores the smaller seed; of three, one and a half are two.
    path = keep_best(made, quality, 0.5, "best.csv")
    assert [clip.sample.path.name for clip in read_synthetic(path)] == [names[k] for k in (1, 3, 4, 6)]
    with path.open(newline="") as file:
        assert {row["weights_sha256"] for row in csv.DictReader(file)} == {"ab" * 32}
    # A clip that failed is not kept, whatever the share.
    assert len(read_synthetic(keep_best(made, quality, 1, "all.csv"))) == 6
    with pytest.raises(DataError, match="All clips of class 'malignant'"):
        keep_best(made, quality | dict.fromkeys(names[4:], 0.0), 0.5, "none.csv")
