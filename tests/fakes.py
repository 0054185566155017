"""A generator without a model, for tests of what stands around it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image as PillowImage

from us_i2v.data.stills import read_still
from us_i2v.pipeline import GeneratedClip, GenerateOptions
from us_i2v.types import Image, Mask
from us_i2v.weights import ProcessConfig

WEIGHTS_SHA256 = "ab" * 32


class FakeGenerator:
    """Rolls the still by a few pixels a frame; how many depends on the seed and `motion`.

    Frame 0 is the still; the mask rolls along. Every call is recorded.
    """

    def __init__(self) -> None:
        self.info = SimpleNamespace(
            kind="lddm",
            process=ProcessConfig(),
            frame_interval_s=0.05,
            n_frames=16,
            model_size=64,
            training_groups=(),
        )
        self.weights_sha256 = WEIGHTS_SHA256
        self.calls: list[SimpleNamespace] = []

    def __call__(
        self,
        image: Image | str | Path,
        *,
        mask: Mask | None = None,
        seed: int = 0,
        num_clips: int = 1,
        options: GenerateOptions | None = None,
        size: int | None = None,
    ) -> list[GeneratedClip]:
        options = options or GenerateOptions()
        self.calls.append(SimpleNamespace(image=image, mask=mask, seed=seed, options=options, size=size))
        assert num_clips == 1, "the commands ask for one clip a call"
        still = read_still(Path(image)) if isinstance(image, str | Path) else image
        if size is not None:
            still = np.asarray(PillowImage.fromarray(still).resize((size, size)))
            mask = None if mask is None else np.asarray(PillowImage.fromarray(mask).resize((size, size)))
        shift = 1 + int(options.motion * (seed % 5))
        frames = np.stack([np.roll(still, t * shift, axis=1) for t in range(options.frames)])
        masks = None
        if mask is not None:
            masks = np.stack([np.roll(mask, t * shift, axis=1) for t in range(options.frames)])
        flow = np.zeros((options.frames, 2, 4, 4), np.float32)
        fps = options.fps if options.fps is not None else 1 / self.info.frame_interval_s
        return [GeneratedClip(frames=frames, masks=masks, fps=fps, seed=seed, flow=flow)]


def still_pixels(seed: int, height: int = 40, width: int = 48) -> Image:
    """A speckled uint8 picture; another one for every seed."""
    generator = np.random.Generator(np.random.PCG64(seed))
    return generator.integers(0, 256, (height, width), dtype=np.uint8)


def write_png(path: Path, pixels: Image | Mask) -> Path:
    """Save an array as PNG, making the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    PillowImage.fromarray(pixels).save(path)
    return path


def write_busi(root: Path, counts: dict[str, int]) -> Path:
    """Write a folder laid out like BUSI: class folders, lesions with masks, `normal` without."""
    for offset, (label, count) in enumerate(counts.items()):
        for number in range(1, count + 1):
            name = f"{label} ({number})"
            write_png(root / label / f"{name}.png", still_pixels(100 * offset + number))
            if label != "normal":
                mask = np.zeros((40, 48), bool)
                mask[10 : 20 + offset, 12 : 20 + number] = True
                write_png(root / label / f"{name}_mask.png", mask)
    return root


def tree(root: Path) -> dict[str, bytes]:
    """All files below a folder and their bytes."""
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}
