"""From clips to rows of features: checks, RGB frames, and batches that do not change the numbers.

On a CPU one clip runs at a time: that is as fast as a batch, and a clip's features are then the same bits
whatever its neighbours are. Elsewhere up to eight clips of one prepared shape run together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from us_i2v.errors import InputError
from us_i2v.types import Frames

ACCELERATOR_BATCH = 8


def rgb_frames(frames: Frames, what: str, least_frames: int = 1) -> Tensor:
    """Return a clip, uint8 (T, H, W) or (T, H, W, 3), as float32 RGB (T, 3, H, W), 0..255; gray is repeated.

    Args:
        frames: The clip.
        what: Name of the metric, for messages.
        least_frames: Smallest T.

    Raises:
        InputError: If the array is no such clip, or too short.
    """
    colour = frames.ndim == 4 and frames.shape[3] == 3
    if frames.dtype != np.uint8 or (frames.ndim != 3 and not colour) or 0 in frames.shape:
        raise InputError(
            f"{what} got a clip of {frames.dtype} {frames.shape}, needs uint8 (T, H, W) or (T, H, W, 3).",
            "Convert the clip to 8 bit.",
        )
    if len(frames) < least_frames:
        raise InputError(
            f"{what} got a clip of {len(frames)} frames, needs at least {least_frames}.",
            "Use longer clips, or leave this metric out.",
        )
    video = torch.from_numpy(np.array(frames)).float()
    return video.permute(0, 3, 1, 2) if colour else video[:, None].expand(-1, 3, -1, -1)


@torch.no_grad()
def embed(
    prepared: Iterable[Tensor],
    network: Callable[[Tensor], Tensor],
    device: torch.device,
    dimensions: int,
    batch: int | None = None,
) -> npt.NDArray[np.float64]:
    """Return the features of prepared clips, float64 (N, dimensions), in their order.

    Args:
        prepared: Network inputs (n, ...), usually n = 1; made lazily, so memory does not grow with their number.
        network: (B, ...) -> (B, dimensions).
        device: Where the network lies.
        dimensions: Width of the rows.
        batch: Inputs that run together if their shapes are equal; default as in the module's head.
    """
    limit = batch or (1 if device.type == "cpu" else ACCELERATOR_BATCH)
    rows: list[npt.NDArray[np.float64]] = []
    waiting: list[Tensor] = []

    def run(inputs: Sequence[Tensor]) -> None:
        if inputs:
            rows.append(network(torch.cat(list(inputs)).to(device)).double().cpu().numpy())

    for tensor in prepared:
        if waiting and (len(waiting) == limit or tensor.shape != waiting[0].shape):
            run(waiting)
            waiting = []
        waiting.append(tensor)
    run(waiting)
    return np.concatenate(rows) if rows else np.zeros((0, dimensions))
