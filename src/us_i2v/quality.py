"""How plausible a generated clip is, 0..1: inside the range of real clips in everything that is measured?

    part(x) = 1 inside [low, high], else 1 / (1 + d / (high - low)),      d = distance of x to the range
    score   = min over parts * p,       p = probability of "real" by a critic, 1 where none was fitted

Ranges are quantiles of real clips of one frame interval, number of frames and size. The parts:

| part | what |
|---|---|
| frame0 | mean absolute difference of frame 0 and the still at its size, gray levels; its range is always 0..`FRAME0` |
| motion_energy | mean absolute difference of neighbouring frames, gray levels (`metrics.motion`) |
| flow | mean length of the block flow against frame 0, px |
| explained | share of the change that the motion of the surroundings explains (`metrics.block_matching`) |
| decorrelation_1 | flow-compensated correlation of frame 1's speckle with frame 0's (`metrics.speckle`) |
| decorrelation | its mean over frames 1.. |
| flicker | temporal flicker, gray levels |
| highpass | fine texture of the last frame over that of frame 0 |

A clip with a black, flat or washed-out frame, or without any motion, scores 0; all others `LEAST_SCORE` or more. What
cannot be measured (speckle of a still without texture) is left out. All is measured on gray frames stretched to
128 x 128 px. The critic is the ridge logistic regression of `metrics.critic` on the parts but frame0; its p is told as
the part `critic`, and says nothing of clips of other weights. The rule that combines them is our own.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from pydantic import Field, ValidationError

from us_i2v.config import Config
from us_i2v.data.transforms import Fit, fit_frames, resize, to_gray
from us_i2v.errors import ConfigError, InputError, WeightsError
from us_i2v.metrics.critic import LinearCritic
from us_i2v.metrics.motion import default_motion, highpass_ratio, motion_energy, motion_statistics
from us_i2v.metrics.speckle import decorrelation, flicker
from us_i2v.weights import read_tensors, write_tensors

if TYPE_CHECKING:
    from us_i2v.types import Frames, Image

FORMAT_VERSION = 1
METADATA_KEY = "us_i2v_quality"
BUILT_IN = "quality.json"

SIZE = 128
MEASURED = ("motion_energy", "flow", "explained", "decorrelation_1", "decorrelation", "flicker", "highpass")
"""Parts whose ranges come from real clips, in the order of the critic's features."""
CRITIC = "critic"
"""Name of the critic's probability among the parts of a score."""

FRAME0 = 2.0
"""Gray levels that frame 0 may differ from the still."""
STILL_ENERGY = 0.02
"""Gray levels of motion energy below which a clip does not move at all."""
FLAT = 1.0
"""Gray levels of standard deviation below which a frame shows nothing."""
WHITE, MORE_WHITE = 250, 0.2
"""Gray level from which a pixel is white, and how much more of a frame than of the still may be white."""
SAME_INTERVAL = 1.5
"""Largest ratio of the frame intervals of clips and reference."""
DIGITS = 6
LEAST_SCORE = 10.0**-DIGITS
"""Smallest score of a clip that is no failure."""


class Range(Config):
    """Where a part of real clips lies."""

    low: float = Field(description="Lower quantile.")
    high: float = Field(description="Upper quantile.")


class CriticHeader(Config):
    """What is known about the critic."""

    auc: float = Field(ge=0, le=1, description="Real against generated, cross-validated by patient.")
    auc_low: float | None = Field(None, description="Lower limit of its 95 % interval.")
    auc_high: float | None = Field(None, description="Upper limit.")
    generated: int = Field(ge=1, description="Generated clips that it was fitted on.")
    weights_sha256: str = Field(description="Hash of the weights that made them.")


class QualityHeader(Config):
    """What a quality reference says about itself."""

    format_version: int = Field(FORMAT_VERSION, description="Version of this format.")
    package_version: str = Field(description="Version of us-i2v that wrote it.")
    name: str = Field(description="What the real clips are.")
    frames: int = Field(ge=3, le=512, description="Frames of a window.")
    interval_s: float = Field(gt=0, description="Time between frames, seconds.")
    quantiles: tuple[float, float] = Field(description="Lower and upper quantile of the ranges.")
    windows: int = Field(ge=1, description="Real windows.")
    groups: int = Field(ge=1, description="Their groups (patients).")
    ranges: dict[str, Range] = Field(description="By part.")
    critic: CriticHeader | None = Field(None, description="None if no critic was fitted.")


@dataclass(frozen=True)
class QualityReference:
    """What clips are judged by.

    Attributes:
        header: See `QualityHeader`.
        critic: Fitted critic, or None.
        sha256: Hash of the file.
        built_in: Whether it is the one of the package.
    """

    header: QualityHeader
    critic: LinearCritic | None
    sha256: str
    built_in: bool = False

    def check(self, frames: int, fps: float, weights_sha256: str | None = None) -> None:
        """Raise `ConfigError` if clips cannot be judged by it.

        Args:
            frames: Their length.
            fps: Their rate.
            weights_sha256: Hash of the weights that make them; None where that is not known, and not checked.
        """
        header = self.header
        about = header.critic
        if about is not None and weights_sha256 is not None and about.weights_sha256 != weights_sha256:
            raise ConfigError(
                f"The critic knows clips of weights {about.weights_sha256[:12]}; these are of {weights_sha256[:12]}.",
                "Fit a reference with the same --weights, or with --no-critic.",
            )
        if frames < header.frames:
            raise ConfigError(
                f"Clips of {frames} frames cannot be judged by a reference of {header.frames}.",
                f"Use --frames {header.frames} or more, or fit one with --length {frames}.",
            )
        if not same_interval(1 / fps, header.interval_s):
            raise ConfigError(
                f"Clips of {fps:.3g} frames a second cannot be judged by a reference of {1 / header.interval_s:.3g}.",
                f"Fit one with --dt {1000 / fps:.0f}.",
            )


@dataclass(frozen=True)
class Score:
    """How plausible a clip is.

    Attributes:
        value: 0..1, rounded to `DIGITS` digits; 0 for failures only.
        parts: Value of each part that could be measured, not its share of the score; with a critic also its p.
        worst: Name of the part that decides, or of the failure, with its value and range; the critic where its p is
            smaller than every share.
    """

    value: float
    parts: dict[str, float]
    worst: str


def same_interval(one_s: float, other_s: float) -> bool:
    """Tell whether clips of these frame intervals, in seconds, can be compared: at most `SAME_INTERVAL` apart."""
    return max(one_s, other_s) <= SAME_INTERVAL * min(one_s, other_s) * (1 + 1e-9)


def measure(frames: Frames) -> dict[str, float]:
    """Return the parts of `MEASURED`, NaN where one cannot be measured.

    Args:
        frames: uint8 (T, H, W) or (T, H, W, 3), T >= 3.

    Raises:
        InputError: The clip is too short.
    """
    clip = fit_frames(to_gray(frames), Fit("stretch", SIZE))[0]
    motion = default_motion(clip)
    try:
        curve = decorrelation(clip, motion)
    except InputError:
        curve = np.full(len(clip), np.nan)  # No texture in frame 0: nothing to correlate.
    values = (
        motion_energy(clip),
        motion_statistics(motion).mean,
        motion.held_out_share,
        float(curve[1]),
        float(curve[1:].mean()),
        flicker(clip),
        highpass_ratio(clip),
    )
    return dict(zip(MEASURED, values, strict=True))


def score(frames: Frames, still: Image, reference: QualityReference) -> Score:
    """Score one clip.

    Args:
        frames: uint8 (T, H, W) or (T, H, W, 3); of a longer clip than the reference's windows, the first frames count.
        still: uint8 (H, W) or (H, W, 3), any size; it is brought to the clip's size before the two are compared.
        reference: What it is judged by.

    Raises:
        ConfigError: The clip is shorter than the reference's windows.
    """
    header = reference.header
    if len(frames) < header.frames:
        raise ConfigError(
            f"A clip of {len(frames)} frames cannot be judged by a reference of {header.frames}.", "Fit another one."
        )
    clip = to_gray(frames[: header.frames])
    # Through the clip's size: a clip that is smaller than its still has lost what the still shows in between.
    gray = resize(to_gray(resize(still, clip.shape[1:])[None])[0], (SIZE, SIZE))
    parts = {"frame0": float(np.abs(resize(clip[0], (SIZE, SIZE)).astype(float) - gray).mean())}
    failed = failure(to_gray(frames), gray)
    if failed:
        return Score(0.0, _rounded(parts), failed)
    measured = measure(clip)
    parts |= {name: value for name, value in measured.items() if math.isfinite(value)}
    ranges = {"frame0": Range(low=0, high=FRAME0), **header.ranges}
    shares = {name: _share(value, ranges[name]) for name, value in parts.items()}
    worst = min(shares, key=lambda name: (shares[name], name))
    value, limits = shares[worst], ranges[worst]
    inside = " (inside)" if value == 1 else ""
    text = f"{worst} {parts[worst]:.4g}, real {limits.low:.4g}..{limits.high:.4g}{inside}"
    if reference.critic is not None:
        probability = _probability(measured, reference.critic)
        if probability < value:
            text = f"{CRITIC} {probability:.4g}, its probability of being real"
        value, parts[CRITIC] = value * probability, probability
    return Score(max(round(value, DIGITS), LEAST_SCORE), _rounded(parts), text)


def _probability(measured: dict[str, float], critic: LinearCritic) -> float:
    """Return the critic's probability of "real", `LEAST_SCORE` or more; an unknown part counts as a typical one."""
    row = np.array([measured[name] for name in MEASURED])
    row = np.where(np.isfinite(row), row, critic.mean)
    logit = float(critic.scores(row[None])[0])
    return max(LEAST_SCORE, 0.0 if math.isnan(logit) else 1 / (1 + math.exp(-max(-60.0, min(60.0, logit)))))


def _share(value: float, limits: Range) -> float:
    distance = max(limits.low - value, value - limits.high, 0.0)
    return 1 / (1 + distance / max(limits.high - limits.low, 1e-9))


def failure(clip: Frames, still: Image) -> str:
    """Return why a gray clip (T, H, W) of a gray still (H, W) cannot be plausible at all, "" if nothing is wrong."""
    deviations = clip.reshape(len(clip), -1).std(1)
    flat = int(deviations.argmin())
    if deviations[flat] < FLAT <= float(still.std()):
        return f"frame {flat} shows nothing"
    white = (clip >= WHITE).reshape(len(clip), -1).mean(1)
    most = int(white.argmax())
    if white[most] > float((still >= WHITE).mean()) + MORE_WHITE:
        return f"frame {most} is washed out"
    if motion_energy(clip) < STILL_ENERGY:
        return "it does not move"
    return ""


def _rounded(parts: dict[str, float]) -> dict[str, float]:
    return {name: round(value, DIGITS) for name, value in parts.items()}


def save_reference(path: Path, header: QualityHeader, critic: LinearCritic | None) -> None:
    """Write a reference's file atomically; raises `OutputError`."""
    arrays = {} if critic is None else {"mean": critic.mean, "scale": critic.scale, "weight": critic.weight}
    tensors = {f"critic.{name}": torch.from_numpy(value).float() for name, value in arrays.items()}
    if critic is not None:
        tensors["critic.bias"] = torch.tensor([critic.bias])
    write_tensors(path, tensors, {METADATA_KEY: header.model_dump_json()})


def load_reference(path: Path | None = None) -> QualityReference:
    """Read a reference's file; None takes the one of the package.

    Raises:
        WeightsError: Missing, damaged, of another format, or something else.
    """
    if path is None:
        content = resources.files("us_i2v.presets").joinpath(BUILT_IN).read_bytes()
        header = QualityHeader.model_validate_json(content)
        return QualityReference(header, None, hashlib.sha256(content).hexdigest(), built_in=True)
    metadata, tensors = read_tensors(path)
    remedy = "Write one with `us-i2v quality fit`."
    if METADATA_KEY not in metadata:
        raise WeightsError(f"'{path}' holds no quality reference.", remedy)
    try:
        values = json.loads(metadata[METADATA_KEY])
        version = values.get("format_version")
        if version != FORMAT_VERSION:
            raise WeightsError(f"'{path}' has format {version!r}; {FORMAT_VERSION} is read.", remedy)
        header = QualityHeader.model_validate(values)
    except (json.JSONDecodeError, AttributeError, ValidationError, RecursionError) as error:
        raise WeightsError(f"'{path}' has a damaged header ({str(error).splitlines()[0]}).", remedy) from error
    critic = None
    if header.critic is not None:
        names = ("mean", "scale", "weight", "bias")
        found = [tensors.get(f"critic.{name}") for name in names]
        shapes = [(len(MEASURED),)] * 3 + [(1,)]
        if any(x is None or tuple(x.shape) != shape for x, shape in zip(found, shapes, strict=True)):
            raise WeightsError(f"'{path}' lacks a part of the critic.", remedy)
        mean, scale, weight, bias = (x.double().numpy() for x in found if x is not None)
        critic = LinearCritic(mean, scale, weight, float(bias[0]))
        if not (scale > 0).all():
            part = MEASURED[int(scale.argmin())]
            raise WeightsError(
                f"'{path}' has a critic whose scale of {part} is {scale.min():g}; above 0 is needed.", remedy
            )
    if set(header.ranges) != set(MEASURED):
        raise WeightsError(f"'{path}' has ranges of other parts than {', '.join(MEASURED)}.", remedy)
    for part, limits in header.ranges.items():
        if not limits.low <= limits.high:
            raise WeightsError(
                f"'{path}' has the range {limits.low:g}..{limits.high:g} of {part}; low <= high is needed.", remedy
            )
    return QualityReference(header, critic, hashlib.sha256(path.read_bytes()).hexdigest())
