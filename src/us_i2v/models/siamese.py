"""Re-identification network: a picture -> an embedding that is alike for pictures of one clip.

A siamese network sees both pictures with the same weights, and what is compared is the Pearson correlation of the
embeddings. Training pairs are two pictures of one clip; the other clips of the batch are the strangers:

    s_ij = r(e(a_i), e(b_j)) / temperature,
    loss = -1/2 mean_i [ log softmax_j(s_ij)_i + log softmax_j(s_ji)_i ],     j of i's own group left out but i itself

Source: siamese re-identification of encoded frames with a contrastive loss, Reynaud et al. 2024, section 3; the loss is
InfoNCE (van den Oord et al. 2018, Eq. 4) on the very number that is thresholded later, in place of a binary
cross-entropy of |difference| (Packhaeuser et al. 2022).
"""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from us_i2v.config import Config
from us_i2v.models.blocks import group_norm

_CELLS = 4
_Width = Annotated[int, Field(ge=4, le=512)]


class SiameseConfig(Config):
    """Shape of the network."""

    size: int = Field(64, ge=32, le=128, multiple_of=16, description="Side of the pictures that the network sees.")
    widths: tuple[_Width, _Width, _Width, _Width] = Field(
        (16, 32, 64, 96), description="Channels by stage, 4 to 512, each of stride 2."
    )
    embedding: int = Field(128, ge=8, le=1024, description="Numbers of an embedding.")


class SiameseNetwork(nn.Module):
    """One arm of the siamese network."""

    def __init__(self, config: SiameseConfig) -> None:
        super().__init__()
        self.config = config
        stages: list[nn.Module] = []
        c_in = 1
        for width in config.widths:
            stages += [nn.Conv2d(c_in, width, 3, stride=2, padding=1, bias=False), group_norm(width), nn.SiLU()]
            stages += [nn.Conv2d(width, width, 3, padding=1, bias=False), group_norm(width), nn.SiLU()]
            c_in = width
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(c_in * _CELLS**2, config.embedding)

    def forward(self, pictures: Tensor) -> Tensor:
        """(N, 1, S, S), any S, in 0..1 -> (N, embedding); brightness and contrast of a picture do not count."""
        size = self.config.size
        if pictures.shape[-1] != size:
            pictures = F.interpolate(pictures, (size, size), mode="bilinear", antialias=True, align_corners=False)
        mean, sd = pictures.mean((1, 2, 3), keepdim=True), pictures.std((1, 2, 3), keepdim=True)
        features = self.stages((pictures - mean) / (sd + 0.02))
        embedding: Tensor = self.head(F.adaptive_avg_pool2d(features, _CELLS).flatten(1))
        return embedding


def contrastive_loss(first: Tensor, second: Tensor, group: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Return the loss of the module's head and the share of pairs whose partner is the most similar one.

    Args:
        first: Embeddings (B, E) of one picture a pair.
        second: Of the other one.
        group: (B,), whole numbers: pairs of one group are no strangers to each other.
        temperature: > 0.
    """
    a, b = (F.normalize(x.float() - x.float().mean(1, keepdim=True), dim=1) for x in (first, second))
    own = torch.eye(len(a), dtype=torch.bool, device=a.device)
    kin = (group[:, None] == group[None]) & ~own
    scores = (a @ b.T / temperature).masked_fill(kin, float("-inf"))
    target = torch.arange(len(a), device=a.device)
    loss = (F.cross_entropy(scores, target) + F.cross_entropy(scores.T, target)) / 2
    return loss, (scores.argmax(1) == target).float().mean()
