"""A small clean data set, into which tests plant defects."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image as PillowImage
from PIL import ImageDraw, ImageFont

from tests.factories import textured_still
from tests.fakes import write_png
from us_i2v.data.manifest import Sample
from us_i2v.types import Frames, Image

HEIGHT, WIDTH = 96, 120


def picture(seed: int) -> Image:
    """A speckled picture without anything painted into it; another one for every seed."""
    return textured_still(HEIGHT, WIDTH, seed=seed) // 2 + 20


def moving(seed: int, frames: int = 12) -> Frames:
    """A picture that moves to the right by one pixel a frame."""
    return np.stack([np.roll(picture(seed), t, axis=1) for t in range(frames)])


def with_text(still: Image, text: str, at: tuple[int, int], level: int | tuple[int, int, int] = 235) -> Image:
    """Write on a picture; `at` is (column, row)."""
    canvas = PillowImage.fromarray(still)
    if isinstance(level, tuple):
        canvas = canvas.convert("RGB")
    drawing = ImageDraw.Draw(canvas)
    drawing.fontmode = "1"
    drawing.text(at, text, fill=level, font=ImageFont.load_default(18))
    return np.array(canvas)


def blob() -> Image:
    """A mask."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[30:60, 40:80] = 255
    return mask


@dataclass
class DataSet:
    """Files in a folder and the samples that a layout would list."""

    root: Path
    samples: list[Sample] = field(default_factory=list)

    def still(self, name: str, pixels: Image, *, mask: Image | None = None, **about: str | None) -> Sample:
        path = write_png(self.root / name, pixels)
        masks = () if mask is None else (write_png(path.with_name(f"{path.stem}_mask.png"), mask),)
        return self.add(path, "still", masks, **about)

    def clip(self, name: str, frames: Frames, *, fps: float | None = 25.0, **about: str | None) -> Sample:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".npy":
            np.save(path, frames)
        else:
            np.savez(path, frames=frames, **({} if fps is None else {"fps": np.float64(fps)}))
        return self.add(path, "clip", (), **about)

    def add(
        self,
        path: Path,
        kind: str,
        masks: tuple[Path, ...] = (),
        label: str | None = "benign",
        group: str | None = None,
        split: str | None = None,
    ) -> Sample:
        assert kind in ("still", "clip")
        sample = Sample(path, "still" if kind == "still" else "clip", label, group or path.stem, split, masks)
        self.samples.append(sample)
        return sample


def clean(root: Path) -> DataSet:
    """Three stills with masks and two clips, nothing wrong with any."""
    data = DataSet(root)
    for seed, label, split in ((1, "benign", "train"), (2, "malignant", "train"), (3, "benign", "test")):
        data.still(f"{label}/s{seed}.png", picture(seed), mask=blob(), label=label, split=split)
    data.clip("benign/c4.npz", moving(4), split="train")
    data.clip("malignant/c5.npz", moving(5), label="malignant", split="test")
    return data
