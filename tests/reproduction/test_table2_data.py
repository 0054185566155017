from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from tests.classifier_clips import RECORD
from tests.fakes import still_pixels, write_png
from us_i2v.data.clips import open_clip
from us_i2v.data.datasets import find_samples
from us_i2v.data.manifest import Sample, write_manifest
from us_i2v.data.stills import read_still
from us_i2v.data.writers import write_clip
from us_i2v.errors import ConfigError, DataError
from us_i2v.reproduction.table2_data import (
    LEFT_OUT,
    check_copies,
    check_mixes,
    divide,
    read_data,
    split_folder,
    stills_folder,
    write_splits,
    write_stills,
)
from us_i2v.reproduction.table2_settings import Table2Settings

PATIENTS = 24


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two videos of each of 24 patients, and a still of each of 10 other ones and of one of these."""
    root = tmp_path_factory.mktemp("data")
    frames = np.stack([still_pixels(k, 16, 16) for k in range(5)])
    rows = []
    for patient in range(PATIENTS):
        label = ("benign", "malignant")[patient % 3 == 0]
        for take in range(2):
            path = root / "videos" / f"p{patient}_{take}.npz"
            path.parent.mkdir(exist_ok=True)
            write_clip(path, frames, 20.0)
            rows.append(Sample(path, "clip", label, f"p{patient}", ("train", "test")[patient % 2]))
    write_manifest(root / "videos" / "manifest.csv", rows)
    stills = []
    for number in range(11):
        path = write_png(root / "images" / f"{number}.png", still_pixels(number))
        group = "p0" if number == 10 else f"s{number}"
        stills.append(Sample(path, "still", ("benign", "malignant", "normal")[number % 3], group, "test"))
    write_manifest(root / "images" / "manifest.csv", stills)
    return root / "videos", root / "images"


def patients(data, parts, part):
    return {s.group for s, own in zip(data.videos, parts, strict=True) if own == part}


@pytest.mark.parametrize("folds", [1, 4])
def test_no_patient_is_on_both_sides_and_ratios_are_kept(folders, folds):
    settings = Table2Settings(folds=folds, seed=3)
    data = read_data([folders[0]], [folders[1]], settings)
    found = divide(data, settings)
    assert len(found) == 3 * folds
    for (split, _), parts in found.items():
        train, test = patients(data, parts, "train"), patients(data, parts, "test")
        assert not train & test
        assert not (train | test) & patients(data, parts, LEFT_OUT)
        assert len(train) / PATIENTS == pytest.approx(int(split[0]) / 10, abs=0.06)
        counts = Counter((part, s.label) for s, part in zip(data.videos, parts, strict=True))
        assert counts["train", "malignant"] / counts["train", "benign"] == pytest.approx(0.5, abs=0.26)


def test_folds_test_every_patient_once_and_alike_for_all_ratios(folders):
    settings = Table2Settings(folds=4)
    data = read_data([folders[0]], [folders[1]], settings)
    found = divide(data, settings)
    for split in settings.splits:
        tested = [patient for fold in range(4) for patient in patients(data, found[split, fold], "test")]
        assert sorted(tested) == sorted({s.group for s in data.videos})
    for fold in range(4):
        assert len({frozenset(patients(data, found[split, fold], "test")) for split in settings.splits}) == 1


def test_stills_of_patients_with_videos_and_of_other_classes_are_left_out(folders, tmp_path):
    data = read_data([folders[0]], [folders[1]], Table2Settings())
    assert not {s.group for s in data.stills} & {s.group for s in data.videos}
    assert {s.label for s in data.stills} == set(data.classes) == {"benign", "malignant"}
    assert [note.split()[:2] for note in data.notes] == [["3", "stills"], ["1", "stills"]]
    write_stills(data, tmp_path)
    written = find_samples(stills_folder(tmp_path))
    assert len(written) == 7
    # A stated split of stills would make them count as held out.
    assert {s.split for s in written} == {None}


def test_half_of_the_patients_play_the_image_set(folders, tmp_path):
    settings = Table2Settings(stills_from_videos=True)
    data = read_data([folders[0]], [], settings)
    assert not {s.group for s in data.stills} & {s.group for s in data.videos}
    assert len({s.group for s in data.stills}) == PATIENTS // 2
    write_stills(data, tmp_path)
    written = find_samples(stills_folder(tmp_path))
    assert [(s.label, s.group) for s in written] == [(s.label, s.group) for s in data.stills]
    middle = open_clip(data.stills[0].path).read([2])[0]
    assert np.array_equal(read_still(written[0].path), middle)


def test_written_splits_state_their_sides(folders, tmp_path):
    settings = Table2Settings(splits=("7:3",), folds=4)
    data = read_data([folders[0]], [folders[1]], settings)
    parts = divide(data, settings)
    write_splits(data, parts, tmp_path)
    for fold in range(4):
        samples = find_samples(split_folder(tmp_path, "7:3", fold))
        assert {s.split for s in samples} == {"train", "test"}
        for part in ("train", "test"):
            assert {s.group for s in samples if s.split == part} == patients(data, parts["7:3", fold], part)


def test_identity_tells_other_data(folders, tmp_path):
    first = read_data([folders[0]], [folders[1]], Table2Settings())
    assert read_data([folders[0]], [folders[1]], Table2Settings(seed=9)).identity == first.identity
    rows = find_samples(folders[1], check_groups=False)
    link = tmp_path / "images"
    link.mkdir()
    moved = []
    for row in rows:
        (link / row.path.name).write_bytes(row.path.read_bytes())
        moved.append(replace(row, path=link / row.path.name, label="benign" if row is rows[0] else row.label))
    write_manifest(link / "manifest.csv", moved)
    assert read_data([folders[0]], [link], Table2Settings()).identity == first.identity
    write_manifest(link / "manifest.csv", moved[:-2])
    assert read_data([folders[0]], [link], Table2Settings()).identity != first.identity


@pytest.mark.parametrize(
    ("values", "images", "error", "said"),
    [
        ({}, False, ConfigError, "No image folder"),
        ({"stills_from_videos": True}, True, ConfigError, "1 image folders"),
        ({"classes": ["benign", "viral"]}, True, DataError, "No video is of class 'viral'"),
        ({"classes": ["benign"]}, True, DataError, "1 class"),
        ({"folds": 3}, True, ConfigError, "7:3 trains on 70% of the videos; 3 folds leave 67%"),
        ({"folds": 30}, True, DataError, "24 groups cannot be divided into 30 parts"),
        ({"mixes": ["x1"]}, True, DataError, "stills give .* synthetic clips of class 'benign'; x1 asks for"),
    ],
)
def test_data_that_do_not_suffice_are_refused(folders, values, images, error, said):
    settings = Table2Settings.parse(values)
    with pytest.raises(error, match=said):
        divide(read_data([folders[0]], [folders[1]] if images else [], settings), settings)


def test_generated_clips_are_no_data(folders, tmp_path):
    line = "clip.npz,benign,g,,still.png,ab,cd\n"
    (tmp_path / "manifest.csv").write_text("file,label,group,split,source,source_sha256,weights_sha256\n" + line)
    with pytest.raises(DataError, match="holds generated clips"):
        read_data([tmp_path], [folders[1]], Table2Settings())


def test_a_generated_video_in_a_folder_of_real_ones_is_refused(folders, tmp_path):
    frames = np.stack([still_pixels(k, 16, 16) for k in range(5)])
    write_clip(tmp_path / "a.npz", frames, 20.0)
    write_clip(tmp_path / "b.npz", frames, 20.0, record=RECORD)
    rows = [Sample(tmp_path / f"{n}.npz", "clip", "benign", n, None) for n in "ab"]
    write_manifest(tmp_path / "manifest.csv", rows)
    with pytest.raises(DataError, match=r"b\.npz' was generated"):
        read_data([tmp_path], [folders[1]], Table2Settings())


def test_copies_of_a_video_under_two_groups_are_refused(folders):
    # All videos of the folder have the same bytes.
    data = read_data([folders[0]], [folders[1]], Table2Settings())
    with pytest.raises(DataError, match="the same video, of groups 'p0' and 'p1'"):
        check_copies(data)
    check_copies(replace(data, videos=data.videos[:2]))
    stills = (data.videos[2],)
    with pytest.raises(DataError, match="the same video"):
        check_copies(replace(data, videos=data.videos[:2], stills=stills))


def test_reconstructed_clips_are_counted_by_training_videos_before_anything_is_trained(folders):
    settings = Table2Settings(mixes=("x2",))
    data = read_data([folders[0]], [folders[1]], settings)
    data = replace(data, stills=data.stills * 30)
    divide(data, settings)
    with pytest.raises(DataError, match="Split 7:3 reconstructed give 22 synthetic clips of class 'benign'"):
        divide(data, settings.model_copy(update={"controls": ("reconstructed",)}))


def test_clips_must_be_as_many_as_training_videos():
    settings = Table2Settings(mixes=("x2",), classes=("a", "b"))
    real = {"a": 3, "b": 2}
    check_mixes(settings, real, {"a": 6, "b": 4}, "here")
    with pytest.raises(DataError, match="here give 3 synthetic clips of class 'b'; x2 asks for 4"):
        check_mixes(settings, real, {"a": 6, "b": 3}, "here")
    balance = settings.model_copy(update={"mixes": ("balance",)})
    check_mixes(balance, real, {"b": 1}, "here")
    with pytest.raises(DataError, match="balance asks for 1"):
        check_mixes(balance, real, {}, "here")
