"""Long latents: overlapping windows of a chain of latent frames, denoised together at every step.

A denoiser knows windows of W latent frames; a long clip is a chain of L > W of them. Windows overlap by half, and

    output(x, t)_l = mean over the windows k that count at latent frame l of  network(x_k, t)_l

is a denoiser of the whole chain, so that every schedule, sampler and guidance serves as it is. The windows of a step
do not depend on each other: they are evaluated in batches.

What is joined is the network's output, not the state after the step. Outputs (eps, v, x0, velocity) are affine in
the clean sample at a given (x, t), and neighbours share x: joining them joins the clean samples. The state stays one
chain with one noise a latent frame; averaging states that a random sampler gave noise of their own would take a part
of that noise away.

All windows are told relative to one still. The network has learned that a window begins at rest, at the still; of
the windows of a chain only the first one does. The others count in their second half only: in the first they see
what came before and answer as if it began at rest, which made the motion a quarter smaller (docs/long-clips.md).

A loop ends where it began, at rest. Its last window is one that starts there and runs backwards: it holds latent
frames L-1, L-2, ... in this order, and counts in both halves.

Source: stitching as in Reynaud et al. 2024 (EchoNet-Synthetic), whose later windows give up their first half.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from us_i2v.errors import ScheduleError

WindowDenoiser = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(windows (N, C, W, H, W'), t (N,), number of each window's sample (N,)) -> output of the windows' shape."""

WINDOWS_AT_ONCE = 8
"""Windows in one batch: memory does not grow with the chain's length."""


def overlapping_windows(length: int, window: int, *, loop: bool = False) -> Tensor:
    """Divide a chain into windows that overlap by half.

    Args:
        length: Latent frames L of the chain, >= `window`, a whole number of half windows.
        window: Latent frames W that the network knows, even.
        loop: Add the window that runs backwards from the chain's end.

    Returns:
        (K, W) int64, the latent frames of each window, by start.

    Raises:
        ScheduleError: If the windows cannot overlap by half or do not fill the chain.
    """
    if window < 2 or window % 2:
        raise ScheduleError(f"A window of {window} latent frames has no half to share.", "Go on segment by segment.")
    hop = window // 2
    if length < window or length % hop:
        raise ScheduleError(
            f"A chain of {length} latent frames is not made of windows of {window} that overlap by half.",
            f"Use a multiple of {hop} from {window} on.",
        )
    forward = torch.arange(0, length - window + 1, hop)[:, None] + torch.arange(window)
    if not loop:
        return forward
    return torch.cat([forward, torch.arange(length - 1, length - 1 - window, -1)[None]])


def shares(windows: Tensor) -> Tensor:
    """Say where windows count: (K, W) of `overlapping_windows` -> float (K, W), summing to 1 over a latent frame."""
    count = torch.ones(windows.shape)
    forward = windows[:, 0] < windows[:, -1]
    later = forward & (windows[:, 0] > 0)
    count[later, : windows.shape[1] // 2] = 0
    total = torch.zeros(int(windows.max()) + 1).index_add_(0, windows.flatten(), count.flatten())
    return count / total[windows]


@dataclass(frozen=True)
class Stitched:
    """A denoiser of chains, made of a denoiser of windows.

    Attributes:
        model: Denoiser of windows.
        windows: (K, W), see `overlapping_windows`.
        at_once: Windows in one batch, over all samples.
    """

    model: WindowDenoiser
    windows: Tensor
    at_once: int = WINDOWS_AT_ONCE

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """X (B, C, L, H, W), t (B,) -> output of x's shape."""
        batch, (count, width) = x.shape[0], self.windows.shape
        frames = x.transpose(1, 2)
        windows, share = self.windows.to(x.device), shares(self.windows).to(frames)
        total = torch.zeros_like(frames)
        for first in range(0, batch * count, self.at_once):
            number = torch.arange(first, min(first + self.at_once, batch * count), device=x.device)
            sample, window = number // count, number % count
            index, weight = windows[window], share[window][:, :, None, None, None]
            where = (sample[:, None].expand(-1, width), index)
            out = self.model(frames[where].transpose(1, 2), t[sample], sample)
            total.index_put_(where, weight * out.transpose(1, 2).to(total), accumulate=True)
        return total.transpose(1, 2)
