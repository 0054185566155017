"""Fitting of a privacy filter: stopped and resumed, refused where its sides are not what they must be."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.factories import small_weights, textured_still
from tests.training.test_training_runs import StopAfter
from us_i2v.data.manifest import Sample, write_manifest
from us_i2v.data.mixing import content_sha256
from us_i2v.data.training_clips import StoredClip
from us_i2v.data.writers import write_clip
from us_i2v.errors import DataError, WeightsError
from us_i2v.evaluation.privacy import check_privacy
from us_i2v.evaluation.privacy_clips import Queries
from us_i2v.latents_file import save_latent
from us_i2v.pipeline import ImageToVideo
from us_i2v.privacy import FILTER, load_filter
from us_i2v.training.privacy import PrivacyTraining, fit_privacy, spread_over_groups
from us_i2v.training.report import Reporter, Silent
from us_i2v.weights import Header, load_weights, save_weights

STEPS = 6
CONFIG = PrivacyTraining.parse(
    {
        "network": {"size": 32, "widths": [8, 8, 8, 8], "embedding": 16},
        "optimiser": {"steps": STEPS, "batch_size": 4, "warmup": 1, "validate_every": 4},
        "clips": {"drop_repeats": False, "stride": 1},
    }
)
SPLITS = ("train",) * 4 + ("val",) * 3 + ("test",)


@dataclass(frozen=True)
class Home:
    """A data set of textures that move, and weights."""

    data: Path
    weights: Path

    def fit(self, run: Path, *, weights: Path | None = None, resume: bool = False, reporter: Reporter | None = None):
        fit_privacy(
            [self.data],
            weights or self.weights,
            run,
            CONFIG,
            resume=resume,
            reporter=reporter or Silent(),
            device="cpu",
        )

    def manifest(self, splits: tuple[str, ...] = SPLITS, groups: dict[int, str] | None = None) -> None:
        paths = sorted(self.data.glob("*.npz"))
        samples = [
            Sample(path, "clip", None, (groups or {}).get(k, f"p{k}"), split, (), 20.0)
            for k, (path, split) in enumerate(zip(paths, splits, strict=True))
        ]
        write_manifest(self.data / "manifest.csv", samples)

    def generator(self, path: Path, **seen: tuple[str, ...]) -> Path:
        """The weights again, trained on something."""
        opened = load_weights(self.weights)
        header = Header.model_validate({**dict(opened.header), **seen})
        save_weights(path, header, opened.tensors)
        return path


def clip(seed: int, length: int, black: int = 0) -> np.ndarray:
    frames = np.stack([np.roll(textured_still(40, 40, seed=seed), k, 1) for k in range(length)])
    frames[:black] = 0
    return frames


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return make(tmp_path, 16)


def make(root: Path, length: int, black: int = 0) -> Home:
    torch.set_num_threads(1)
    for k in range(len(SPLITS)):
        write_clip(root / "data" / f"c{k}.npz", clip(k, length, black), 20.0)
    found = Home(root / "data", small_weights(root / "w.safetensors"))
    found.manifest()
    return found


@pytest.mark.parametrize("stop", [2, 4, 5])
def test_stopped_fit_goes_on_to_the_same_filter(home: Home, tmp_path: Path, stop: int) -> None:
    home.fit(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        home.fit(tmp_path / "parts", reporter=StopAfter(stop))
    assert not (tmp_path / "parts" / FILTER).exists()
    home.fit(tmp_path / "parts", resume=True)
    whole = (tmp_path / "whole" / FILTER).read_bytes()
    assert (tmp_path / "parts" / FILTER).read_bytes() == whole
    home.fit(tmp_path / "parts", resume=True)  # finished: as it was
    assert (tmp_path / "parts" / FILTER).read_bytes() == whole


@pytest.mark.parametrize(
    "change",
    [
        {"splits": (*SPLITS[:4], "val", "val", "test", "test")},
        {"groups": {1: "p0"}},
        {"groups": {5: "p4"}},
    ],
    ids=["held-out clips", "training groups", "held-out groups"],
)
@pytest.mark.parametrize("finished", [False, True])
def test_resume_with_another_manifest_is_refused(
    home: Home, tmp_path: Path, change: dict[str, object], finished: bool
) -> None:
    run = tmp_path / "run"
    if finished:
        home.fit(run)
    else:
        with pytest.raises(KeyboardInterrupt):
            home.fit(run, reporter=StopAfter(2))
    home.manifest(**change)
    with pytest.raises(WeightsError, match="other settings or data"):
        home.fit(run, resume=True)


def test_filter_left_by_a_removed_run_is_not_taken_over(home: Home, tmp_path: Path) -> None:
    run = tmp_path / "run"
    home.fit(run)
    whole = (run / FILTER).read_bytes()
    (run / FILTER).write_bytes(b"old")
    (run / "checkpoint.safetensors").unlink()
    home.fit(run)
    assert (run / FILTER).read_bytes() == whole


def test_what_the_generator_saw_is_no_stranger(home: Home, tmp_path: Path) -> None:
    clips = sorted(home.data.glob("*.npz"))
    hashes = [content_sha256(path) for path in clips]
    cases = {
        r"would hold out: group 'p4'": home.generator(tmp_path / "g.safetensors", training_groups=("p0", "p4")),
        r"would hold out: file": home.generator(tmp_path / "h.safetensors", clip_sha256=(hashes[5],)),
        r"of split 'test': c7.npz": home.generator(tmp_path / "t.safetensors", clip_sha256=(hashes[0], hashes[7])),
    }
    for message, weights in cases.items():
        with pytest.raises(DataError, match=message) as caught:
            home.fit(tmp_path / "run", weights=weights)
        assert "--seed" in caught.value.hint
    seen = home.generator(tmp_path / "s.safetensors", training_groups=("p0", "p1"), clip_sha256=(hashes[0], "ab" * 32))
    home.fit(tmp_path / "ok", weights=seen)
    result = check_privacy(Queries([clips[0]]), tmp_path / "ok", seen, device="cpu")
    assert "1 of the 2 files that the weights were trained on are among those of the fit" in result.notes
    # A generator that was trained after the fit, on what was held out.
    with pytest.raises(DataError, match="trained on 1 groups or files"):
        check_privacy(Queries([clips[0]]), tmp_path / "ok", next(iter(cases.values())), device="cpu")


def test_one_file_on_both_sides_is_refused(home: Home, tmp_path: Path) -> None:
    (home.data / "c5.npz").write_bytes((home.data / "c2.npz").read_bytes())
    with pytest.raises(DataError, match=r"1 held-out files are among the training files too: c5.npz"):
        home.fit(tmp_path / "run")


def test_black_starts_do_not_blind_the_filter(tmp_path: Path) -> None:
    """All clips start black, so every held-out window would be exactly like a training window."""
    home = make(tmp_path, 16, black=1)
    home.fit(tmp_path / "run")
    held = load_filter(tmp_path / "run").held
    for measure in ("siamese", "correlation"):
        assert held[measure].threshold(1, 0.95) < 0.999, measure
    result = check_privacy(Queries([home.data]), tmp_path / "run", home.weights, device="cpu")
    assert [match.copy for match in (clip.matches["siamese"] for clip in result.clips)] == [True] * 4 + [False] * 3 + [
        result.clips[7].matches["siamese"].similarity > held["siamese"].threshold(1, 0.95)
    ]


def test_sides_of_blank_pictures_are_refused(tmp_path: Path) -> None:
    home = make(tmp_path, 16, black=16)
    for k in range(len(SPLITS)):  # no two of the same content
        write_clip(home.data / f"c{k}.npz", np.full((16, 40, 40), k, np.uint8), 20.0)
    with pytest.raises(DataError, match="blank"):
        home.fit(tmp_path / "run")


def test_latents_without_a_threshold_are_refused(tmp_path: Path) -> None:
    """Clips shorter than a window have no latent."""
    home = make(tmp_path, 8)
    home.fit(tmp_path / "run")
    assert set(load_filter(tmp_path / "run").held) == {"siamese", "correlation"}
    model = ImageToVideo.from_pretrained(home.weights, "cpu", 1)
    latent, path = model.encode(clip(0, 16)), tmp_path / "latent.safetensors"
    save_latent(path, latent[None], space=model.latent_space, weights_sha256="ab" * 32, frames=16, fps=20.0)
    with pytest.raises(DataError, match="no threshold for latents"):
        check_privacy(Queries(latents=[path]), tmp_path / "run", home.weights, device="cpu")
    black = Path(write_clip(tmp_path / "black" / "b.npz", np.zeros((16, 40, 40), np.uint8), 20.0))
    with pytest.raises(DataError, match="None of 1 clips can be compared"):
        check_privacy(Queries([black]), tmp_path / "run", home.weights, device="cpu")
    result = check_privacy(Queries([black, home.data]), tmp_path / "run", home.weights, device="cpu")
    assert "1 of 9 clips cannot be compared by any measure, the first is 'black/b.npz'" in result.notes
    assert result.counts["siamese"].share.n == 8


def test_validation_takes_every_group_before_a_second_clip() -> None:
    def stored(name: str, group: str) -> StoredClip:
        return StoredClip(name, Path(name), None, 1, 0.1, None, group, "s", name)

    clips = [stored(f"{group}{k}", group) for group, count in (("a", 70), ("b", 1), ("c", 3)) for k in range(count)]
    assert [clip.name for clip in spread_over_groups(clips, 6)] == ["a0", "b0", "c0", "a1", "c1", "a2"]
    assert {clip.group for clip in spread_over_groups(clips, 64)} == {"a", "b", "c"}
    assert len(spread_over_groups(clips, 100)) == 74
