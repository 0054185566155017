"""ATMNet: ActiveMLP xT on the middle frame of every segment, logits averaged over segments.

Active token mixer: each channel of each token fetches its context from a place that the token itself predicts, along
the rows for one branch and along the columns for another, by linear interpolation with zeros outside:

    w[y, x, c] = sum_c' A[c, c'] X[y, x + o_w[y, x, c'], c'],    h[y, x, c] alike with y + o_h,    z = B X
    out = P (a_w * w + a_h * h + a_z * z),    (a_w, a_h, a_z) = softmax of MLP(mean over tokens of w + h + z)

Offsets o are predicted by a layer norm and a linear map, shared by neighbouring channels (2, 4, 4, 8 in the four
stages), and used by two blocks in turn; before each prediction a depthwise 3x3 convolution adds position.
xT has 2, 2, 4, 2 blocks of 64, 128, 320, 512 channels, MLPs four times as wide, a 7x7 convolution of stride 4 in front
and 3x3 ones of stride 2 between stages. Source: Wei et al. 2023 (Active Token Mixer), Eq. 3-6 and Table 1; names of
parameters are the published ones.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from us_i2v.models.classifiers.base import Classifier, ClassifierConfig, average_segments, scaled, take_segments

SIZE = 224
CHANNELS = (64, 128, 320, 512)
DEPTHS = (2, 2, 4, 2)
SHARED = (2, 4, 4, 8)
RATIO = 4
RENEW = 2
"""Blocks that use one prediction of offsets."""
_DROP_PATH = 0.1


def fetch(x: Tensor, offset: Tensor, axis: int) -> Tensor:
    """Read every number from `offset` places further along an axis, linearly interpolated, 0 outside.

    Args:
        x: (B, C, H, W).
        offset: Same shape, in tokens; > 0 is to the right or below.
        axis: 2 (rows, "h") or 3 (columns, "w").
    """
    length = x.shape[axis]
    shape = [1, 1, 1, 1]
    shape[axis] = length
    place = torch.arange(length, device=x.device, dtype=torch.float32).reshape(shape) + offset.float()
    below = place.floor()
    share = (place - below).to(x.dtype)

    def at(index: Tensor) -> Tensor:
        inside = (index >= 0) & (index <= length - 1)
        return torch.gather(x, axis, index.clamp(0, length - 1).long()) * inside

    return at(below) * (1 - share) + at(below + 1) * share


class MLP(nn.Module):
    """Two linear layers with GELU between."""

    def __init__(self, channels: int, hidden: int, out: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.fc2 = nn.Linear(hidden, out)

    def forward(self, x: Tensor) -> Tensor:
        """(..., channels) -> (..., out)."""
        y: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return y


class ActiveTokenMixer(nn.Module):
    """See the module's head."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.atm_c = nn.Linear(channels, channels, bias=False)
        self.atm_h = nn.Conv2d(channels, channels, 1)
        self.atm_w = nn.Conv2d(channels, channels, 1)
        self.fusion = MLP(channels, channels // 4, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor, offset: Tensor) -> Tensor:
        """Tokens (B, H, W, C), offsets (B, 2C, H, W), columns first -> (B, H, W, C)."""
        planes = x.permute(0, 3, 1, 2)
        along_w, along_h = offset.chunk(2, dim=1)
        w = self.atm_w(fetch(planes, along_w, 3)).permute(0, 2, 3, 1)
        h = self.atm_h(fetch(planes, along_h, 2)).permute(0, 2, 3, 1)
        z = self.atm_c(x)
        shares = self.fusion((w + h + z).mean((1, 2))).unflatten(-1, (-1, 3)).softmax(-1)[:, None, None]
        y: Tensor = self.proj(w * shares[..., 0] + h * shares[..., 1] + z * shares[..., 2])
        return y


class Downsample(nn.Module):
    """3x3 convolution of stride 2 on tokens."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(c_in, c_out, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C_in) -> (B, H/2, W/2, C_out)."""
        y: Tensor = self.proj(x.permute(0, 3, 1, 2))
        return y.permute(0, 2, 3, 1)


class Position(nn.Module):
    """Adds a depthwise 3x3 convolution to tokens (conditional position, Chu et al. 2021)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> same."""
        planes = x.permute(0, 3, 1, 2)
        y: Tensor = self.proj(planes) + planes
        return y.permute(0, 2, 3, 1)


class PatchEmbed(nn.Module):
    """7x7 convolution of stride 4."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, channels, 7, stride=4, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, S/4, S/4, C)."""
        y: Tensor = self.proj(x)
        return y.permute(0, 2, 3, 1)


class ActiveBlock(nn.Module):
    """Mixer and MLP, each behind a layer norm and around a shortcut.

    Args:
        channels: C.
        shared: Channels that share an offset, if this block predicts offsets, else 0.
        drop: Probability with which a sample's branch is left out in training (stochastic depth).
        out: Channels after downsampling; None: there is none.
    """

    def __init__(self, channels: int, shared: int, drop: float, out: int | None) -> None:
        super().__init__()
        self.drop, self.shared = drop, shared
        self.norm1 = nn.LayerNorm(channels)
        self.atm = ActiveTokenMixer(channels)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = MLP(channels, RATIO * channels, channels)
        self.downsample = None if out is None else Downsample(channels, out)
        self.offset_layer = (
            nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, 2 * channels // shared)) if shared else None
        )

    def forward(self, x: Tensor, offset: Tensor | None, position: nn.Module) -> tuple[Tensor, Tensor]:
        """Mix and downsample.

        Args:
            x: (B, H, W, C).
            offset: (B, 2C, H, W), the last block's; None in the first one.
            position: Adds position before offsets are predicted.

        Returns:
            Tokens after the block, and the offsets that it used.
        """
        if self.offset_layer is not None:
            x = position(x)
            offset = self.offset_layer(x).repeat_interleave(self.shared, dim=-1).permute(0, 3, 1, 2)
        if offset is None:
            raise RuntimeError("the first block of a stage must predict offsets")
        x = x + self._dropped(self.atm(self.norm1(x), offset))
        x = x + self._dropped(self.mlp(self.norm2(x)))
        return (x if self.downsample is None else self.downsample(x)), offset

    def _dropped(self, branch: Tensor) -> Tensor:
        if not self.training or self.drop == 0:
            return branch
        kept = torch.rand(len(branch), 1, 1, 1, device=branch.device) >= self.drop
        return branch * kept / (1 - self.drop)


class ATMNet(Classifier):
    """See the module's head."""

    last_layer = "head"

    def __init__(self, config: ClassifierConfig, n_classes: int, size: int = SIZE) -> None:
        super().__init__(config, n_classes, size)
        channels = [scaled(c, config.width) for c in CHANNELS]
        most = _DROP_PATH if config.dropout is None else config.dropout
        drops = [most * k / (sum(DEPTHS) - 1) for k in range(sum(DEPTHS))]
        self.patch_embed = PatchEmbed(channels[0])
        self.blocks = nn.ModuleList()
        for stage, (c, depth, shared) in enumerate(zip(channels, DEPTHS, SHARED, strict=True)):
            first = sum(DEPTHS[:stage])
            after = channels[stage + 1] if stage + 1 < len(channels) else None
            self.blocks.append(
                nn.ModuleList(
                    ActiveBlock(c, shared if k % RENEW == 0 else 0, drops[first + k], after if k == depth - 1 else None)
                    for k in range(depth)
                )
            )
        self.pos_blocks = nn.ModuleList(Position(c) for c in channels)
        self.norm = nn.LayerNorm(channels[-1])
        self.head = nn.Linear(channels[-1], n_classes)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1)):
                nn.init.trunc_normal_(module.weight, std=0.02)
            elif isinstance(module, nn.Conv2d):
                fan_out = module.weight[0, 0].numel() * module.out_channels // module.groups
                nn.init.normal_(module.weight, std=(2 / fan_out) ** 0.5)
            if isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def features(self, frames: Tensor) -> Tensor:
        """Standardised frames (N, 3, S, S) -> mean token (N, C)."""
        x = self.patch_embed(frames)
        for blocks, position in zip(self.blocks, self.pos_blocks, strict=True):
            offset: Tensor | None = None
            for block in blocks.children():
                x, offset = block(x, offset, position)
        out: Tensor = self.norm(x).mean((1, 2))
        return out

    def logits(self, video: Tensor) -> Tensor:
        """See `Classifier.logits`."""
        frames = self.config.segments
        return average_segments(self.head(self.features(take_segments(video, frames))), frames)
