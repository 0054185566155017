"""A small data folder of moving textures, and configs that train on it in seconds."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.factories import SMALL_AUTOENCODER, SMALL_DENOISER, textured_still
from us_i2v.data.training_clips import ClipsConfig
from us_i2v.training.autoencoder import AutoencoderTraining
from us_i2v.training.denoiser import DenoiserTraining
from us_i2v.training.loop import OptimiserConfig

if TYPE_CHECKING:
    from pathlib import Path

CLIPS = ClipsConfig(fit="stretch", stride=1)


def write_clip(path: Path, seed: int, *, frames: int = 20, flow: bool = False) -> None:
    big = textured_still(32 + frames, 32 + frames, seed=seed)
    video = np.stack([big[t : t + 32, 5 : 5 + 32] for t in range(frames)])
    arrays: dict[str, np.ndarray] = {"frames": video, "fps": np.float32(10)}
    if flow:
        known = np.zeros((frames, 2, 8, 8), np.float16)
        known[:, 1] = np.arange(frames)[:, None, None] / 4  # one pixel down a frame, in cells of 4 px
        known[:, 0] = 0.5
        arrays["flow"] = known
    np.savez(path, **arrays)


@pytest.fixture
def clips_folder(tmp_path: Path) -> Path:
    """See `make_clips_folder`."""
    return make_clips_folder(tmp_path)


def make_clips_folder(root: Path) -> Path:
    """Six clips of three groups with a stated split; the last two know their flow."""
    folder = root / "clips"
    folder.mkdir()
    rows = []
    for k in range(6):
        write_clip(folder / f"clip{k}.npz", seed=k, flow=k >= 4)
        group, split = f"g{k // 2}", "val" if k in (2, 3) else "train"
        label = "benign" if k % 2 else "malignant"
        rows.append({"file": f"clip{k}.npz", "label": label, "group": group, "split": split})
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["file", "label", "group", "split"])
        writer.writeheader()
        writer.writerows(rows)
    return folder


def autoencoder_config(steps: int = 6, **changes) -> AutoencoderTraining:
    optimiser = OptimiserConfig(steps=steps, batch_size=2, validate_every=3, warmup=2, seed=1)
    return AutoencoderTraining(model=SMALL_AUTOENCODER, clips=CLIPS, optimiser=optimiser, **changes)


def denoiser_config(steps: int = 4, **changes) -> DenoiserTraining:
    optimiser = OptimiserConfig(steps=steps, batch_size=4, validate_every=2, warmup=2, seed=1)
    return DenoiserTraining(
        model=SMALL_DENOISER, clips=CLIPS, optimiser=optimiser, windows=16, sample_steps=2, **changes
    )
