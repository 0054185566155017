"""Files that look like the publishers' own, with random weights, in the publishers' names for tensors."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import pytest
import torch
from torch import Tensor

from us_i2v.metrics import publishers

State = dict[str, Tensor]

SQUEEZE = {3: (64, 16, 64), 4: (128, 16, 64), 6: (128, 32, 128), 7: (256, 32, 128), 9: (256, 48, 192)}
SQUEEZE |= {10: (384, 48, 192), 11: (384, 64, 256), 12: (512, 64, 256)}
VGG = {0: (3, 64), 2: (64, 64), 5: (64, 128), 7: (128, 128), 10: (128, 256), 12: (256, 256), 14: (256, 256)}
VGG |= {17: (256, 512), 19: (512, 512), 21: (512, 512), 24: (512, 512), 26: (512, 512), 28: (512, 512)}
ALEX = {0: (3, 64, 11), 3: (64, 192, 5), 6: (192, 384, 3), 8: (384, 256, 3), 10: (256, 256, 3)}
HEADS = {
    "alex": (64, 192, 384, 256, 256),
    "squeeze": (64, 128, 256, 384, 384, 512, 512),
    "vgg": (64, 128, 256, 512, 512),
}


class Maker:
    """Random tensors, always the same ones."""

    def __init__(self, seed: int = 0) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.state: State = {}

    def tensor(self, *shape: int) -> Tensor:
        scale = max(1, torch.Size(shape[1:]).numel()) ** -0.5
        return torch.randn(shape, generator=self.generator) * scale

    def convolution(self, name: str, *shape: int, bias: bool = True) -> None:
        self.state[f"{name}.weight"] = self.tensor(*shape)
        if bias:
            self.state[f"{name}.bias"] = 0.1 * self.tensor(shape[0])

    def norm(self, name: str, width: int) -> None:
        for part in ("weight", "running_var"):
            self.state[f"{name}.{part}"] = 0.5 + torch.rand(width, generator=self.generator)
        for part in ("bias", "running_mean"):
            self.state[f"{name}.{part}"] = 0.1 * torch.randn(width, generator=self.generator)
        self.state[f"{name}.num_batches_tracked"] = torch.tensor(7)


def alexnet() -> State:
    make = Maker(1)
    for index, (channels, width, kernel) in ALEX.items():
        make.convolution(f"features.{index}", width, channels, kernel, kernel)
    make.convolution("classifier.1", 8, 16)
    return make.state


def squeezenet() -> State:
    make = Maker(2)
    make.convolution("features.0", 64, 3, 3, 3)
    for index, (channels, thin, wide) in SQUEEZE.items():
        make.convolution(f"features.{index}.squeeze", thin, channels, 1, 1)
        make.convolution(f"features.{index}.expand1x1", wide, thin, 1, 1)
        make.convolution(f"features.{index}.expand3x3", wide, thin, 3, 3)
    make.convolution("classifier.1", 8, 512, 1, 1)
    return make.state


def vgg16() -> State:
    make = Maker(3)
    for index, (channels, width) in VGG.items():
        make.convolution(f"features.{index}", width, channels, 3, 3)
    make.convolution("classifier.0", 8, 16)
    return make.state


def lpips_heads(backbone: str) -> State:
    make = Maker(4)
    return {
        f"lin{index}.model.1.weight": make.tensor(1, width, 1, 1).abs() for index, width in enumerate(HEADS[backbone])
    }


def x3d_xs() -> State:
    """PyTorchVideo's names: in the stem, conv_t is the one in space."""
    make = Maker(5)
    make.convolution("blocks.0.conv.conv_t", 24, 3, 1, 3, 3, bias=False)
    make.convolution("blocks.0.conv.conv_xy", 24, 1, 5, 1, 1, bias=False)
    make.norm("blocks.0.norm", 24)
    before = 24
    stages = ((24, 54, 3, 8), (48, 108, 5, 8), (96, 216, 11, 16), (192, 432, 7, 32))
    for stage, (width, inner, count, squeezed) in enumerate(stages, start=1):
        for index in range(count):
            block = f"blocks.{stage}.res_blocks.{index}"
            if index == 0:
                make.convolution(f"{block}.branch1_conv", width, before, 1, 1, 1, bias=False)
                if before != width:
                    make.norm(f"{block}.branch1_norm", width)
            make.convolution(f"{block}.branch2.conv_a", inner, before, 1, 1, 1, bias=False)
            make.norm(f"{block}.branch2.norm_a", inner)
            make.convolution(f"{block}.branch2.conv_b", inner, 1, 3, 3, 3, bias=False)
            make.norm(f"{block}.branch2.norm_b.0", inner)
            if index % 2 == 0:
                make.convolution(f"{block}.branch2.norm_b.1.block.0", squeezed, inner, 1, 1, 1)
                make.convolution(f"{block}.branch2.norm_b.1.block.2", inner, squeezed, 1, 1, 1)
            make.convolution(f"{block}.branch2.conv_c", width, inner, 1, 1, 1, bias=False)
            make.norm(f"{block}.branch2.norm_c", width)
            before = width
    make.convolution("blocks.5.pool.pre_conv", 432, 192, 1, 1, 1, bias=False)
    make.norm("blocks.5.pool.pre_norm", 432)
    make.convolution("blocks.5.pool.post_conv", 2048, 432, 1, 1, 1, bias=False)
    make.convolution("blocks.5.proj", 400, 2048)
    return make.state


def i3d(classes: int) -> State:
    """The names of the state dicts that VideoGPT and cINN publish."""
    make = Maker(6)

    def unit(name: str, channels: int, width: int, kernel: int) -> None:
        make.convolution(f"{name}.conv3d", width, channels, kernel, kernel, kernel, bias=False)
        make.norm(f"{name}.bn", width)

    unit("Conv3d_1a_7x7", 3, 64, 7)
    unit("Conv3d_2b_1x1", 64, 64, 1)
    unit("Conv3d_2c_3x3", 64, 192, 3)
    mixed = {
        "3b": (192, 64, 96, 128, 16, 32, 32),
        "3c": (256, 128, 128, 192, 32, 96, 64),
        "4b": (480, 192, 96, 208, 16, 48, 64),
        "4c": (512, 160, 112, 224, 24, 64, 64),
        "4d": (512, 128, 128, 256, 24, 64, 64),
        "4e": (512, 112, 144, 288, 32, 64, 64),
        "4f": (528, 256, 160, 320, 32, 128, 128),
        "5b": (832, 256, 160, 320, 32, 128, 128),
        "5c": (832, 384, 192, 384, 48, 128, 128),
    }
    for name, (channels, a, b1, b2, c1, c2, d) in mixed.items():
        unit(f"Mixed_{name}.b0", channels, a, 1)
        unit(f"Mixed_{name}.b1a", channels, b1, 1)
        unit(f"Mixed_{name}.b1b", b1, b2, 3)
        unit(f"Mixed_{name}.b2a", channels, c1, 1)
        unit(f"Mixed_{name}.b2b", c1, c2, 3)
        unit(f"Mixed_{name}.b3b", channels, d, 1)
    make.convolution("logits.conv3d", classes, 1024, 1, 1, 1)
    return make.state


def publish(monkeypatch: pytest.MonkeyPatch, key: str, path: Path, content: object, *, known: bool = True) -> Path:
    """Save `content` as a publisher would, and let the table know its sha256 unless `known` is False."""
    torch.save(content, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest() if known else None
    changed = dataclasses.replace(publishers.PUBLISHER_FILES[key], sha256=digest)
    monkeypatch.setitem(publishers.PUBLISHER_FILES, key, changed)
    return path
