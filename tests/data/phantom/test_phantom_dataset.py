"""Data sets of phantoms on disk: layout, resuming, refusals."""

import json

import numpy as np
import pytest

from us_i2v.data.clips import open_clip
from us_i2v.data.datasets import find_samples
from us_i2v.data.manifest import read_manifest
from us_i2v.data.masks import read_mask
from us_i2v.data.phantom import dataset as module
from us_i2v.data.phantom import write_phantom
from us_i2v.data.stills import read_still
from us_i2v.errors import ConfigError, OutputError

SETTINGS = {"size": 48, "seed": 2, "n_frames": 3}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("phantom") / "set"
    seen = []
    samples = write_phantom(
        out, videos_per_class=1, stills_per_class=1, progress=lambda *step: seen.append(step), **SETTINGS
    )
    return out, samples, seen


def files(root):
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_layout_and_manifest(made):
    out, samples, seen = made
    names = set(files(out))
    assert names == {
        "phantom.json",
        "manifest.csv",
        *(f"videos/{c}/{c}_0001{end}" for c in ("benign", "malignant") for end in (".mp4", "_mask.png")),
        *(f"images/{c}/{c} (1){end}" for c in ("benign", "malignant", "normal") for end in (".png", "_mask.png")),
    }
    assert read_manifest(out / "manifest.csv") == samples
    assert [sample.kind for sample in find_samples(out)] == ["clip"] * 2 + ["still"] * 3
    assert len({sample.group for sample in samples}) == 5
    busi = find_samples(out / "images", "busi")
    assert [sample.label for sample in busi] == ["benign", "malignant", "normal"]
    assert [(done, total) for done, total, _ in seen] == [(k + 1, 5) for k in range(5)]
    assert not any(name.split("/")[-1].startswith(".") for name in names)


def test_contents_are_readable(made):
    _, samples, _ = made
    clip = open_clip(samples[0].path)
    assert (clip.n_frames, clip.size, clip.fps) == (3, (48, 48), 20.0)
    for sample in samples:
        lesion = read_mask(sample.masks[0], (48, 48))
        assert lesion.any() == (sample.label != "normal")
    assert read_still(samples[2].path).shape == (48, 48)


def test_going_on_skips_what_is_there_and_repeats_exactly(made, tmp_path, monkeypatch):
    out, _, _ = made
    before = files(out)
    again = tmp_path / "again"
    write_phantom(again, videos_per_class=0, stills_per_class=1, **SETTINGS)
    (again / "images/benign/benign (1).png").unlink()
    calls = []
    simulate = module.simulate
    monkeypatch.setattr(module, "simulate", lambda config, seed: calls.append(seed) or simulate(config, seed))
    write_phantom(again, videos_per_class=1, stills_per_class=1, **SETTINGS)
    assert len(calls) == 3
    assert files(again) == before


def test_larger_sets_are_split(tmp_path, monkeypatch):
    frame = np.zeros((1, 48, 48), np.uint8)
    fake = type("Clip", (), {"frames": frame, "masks": frame.astype(bool)})
    monkeypatch.setattr(module, "simulate", lambda config, seed: fake)
    samples = write_phantom(tmp_path / "s", videos_per_class=0, stills_per_class=8, **SETTINGS)
    assert {sample.split for sample in samples} == {"train", "val", "test"}


def test_other_settings_or_folders_are_refused(made, tmp_path):
    out, _, _ = made
    with pytest.raises(OutputError, match="motion_only"):
        write_phantom(out, videos_per_class=1, stills_per_class=0, motion_only=True, **SETTINGS)
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(OutputError, match="other files"):
        write_phantom(tmp_path, videos_per_class=1, stills_per_class=0, **SETTINGS)
    with pytest.raises(OutputError, match="is a file"):
        write_phantom(tmp_path / "mine.txt", videos_per_class=1, stills_per_class=0, **SETTINGS)
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "phantom.json").write_text("{")
    with pytest.raises(OutputError, match="not readable"):
        write_phantom(broken, videos_per_class=1, stills_per_class=0, **SETTINGS)
    (broken / "phantom.json").write_text(json.dumps([1]))
    with pytest.raises(OutputError, match="other settings"):
        write_phantom(broken, videos_per_class=1, stills_per_class=0, **SETTINGS)


def test_bad_counts_and_sizes_leave_nothing(tmp_path):
    for counts, changes in (((0, 0), {}), ((-1, 2), {}), ((1, 0), {"size": 4})):
        with pytest.raises(ConfigError):
            write_phantom(tmp_path / "no", videos_per_class=counts[0], stills_per_class=counts[1], **SETTINGS | changes)
    assert not any(tmp_path.iterdir())
