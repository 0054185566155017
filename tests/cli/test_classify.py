"""`us-i2v train-classifier` and `us-i2v classify`, from a data folder to scores."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.classifier_clips import LABELS, RECORD, phantom_clips, write_real, write_synthetic
from tests.cli.conftest import one_line_error
from tests.factories import small_weights
from tests.fakes import WEIGHTS_SHA256, write_busi
from us_i2v.classifier import load_classifier
from us_i2v.data.mixing import content_sha256, read_synthetic
from us_i2v.data.writers import write_clip
from us_i2v.weights import load_weights

SMALL = ("--preset", "tiny", "--steps", 2, "--batch-size", 4, "--stride", 1, "--device", "cpu")
SEGMENTS = ("--set", "model.segments=2", "--set", "optimiser.validate_every=2")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_real(tmp_path / "real")
    digest = load_weights(small_weights(tmp_path / "generator.safetensors")).sha256
    rows = [{"label": label, "group": f"still-{label}-{k}"} for label in LABELS for k in range(2)]
    write_synthetic(tmp_path / "made", rows, digest)
    return tmp_path


def test_from_clips_to_scores(us_i2v, folder: Path) -> None:
    run = folder / "run"
    mix = ("--synthetic", folder / "made", "--generator", folder / "generator.safetensors")
    trained = us_i2v("train-classifier", folder / "real", "--model", "atm", *mix, "-o", run, *SMALL, *SEGMENTS)
    assert trained.exit_code == 0, trained.stderr
    assert (
        "training: 4 real and 4 synthetic clips of classes benign, malignant; held out: 2 real clips" in trained.stderr
    )
    header = load_classifier(run).header
    assert (header.diet, header.real_clips, header.synthetic_clips) == ("both", 4, 4)
    assert (header.model.name, header.model.width, header.model.size) == ("atm", 0.125, 64)
    assert header.behind.training_groups == ("group-1",)

    done = us_i2v(
        "classify",
        folder / "real",
        "--weights",
        run,
        "--split",
        "test",
        "-o",
        folder / "r.json",
        "--plot",
        folder / "p.png",
    )
    assert done.exit_code == 0, done.stderr
    assert "ATMNet: 2 videos of 2 groups" in done.stdout
    values = json.loads((folder / "r.json").read_text(encoding="utf-8"))
    assert {row["label"] for row in values["videos"]} == set(LABELS)
    assert values["scores"]["accuracy"]["n"] == 2
    assert (folder / "p.png").stat().st_size > 1000

    again = us_i2v("train-classifier", folder / "real", "--model", "atm", *mix, "-o", run, *SMALL, *SEGMENTS)
    assert "already holds a run" in one_line_error(again)
    assert "trained on group 'p0'" in one_line_error(us_i2v("classify", folder / "real", "--weights", run))


def test_unlabelled_short_and_damaged_clips(us_i2v, folder: Path) -> None:
    run = folder / "run"
    assert us_i2v("train-classifier", folder / "real", "--model", "atm", "-o", run, *SMALL, *SEGMENTS).exit_code == 0
    clips = folder / "clips"
    clips.mkdir()
    write_clip(clips / "good.npz", phantom_clips()[3][1], 20.0)
    write_clip(clips / "short.npz", phantom_clips()[3][1][:9], 20.0)
    (clips / "bad.npz").write_bytes(b"nothing")
    done = us_i2v("classify", *sorted(clips.iterdir()), "--weights", run)
    assert done.exit_code == 1
    lines = done.stdout.splitlines()
    assert lines[0].split()[0].endswith("good.npz")
    assert lines[0].split()[1] in LABELS
    assert [line.split(":")[1].rsplit("/", 1)[-1] for line in lines[1:]] == ["bad.npz", "short.npz"]
    assert "16 frames" in lines[2]
    write_clip(clips / "made.npz", phantom_clips()[7][1], 20.0, record=RECORD)
    made = us_i2v("classify", clips / "made.npz", "--weights", run)
    assert "note: 1 generated videos are not scored" in made.stdout
    failed = us_i2v("classify", clips / "good.npz", "--weights", run, "--plot", folder / "p.png")
    assert "A plot needs labelled real clips" in one_line_error(failed)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--model", "resnet"), "'model.name' = 'resnet'"),
        (("--width", 0), "'model.width' = 0.0"),
        (("--size", 20), "'model.size' = 20"),
        (("--ratio", 1), "need diet 'both', not 'real'"),
        (("--diet", "both"), "Diet 'both' does not fit 0 folders"),
        (("--pretrained", "none.safetensors"), "'none.safetensors' do not exist"),
        (("--set", 'classes=["a", "b"]'), "No real clip is of class a or b"),
    ],
)
def test_bad_options_are_one_line(us_i2v, folder: Path, options: tuple[object, ...], message: str) -> None:
    result = us_i2v("train-classifier", folder / "real", "-o", folder / "run", *SMALL, *options)
    assert result.exit_code == 2
    assert message in result.stderr.splitlines()[-1]
    assert not (folder / "run" / "weights.safetensors").exists()


def test_leaks_are_one_line(us_i2v, folder: Path) -> None:
    digest = load_weights(folder / "generator.safetensors").sha256
    rows = [{"label": label, "group": group} for label, group in (("benign", "p3"), ("malignant", "x"))]
    made = write_synthetic(folder / "leaky", rows, digest)
    mix = ("--synthetic", made, "--generator", folder / "generator.safetensors", "-o", folder / "run")
    refused = us_i2v("train-classifier", folder / "real", *mix, *SMALL)
    assert "'benign_0.mp4': its still's group 'p3' is held out" in one_line_error(refused)
    generated = us_i2v("train-classifier", made, "-o", folder / "run", *SMALL)
    assert "holds generated clips" in one_line_error(generated)


def test_a_generators_weights_are_no_classifier(us_i2v, folder: Path) -> None:
    result = us_i2v("classify", folder / "real", "--weights", folder / "generator.safetensors")
    assert "holds a generator's weights" in one_line_error(result)


def test_the_output_of_augment_is_read_as_synthetic(us_i2v, generator, tmp_path: Path) -> None:
    stills = write_busi(tmp_path / "stills", {"benign": 2, "malignant": 1})
    assert us_i2v("augment", stills, tmp_path / "made", "--clips-per-image", 2).exit_code == 0
    clips = read_synthetic(tmp_path / "made")
    assert len(clips) == 6
    assert {clip.weights_sha256 for clip in clips} == {WEIGHTS_SHA256}
    for clip in clips:
        assert content_sha256(stills / clip.source) == clip.source_sha256
        assert clip.sample.label == clip.sample.path.parent.name
