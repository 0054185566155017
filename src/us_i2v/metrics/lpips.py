"""LPIPS v0.1: perceptual distance of two pictures from features of an ImageNet network.

    d(x, y) = sum_l mean_{h,w} w_l . (u_l(x) - u_l(y))^2,   u_l = f_l / ||f_l||_channels

f_l are activations at a few depths and w_l >= 0 are learned. Inputs lie in 0..1, gray or RGB (gray is
repeated); inside they go to [-1, 1] and are standardised by ImageNet's statistics on that scale.
It is differentiable, hence a training loss too. Source: Zhang 2018, Eq. 1; its "alex",
"squeeze" and "vgg" heads.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from us_i2v.errors import InputError
from us_i2v.metrics.pretrained import fill, load_verified

Backbone = Literal["alex", "squeeze", "vgg"]
"""Which feature network."""

SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)
SMALLEST_SIDE = 32


class Fire(nn.Module):
    """SqueezeNet's unit: 1x1 down to a few channels, then 1x1 and 3x3 side by side."""

    def __init__(self, channels: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> (B, 2 expanded, H, W)."""
        thin = F.relu(self.squeeze(x))
        return torch.cat([F.relu(self.expand1x1(thin)), F.relu(self.expand3x3(thin))], dim=1)


def _alex_layers() -> tuple[nn.Sequential, dict[int, int]]:
    """Return AlexNet's convolutions and {layer to tap: its channels}."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)]
    layers += [nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)]
    for before, after in ((192, 384), (384, 256), (256, 256)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers), {1: 64, 4: 192, 7: 384, 9: 256, 11: 256}


def _squeeze_layers() -> tuple[nn.Sequential, dict[int, int]]:
    """Return SqueezeNet 1.1's convolutions and {layer to tap: its channels}."""

    def pool() -> nn.Module:
        return nn.MaxPool2d(3, 2, ceil_mode=True)

    layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, stride=2), nn.ReLU()]
    layers += [pool(), Fire(64, 16, 64), Fire(128, 16, 64)]
    layers += [pool(), Fire(128, 32, 128), Fire(256, 32, 128)]
    layers += [pool(), Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256), Fire(512, 64, 256)]
    return nn.Sequential(*layers), {1: 64, 4: 128, 7: 256, 9: 384, 10: 384, 11: 512, 12: 512}


def _vgg_layers() -> tuple[nn.Sequential, dict[int, int]]:
    """Return VGG-16's convolutions up to relu5_3 and {layer to tap: its channels}."""
    layers: list[nn.Module] = []
    taps: dict[int, int] = {}
    channels = 3
    for width, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        if layers:
            layers.append(nn.MaxPool2d(2, 2))
        for _ in range(count):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
        taps[len(layers) - 1] = width
    return nn.Sequential(*layers), taps


_TRUNKS: dict[Backbone, Callable[[], tuple[nn.Sequential, dict[int, int]]]] = {
    "alex": _alex_layers,
    "squeeze": _squeeze_layers,
    "vgg": _vgg_layers,
}


class Head(nn.Module):
    """One depth's channel weights w_l; the identity holds the place of the training-time dropout."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Identity(), nn.Conv2d(channels, 1, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) squared differences -> (B,) weighted spatial mean."""
        weighted: Tensor = self.model(x)
        return weighted.mean((1, 2, 3))


class LPIPS(nn.Module):
    """Perceptual distance; see the module's head. Weights are frozen, gradients reach the pictures."""

    shift: Tensor
    scale: Tensor

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.features, self.taps = _TRUNKS[backbone]()
        for index, channels in enumerate(self.taps.values()):
            self.add_module(f"lin{index}", Head(channels))
        self.register_buffer("shift", torch.tensor(SHIFT).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(SCALE).reshape(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)
        self.eval()

    @classmethod
    def load(cls, backbone: Backbone, path: Path) -> LPIPS:
        """Build the network from verified weights at `path` (file or folder); raises `WeightsError`."""
        return fill(cls(backbone), load_verified(f"lpips-{backbone}", path), path)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the distance of each pair.

        Args:
            x: (B, 1 or 3, H, W), float 0..1 or uint8 0..255, at least 32 x 32.
            y: The same shape.

        Returns:
            (B,), 0 for equal pictures.

        Raises:
            InputError: If the shapes differ or are none of the above.
        """
        if x.shape != y.shape:
            raise InputError(f"LPIPS got pictures of {tuple(x.shape)} and {tuple(y.shape)}.", "Resize one of them.")
        terms = [
            head((u - v).square())
            for head, u, v in zip(self._heads(), self.unit_features(x), self.unit_features(y), strict=True)
        ]
        return torch.stack(terms).sum(0)

    def embed(self, x: Tensor) -> Tensor:
        """Return vectors whose squared Euclidean distances are LPIPS: sqrt(w_l / (h w)) u_l of all depths, in a row.

        For many pairs of few pictures the network then sees each picture once.

        Args:
            x: As in `forward`.

        Returns:
            (B, D), D by backbone and size of the picture.
        """
        parts = []
        for head, u in zip(self._heads(), self.unit_features(x), strict=True):
            weight = head.get_parameter("model.1.weight")
            parts.append((u * (weight.clamp_min(0) / u[0, 0].numel()).sqrt()).flatten(1))
        return torch.cat(parts, dim=1)

    def _heads(self) -> list[nn.Module]:
        return [self.get_submodule(f"lin{index}") for index in range(len(self.taps))]

    def weights(self) -> list[Tensor]:
        """Return w_l by depth, (1, C_l, 1, 1) each, >= 0."""
        return [head.get_parameter("model.1.weight").clamp_min(0) for head in self._heads()]

    def unit_features(self, x: Tensor) -> list[Tensor]:
        """Return the tapped activations by depth, (B, C_l, h, w), each position's channel vector scaled to length 1."""
        if x.ndim != 4 or x.shape[1] not in (1, 3) or min(x.shape[2:]) < SMALLEST_SIDE:
            raise InputError(
                f"LPIPS got a batch of shape {tuple(x.shape)}, needs (B, 1 or 3, H, W) of 32 px or more.",
                "Fold time into the batch and resize small pictures.",
            )
        unit = x.to(self.shift) / 255 if x.dtype == torch.uint8 else x
        state = (2 * unit - 1 - self.shift) / self.scale
        found = []
        for index, layer in enumerate(self.features):
            state = layer(state)
            if index in self.taps:
                # The inner 1e-20 keeps the root's gradient finite where every channel is 0 (black areas).
                length = (state.square().sum(1, keepdim=True) + 1e-20).sqrt()
                found.append(state / (length + 1e-10))
        return found
