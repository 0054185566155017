"""Calibration of drawn speckle: how much of it is new by frame t, and how fast it changes from frame to frame.

The decoder's scale is that of everything it missed, motion and brightness included, more so in some frames than in
others. So a factor a frame is chosen such that the speckle of held-out clips, reconstructed or generated with drawn
speckle, is as much like frame 0's as that of the real ones (`metrics.speckle.decorrelation`).

The residuals' own correlation from frame to frame, too, counts motion and brightness that the latent missed; drawn with
it, clips flicker too little. It is chosen such that the clips made have the motion energy (mean absolute difference of
neighbouring frames; geometric mean over clips) of the real clips. Where the decoder predicts it by place, one shift of
all logits is chosen so.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from us_i2v.errors import InputError
from us_i2v.generators import load_generator
from us_i2v.metrics.speckle import decorrelation
from us_i2v.models.motion import Motion
from us_i2v.models.render import SpeckleNoise, StillTexture, render
from us_i2v.options import GenerateOptions, nearest_rate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from us_i2v.generators import Generator
    from us_i2v.models.autoencoder import Autoencoder
    from us_i2v.models.speckle_config import SpeckleConfig
    from us_i2v.weights import Weights

HIGHEST = 0.95
MOST_SHIFT = 6.0
"""Largest calibration of predicted logits, either way."""
MOST = 3.0
"""Largest factor of the predicted scale."""
KNOTS = (1, 2, 4, 8)
"""Frames, besides the last one, whose factor is calibrated; between them it is interpolated."""
_HALVINGS = 6


MotionOf = Callable[[Tensor, int], Motion]
"""(A window (1, 1, T, S, S), its number) -> the motion that its first frame is rendered with, its scale included."""


def reconstruction(autoencoder: Autoencoder) -> MotionOf:
    """Return what reads the motion off the window itself."""

    def motion_of(video: Tensor, number: int) -> Motion:
        return autoencoder.decode(autoencoder.encode(video).mean, video[:, :, 0]).in_float32().anchored()

    return motion_of


def generation(generator: Generator, rates: Sequence[float] | None = None) -> MotionOf:
    """Return what answers a window's first frame with drawn motion; the window's number is its seed.

    Args:
        generator: Both stages.
        rates: Frames a second of each window, which the answer shall have, too; None: the usual ones.
    """

    def motion_of(video: Tensor, number: int) -> Motion:
        options = GenerateOptions(fps=None if rates is None else rates[number])
        return generator.motions(video[:, :, 0], [number], options)

    return motion_of


PersistenceOf = Callable[[Tensor], Tensor | None]
"""Still (1, 1, S, S) -> logits of its speckle's correlation by place, or None, see `Autoencoder.persistence`."""


def _not_predicted(_: Tensor) -> None:
    return None


def calibrated_speckle(
    motion_of: MotionOf,
    videos: Sequence[Tensor],
    known: SpeckleConfig,
    persistence_of: PersistenceOf = _not_predicted,
    intervals: Sequence[float] | None = None,
) -> SpeckleConfig:
    """Return the speckle process with its factors by frame and its correlation from frame to frame calibrated.

    Args:
        motion_of: See `MotionOf`: reconstruction, or a generator's answer to the window's first frame.
        videos: Held-out windows, see `calibrated_profile`; without any that has texture only the correlation is fitted.
        known: What stage 1 measured on its residuals.
        persistence_of: See `PersistenceOf`.
        intervals: Seconds between the frames of each window; the correlation found holds at their median. None: it is
            taken to hold at any.
    """
    with torch.no_grad():
        motions = [motion_of(video, number) for number, video in enumerate(videos)]
        predicted = [persistence_of(video[:, :, 0]) for video in videos]

    def once(video: Tensor, number: int) -> Motion:
        return motions[number]

    profile = calibrated_profile(once, videos) or known.profile
    usual = None if intervals is None else float(np.median(intervals))
    found = known.model_copy(update={"profile": profile, "interval_s": usual})
    factors = found.factors(videos[0].shape[2])
    apart = [None] * len(videos) if intervals is None else intervals
    if any(each is None for each in predicted):

        def alike(correlation: float, number: int) -> float | Tensor:
            return found.model_copy(update={"correlation": correlation}).at(None, apart[number])

        return found.model_copy(update={"correlation": calibrated_correlation(once, videos, factors, alike)})

    def shifted(shift: float, number: int) -> float | Tensor:
        return found.model_copy(update={"shift": shift}).at(predicted[number], apart[number])

    shift = _alike_in_energy(once, videos, factors, shifted, (-MOST_SHIFT, MOST_SHIFT))
    found = found.model_copy(update={"shift": shift})
    mean = float(np.mean([float(torch.as_tensor(found.at(each)).mean()) for each in predicted]))
    return found.model_copy(update={"correlation": mean})


def calibrated_on_generated(
    weights: Weights, videos: Sequence[Tensor], device: torch.device, intervals: Sequence[float] | None = None
) -> SpeckleConfig:
    """Return the speckle process of both stages, calibrated on the clips that they make of windows' first frames.

    Args:
        weights: Both stages; its header's speckle is what stage 1 measured, or an earlier calibration.
        videos: Held-out windows, see `calibrated_profile`, on `device`.
        device: Where the clips are made.
        intervals: Seconds between the frames of each window, see `generation`.

    Raises:
        WeightsError: The weights hold no second stage.
    """
    known = weights.header.speckle
    if known.factor == 0 or not videos:
        return known
    generator = load_generator(weights, device)
    known_at = weights.header.interval_range_s
    rates = None if intervals is None else [nearest_rate(1 / interval, known_at) for interval in intervals]
    return calibrated_speckle(generation(generator, rates), videos, known, generator.autoencoder.persistence, intervals)


@torch.no_grad()
def calibrated_profile(motion_of: MotionOf, videos: Sequence[Tensor]) -> tuple[float, ...] | None:
    """Return the factor of each frame at which drawn speckle decorrelates from frame 0 as the real one does.

    Args:
        motion_of: See `MotionOf`.
        videos: Held-out windows, each (1, 1, T, S, S) in 0..1; those without textured speckle do not count.

    Returns:
        T factors, 0 .. `MOST`, to within 0.05; the first one counts nowhere. None if no window has texture.
    """
    frames = videos[0].shape[2] if videos else 0
    knots = [*(knot for knot in KNOTS if knot < frames - 1), frames - 1]
    pairs = [_Pairs(motion_of, video, seed) for seed, video in enumerate(videos) if _textured(video)]
    if not pairs:
        return None
    found = []
    for knot in knots:
        real = sum(pair.real(knot) for pair in pairs)

        def alike(factor: float, knot: int = knot) -> float:
            return sum(pair.made(knot, factor) for pair in pairs)

        found.append(_falling(alike, real, 0.0, MOST))
    return tuple(float(value) for value in np.interp(range(frames), knots, found))


class _Pairs:
    """A clip beside what is made of its first frame, frame 0 and one other at a time."""

    def __init__(self, motion_of: MotionOf, video: Tensor, seed: int) -> None:
        self.video, self.seed, self.still = video, seed, video[:, :, 0]
        self.motion = motion_of(video, seed)
        self.texture = StillTexture.measure(self.still, self.still, self.motion.grid)

    def real(self, frame: int) -> float:
        """Correlation of the real frame's speckle with frame 0's."""
        return _alike(self.video[:, :, [0, frame]])

    def made(self, frame: int, factor: float) -> float:
        """The same of the frame that is made, its scale times a factor."""
        motion = self.motion.map(lambda x: x[:, :, [0, frame]]).scaled(1.0, factor)
        noise = SpeckleNoise([self.seed], self.texture, self.still.shape[-1], 0.0)
        return _alike(render(self.still, motion, noise, self.texture))


def _alike(pair: Tensor) -> float:
    return float(decorrelation((255 * pair[0, 0]).cpu().numpy())[1])


def _textured(video: Tensor) -> bool:
    try:
        _alike(video[:, :, :2])
    except InputError:
        return False
    return True


def _falling(made: Callable[[float], float], real: float, low: float, high: float) -> float:
    """Return where a falling function meets `real`, or the end of the range that is nearest to it."""
    if made(low) <= real:
        return low
    if made(high) >= real:
        return high
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if made(middle) > real else (low, middle)
    return (low + high) / 2


@torch.no_grad()
def calibrated_correlation(
    motion_of: MotionOf,
    videos: Sequence[Tensor],
    factor: float | Tensor,
    at: Callable[[float, int], float | Tensor] = lambda correlation, _: correlation,
) -> float:
    """Return the correlation from frame to frame at which the clips made move as much as the real ones.

    Args:
        motion_of: See `MotionOf`.
        videos: Held-out windows, each (1, 1, T, S, S) in 0..1; blank ones tell nothing and are best left out.
        factor: Calibration of the predicted scale, of all frames or (T,) of each.
        at: (Correlation, a window's number) -> the correlation at that window's rate.

    Returns:
        0 .. 0.95, to within 0.01; an end of the range where even that moves too little or too much.
    """
    return _alike_in_energy(motion_of, videos, factor, at, (0.0, HIGHEST))


def _alike_in_energy(
    motion_of: MotionOf,
    videos: Sequence[Tensor],
    factor: float | Tensor,
    correlation_at: Callable[[float, int], float | Tensor],
    between: tuple[float, float],
) -> float:
    """Return the value at which clips made with `correlation_at(value, number)` move as much as the real ones."""
    real = sum(_log_energy(video) for video in videos)
    makers = [_rendering(motion_of, video, factor, seed) for seed, video in enumerate(videos)]

    def made(value: float) -> float:
        return sum(_log_energy(make(correlation_at(value, number))) for number, make in enumerate(makers))

    # Energy falls with the correlation: the same noise is drawn each time, so it falls steadily.
    return _falling(made, real, *between)


def _rendering(
    motion_of: MotionOf, video: Tensor, factor: float | Tensor, seed: int
) -> Callable[[float | Tensor], Tensor]:
    """Return a function correlation -> (1, 1, T, S, S), the clip made with speckle."""
    still = video[:, :, 0]
    motion = motion_of(video, seed).scaled(1.0, factor)
    texture = StillTexture.measure(still, still, motion.grid)

    def make(correlation: float | Tensor) -> Tensor:
        noise = SpeckleNoise([seed], texture, still.shape[-1], correlation)
        return render(still, motion, noise, texture)

    return make


def _log_energy(video: Tensor) -> float:
    # Logarithms, so that few windows of great motion, which a generator answers with less, do not decide for all.
    return math.log(max(float(video.diff(dim=2).abs().mean()), 1e-5))
