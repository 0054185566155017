"""What carries FVD-X3D? Real and reconstructed clips exchange their coarse and their fine part.

    python benchmarks/bands.py WORK WEIGHTS --metric-weights FOLDER [--threads 1]

WORK is what `table1.py prepare` wrote; held-out lung_blues windows are used. Each window is reconstructed: its own
latent, decoded on its first frame by WEIGHTS (both stages, or their run folder). Fine = a frame less its Gaussian
blur of sigma 2 px at 128 px, coarse = the blur. Fine parts without a decoder are those of frame 0, moved by block
matching or by the flow of the auto-encoder. One line a combination: FVD-X3D, the share of the way from frame 0
repeated to the real/real floor, and the AUC of the linear critic.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage

from us_i2v.evaluation.clips import RealWindows, Repeated, WindowRule, at_size
from us_i2v.evaluation.compare import compare
from us_i2v.evaluation.measure import Measured, measure
from us_i2v.metrics.block_matching import block_motion
from us_i2v.metrics.extractors import load_extractor
from us_i2v.models.motion import interpolation_matrix, warp
from us_i2v.pipeline import GenerateOptions, ImageToVideo
from us_i2v.seeding import numpy_generator
from us_i2v.training.matched_flow import TRUSTED
from us_i2v.weights import load_weights

SIGMA, SIZE = 2.0, 128

Array = np.ndarray


class Stored:
    """Clips in memory, uint8 (N, T, S, S), named as the real windows."""

    def __init__(self, real: RealWindows, clips: Array) -> None:
        self.names, self.groups, self.sources = real.names, real.groups, real.sources
        self.clips = clips

    def __len__(self) -> int:
        """Number of clips."""
        return len(self.clips)

    def frames(self, index: int) -> Array:
        """See `evaluation.clips.ClipSet`."""
        return self.clips[index]

    def crop(self, index: int) -> None:
        """See `evaluation.clips.ClipSet`: there is none."""


def coarse(clips: Array) -> Array:
    return np.stack([ndimage.gaussian_filter(clip.astype(np.float32), (0, SIGMA, SIGMA)) for clip in clips])


def fine(clips: Array) -> Array:
    return clips - coarse(clips)


def moved(clips: Array, flow_of: Callable[[int], torch.Tensor]) -> Array:
    """Frame 0 of each clip moved by a flow (2, T - 1, h, w) in pixels of 128, enlarged bilinearly."""
    out = clips.astype(np.float32)
    for index, clip in enumerate(clips):
        flow = F.interpolate(flow_of(index)[None].transpose(1, 2)[0], SIZE, mode="bilinear").transpose(0, 1)[None]
        still = torch.from_numpy(clip[:1].astype(np.float32))[None]
        out[index, 1:] = warp(still, flow, mode="bicubic")[0, 0].numpy()
    return out


def matched(clips: Array, least_share: float) -> Callable[[int], torch.Tensor]:
    """Block-matched flow, zero in blocks whose neighbours' motion explains less than `least_share`."""

    def flow(index: int) -> torch.Tensor:
        found = block_motion(clips[index])
        smooth = ndimage.median_filter(found.flow, size=(1, 1, 3, 3), mode="nearest")
        share = 1 - found.left_held_out / np.maximum(found.change, 1e-6)
        kept = torch.from_numpy(smooth * (share > least_share)[:, None])
        return F.pad(kept, (1, 1, 1, 1), mode="replicate").transpose(0, 1)

    return flow


def four_knots(flow_of: Callable[[int], torch.Tensor]) -> Callable[[int], torch.Tensor]:
    """The same flow as a decoder with four steps in time could say it: means of four frames, linear in between."""

    def flow(index: int) -> torch.Tensor:
        whole = F.pad(flow_of(index), (0, 0, 0, 0, 1, 0))
        knots = whole.unflatten(1, (4, -1)).mean(dim=2)
        line = interpolation_matrix(4, whole.shape[1], 0, 4, "linear")
        return torch.einsum("tk,ckyx->ctyx", line, knots)[:, 1:]

    return flow


def read_off(clips: Array, weights: Path) -> Callable[[int], torch.Tensor]:
    """The flow that the auto-encoder reads off a clip."""
    autoencoder = load_weights(weights).autoencoder()

    @torch.no_grad()
    def flow(index: int) -> torch.Tensor:
        video = torch.from_numpy(clips[index].astype(np.float32) / 255)[None, None]
        motion = autoencoder.decode(autoencoder.encode(video).mean, video[:, :, 0]).in_float32()
        return motion.flow[0, :, 1:] * (SIZE / motion.grid[1])

    return flow


def shuffled(clips: Array) -> Array:
    """Frames 1 .. T - 1 of each clip in random order."""
    order = [1 + numpy_generator(0, "bands", index).permutation(clips.shape[1] - 1) for index in range(len(clips))]
    return np.stack([np.concatenate([clip[:1], clip[rows]]) for clip, rows in zip(clips, order, strict=True)])


def combinations(clips: Array, made: Array, weights: Path) -> Iterator[tuple[str, Array]]:
    """(name, clips float (N, T, S, S)) of each combination."""
    coarse_real, fine_real = coarse(clips), fine(clips)
    coarse_made, fine_made = coarse(made), fine(made)
    yield "reconstructed", made
    yield "real coarse + reconstructed fine", coarse_real + fine_made
    yield "reconstructed coarse + real fine", coarse_made + fine_real
    yield "frame 0 coarse + real fine", coarse_real[:, :1] + fine_real
    yield "real coarse + frame 0 fine", coarse_real + fine_real[:, :1]
    yield "real coarse + real fine in random order", coarse_real + shuffled(fine_real)
    flows = {
        "block matching": matched(clips, -np.inf),
        "block matching, trusted blocks": matched(clips, TRUSTED),
        "the same in four knots": four_knots(matched(clips, TRUSTED)),
        "the auto-encoder": read_off(clips, weights),
    }
    for name, flow in flows.items():
        yield f"reconstructed coarse + frame 0 fine, moved by {name}", coarse_made + fine(moved(clips, flow))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--metric-weights", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    real = RealWindows.of([arguments.work / "lung_blues"], WindowRule(per_clip=3, size=SIZE), split="test")
    networks = {"fvd-x3d": load_extractor("fvd-x3d", arguments.metric_weights)}
    model = ImageToVideo.from_pretrained(arguments.weights, "cpu", arguments.threads)
    originals, again = [], []
    for index in range(len(real)):
        native = real.native(index)
        made = model.animate(native[0], model.encode(native), seed=index, options=GenerateOptions(frames=16)).frames
        originals.append(at_size(native, SIZE))
        again.append(at_size(made, SIZE))
    clips = np.stack(originals)

    def features(windows: RealWindows | Repeated | Stored) -> Measured:
        return measure(windows, networks, describe=False, curves=False)

    truth, repeated = features(real), features(Repeated(real))
    print(f"{len(real)} windows of {len(set(real.groups))} patients")
    for name, mixed in combinations(clips, np.stack(again), arguments.weights):
        rounded = np.clip(np.round(mixed), 0, 255).astype(np.uint8)
        rounded[:, 0] = clips[:, 0]
        print(line(name, truth, features(Stored(real, rounded)), repeated), flush=True)
    return 0


def line(name: str, truth: Measured, found: Measured, repeated: Measured) -> str:
    (part,) = compare(truth, found, repeat=repeated).parts.values()
    distances = part.distances["fvd-x3d"]
    fake, closed, critic = distances.frechet["fake"], distances.frechet["closed"], distances.critic["fake"]
    return (
        f"| {name} | {fake.mean:.2f} [{fake.low:.2f}, {fake.high:.2f}] "
        f"| {closed.mean:.2f} [{closed.low:.2f}, {closed.high:.2f}] | {critic.mean:.2f} |"
    )


if __name__ == "__main__":
    sys.exit(main())
