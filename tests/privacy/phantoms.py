"""Phantoms in three parts, and a filter fitted to them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy import ndimage

from tests.factories import small_weights
from us_i2v.data.manifest import Sample, write_manifest
from us_i2v.data.phantom.config import PhantomConfig, Scanner
from us_i2v.data.phantom.simulate import simulate
from us_i2v.data.writers import write_clip
from us_i2v.evaluation.privacy import PrivacyResult, check_privacy
from us_i2v.evaluation.privacy_clips import Queries
from us_i2v.seeding import numpy_generator
from us_i2v.training.privacy import PrivacyTraining, fit_privacy
from us_i2v.training.report import Silent
from us_i2v.types import Frames

SIDE, LENGTH = 64, 16
TRAIN, HELD, OTHERS, COPIED = 8, 24, 8, 4
PHANTOM = PhantomConfig(size=(SIDE, SIDE), n_frames=1, depth_mm=20, scanner=Scanner(looks=1, scatterers_per_mm3=12))
"""Shallow and sparse: quick to simulate."""
FAST = PrivacyTraining.parse(
    {"optimiser": {"steps": 60, "batch_size": 8, "warmup": 5, "validate_every": 30}, "clips": {"drop_repeats": False}}
)


def phantom_clip(seed: int, length: int = LENGTH) -> Frames:
    """One phantom, swaying: simulating every frame would take minutes."""
    picture = simulate(PHANTOM, seed).frames[0].astype(float)
    rng = numpy_generator(seed, "sway")
    way = np.sin(np.arange(length) * rng.uniform(0.2, 0.6))[:, None] * rng.uniform(-3, 3, 2)
    return np.stack([ndimage.shift(picture, by, order=1, mode="nearest") for by in way]).round().astype(np.uint8)


class Phantoms:
    """A data set with stated splits, of training, held-out and other clips, and its filter."""

    def __init__(self, root: Path, clips: list[Frames], parts: tuple[int, int, int]) -> None:
        self.data, self.run, self.weights = root / "data", root / "run", small_weights(root / "w.safetensors")
        self.clips = clips
        splits = [name for name, count in zip(("train", "val", "test"), parts, strict=True) for _ in range(count)]
        samples = []
        for number, (frames, split) in enumerate(zip(self.clips, splits, strict=True)):
            path = write_clip(self.data / f"c{number:02d}.npz", frames, 20.0)
            samples.append(Sample(Path(path), "clip", None, f"p{number}", split, (), 20.0))
        write_manifest(self.data / "manifest.csv", samples)
        self.fit()

    def fit(self) -> None:
        fit_privacy([self.data], self.weights, self.run, FAST, reporter=Silent(), device="cpu")

    def write(self, folder: Path, clips: dict[str, Frames]) -> Path:
        for name, frames in clips.items():
            write_clip(folder / name, frames, 20.0)
        return folder

    def check(self, *paths: Path, **more: object) -> PrivacyResult:
        return check_privacy(Queries(paths), self.run, self.weights, device="cpu", **more)  # type: ignore[arg-type]
