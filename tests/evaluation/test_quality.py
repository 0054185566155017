"""A quality reference is fitted to windows of one frame interval, and its critic to clips that were made for them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.evaluation.conftest import WriteClips
from tests.evaluation.sets import drifting, noisy
from us_i2v.data.writers import write_clip
from us_i2v.errors import DataError
from us_i2v.evaluation.clips import RealWindows, WindowRule
from us_i2v.evaluation.quality import QualityFit, fit_quality
from us_i2v.pipeline import GenerateOptions
from us_i2v.quality import load_reference, score
from us_i2v.types import Frames, Image

CLIPS, LENGTH, DT_S = 6, 8, 0.05
RULE = WindowRule(length=LENGTH, dt_s=DT_S)


class Noisy:
    """Makes drifting clips with too much noise, whatever the still; remembers how many."""

    info = SimpleNamespace(interval_range_s=(0.01, 1.0))
    weights_sha256 = "ef" * 32

    def __init__(self) -> None:
        self.made: list[Frames] = []

    def __call__(
        self, image: Image, *, seed: int = 0, num_clips: int = 1, options: GenerateOptions | None = None
    ) -> list[SimpleNamespace]:
        frames = noisy(15)(drifting(seed % 1000, frames=LENGTH), seed % 1000)
        self.made.append(frames)
        return [SimpleNamespace(frames=frames)]


@pytest.fixture
def real(write_clips: WriteClips) -> Path:
    names = [f"c{k}.npz" for k in range(CLIPS)]
    clips = {name: drifting(k, frames=LENGTH + 4) for k, name in enumerate(names)}
    return write_clips("real", clips, {name: f"patient-{k}" for k, name in enumerate(names)})


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("us_i2v.evaluation.quality.LEAST", CLIPS)


def add_others(folder: Path) -> None:
    """Add a slow clip that would be taken frame by frame, a fast one of just a window's length, and a short one."""
    write_clip(folder / "slow.npz", drifting(50, frames=LENGTH + 4), 5.0)
    write_clip(folder / "whole.npz", drifting(51, frames=LENGTH), 50.0)
    write_clip(folder / "short.npz", drifting(52, frames=LENGTH - 2), 20.0)
    with (folder / "manifest.csv").open("a") as file:
        file.writelines(f"{name}.npz,,{name},\n" for name in ("slow", "whole", "short"))


def test_windows_of_other_intervals_are_left_out_and_told(real: Path, tmp_path: Path) -> None:
    alone = fit_quality(RealWindows.of([real], RULE), tmp_path / "a.safetensors", QualityFit())
    assert alone.notes == ()
    add_others(real)
    windows = RealWindows.of([real], RULE)
    assert len(windows) == CLIPS + 2
    generator = Noisy()
    found = fit_quality(windows, tmp_path / "b.safetensors", QualityFit(), generator=generator)
    assert found.header.model_copy(update={"critic": None}) == alone.header
    assert (found.header.windows, found.header.groups) == (CLIPS, CLIPS)
    assert found.header.interval_s == pytest.approx(DT_S)
    assert len(generator.made) == CLIPS, "clips are made for the windows that are used"
    assert found.notes == (
        "1 clips give no window, for example 'short' has 6 distinct frames",
        "2 windows left out: their frames are 20 to 200 ms apart instead of 50 ms; up to 1.5 times is taken for the "
        "same",
    )


def test_without_enough_windows_of_the_interval_nothing_is_written(real: Path, tmp_path: Path) -> None:
    path = tmp_path / "q.safetensors"
    rule = RULE.model_copy(update={"dt_s": 0.02})  # Clips slower than asked for, taken frame by frame.
    with pytest.raises(
        DataError, match=r"0 real windows could be measured \(0 not, 6 have frames 50 ms apart instead of 20"
    ):
        fit_quality(RealWindows.of([real], rule), path, QualityFit())
    assert not path.exists()


def test_critic_likes_real_clips_and_no_generated_ones(real: Path, tmp_path: Path) -> None:
    path, generator = tmp_path / "q.safetensors", Noisy()
    windows = RealWindows.of([real], RULE)
    found = fit_quality(windows, path, QualityFit(), generator=generator)
    assert found.header.critic is not None
    assert found.header.critic.auc > 0.9
    assert found.header.critic.weights_sha256 == generator.weights_sha256
    reference = load_reference(path)
    of_real, of_made = (
        [score(clip, clip[0], reference).parts["critic"] for clip in clips]
        for clips in ([windows.native(k) for k in range(CLIPS)], generator.made)
    )
    assert min(of_real) > 0.7
    assert max(of_made) < 0.3
    # Neither was seen in fitting.
    assert np.mean([score(x, x[0], reference).parts["critic"] for x in (drifting(k) for k in range(70, 74))]) > 0.6
