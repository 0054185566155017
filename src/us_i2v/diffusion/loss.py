"""The denoising loss.

    L = || target(x_0, eps, t) - network(alpha x_0 + sigma eps, t) ||^2 / number of elements

With prediction "eps" this is Eq. 3 of LDDM (Ho 2020, Eq. 14); with "v" and "x0" the target changes.
Nothing is drawn here: noise and times come from the caller, so that a resumed run replays them.
"""

from __future__ import annotations

from torch import Tensor

from us_i2v.diffusion.prediction import Denoiser, Prediction, diffuse, target
from us_i2v.diffusion.schedule import BaseSchedule
from us_i2v.errors import ScheduleError


def denoising_loss(
    network: Denoiser, schedule: BaseSchedule, prediction: Prediction, x0: Tensor, eps: Tensor, t: Tensor
) -> Tensor:
    """Return each sample's mean squared error.

    Args:
        network: (x_t (B, ...), t (B,)) -> output of x_t's shape, its conditions bound.
        schedule: Noise schedule.
        prediction: What the network's output means.
        x0: (B, ...), clean, standardised latents.
        eps: (B, ...), standard normal noise.
        t: (B,), times 0..1; `schedule.training_times` gives the chain's own.

    Returns:
        (B,), float32 (or wider, if the network's output is), for the caller to weigh and average.

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
    error = output - target(prediction, x0, eps, alpha, sigma)
    # Under autocast the output is bfloat16: squares are summed in float32 at least.
    error = error if error.element_size() >= 4 else error.float()
    return error.square().flatten(1).mean(1)
