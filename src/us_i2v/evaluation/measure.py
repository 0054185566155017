"""Measuring a set of clips: one pass, a few clips in memory, numbers only kept.

What is measured of each clip
    features        one vector a network (several for networks of single frames), see `metrics.extractors`
    scalars         numbers of the clip alone: motion, texture, flicker; "_crop" marks the native-size crop.
                    NaN where a clip is smaller than the crop, or where a number is not defined (`highpass_ratio`)
    decorrelation   correlation of the speckle of frame t with frame 0's, (T,); NaN where frame 0 has no texture
    paired          differences from the real partner over frames 1 .. T - 1 (frame 0 is given to a generator),
                    and frame 0's own (`frame0`, mean absolute gray levels); NaN without a partner

A clip's numbers depend on that clip alone, so neither the batch size nor the order matters.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from us_i2v.errors import InputError
from us_i2v.metrics.block_matching import BlockMotion, block_motion
from us_i2v.metrics.motion import highpass_ratio, motion_energy, motion_statistics
from us_i2v.metrics.perceptual import frame0_fidelity, l1, psnr
from us_i2v.metrics.speckle import decorrelation, flicker, local_deviation
from us_i2v.metrics.ssim import ssim

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from us_i2v.evaluation.clips import ClipSet
    from us_i2v.metrics.extractors import Extractor
    from us_i2v.metrics.lpips import LPIPS
    from us_i2v.types import Frames

Array = npt.NDArray[np.float64]

BATCH = 8
FRAME_SAMPLES = 4
"""Frames of a clip that networks of single frames see (FID): spread over 1 .. T - 1, since frame 0 is given."""

IDENTICAL_DB = 100.0
"""PSNR of exact copies, which has no finite value."""

SCALARS = (
    "motion_energy",
    "flow",
    "explained_share",
    "explained_held_out",
    "highpass_ratio",
    "local_deviation",
    "flicker",
)
"""Measured on whole frames at the evaluation size."""

CROP_SCALARS = tuple(f"{name}_crop" for name in SCALARS if name != "flicker")
"""Measured on native-size crops."""

PAIRED = ("lpips", "ssim", "psnr", "l1", "frame0")


@dataclass(frozen=True)
class Network:
    """What a feature network is called in results.

    Attributes:
        label: Short name, for example "FVD-X3D".
        description: Network, layer and resize.
        dimensions: Length of a feature vector.
    """

    label: str
    description: str
    dimensions: int


@dataclass(frozen=True)
class Measured:
    """Numbers of N clips, in the order of their set.

    Attributes:
        names: Of the clips.
        groups: Patients.
        sources: Data sets.
        networks: Feature networks by key.
        features: By network: (N, D), or (N, F, D) of F frames a clip.
        scalars: By name: (N,).
        curves: By name ("decorrelation"): (N, T).
        paired: By name: (N,), differences from the real partner.
        partners: Name of each clip's real partner; "" where there is none.
        paired_label: What LPIPS was measured with, for example "LPIPS-alex v0.1".
    """

    names: tuple[str, ...]
    groups: tuple[str, ...]
    sources: tuple[str, ...]
    networks: dict[str, Network]
    features: dict[str, Array]
    scalars: dict[str, Array]
    curves: dict[str, Array]
    paired: dict[str, Array]
    partners: tuple[str, ...]
    paired_label: str = ""

    def __len__(self) -> int:
        """Number of clips."""
        return len(self.names)

    def select(self, indices: Sequence[int]) -> Measured:
        """Return the measurements of some of the clips."""
        rows = np.asarray(indices, dtype=np.intp)

        def texts(values: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(values[row] for row in rows)

        def arrays(values: dict[str, Array]) -> dict[str, Array]:
            return {name: array[rows] for name, array in values.items()}

        return Measured(
            names=texts(self.names),
            groups=texts(self.groups),
            sources=texts(self.sources),
            networks=self.networks,
            features=arrays(self.features),
            scalars=arrays(self.scalars),
            curves=arrays(self.curves),
            paired=arrays(self.paired),
            partners=texts(self.partners),
            paired_label=self.paired_label,
        )


def measure(
    clips: ClipSet,
    extractors: Mapping[str, Extractor],
    *,
    lpips: LPIPS | None = None,
    partner: ClipSet | None = None,
    pairs: Sequence[int | None] | None = None,
    describe: bool = True,
    curves: bool = True,
    batch: int = BATCH,
    progress: Callable[[int, int, str], None] | None = None,
) -> Measured:
    """Measure every clip once.

    Args:
        clips: What to measure.
        extractors: Feature networks by key.
        lpips: Network of the paired LPIPS; without it the others are given alone.
        partner: Real clips to pair with.
        pairs: For each clip its partner's index, None where it has none; by default clip i goes with partner i.
        describe: Measure the scalars.
        curves: Measure decorrelation.
        batch: Clips that are in memory at a time.
        progress: Called with (done, total, name).

    Raises:
        InputError: A clip cannot be read, or has another number of frames than its partner.
    """
    total = len(clips)
    partner_of = list(range(total) if pairs is None else pairs) if partner is not None else [None] * total
    features: dict[str, list[Array]] = defaultdict(list)
    scalars: dict[str, list[float]] = defaultdict(list)
    paired: dict[str, list[float]] = defaultdict(list)
    correlations: list[Array] = []
    for indices in _batches(total, max(1, batch)):
        kept = []
        for index in indices:
            frames = clips.frames(index)
            kept.append(frames)
            motion = block_motion(frames) if describe or curves else None
            if describe:
                _append(scalars, describe_clip(frames, clips.crop(index), motion))
            if curves:
                correlations.append(_decorrelation(frames, motion))
            mate = partner_of[index]
            if partner is not None:
                other = None if mate is None else partner.frames(mate)
                _append(paired, paired_numbers(frames, other, lpips))
            if progress is not None:
                progress(index + 1, total, clips.names[index])
        for key, extractor in extractors.items():
            features[key].append(_features(extractor, kept))
    return Measured(
        names=tuple(clips.names),
        groups=tuple(clips.groups),
        sources=tuple(clips.sources),
        networks={key: _network(extractor) for key, extractor in extractors.items()},
        features={key: np.concatenate(parts) for key, parts in features.items()},
        scalars={name: np.array(values) for name, values in scalars.items()},
        curves={"decorrelation": np.stack(correlations)} if correlations else {},
        paired={name: np.array(values) for name, values in paired.items()},
        partners=tuple("" if partner is None or i is None else partner.names[i] for i in partner_of),
        paired_label="" if lpips is None else f"LPIPS-{lpips.backbone} v0.1",
    )


def describe_clip(frames: Frames, crop: Frames | None, motion: BlockMotion | None = None) -> dict[str, float]:
    """Return the scalars of one clip.

    Args:
        frames: uint8 (T, S, S), the whole picture.
        crop: uint8 (T, 112, 112) at native size, or None.
        motion: `block_motion(frames)`, if the caller has it.
    """
    numbers = _numbers(frames, block_motion(frames) if motion is None else motion)
    numbers["flicker"] = flicker(frames)
    cropped = dict.fromkeys(numbers, math.nan) if crop is None else _numbers(crop, block_motion(crop))
    return numbers | {name: cropped[name.removesuffix("_crop")] for name in CROP_SCALARS}


def paired_numbers(frames: Frames, real: Frames | None, lpips: LPIPS | None) -> dict[str, float]:
    """Return differences of a clip from its real partner, both uint8 (T, S, S); NaN without one.

    Raises:
        InputError: If the shapes differ.
    """
    names = PAIRED if lpips is not None else PAIRED[1:]
    if real is None:
        return dict.fromkeys(names, math.nan)
    if frames.shape != real.shape:
        raise InputError(
            f"A clip of {frames.shape} cannot be compared with its real partner of {real.shape}.",
            "Give --length and --size that fit both.",
        )
    found = {
        "ssim": ssim(frames[1:], real[1:]),
        "psnr": min(psnr(frames[1:], real[1:]), IDENTICAL_DB),
        "l1": l1(frames[1:], real[1:]),
        "frame0": frame0_fidelity(frames, real[0])[0],
    }
    return found if lpips is None else {"lpips": clip_lpips(lpips, frames, real)} | found


def clip_lpips(lpips: LPIPS, a: Frames, b: Frames) -> float:
    """Return the mean LPIPS of frames 1 .. T - 1 of two clips, uint8 (T, S, S)."""
    device = lpips.shift.device
    with torch.no_grad():
        x, y = (torch.from_numpy(clip[1:])[:, None].to(device) for clip in (a, b))
        return float(lpips(x, y).double().mean())


def _numbers(frames: Frames, motion: BlockMotion) -> dict[str, float]:
    return {
        "motion_energy": motion_energy(frames),
        "flow": motion_statistics(motion).mean,
        "explained_share": motion.share,
        "explained_held_out": motion.held_out_share,
        "highpass_ratio": highpass_ratio(frames),
        "local_deviation": local_deviation(frames),
    }


def _decorrelation(frames: Frames, motion: BlockMotion | None) -> Array:
    try:
        return decorrelation(frames, motion)
    except InputError:
        # Frame 0 without texture has no speckle to follow; how many clips counted is told as n.
        return np.full(len(frames), math.nan)


def _features(extractor: Extractor, clips: Sequence[Frames]) -> Array:
    if not getattr(extractor, "per_frame", False):
        return extractor.features(clips)
    chosen = np.linspace(1, len(clips[0]) - 1, FRAME_SAMPLES).round().astype(int)
    found = extractor.features([clip[chosen] for clip in clips])
    return found.reshape(len(clips), len(chosen), -1)


def _network(extractor: Extractor) -> Network:
    frames = f", {FRAME_SAMPLES} frames a clip" if getattr(extractor, "per_frame", False) else ""
    return Network(extractor.label, f"{extractor.description}{frames}", extractor.dimensions)


def _append(table: dict[str, list[float]], row: Mapping[str, float]) -> None:
    for name, value in row.items():
        table[name].append(value)


def _batches(total: int, size: int) -> Iterator[range]:
    for start in range(0, total, size):
        yield range(start, min(start + size, total))
