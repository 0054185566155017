"""The network that `segmentation.py` trains, its loss, its training, and what is measured of its masks.

U-Net (Ronneberger et al. 2015) of four levels with GroupNorm and leaky ReLU, over pictures in -1..1. Loss: binary
cross-entropy plus soft Dice over the batch, 1 - 2 sum(p y) / (sum p + sum y) (Milletari et al. 2016, without their
squares). AdamW, linear warm-up, then a half cosine to zero.

Batches are drawn from (seed, step) alone: which still of the list, which of its pictures, whether flipped, how bright.
Two arms with the same seed see the same stills in the same order from the same initial weights.

A mask is the set of pixels with p > 0.5, at the still's working size, where it is undistorted:

    Dice = 2 |A n B| / (|A| + |B|)      IoU = |A n B| / |A u B|
    HD95 = max over both directions of the 95th percentile of distances from one border to the other, as a
           share of the longer side; 1 where nothing is found (Taha & Hanbury 2015)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor, nn

from us_i2v.models.blocks import group_norm
from us_i2v.seeding import derive_seed, numpy_generator
from us_i2v.types import Mask

LEVELS = 4
WARMUP = 0.05
GAIN, SHIFT = 0.15, 0.08
"""Light augmentation of all arms: gray values times 1 +- GAIN plus +- SHIFT of the range, and a flip of every other."""


class UNet(nn.Module):
    """Logits of a mask from gray pictures: (B, 1, S, S) -> (B, 1, S, S); S divisible by 8.

    Args:
        width: Channels of the first level.
        slope: Of leaky ReLU below 0. With 0 all channels that raise the logits can die, and nothing is marked.
    """

    def __init__(self, width: int = 16, slope: float = 0.01) -> None:
        super().__init__()
        widths = [width * 2**k for k in range(LEVELS)]
        self.down = nn.ModuleList(_double(a, b, slope) for a, b in zip([1, *widths], widths, strict=False))
        self.up = nn.ModuleList(_double(a + b, a, slope) for a, b in pairwise(widths))
        self.head = nn.Conv2d(width, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        kept = []
        for level, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if level else x)
            kept.append(x)
        for block, skip in zip(reversed(self.up), reversed(kept[:-1]), strict=True):
            x = block(torch.cat([skip, F.interpolate(x, scale_factor=2.0)], dim=1))
        return self.head(x)


def _double(c_in: int, c_out: int, slope: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before in (c_in, c_out):
        layers += [nn.Conv2d(before, c_out, 3, padding=1, bias=False), group_norm(c_out), nn.LeakyReLU(slope)]
    return nn.Sequential(*layers)


def loss_of(logits: Tensor, truth: Tensor) -> Tensor:
    """Cross-entropy plus soft Dice of (B, 1, S, S) against 0 and 1."""
    p = logits.sigmoid()
    overlap = (2 * (p * truth).sum() + 1) / (p.sum() + truth.sum() + 1)
    return F.binary_cross_entropy_with_logits(logits, truth) + 1 - overlap


@dataclass(frozen=True)
class Batch:
    """What is drawn for one step, each (B,)."""

    still: npt.NDArray[np.int64]
    picture: npt.NDArray[np.int64]
    flip: npt.NDArray[np.bool_]
    gain: npt.NDArray[np.float64]
    shift: npt.NDArray[np.float64]


def batch(seed: int, step: int, stills: int, pictures: int, size: int) -> Batch:
    """Draw a step's batch; it does not depend on the arm."""
    rng = numpy_generator(seed, "segmentation", step)
    return Batch(
        rng.integers(stills, size=size),
        rng.integers(pictures, size=size),
        rng.random(size) < 0.5,
        rng.uniform(1 - GAIN, 1 + GAIN, size),
        rng.uniform(-SHIFT, SHIFT, size),
    )


def normalised(pictures: Tensor) -> Tensor:
    """uint8 (B, S, S) -> (B, 1, S, S) in -1..1."""
    return pictures[:, None].float() / 127.5 - 1


class Training:
    """One network in training.

    Args:
        pictures: uint8 (N, P, S, S).
        masks: bool (N, P, S, S).
        seed: Of initial weights and batches.
        steps: How many there will be; the learning rate falls to zero over them.
        size: Pictures a batch.
        rate: Largest learning rate.
        width: Of the U-Net.
        slope: Of its leaky ReLU.
        bf16: Convolutions in bfloat16.
        device: Where.
    """

    def __init__(
        self,
        pictures: Tensor,
        masks: Tensor,
        seed: int,
        steps: int,
        *,
        size: int,
        rate: float,
        width: int,
        slope: float,
        bf16: bool,
        device: torch.device,
    ) -> None:
        self.pictures, self.masks, self.seed, self.steps, self.size = pictures, masks, seed, steps, size
        self.rate, self.bf16, self.device, self.step = rate, bf16, device, 0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "initial weights"))
            self.network = UNet(width, slope).to(device)
        self.optimiser = torch.optim.AdamW(self.network.parameters(), lr=rate, weight_decay=1e-4)

    def advance(self) -> float:
        """Take one step; returns its loss."""
        drawn = batch(self.seed, self.step, *self.pictures.shape[:2], self.size)
        rows = torch.from_numpy(drawn.still), torch.from_numpy(drawn.picture)
        x, y = normalised(self.pictures[rows]), self.masks[rows][:, None].float()
        flip = torch.from_numpy(drawn.flip)[:, None, None, None]
        x, y = torch.where(flip, x.flip(-1), x), torch.where(flip, y.flip(-1), y)
        gain, shift = (torch.from_numpy(values)[:, None, None, None].float() for values in (drawn.gain, drawn.shift))
        # In 0..1 it is gain * g + shift; here black is -1.
        x = (((x + 1) * gain + 2 * shift).clamp(0, 2) - 1).to(self.device)
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate * factor(self.step, self.steps)
        self.network.train()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            logits = self.network(x)
        loss = loss_of(logits.float(), y.to(self.device))
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        self.step += 1
        return float(loss.detach())

    @torch.no_grad()
    def probabilities(self, pictures: Tensor, at_once: int = 32) -> Tensor:
        """uint8 (N, S, S) -> float (N, S, S) in 0..1, on the CPU, in full precision."""
        self.network.eval()
        split = [normalised(part).to(self.device) for part in pictures.split(at_once)]
        return torch.cat([self.network(part).sigmoid()[:, 0].cpu() for part in split])


def factor(step: int, steps: int) -> float:
    """Learning rate at a step as a share of the largest."""
    warm = max(1, round(WARMUP * steps))
    return (step + 1) / warm if step < warm else 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def found_masks(probabilities: Tensor, sizes: Sequence[tuple[int, int]]) -> list[Mask]:
    """(N, S, S) -> masks of the given sizes."""
    return [
        (F.interpolate(p[None, None], size=size, mode="bilinear")[0, 0] > 0.5).numpy()
        for p, size in zip(probabilities, sizes, strict=True)
    ]


def dice(found: Mask, truth: Mask) -> float:
    """Overlap of two masks, 0..1; 1 if both are empty."""
    both = int(found.sum()) + int(truth.sum())
    return 2 * int((found & truth).sum()) / both if both else 1.0


def iou(found: Mask, truth: Mask) -> float:
    """Intersection over union, 0..1; 1 if both are empty."""
    union = int((found | truth).sum())
    return int((found & truth).sum()) / union if union else 1.0


def hd95(found: Mask, truth: Mask) -> float:
    """95th percentile of the distances between borders, in longer sides; 1 if one of the masks is empty."""
    if not (found.any() and truth.any()):
        return 1.0
    borders = [mask & ~ndimage.binary_erosion(mask) for mask in (found, truth)]
    away = [ndimage.distance_transform_edt(~border) for border in borders]
    worst = max(float(np.percentile(away[1 - k][borders[k]], 95)) for k in range(2))
    return worst / max(truth.shape)
