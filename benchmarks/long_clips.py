"""Do long clips drift, and do their windows show? The table of docs/long-clips.md.

    python benchmarks/long_clips.py [STILL ...] [--weights RUN_OR_FILE] [--frames 192] [--seeds 2] [--longer stitch]

STILL defaults to examples/*.png; every still gets a clip and a loop a seed, at its own size. Seams are changes from
frame to frame at the borders of latent frames over those elsewhere (median over clips; 1 = they do not show):

    displacement   of the motion that frames are rendered with, pixels of the model's square
    gray           mean absolute difference of neighbouring frames
    drift          both the displacement and the fine contrast (standard deviation of what a Gaussian of 2 px leaves,
                   over the still's) by 16 frames
    loop           how far the last frame is from the first, over the mean change between neighbouring frames
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from scipy import ndimage

from us_i2v.data.stills import read_still
from us_i2v.data.transforms import to_gray
from us_i2v.pipeline import GeneratedClip, GenerateOptions, ImageToVideo

ROOT = Path(__file__).parents[1]
BLOCK = 16


def changes(values: np.ndarray) -> np.ndarray:
    """Mean absolute change from each frame to the next, (T, ...) -> (T - 1,)."""
    return np.abs(np.diff(values.astype(np.float32), axis=0)).mean(axis=tuple(range(1, values.ndim)))


def seam(change: np.ndarray, period: int) -> float:
    """Change into frames `period`, 2 `period`, ... over that into the others; the first, out of rest, is left out."""
    frame = np.arange(1, len(change) + 1)
    at = frame % period == 0
    return float(change[at].mean() / change[~at & (frame > 1)].mean())


def contrast(gray: np.ndarray) -> float:
    x = gray.astype(np.float32)
    return float((x - ndimage.gaussian_filter(x, 2.0)).std())


def measured(clip: GeneratedClip, loop: GeneratedClip, period: int, side: int) -> dict[str, np.ndarray]:
    """Everything of one still and seed."""
    gray = to_gray(clip.frames)
    pixels = clip.flow * (side / clip.flow.shape[-1])
    length = np.sqrt((pixels**2).sum(axis=1)).mean(axis=(1, 2))
    fine = np.array([contrast(frame) for frame in gray])
    blocks = len(gray) // BLOCK

    def by_block(values: np.ndarray) -> np.ndarray:
        return values[: blocks * BLOCK].reshape(blocks, BLOCK).mean(axis=1)

    moved, shown = loop.flow * (side / loop.flow.shape[-1]), to_gray(loop.frames)
    return {
        "seam, displacement": np.array([seam(changes(pixels), period)]),
        "seam, gray": np.array([seam(changes(gray), period)]),
        "displacement by 16 frames, px": by_block(length),
        "fine contrast by 16 frames, of the still's": by_block(fine) / fine[0],
        "loop, displacement": np.array([np.abs(moved[-1]).mean() / changes(moved).mean()]),
        "loop, gray": np.array([changes(shown[[-1, 0]])[0] / changes(shown[1:]).mean()]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stills", type=Path, nargs="*")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--frames", type=int, default=192)
    parser.add_argument("--loop-frames", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--longer", choices=["stitch", "reseed"], default="stitch")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    stills = given.stills or sorted(p for p in (ROOT / "examples").glob("*.png") if not p.stem.endswith("_mask"))
    model = ImageToVideo.from_pretrained(given.weights, "cpu", given.threads)
    shape = model.info.autoencoder
    period = BLOCK // shape.latent_shape[1] if given.longer == "stitch" else BLOCK - 1
    options = GenerateOptions(frames=given.frames, longer=given.longer)
    circle = GenerateOptions(frames=given.loop_frames, loop=True)
    found = []
    for path in stills:
        still = read_still(path)
        for seed in range(given.seeds):
            (clip,), (loop,) = (model(still, seed=seed, options=each) for each in (options, circle))
            found.append(measured(clip, loop, period, shape.size))
    print(f"{len(stills)} stills, {given.seeds} seeds, {given.frames} frames, borders every {period} frames\n")
    print("| | median over clips |\n|---|---|")
    for name in found[0]:
        middle = np.median([each[name] for each in found], axis=0)
        print(f"| {name} | {' '.join(f'{value:.2f}' for value in middle)} |")


if __name__ == "__main__":
    main()
