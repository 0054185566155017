"""Classifying videos: scores of real labelled ones only, leaks refused, table, JSON and plot from one result."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.classifier_clips import write_real
from us_i2v.classifier import TrainedOn
from us_i2v.data.datasets import find_samples
from us_i2v.data.mixing import content_sha256
from us_i2v.errors import DataError
from us_i2v.evaluation.classification import (
    Classification,
    Video,
    check_seen,
    document,
    score,
    table,
    write_classification,
    write_classification_plot,
)

CLASSES = ("benign", "malignant")


def video(number: int, label: str | None, malignant: float, *, generated: bool = False) -> Video:
    predicted = CLASSES[malignant > 0.5]
    return Video(f"clip{number}.mp4", label, f"p{number}", generated, 5, (1 - malignant, malignant), predicted)


VIDEOS = [
    *(video(k, "benign", p) for k, p in enumerate((0.1, 0.2, 0.4, 0.7))),
    *(video(k, "malignant", p) for k, p in enumerate((0.9, 0.6, 0.3), start=4)),
]


def found(videos: list[Video], skipped: dict[str, str] | None = None) -> Classification:
    result, notes = score(videos, CLASSES)
    return Classification({"model": "tsm"}, CLASSES, tuple(videos), skipped or {}, result, notes)


def test_labelled_real_videos_are_scored() -> None:
    result, notes = score(VIDEOS, CLASSES)
    assert result is not None
    assert result.confusion == ((3, 1), (1, 2))
    assert result.f1 == pytest.approx((3 / 4, 2 / 3))
    assert result.scores.values["accuracy"] == pytest.approx(5 / 7)
    assert notes == ("intervals over 7 groups (fewer than 10) are too narrow",)


def test_generated_and_unknown_videos_are_not_scored() -> None:
    more = [*VIDEOS, video(8, "benign", 0.9, generated=True), video(9, "normal", 0.9), video(10, None, 0.9)]
    result, notes = score(more, CLASSES)
    assert result is not None
    assert result.scores.n == 7
    assert notes[:2] == (
        "1 generated videos are not scored",
        "2 videos have no label or another one and are not scored",
    )
    assert score([video(0, None, 0.2)], CLASSES) == (None, ())
    assert score([video(0, "benign", 0.2, generated=True)], CLASSES)[0] is None


def test_table_with_scores() -> None:
    lines = table(found(VIDEOS, {"bad.mp4": "is damaged"}))
    assert lines[0] == "TSM: 7 videos of 7 groups"
    assert any(line.startswith("  F1 of malignant ") and " 0.667 [" in line for line in lines)
    head = next(k for k, line in enumerate(lines) if "true, predicted" in line)
    assert lines[head].split() == ["true,", "predicted", "benign", "malignant", "F1"]
    assert lines[head + 1].split() == ["benign", "3", "1", "0.750"]
    assert lines[head + 2].split() == ["malignant", "1", "2", "0.667"]
    assert "skipped: bad.mp4: is damaged" in lines


def test_table_without_labels_has_a_line_a_video() -> None:
    lines = table(found([video(0, None, 0.2), video(1, None, 0.75)]))
    assert lines == ["clip0.mp4  benign  0.800", "clip1.mp4  malignant  0.750"]


def test_json_holds_all_numbers_and_no_nan(tmp_path: Path) -> None:
    one_class = [video(k, "benign", 0.1) for k in range(3)]
    write_classification(tmp_path / "out.json", found(one_class, {"bad.mp4": "why"}))
    values = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert values["scores"]["auc"]["mean"] is None
    assert values["f1"] == {"benign": 1.0, "malignant": None}
    assert values["confusion"] == [[3, 0], [0, 0]]
    assert values["skipped"] == {"bad.mp4": "why"}
    assert values["videos"][0]["probabilities"] == [0.9, 0.1]
    assert values["reliability"] == [{"low": 0.9, "high": 1.0, "n": 3, "confidence": 0.9, "accuracy": 1.0}]
    assert document(found([video(0, None, 0.2)]))["scores"] is None
    assert not any(isinstance(v, float) and math.isnan(v) for v in values["scores"]["macro_f1"].values())


def test_plot_needs_scores(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    write_classification_plot(tmp_path / "plot.png", found(VIDEOS))
    assert (tmp_path / "plot.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    with pytest.raises(DataError, match="without labelled real clips"):
        write_classification_plot(tmp_path / "none.png", found([video(0, None, 0.2)]))
    assert not (tmp_path / "none.png").exists()


def test_what_was_trained_on_is_refused(tmp_path: Path) -> None:
    real = write_real(tmp_path / "real")
    samples = [s for s in find_samples(real) if s.split == "test"]

    def trained(groups: tuple[str, ...] = (), files: tuple[str, ...] = (), behind: TrainedOn = TrainedOn()):  # noqa: B008
        header = SimpleNamespace(training_groups=groups, clip_sha256=files, behind=behind)
        return SimpleNamespace(header=header, path=Path("run"))

    check_seen(trained(("p0",), ("ff",)), samples)
    check_seen(trained(), [])
    with pytest.raises(DataError, match="'run' was trained on group 'p3' of the clips"):
        check_seen(trained(("p3",)), samples)
    digest = content_sha256(samples[0].path)
    with pytest.raises(DataError, match=f"trained on file {digest[:12]}"):
        check_seen(trained(files=(digest,)), samples)
    with pytest.raises(DataError, match=r"trained on group 'p7' \(its generator\)"):
        check_seen(trained(behind=TrainedOn(training_groups=("p7",))), samples)


def test_videos_are_plain_data() -> None:
    assert dataclasses.asdict(VIDEOS[0])["probabilities"] == (0.9, 0.1)
