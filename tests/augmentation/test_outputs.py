"""Where clips and masks go: both or none, and nothing of the user's is replaced."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.fakes import FakeGenerator, still_pixels, tree
from us_i2v.augmentation import outputs
from us_i2v.data.clips import open_clip
from us_i2v.errors import ConfigError, OutputError
from us_i2v.pipeline import GeneratedClip


def clip(masked: bool = True) -> GeneratedClip:
    mask = np.zeros((40, 48), bool)
    mask[10:20, 15:30] = True
    (made,) = FakeGenerator()(still_pixels(3), mask=mask if masked else None, seed=2)
    return made


@pytest.mark.parametrize(
    ("name", "mask"),
    [
        ("c.mp4", "c_mask.mkv"),
        ("c.MKV", "c_mask.mkv"),
        ("c.gif", "c_mask.mkv"),
        ("c.avi", "c_mask.mkv"),
        ("c.npz", "c_mask.npz"),
        ("c", "c_mask"),
    ],
)
def test_mask_path(name: str, mask: str) -> None:
    assert outputs.mask_path(Path("d") / name) == Path("d") / mask


@pytest.mark.parametrize("name", ["c.mp4", "c.mkv", "c.gif", "c.npz", "c"])
def test_clip_and_mask_are_written_and_the_mask_is_exact(tmp_path: Path, name: str) -> None:
    made = clip()
    outputs.write_result(made, tmp_path / name, exact=False)
    mask = outputs.mask_path(tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, mask.name])
    reader = open_clip(mask)
    frames = reader.read(range(reader.n_frames))
    np.testing.assert_array_equal(frames, made.masks.astype(np.uint8) * 255)
    assert open_clip(tmp_path / name).n_frames == 16


def test_exact_mp4_gives_the_frames_back(tmp_path: Path) -> None:
    made = clip(masked=False)
    outputs.write_result(made, tmp_path / "c.mp4", exact=True)
    reader = open_clip(tmp_path / "c.mp4")
    np.testing.assert_array_equal(reader.read(range(16)), made.frames)


def test_no_mask_no_mask_file(tmp_path: Path) -> None:
    outputs.write_result(clip(masked=False), tmp_path / "c.npz", exact=False)
    assert set(tree(tmp_path)) == {"c.npz"}


def test_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = outputs.write_clip

    def fail_on_mask(path: Path, *args: object, **given: object) -> None:
        if "mask" in path.name:
            raise OSError(28, "No space left on device")
        write(path, *args, **given)

    monkeypatch.setattr(outputs, "write_clip", fail_on_mask)
    with pytest.raises(OutputError, match="No space left"):
        outputs.write_result(clip(), tmp_path / "c.mp4", exact=False)
    assert list(tmp_path.iterdir()) == []


def test_an_older_result_is_replaced(tmp_path: Path) -> None:
    for name in ("c.npz", "c"):
        outputs.write_result(clip(), tmp_path / name, exact=False)
        before = tree(tmp_path)
        outputs.write_result(clip(), tmp_path / name, exact=False)
        assert tree(tmp_path) == before


def test_a_folder_with_other_files_is_never_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "chapter.txt").write_text("mine")
    with pytest.raises(OutputError, match="other files"):
        outputs.check_writable(folder)
    with pytest.raises(OutputError, match="other files"):
        outputs.write_result(clip(), folder, exact=False)
    assert (folder / "chapter.txt").read_text() == "mine"


def test_folder_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c.mp4").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        outputs.check_writable(tmp_path / "c.mp4")


def test_check_writable_leaves_nothing(tmp_path: Path) -> None:
    outputs.check_writable(tmp_path / "new" / "folder" / "c.mp4")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["file/c.mp4", "file/deeper/c.mp4"])
def test_a_file_in_the_way_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        outputs.check_writable(tmp_path / name)
    with pytest.raises(OutputError, match="Cannot make folder"):
        outputs.make_folder((tmp_path / name).parent)


def test_unknown_ending() -> None:
    with pytest.raises(ConfigError, match="'wmv'"):
        outputs.clip_name("c", "wmv")
