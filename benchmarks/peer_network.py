"""A network of EchoNet-Synthetic's shape (Reynaud 2024), with random weights: only its speed is of interest.

    LVDM   spatio-temporal U-Net, widths 128, 256, 256, 512, two blocks a level; every block is a spatial and a temporal
           residual block and (but for the coarsest level) spatial and temporal attention with a cross-attention to one
           number; 8 channels in (noise beside the repeated latent still), 4 out; 64 x 14 x 14 latents,
           padded to 16 x 16
    VAE    decoder of 4 x 14 x 14 to 112 x 112, KL-f8 with widths 128, 256, 512, 512

    python benchmarks/peer_network.py            # counts the parameters and times one denoising step and the decoder

One clip of 64 frames takes 64 denoising steps and one decoding.
"""

from __future__ import annotations

import sys
import time

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTHS = (128, 256, 256, 512)
FRAMES, SIDE, STEPS = 64, 16, 64
EMBEDDING = 512


def sinusoids(t: Tensor, channels: int) -> Tensor:
    angles = t[:, None] * torch.exp(-9.2 * torch.arange(channels // 2, device=t.device) / (channels // 2))
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class Residual(nn.Module):
    """GroupNorm, SiLU and two convolutions over space (1x3x3) or time (3x1x1), with an embedding added between."""

    def __init__(self, c_in: int, c_out: int, kernel: tuple[int, int, int], embedding: int | None = EMBEDDING) -> None:
        super().__init__()
        padding = tuple(k // 2 for k in kernel)
        self.norm1, self.norm2 = nn.GroupNorm(32, c_in), nn.GroupNorm(32, c_out)
        self.conv1 = nn.Conv3d(c_in, c_out, kernel, padding=padding)
        self.conv2 = nn.Conv3d(c_out, c_out, kernel, padding=padding)
        self.embed = nn.Linear(embedding, c_out) if embedding else None
        self.skip = nn.Conv3d(c_in, c_out, 1) if c_in != c_out else nn.Identity()

    def forward(self, x: Tensor, e: Tensor | None) -> Tensor:
        """(B, c_in, T, h, w), (B, embedding) -> (B, c_out, T, h, w)."""
        y = self.conv1(F.silu(self.norm1(x)))
        if self.embed is not None:
            y = y + self.embed(F.silu(e))[:, :, None, None, None]
        return self.skip(x) + self.conv2(F.silu(self.norm2(y)))


class Attention(nn.Module):
    """Transformer block on tokens (N, L, C): self-attention, cross-attention to one token, gated feed-forward."""

    def __init__(self, channels: int, context: int = 1, *, temporal: bool = False) -> None:
        super().__init__()
        # Over time there are also a learned map of the frame's number and a feed-forward of its own before.
        self.place = nn.Sequential(nn.Linear(channels, 4 * channels), nn.SiLU(), nn.Linear(4 * channels, channels))
        self.before = nn.ModuleList(
            [nn.LayerNorm(channels), nn.Linear(channels, 8 * channels), nn.Linear(4 * channels, channels)]
        )
        if not temporal:
            self.place = self.before = None
        self.heads = channels // 64
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(3))
        self.qkv, self.out1 = nn.Linear(channels, 3 * channels, bias=False), nn.Linear(channels, channels)
        self.query = nn.Linear(channels, channels, bias=False)
        self.value, self.out2 = nn.Linear(context, 2 * channels, bias=False), nn.Linear(channels, channels)
        self.grow, self.shrink = nn.Linear(channels, 8 * channels), nn.Linear(4 * channels, channels)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """(N, L, C), (N, 1, context) -> (N, L, C)."""
        if self.place is not None:
            x = x + self.place(sinusoids(torch.arange(x.shape[1]), x.shape[2]).to(x.dtype))
            norm, grow, shrink = self.before
            a, b = grow(norm(x)).chunk(2, dim=-1)
            x = x + shrink(a * F.gelu(b))
        x = x + self.out1(self._attend(*self.qkv(self.norms[0](x)).chunk(3, dim=-1)))
        k, v = self.value(context).chunk(2, dim=-1)
        x = x + self.out2(self._attend(self.query(self.norms[1](x)), k, v))
        a, b = self.grow(self.norms[2](x)).chunk(2, dim=-1)
        return x + self.shrink(a * F.gelu(b))


class SpaceTime(nn.Module):
    """A spatial and a temporal residual block, then attention over space and over time."""

    def __init__(self, c_in: int, c_out: int, *, attention: bool) -> None:
        super().__init__()
        self.space, self.time = Residual(c_in, c_out, (1, 3, 3)), Residual(c_out, c_out, (3, 1, 1))
        self.attention = nn.ModuleList([Attention(c_out), Attention(c_out, temporal=True)]) if attention else None
        if attention:
            self.norm, self.enter = nn.GroupNorm(32, c_out), nn.Linear(c_out, c_out)
            self.leave = nn.Linear(c_out, c_out)

    def forward(self, x: Tensor, e: Tensor, context: Tensor) -> Tensor:
        """(B, c_in, T, h, w), (B, embedding), (B, 1, 1) -> (B, c_out, T, h, w)."""
        x = self.time(self.space(x, e), e)
        if self.attention is None:
            return x
        b, _, t, h, w = x.shape
        y = self.enter(self.norm(x).permute(0, 2, 3, 4, 1))
        y = self.attention[0](y.reshape(b * t, h * w, -1), context.repeat_interleave(t, 0))
        y = y.reshape(b, t, h * w, -1).transpose(1, 2).reshape(b * h * w, t, -1)
        y = self.attention[1](y, context.repeat_interleave(h * w, 0))
        y = y.reshape(b, h, w, t, -1)
        return x + self.leave(y).permute(0, 4, 3, 1, 2)


class VideoUNet(nn.Module):
    """The denoiser."""

    def __init__(self) -> None:
        super().__init__()
        self.time = nn.Sequential(nn.Linear(WIDTHS[0], EMBEDDING), nn.SiLU(), nn.Linear(EMBEDDING, EMBEDDING))
        self.enter = nn.Conv3d(8, WIDTHS[0], (1, 3, 3), padding=(0, 1, 1))
        self.down, self.shrink = nn.ModuleList(), nn.ModuleList()
        skips, c = [WIDTHS[0]], WIDTHS[0]
        for level, width in enumerate(WIDTHS):
            for _ in range(2):
                self.down.append(SpaceTime(c, width, attention=level < 3))
                c = width
                skips.append(c)
            if level < 3:
                self.shrink.append(nn.Conv3d(c, c, (1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1)))
                skips.append(c)
        self.middle = nn.ModuleList([SpaceTime(c, c, attention=True), SpaceTime(c, c, attention=False)])
        self.up, self.grow = nn.ModuleList(), nn.ModuleList()
        for level in (3, 2, 1, 0):
            for _ in range(3):
                self.up.append(SpaceTime(c + skips.pop(), WIDTHS[level], attention=level < 3))
                c = WIDTHS[level]
            if level:
                self.grow.append(nn.Conv3d(c, c, (1, 3, 3), padding=(0, 1, 1)))
        self.norm, self.leave = nn.GroupNorm(32, c), nn.Conv3d(c, 4, (1, 3, 3), padding=(0, 1, 1))

    def forward(self, x: Tensor, t: Tensor, context: Tensor) -> Tensor:
        """(B, 8, T, h, w), (B,), (B, 1, 1) -> (B, 4, T, h, w)."""
        e = self.time(sinusoids(t, WIDTHS[0]).to(x.dtype))
        x = self.enter(x)
        skips = [x]
        for k, block in enumerate(self.down):
            x = block(x, e, context)
            skips.append(x)
            if k % 2 and k // 2 < 3:
                x = self.shrink[k // 2](x)
                skips.append(x)
        for block in self.middle:
            x = block(x, e, context)
        for k, block in enumerate(self.up):
            x = block(torch.cat([x, skips.pop()], dim=1), e, context)
            if k % 3 == 2 and k // 3 < 3:
                x = self.grow[k // 3](F.interpolate(x, scale_factor=(1, 2, 2)))
        return self.leave(F.silu(self.norm(x)))


class Decoder(nn.Module):
    """The VAE's decoder: (N, 4, h, w) -> (N, 3, 8h, 8w)."""

    def __init__(self, widths: tuple[int, ...] = (512, 512, 256, 128)) -> None:
        super().__init__()
        self.enter = nn.Conv2d(4, widths[0], 3, padding=1)
        self.middle = nn.ModuleList(Residual(widths[0], widths[0], (1, 3, 3), None) for _ in range(2))
        self.blocks, self.grow, c = nn.ModuleList(), nn.ModuleList(), widths[0]
        for level, width in enumerate(widths):
            for _ in range(3):
                self.blocks.append(Residual(c, width, (1, 3, 3), None))
                c = width
            if level < 3:
                self.grow.append(nn.Conv2d(c, c, 3, padding=1))
        self.norm, self.leave = nn.GroupNorm(32, c), nn.Conv2d(c, 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """(N, 4, h, w) -> (N, 3, 8h, 8w)."""
        x = self.enter(z)[:, :, None]
        for block in self.middle:
            x = block(x, None)
        for k, block in enumerate(self.blocks):
            x = block(x, None)
            if k % 3 == 2 and k // 3 < 3:
                x = self.grow[k // 3](F.interpolate(x[:, :, 0], scale_factor=2))[:, :, None]
        return self.leave(F.silu(self.norm(x))[:, :, 0])


@torch.inference_mode()
def clip_seconds(
    frames: int = FRAMES, *, bf16: bool = False, repeats: int = 1, device: str = "cpu"
) -> tuple[float, float]:
    """Return (seconds of one denoising step, seconds of decoding) for one clip of `frames` frames."""
    torch.manual_seed(0)
    network, decoder = VideoUNet().eval().to(device), Decoder().eval().to(device)
    x, t = torch.randn(1, 8, frames, SIDE, SIDE, device=device), torch.tensor([500.0], device=device)
    context = torch.rand(1, 1, 1, device=device)
    step, decode = [], []
    with torch.autocast(device, torch.bfloat16, enabled=bf16):
        for _ in range(repeats):
            start = _now(device)
            network(x, t, context)
            step.append(_now(device) - start)
            start = _now(device)
            for frame in torch.randn(frames, 4, 14, 14, device=device).split(8):
                decoder(frame)
            decode.append(_now(device) - start)
    return min(step), min(decode)


def _now(device: str) -> float:
    """Seconds, after all that the device was told is done."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def main() -> int:
    count = sum(p.numel() for p in VideoUNet().parameters()) / 1e6
    print(f"denoiser: {count:.1f} M parameters (EchoNet-Synthetic: 143.8 M)")
    print(f"decoder: {sum(p.numel() for p in Decoder().parameters()) / 1e6:.1f} M (the whole VAE: 62 M)")
    for bf16 in (False, True):
        step, decode = clip_seconds(bf16=bf16)
        name = "bf16" if bf16 else "fp32"
        print(
            f"{name}: step {step:.2f} s, decoding {decode:.1f} s, clip of {STEPS} steps {STEPS * step + decode:.0f} s"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
