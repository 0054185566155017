"""The denoising loss.

    L = w(t) || target(x_0, eps, t) - network(alpha x_0 + sigma eps, t) ||^2 / number of elements

With prediction "eps" and w = 1 this is Eq. 3 of LDDM (Ho 2020, Eq. 14); with the other predictions the target changes.
Nothing is drawn here: noise and times come from the caller, so that a resumed run replays them.
"""

from __future__ import annotations

from torch import Tensor

from us_i2v.diffusion.prediction import Denoiser, Prediction, diffuse, target
from us_i2v.diffusion.schedule import BaseSchedule
from us_i2v.errors import ScheduleError


def denoising_loss(
    network: Denoiser,
    schedule: BaseSchedule,
    prediction: Prediction,
    x0: Tensor,
    eps: Tensor,
    t: Tensor,
    *,
    min_snr: float | None = None,
) -> Tensor:
    """Return each sample's mean squared error.

    Args:
        network: (x_t (B, ...), t (B,)) -> output of x_t's shape, its conditions bound.
        schedule: Noise schedule.
        prediction: What the network's output means.
        x0: (B, ...), clean, standardised latents.
        eps: (B, ...), standard normal noise.
        t: (B,), times 0..1; `schedule.training_times` gives those to train at.
        min_snr: gamma of `min_snr_weight`; None weighs all times alike.

    Returns:
        (B,), float32 (or wider, if the network's output is), for the caller to average.

    Raises:
        ScheduleError: If the shapes do not match or a time is outside 0..1.
    """
    if eps.shape != x0.shape or t.shape != x0.shape[:1]:
        raise ScheduleError(
            f"x0 {tuple(x0.shape)}, eps {tuple(eps.shape)} and t {tuple(t.shape)} do not match.",
            "eps needs x0's shape and t one time a sample.",
        )
    alpha, sigma = schedule.alpha_sigma(t)
    output = network(diffuse(x0, eps, alpha, sigma), t)
    losses = squared_error(output, target(prediction, x0, eps, alpha, sigma))
    if min_snr is None:
        return losses
    return losses * min_snr_weight(prediction, schedule.log_snr(t), min_snr).to(losses)


def squared_error(output: Tensor, wanted: Tensor) -> Tensor:
    """Return each sample's mean squared difference, (B, ...) -> (B,)."""
    error = output - wanted
    # Under autocast the output is bfloat16: squares are summed in float32 at least.
    error = error if error.element_size() >= 4 else error.float()
    return error.square().flatten(1).mean(1)


def min_snr_weight(prediction: Prediction, log_snr: Tensor, gamma: float) -> Tensor:
    """Return the weight that makes the error of x_0 count min(SNR, gamma) times.

    An error of the output is one of x_0 times sigma^2 / alpha^2 = 1/SNR (eps), sigma^2 = 1/(SNR + 1) (v), 1 (x0) or
    sigma^2 / (alpha + sigma)^2 = 1/(sqrt(SNR) + 1)^2 (velocity); alpha^2 + sigma^2 = 1 for v.
    Without it, nearly clean times (large SNR) outweigh the others and pull at the network against them.

    Args:
        prediction: What the network's output means.
        log_snr: ln(alpha^2 / sigma^2), any shape; +inf is allowed.
        gamma: Largest weight, 5 in the paper.

    Returns:
        Weights of log_snr's shape and dtype. Source: Hang 2023, section 3.4.
    """
    snr = log_snr.exp()
    capped = snr.clamp(max=gamma)
    if prediction == "x0":
        return capped
    if prediction == "eps":
        return (gamma / snr).clamp(max=1.0)
    return capped / (snr + 1.0 if prediction == "v" else (snr.sqrt() + 1.0).square())
