"""Calibration of drawn speckle: how fast it changes from frame to frame.

The residuals' own correlation from frame to frame also counts motion and brightness that the latent missed; drawn with
it, clips flicker too little. So the correlation is chosen such that held-out clips, reconstructed with drawn
speckle, have the motion energy (mean absolute difference of neighbouring frames) of the real ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from us_i2v.models.render import SpeckleNoise, StillTexture, render

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from us_i2v.models.autoencoder import Autoencoder

HIGHEST = 0.95
_HALVINGS = 6


@torch.no_grad()
def calibrated_correlation(autoencoder: Autoencoder, videos: Sequence[Tensor], factor: float) -> float:
    """Return the correlation from frame to frame at which reconstructions move as much as the real clips.

    Args:
        autoencoder: Stage 1.
        videos: Held-out windows, each (1, 1, T, S, S) in 0..1; blank ones tell nothing and are best left out.
        factor: Calibration of the predicted scale.

    Returns:
        0 .. 0.95, to within 0.01; an end of the range where even that moves too little or too much.
    """
    real = sum(_energy(video) for video in videos)
    makers = [_reconstruction(autoencoder, video, factor, seed) for seed, video in enumerate(videos)]

    def made(correlation: float) -> float:
        return sum(_energy(make(correlation)) for make in makers)

    # Energy falls with the correlation: the same noise is drawn each time, so it falls steadily.
    low, high = 0.0, HIGHEST
    if made(low) <= real:
        return low
    if made(high) >= real:
        return high
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if made(middle) > real else (low, middle)
    return (low + high) / 2


def _reconstruction(autoencoder: Autoencoder, video: Tensor, factor: float, seed: int) -> Callable[[float], Tensor]:
    """Return a function correlation -> (1, 1, T, S, S), the clip reconstructed with speckle."""
    still = video[:, :, 0]
    motion = autoencoder.decode(autoencoder.encode(video).mean, still).in_float32().anchored().scaled(1.0, factor)
    texture = StillTexture.measure(still, still, motion.grid)

    def make(correlation: float) -> Tensor:
        noise = SpeckleNoise([seed], texture, still.shape[-1], correlation)
        return render(still, motion, noise, texture)

    return make


def _energy(video: Tensor) -> float:
    return float(video.diff(dim=2).abs().mean())
