"""Runs of a plan: complete, repeatable, resumable after a kill, sharded, skipping what cannot be read."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.fakes import WEIGHTS_SHA256, FakeGenerator, tree, write_busi
from us_i2v.augmentation import outputs
from us_i2v.augmentation.planning import Shard, collect_sources, plan_jobs, sources_sha256
from us_i2v.augmentation.settings import AugmentSettings
from us_i2v.augmentation.synthesis import Outcome, options_for, synthesise
from us_i2v.data.clips import open_clip
from us_i2v.data.datasets import find_samples
from us_i2v.errors import ConfigError, OutputError
from us_i2v.pipeline import GeneratedClip, GenerateOptions

COUNTS = {"benign": 3, "malignant": 2, "normal": 1}
WHOLE = Shard()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_busi(tmp_path / "busi", COUNTS)


def run(
    data: Path, out: Path, *, generator=None, shard: Shard = WHOLE, ending: str = "npz", labels=(), **changes: object
) -> Outcome:
    """What the command does, with the fake generator."""
    settings = {"clips_per_image": 2, "options": GenerateOptions(frames=4)} | changes
    sources = collect_sources(find_samples(data), data)
    pinned = AugmentSettings(
        ending=ending, weights_sha256=WEIGHTS_SHA256, sources_sha256=sources_sha256(sources), **settings
    )
    jobs = plan_jobs(
        sources,
        clips_per_image=pinned.clips_per_image,
        balance=pinned.balance,
        seed=pinned.seed,
        ending=ending,
    )
    return synthesise(generator or FakeGenerator(), jobs, out, pinned, fps=20.0, shard=shard, labels=labels)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_makes_a_clip_and_mask_for_every_still(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    outcome = run(data, out)
    assert (outcome.made, outcome.present, outcome.unreadable) == (12, 0, {})
    names = set(tree(out))
    assert {
        "settings.json",
        "manifest.csv",
        "normal/normal (1)_1.npz",
        "benign/benign (2)_0_mask.npz",
    } <= names
    assert len(names) == 3 + 12 + 10 + 12
    clip = np.load(out / "benign/benign (2)_0.npz")
    assert clip["frames"].shape == (4, 40, 48)
    mask = np.load(out / "benign/benign (2)_0_mask.npz")["frames"]
    assert set(np.unique(mask)) == {0, 255}


def test_manifest_says_where_each_clip_comes_from(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(data, out)
    table = rows(out / "manifest.csv")
    assert len(table) == 12
    row = next(row for row in table if row["file"] == "malignant/malignant (1)_1.npz")
    sources = {source.name: source for source in collect_sources(find_samples(data), data)}
    source = sources["malignant/malignant (1).png"]
    assert row["label"] == "malignant"
    assert row["group"] == source.group
    assert row["source"] == source.name
    assert row["source_sha256"] == source.sha256
    assert row["mask"] == "malignant/malignant (1)_1_mask.npz"
    assert (row["weights_sha256"], row["frames"], row["fps"]) == (WEIGHTS_SHA256, "4", "20.0")
    assert len({row["seed"] for row in table}) == 12
    settings = AugmentSettings.load(out / "settings.json")
    assert row["settings_sha256"] == settings.sha256()


def test_output_is_a_data_set_again(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(data, out, ending="mp4", clips_per_image=1)
    samples = find_samples(out)
    assert len(samples) == 6
    assert {sample.kind for sample in samples} == {"clip"}
    assert {sample.label for sample in samples} == set(COUNTS)
    groups = {source.group for source in collect_sources(find_samples(data), data)}
    assert {sample.group for sample in samples} == groups
    assert open_clip(samples[0].path).n_frames == 4


@pytest.mark.parametrize("ending", ["mp4", "mkv", "gif", "npz", "png"])
def test_same_settings_same_bytes(data: Path, tmp_path: Path, ending: str) -> None:
    run(data, tmp_path / "one", ending=ending, clips_per_image=1)
    run(data, tmp_path / "two", ending=ending, clips_per_image=1)
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_running_again_makes_nothing(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(data, out)
    before = tree(out)
    generator = FakeGenerator()
    outcome = run(data, out, generator=generator)
    assert (outcome.made, outcome.present, generator.calls) == (0, 12, [])
    assert tree(out) == before


@pytest.mark.parametrize(
    ("moment", "ending"),
    [
        ("generating", "npz"),
        ("writing", "png"),
        ("between mask and clip", "npz"),
        ("between mask and clip", "png"),
        ("manifest", "npz"),
    ],
)
def test_kill_and_continue_gives_the_same_folder(data: Path, tmp_path: Path, moment: str, ending: str) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run(data, whole, ending=ending)
    code = f"""
from pathlib import Path
from tests.augmentation.test_synthesis import killed_run
killed_run(Path({str(data)!r}), Path({str(killed)!r}), {moment!r}, {ending!r})
"""
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=root, check=False)
    assert done.returncode == -signal.SIGKILL
    left = {name: data for name, data in tree(killed).items() if not name.startswith(".partial")}
    assert left.items() <= tree(whole).items(), "a killed run leaves whole files only"
    assert "manifest.csv" not in left
    outcome = run(data, killed, ending=ending)
    assert outcome.present > 0
    assert outcome.made + outcome.present == 12
    assert tree(killed) == tree(whole)
    assert not list(killed.glob(".*"))


def killed_run(data: Path, out: Path, moment: str, ending: str) -> None:
    """Run until the given moment of the third clip, or until the manifest, then die as by kill -9."""

    def die(*_args: object, **_kwargs: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    class Dying(FakeGenerator):
        def __call__(self, image, **given: object) -> list[GeneratedClip]:
            if moment == "generating" and len(self.calls) == 4:
                die()
            return super().__call__(image, **given)

    moves: list[Path] = []
    written: list[Path] = []
    move, write = outputs.move_into_place, outputs.write_clip

    def counted_move(staged: Path, path: Path) -> None:
        if moment == "between mask and clip" and len(moves) == 5:
            die()
        moves.append(path)
        move(staged, path)

    def counted_write(path: Path, frames: np.ndarray, fps: float, **given: object) -> None:
        write(path, frames, fps, **given)
        written.append(path)
        if moment == "writing" and len(written) == 5:
            path.with_name(f".{path.stem}.part").write_bytes(b"half of a clip")
            die()

    outputs.move_into_place, outputs.write_clip = counted_move, counted_write
    if moment == "manifest":
        import us_i2v.augmentation.synthesis as module

        module.write_manifests = die
    run(data, out, generator=Dying(), ending=ending)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"clips_per_image": 3}, "clips_per_image"),
        ({"seed": 1}, "seed"),
        ({"balance": True}, "balance"),
        ({"options": GenerateOptions(frames=4, motion=0.5)}, "options.motion"),
        ({"size": 64}, "size"),
    ],
)
def test_changed_settings_in_the_same_folder_are_refused(
    data: Path, tmp_path: Path, changes: dict[str, object], key: str
) -> None:
    out = tmp_path / "out"
    run(data, out)
    before = tree(out)
    with pytest.raises(ConfigError, match=f"made with {key} = "):
        run(data, out, **changes)
    assert tree(out) == before


def test_changed_stills_are_refused(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(data, out)
    (data / "normal" / "normal (1).png").unlink()
    with pytest.raises(ConfigError, match="sources_sha256"):
        run(data, out)


def test_a_folder_with_other_things_is_refused(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"thesis\.txt"):
        run(data, out)
    assert set(tree(out)) == {"thesis.txt"}


@pytest.mark.parametrize("count", [2, 3])
def test_shards_together_are_the_whole(data: Path, tmp_path: Path, count: int) -> None:
    run(data, tmp_path / "whole")
    whole = tree(tmp_path / "whole")
    parts = tmp_path / "parts"
    for index in range(count, 0, -1):
        assert not (parts / "manifest.csv").exists()
        outcome = run(data, parts, shard=Shard(index, count))
        assert outcome.made == 12 // count
    files = tree(parts)
    tables = [rows(parts / f"manifest-{index}-of-{count}.csv") for index in range(1, count + 1)]
    for index in range(1, count + 1):
        del files[f"manifest-{index}-of-{count}.csv"]
    assert files == whole
    listed = sorted((row for table in tables for row in table), key=lambda row: row["file"])
    assert listed == sorted(rows(parts / "manifest.csv"), key=lambda row: row["file"])


@pytest.mark.parametrize("name", ["benign/benign (2).png", "benign/benign (2)_mask.png"])
def test_unreadable_still_or_mask_is_skipped_and_listed(data: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    (data / name).write_bytes((data / name).read_bytes()[:60])
    outcome = run(data, out)
    assert list(outcome.unreadable) == ["benign/benign (2).png"]
    assert outcome.made == 10
    assert (out / "unreadable.txt").read_text().startswith("benign/benign (2).png\t")
    assert len(rows(out / "manifest.csv")) == 10
    assert not [path for path in tree(out) if "benign (2)" in path]


def test_shards_with_an_unreadable_still_complete_the_manifest(data: Path, tmp_path: Path) -> None:
    (data / "normal" / "normal (1).png").write_bytes(b"not a picture")
    out = tmp_path / "out"
    run(data, out, shard=Shard(1, 2))
    assert not (out / "manifest.csv").exists()
    run(data, out, shard=Shard(2, 2))
    assert len(rows(out / "manifest.csv")) == 10


def test_balanced_classes(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(data, out, balance=True, clips_per_image=1)
    labels = [row["label"] for row in rows(out / "manifest.csv")]
    assert {label: labels.count(label) for label in COUNTS} == {"benign": 3, "malignant": 3, "normal": 3}


def test_a_clip_does_not_depend_on_its_neighbours(data: Path, tmp_path: Path) -> None:
    run(data, tmp_path / "all", clips_per_image=1)
    for path in (data / "benign").glob("benign (1)*"):
        path.unlink()
    run(data, tmp_path / "fewer", clips_per_image=1)
    name = "malignant/malignant (2)_0.npz"
    assert (tmp_path / "all" / name).read_bytes() == (tmp_path / "fewer" / name).read_bytes()


def test_an_error_while_writing_stops_the_run(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: object, **_kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(outputs, "write_clip", full)
    generator = FakeGenerator()
    with pytest.raises(OutputError, match="No space left"):
        run(data, tmp_path / "out", generator=generator)
    assert len(generator.calls) <= 3
    assert set(tree(tmp_path / "out")) == {"settings.json"}


def test_only_one_clip_waits_to_be_written(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounded memory: when clip k + 2 is asked for, clip k has been written."""
    missing: list[int] = []
    written: list[str] = []
    move = outputs.move_into_place

    def counted(staged: Path, path: Path) -> None:
        move(staged, path)
        if not path.stem.endswith("_mask"):
            written.append(path.name)

    class Watching(FakeGenerator):
        def __call__(self, image, **given: object) -> list[GeneratedClip]:
            missing.append(len(self.calls) - len(written))
            return super().__call__(image, **given)

    monkeypatch.setattr(outputs, "move_into_place", counted)
    run(data, tmp_path / "out", generator=Watching())
    assert len(written) == len(missing)
    assert max(missing) <= 2


def test_native_size_is_kept_and_size_is_passed_on(data: Path, tmp_path: Path) -> None:
    generator = FakeGenerator()
    run(data, tmp_path / "native", generator=generator)
    assert {call.size for call in generator.calls} == {None}
    run(data, tmp_path / "small", generator=generator, size=32)
    assert np.load(tmp_path / "small" / "benign/benign (1)_0.npz")["frames"].shape == (4, 32, 32)


def test_clips_are_conditioned_on_their_stills_class_where_the_weights_know_it(data: Path, tmp_path: Path) -> None:
    generator = FakeGenerator()
    known = ("Benign", "malignant")
    run(data, tmp_path / "out", generator=generator, labels=known, own_label=True, clips_per_image=1)
    assert [call.options.label for call in generator.calls] == ["Benign"] * 3 + ["malignant"] * 2 + [None]
    assert AugmentSettings.load(tmp_path / "out" / "settings.json").own_label
    with pytest.raises(ConfigError, match="own_label"):
        run(data, tmp_path / "out", clips_per_image=1)


def test_guidance_goes_where_nothing_is_left_to_guide_by() -> None:
    guided = GenerateOptions(guidance=2.0)
    assert options_for("benign", ("benign",), guided) == GenerateOptions(guidance=2.0, label="benign")
    assert options_for("normal", ("benign",), guided) == GenerateOptions()
    assert options_for(None, ("benign",), GenerateOptions(guidance=2.0, slide=1.0)).guidance == 2.0
    assert options_for("normal", (), guided) is guided


def test_settings_of_runs_before_own_labels_stay_the_same() -> None:
    assert "own_label" not in AugmentSettings().dump()
    assert "pressure" not in AugmentSettings().dump()
