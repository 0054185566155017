"""Which tensors of the publishers' files become which tensors of our networks.

    folded batch norm:  w' = w g / sqrt(v + eps),  b' = beta - m g / sqrt(v + eps)

with mean m, variance v, scale g and shift beta, one each per output channel; computed in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import torch

from us_i2v.metrics.i3d import DT_CLASSES, I3D
from us_i2v.metrics.inception import InceptionV3
from us_i2v.metrics.lpips import LPIPS
from us_i2v.metrics.x3d import STAGES, X3DXS

if TYPE_CHECKING:
    from torch import Tensor, nn

State = dict[str, "Tensor"]
X3D_EPS = 1e-5


@dataclass(frozen=True)
class Recipe:
    """How one network's weights are made.

    Attributes:
        build: State dicts, in the order of `Pretrained.made_from` -> our tensors; KeyError for a missing one.
        network: Our network, whose names and shapes the result must have.
        prefixes: Of large files, the starts of the names that are needed.
    """

    build: Callable[..., State]
    network: Callable[[], nn.Module]
    prefixes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def folded(state: State, convolution: str, norm: str, eps: float) -> tuple[Tensor, Tensor]:
    """Return weight and bias of a bias-free convolution with the batch norm behind it folded in, float32."""
    weight, scale, shift, mean, variance = (
        state[name].double()
        for name in (
            f"{convolution}.weight",
            *(f"{norm}.{part}" for part in ("weight", "bias", "running_mean", "running_var")),
        )
    )
    factor = scale / torch.sqrt(variance + eps)
    return (weight * factor.reshape(-1, *[1] * (weight.ndim - 1))).float(), (shift - mean * factor).float()


def lpips(trunk: State, heads: State) -> State:
    """ImageNet features of torchvision beside the linear heads of LPIPS; names are kept."""
    kept = {name: value for name, value in trunk.items() if name.startswith("features.")}
    return kept | {name: value for name, value in heads.items() if name.startswith("lin")}


def x3d(state: State) -> State:
    """PyTorchVideo's X3D: blocks.0 is the stem, 1 to 4 the stages, 5 the head; batch norms are folded.

    In its stem "conv_t" is the convolution in space and "conv_xy" the one in time. A shortcut that keeps its
    width has no batch norm there, hence no bias.
    """
    out: State = {"stem_xy.weight": state["blocks.0.conv.conv_t.weight"]}

    def fold(target: str, convolution: str, norm: str) -> None:
        out[f"{target}.weight"], out[f"{target}.bias"] = folded(state, convolution, norm, X3D_EPS)

    fold("stem_t", "blocks.0.conv.conv_xy", "blocks.0.norm")
    number = 0
    for stage, (_, _, count) in enumerate(STAGES, start=1):
        for index in range(count):
            source, target = f"blocks.{stage}.res_blocks.{index}", f"blocks.{number}"
            for part in "abc":
                norm = "norm_b.0" if part == "b" else f"norm_{part}"
                fold(f"{target}.{part}", f"{source}.branch2.conv_{part}", f"{source}.branch2.{norm}")
            if index % 2 == 0:
                for ours, theirs in ((0, 0), (1, 2)):
                    for kind in ("weight", "bias"):
                        out[f"{target}.se.{ours}.{kind}"] = state[f"{source}.branch2.norm_b.1.block.{theirs}.{kind}"]
            if f"{source}.branch1_norm.weight" in state:
                fold(f"{target}.sc", f"{source}.branch1_conv", f"{source}.branch1_norm")
            elif f"{source}.branch1_conv.weight" in state:
                weight = state[f"{source}.branch1_conv.weight"]
                out[f"{target}.sc.weight"], out[f"{target}.sc.bias"] = weight, torch.zeros(len(weight))
            number += 1
    fold("conv5", "blocks.5.pool.pre_conv", "blocks.5.pool.pre_norm")
    out["lin5.weight"] = state["blocks.5.pool.post_conv.weight"]
    return out | {f"proj.{kind}": state[f"blocks.5.proj.{kind}"] for kind in ("weight", "bias")}


def same_names(state: State) -> State:
    """Our networks of these keep the publishers' names."""
    return dict(state)


RECIPES: dict[str, Recipe] = {
    "lpips-alex": Recipe(lpips, partial(LPIPS, "alex"), {"torchvision-alexnet": ("features.",)}),
    "lpips-squeeze": Recipe(lpips, partial(LPIPS, "squeeze"), {"torchvision-squeezenet": ("features.",)}),
    "lpips-vgg": Recipe(lpips, partial(LPIPS, "vgg"), {"torchvision-vgg16": ("features.",)}),
    "x3d-xs": Recipe(x3d, X3DXS),
    "i3d-kinetics400": Recipe(same_names, I3D),
    "i3d-dtdb": Recipe(same_names, partial(I3D, DT_CLASSES)),
    "inception-fid": Recipe(same_names, InceptionV3),
}
"""Every network that `us-i2v convert` can make, by its key in `pretrained.PRETRAINED`."""
