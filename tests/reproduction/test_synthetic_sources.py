import numpy as np
import pytest

from tests.classifier_clips import write_real
from tests.factories import small_weights, textured_still
from us_i2v.data.clips import open_clip
from us_i2v.data.datasets import find_samples
from us_i2v.data.manifest import Sample, write_manifest
from us_i2v.data.mixing import HeldOut, carries_record, find_leaks, read_synthetic
from us_i2v.data.writers import write_still
from us_i2v.errors import ConfigError
from us_i2v.pipeline import ImageToVideo
from us_i2v.reproduction import synthetic_sources
from us_i2v.reproduction.synthetic_sources import answer_stills, fit_control, reconstruct
from us_i2v.reproduction.table2_settings import Table2Settings
from us_i2v.weights import load_weights

SETTINGS = Table2Settings(clips_per_still=2)


def quiet(done, total, name):
    pass


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    root = tmp_path_factory.mktemp("sources")
    write_real(root / "videos")
    rows = []
    for number, label in enumerate(("benign", "malignant", "benign")):
        path = root / "stills" / f"{number}.png"
        write_still(path, textured_still(48, 40, seed=number, colour=number == 2))
        rows.append(Sample(path, "still", label, f"s{number}"))
    write_manifest(root / "stills" / "manifest.csv", rows)
    return root


@pytest.fixture(scope="module")
def model(home):
    return ImageToVideo.from_pretrained(
        small_weights(home / "weights.safetensors", labels=("benign", "malignant")), "cpu", 1
    )


@pytest.fixture
def few_windows(monkeypatch):
    monkeypatch.setattr(synthetic_sources, "FITTED_ON", 2)


@pytest.mark.usefixtures("few_windows")
@pytest.mark.parametrize("name", ["static", "affine", "elastic"])
def test_controls_answer_every_still_and_say_what_they_were_fitted_on(home, tmp_path, name):
    control = fit_control(name, home / "videos", home / "cache", 16)
    assert control.identity != fit_control("static", home / "videos", home / "cache", 16).identity or name == "static"
    train = [s for s in find_samples(home / "videos") if s.split == "train"]
    assert set(control.trained.training_groups) == {s.group for s in train}
    assert control.fps == pytest.approx(20)
    assert answer_stills(control, home / "stills", tmp_path / "out", SETTINGS, own_label=False, progress=quiet) == {}
    clips = read_synthetic(tmp_path / "out")
    assert len(clips) == 6
    assert all(carries_record(clip.sample.path) for clip in clips)
    held = HeldOut.of(s for s in find_samples(home / "videos") if s.split == "test")
    assert not find_leaks(clips, held, {control.identity: control.trained})
    leak = HeldOut(frozenset(control.trained.training_groups), frozenset())
    assert len(find_leaks(clips, leak, {control.identity: control.trained})) == 6
    frames = open_clip(clips[0].sample.path).read(range(16)).astype(float)
    change = np.abs(frames - frames[0]).mean((1, 2))
    assert (change[-1] > 1) == (name != "static")


def test_a_generator_is_told_the_class_or_not(home, tmp_path, model):
    for told in (True, False):
        out = tmp_path / str(told)
        answer_stills(model, home / "stills", out, SETTINGS, own_label=told, speckle=False, progress=quiet)
    first, second = (sorted((tmp_path / name).rglob("*.mp4")) for name in ("True", "False"))
    assert len(first) == len(second) == 6
    assert not np.array_equal(open_clip(first[0]).read([15]), open_clip(second[0]).read([15]))


def test_training_videos_are_reconstructed_with_their_labels(home, tmp_path, model):
    for _ in range(2):
        reconstruct(model, home / "videos", home / "cache", tmp_path / "out", SETTINGS, quiet)
    clips = read_synthetic(tmp_path / "out")
    train = {s.group: s.label for s in find_samples(home / "videos") if s.split == "train"}
    assert {clip.sample.group: clip.sample.label for clip in clips} == train
    assert {clip.weights_sha256 for clip in clips} == {load_weights(home / "weights.safetensors").sha256}
    # 18 frames give two windows of 16 at 20 frames a second.
    assert len(clips) == 2 * len(train)
    assert carries_record(clips[0].sample.path)
    other = SETTINGS.model_copy(update={"size": 64})
    with pytest.raises(ConfigError, match="size"):
        reconstruct(model, home / "videos", home / "cache", tmp_path / "out", other, quiet)
