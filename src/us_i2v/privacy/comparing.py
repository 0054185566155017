"""How alike windows are to those of a reference set, by each measure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from us_i2v.data.duplicates import fingerprint, is_blank, structure
from us_i2v.metrics.copies import pearson, shifted_correlation
from us_i2v.privacy.views import FRAMES

if TYPE_CHECKING:
    import numpy.typing as npt

    from us_i2v.models.siamese import SiameseNetwork
    from us_i2v.privacy.views import Views

MEASURES = ("siamese", "correlation", "latent")
COARSE, REACH = 48, 4
"""Side of the pictures that are correlated, and how far they are shifted, pixels."""

_BATCH = 64


@dataclass(frozen=True)
class Nearest:
    """The reference window that is most alike to each of Q windows, by one measure.

    Attributes:
        similarity: (Q,), NaN where there is nothing to compare.
        place: (Q,), its index.
    """

    similarity: npt.NDArray[np.float64]
    place: npt.NDArray[np.intp]


@dataclass(frozen=True)
class _Features:
    """What is compared of M windows.

    Attributes:
        shown: Bool (M * FRAMES,), False for blank pictures.
        embeddings: (M * FRAMES, E).
        structures: (M * FRAMES, COARSE, COARSE).
        latents: (M, D), centred.
    """

    shown: Tensor
    embeddings: Tensor
    structures: Tensor
    latents: Tensor


class Comparer:
    """Compares windows with those of a reference set, whose features are computed once.

    Args:
        network: The siamese network, in evaluation mode.
        centre: Mean training latent, (D,).
        reference: The training windows.
        device: Where to compute.
    """

    def __init__(self, network: SiameseNetwork, centre: Tensor, reference: Views, device: torch.device) -> None:
        self.network, self.centre, self.reference, self.device = network.to(device), centre, reference, device
        self._features = self._of(reference)

    def nearest(self, views: Views) -> dict[str, Nearest]:
        """Compare windows with all reference windows; returns the most alike one of each, by measure."""
        starts = range(0, len(views), _BATCH)
        parts = [self._nearest(views.part(start, start + _BATCH)) for start in starts]
        return {
            name: Nearest(*(np.concatenate(found) for found in zip(*(part[name] for part in parts), strict=True)))
            for name in MEASURES
        }

    def _nearest(self, views: Views) -> dict[str, tuple[npt.NDArray[np.float64], npt.NDArray[np.intp]]]:
        found = {}
        for name, alike in self._similarities(views).items():
            known = alike.double().cpu().numpy()
            place = known.argmax(1)
            best = known[np.arange(len(known)), place]
            found[name] = np.where(np.isinf(best), np.nan, best), place
        return found

    def _similarities(self, views: Views) -> dict[str, Tensor]:
        """Return, by measure, the similarity (Q, M) of each window to each reference window; -inf where unknown."""
        ours, theirs = self._of(views), self._features
        shape = (len(views), FRAMES, len(self.reference), FRAMES)
        by_picture = {
            "siamese": pearson(ours.embeddings, theirs.embeddings),
            "correlation": shifted_correlation(ours.structures, theirs.structures, REACH),
        }
        # A blank picture has no embedding of its own: it would be exactly as alike to every other blank one as a copy.
        shown = ours.shown[:, None] & theirs.shown[None]
        found = {
            name: torch.where(shown, values, -torch.inf).reshape(shape).amax((1, 3))
            for name, values in by_picture.items()
        }
        known = views.has_latent[:, None] & self.reference.has_latent[None]
        found["latent"] = torch.where(known.to(self.device), pearson(ours.latents, theirs.latents), -torch.inf)
        return found

    @torch.no_grad()
    def _of(self, views: Views) -> _Features:
        pictures = views.pictures.flatten(0, 1)
        starts = range(0, len(pictures), _BATCH)
        embeddings = [self._embed(pictures[start : start + _BATCH]) for start in starts]
        prints = [fingerprint(picture) for picture in pictures.numpy()]
        shown = torch.tensor([not is_blank(entry) for entry in prints], device=self.device)
        fine = torch.from_numpy(np.stack([structure(entry).astype(np.float32) for entry in prints]))
        structures = F.adaptive_avg_pool2d(fine.to(self.device), COARSE)
        return _Features(shown, torch.cat(embeddings), structures, (views.latents - self.centre).to(self.device))

    def _embed(self, pictures: Tensor) -> Tensor:
        embeddings: Tensor = self.network(pictures[:, None].to(self.device).float() / 255)
        return embeddings
