"""How publishers' pretrained weights go into the classifiers: names, what is left out, what is derived.

| classifier | publishers' files whose names are known |
|---|---|
| c3d | Sports-1M or Kinetics: mmaction2 (`conv1a.conv.weight`), c3d-pytorch (`conv1.weight`) |
| tsm | ResNet-50, ImageNet: torchvision, timm; TSM, Kinetics: the authors' (`base_model.`), mmaction2 (`backbone.`) |
| tdn | the authors' (`layer2_bak.`), or a ResNet-50 as for tsm, from which the short-term branch is derived |
| atm | ActiveMLP xT on ImageNet: the authors' |

Containers' prefixes (`module.`, `base_model.`, `backbone.`) fall away, as does the publisher's last layer, whose
classes are others. Whatever has no place, or another shape, is an error.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from us_i2v.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from us_i2v.models.classifiers.base import Classifier

_PREFIXES = re.compile(r"^(module\.|base_model\.|backbone\.)+")
_RESNET = (
    (r"^conv1\.conv\.", "conv1."),
    (r"^conv1\.bn\.", "bn1."),
    (r"\.conv(\d)\.conv\.", r".conv\1."),
    (r"\.conv(\d)\.bn\.", r".bn\1."),
    (r"\.conv1\.net\.", ".conv1."),
    (r"\.downsample\.conv\.", ".downsample.0."),
    (r"\.downsample\.bn\.", ".downsample.1."),
)
RENAMES: dict[str, tuple[tuple[str, str], ...]] = {
    "c3d": ((r"^conv([12])\.", r"conv\1a."), (r"^(conv\d[ab])\.conv\.", r"\1.")),
    "tsm": _RESNET,
    "tdn": (
        (r"^layer(\d)_bak\.", r"layer\1."),
        (r"^resnext_layer1\.", "layer1_diff."),
        (r"^conv1_5\.0\.", "conv_diff."),
        (r"^conv1_5\.1\.", "bn_diff."),
        *_RESNET,
    ),
    "atm": (),
}
"""For each classifier regular expressions and what they become, applied in turn."""

_LAST = r"^(new_fc|fc|last_linear|cls_head\.fc_cls)\."
_LEFT_OUT = {
    "c3d": r"^(fc8|cls_head\.fc_cls)\.",
    "tsm": _LAST,
    # The authors' files hold a first convolution that their network does not use.
    "tdn": rf"{_LAST}|^conv1_temp1?\.",
    "atm": r"^head\.",
}
_MAY_BE_NEW = {"tdn": re.compile(r"\.mse\.|\.shift\.|^bn_diff\.")}
_REMEDY = "Give weights of this network."
C3D_MEAN = (104 / 255, 117 / 255, 128 / 255)
"""C3D's files expect gray levels of 0..255 less these means of the channels."""


@dataclass(frozen=True)
class Adapted:
    """Pretrained weights under our names.

    Attributes:
        tensors: Name to float32 tensor.
        new: Names of the classifier's tensors that they do not fill, the last layer among them.
    """

    tensors: dict[str, Tensor]
    new: tuple[str, ...]


def our_name(classifier: str, name: str) -> str | None:
    """Return what a publisher's tensor is called here; None if it is left out."""
    name = _PREFIXES.sub("", name)
    if re.search(_LEFT_OUT[classifier], name):
        return None
    for pattern, replacement in RENAMES[classifier]:
        name = re.sub(pattern, replacement, name)
    return name


def adapt(network: Classifier, tensors: Mapping[str, Tensor], source: str) -> Adapted:
    """Return a publisher's tensors under our names; the network is not changed.

    Args:
        network: The classifier; published weights fit width 1 only.
        tensors: As published.
        source: Their file, for messages.

    Raises:
        WeightsError: A tensor has no place or another shape, or too many are missing.
    """
    kind = network.config.name
    own = network.state_dict()
    found: dict[str, Tensor] = {}
    for theirs, value in tensors.items():
        name = our_name(kind, theirs)
        if name is None:
            continue
        if name not in own:
            raise WeightsError(
                f"'{source}': tensor '{theirs}' has no place in {kind}.", "Give weights of this network."
            )
        if value.shape != own[name].shape:
            raise WeightsError(
                f"'{source}': tensor '{theirs}' is {tuple(value.shape)}, this {kind} needs {tuple(own[name].shape)}.",
                "Published weights need width 1, and for c3d frames of 112 px.",
            )
        found[name] = value.to(own[name].dtype)
    if kind == "tdn":
        found = _short_term_from_resnet(found, own)
    if kind == "c3d":
        found |= {"standardise.mean": torch.tensor(C3D_MEAN), "standardise.sd": torch.full((3,), 1 / 255)}
    counters = {name for name in own if name.endswith("num_batches_tracked")}
    new = own.keys() - found.keys() - counters - {"standardise.mean", "standardise.sd"}
    allowed = _MAY_BE_NEW.get(kind)
    missing = sorted(
        name
        for name in new
        if not name.startswith(f"{network.last_layer}.") and not (allowed is not None and allowed.search(name))
    )
    if missing:
        raise WeightsError(f"'{source}' lacks tensor '{missing[0]}' of {kind} ({len(missing)} are missing).", _REMEDY)
    return Adapted(found, tuple(sorted(new)))


def _short_term_from_resnet(found: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Derive TDN's short-term branch from a plain ResNet-50, as its authors do; missing biases are 0.

    Stage 1 is copied. The convolution of differences gets, for each of its 12 channels, the mean of the first
    convolution over colours.
    """
    if any(name.startswith("layer1_diff.") for name in found) or "conv1.weight" not in found:
        return found
    derived = {
        f"layer1_diff.{k.removeprefix('layer1.')}": v.clone() for k, v in found.items() if k.startswith("layer1.")
    }
    derived["conv_diff.weight"] = found["conv1.weight"].mean(1, keepdim=True).expand_as(own["conv_diff.weight"]).clone()
    full = found | derived
    biases = {
        name: torch.zeros_like(value)
        for name, value in own.items()
        if name.endswith(".bias") and name not in full and own[name.replace(".bias", ".weight")].ndim == 4
    }
    return full | biases
