"""Publishers' names become ours: files made here with their names, from networks of ours, give the same logits."""

from __future__ import annotations

import pytest
import torch

from us_i2v.errors import WeightsError
from us_i2v.models.classifiers import NAMES, Classifier, ClassifierConfig, build_classifier
from us_i2v.models.classifiers.published import C3D_MEAN, adapt, our_name

Tensors = dict[str, torch.Tensor]


def network(name: str, seed: int = 0) -> Classifier:
    """A classifier whose batch norms, too, differ from their start; narrow, since names do not depend on the width."""
    torch.manual_seed(seed)
    made = build_classifier(ClassifierConfig(name=name, width=0.125, size=64), 2).eval()
    for key, value in made.state_dict().items():
        if "running" in key:
            value.copy_(torch.rand_like(value) + 0.5)
    return made


def plain(made: Classifier) -> Tensors:
    return {
        key: value
        for key, value in made.state_dict().items()
        if not key.startswith("standardise.") and not key.startswith(f"{made.last_layer}.")
    }


def mmaction_resnet(tensors: Tensors) -> Tensors:
    out = {}
    for key, value in tensors.items():
        parts = key.split(".")
        if parts[0] in ("conv1", "bn1"):
            parts[:1] = ["conv1", "conv" if parts[0] == "conv1" else "bn"]
        elif parts[2] == "downsample":
            parts[3] = "conv" if parts[3] == "0" else "bn"
        elif parts[2].startswith("conv"):
            parts[2:3] = [parts[2], "conv", "net"] if parts[2] == "conv1" else [parts[2], "conv"]
        else:
            parts[2:3] = [f"conv{parts[2][2:]}", "bn"]
        out["backbone." + ".".join(parts)] = value
    return out | {"cls_head.fc_cls.weight": torch.zeros(400, 4), "cls_head.fc_cls.bias": torch.zeros(400)}


def authors_tsm(tensors: Tensors) -> Tensors:
    out = {}
    for key, value in tensors.items():
        inner = key.startswith("layer") and ".conv1." in key
        out["module.base_model." + (key.replace(".conv1.", ".conv1.net.") if inner else key)] = value
    return out | {"module.new_fc.weight": torch.zeros(400, 4), "module.new_fc.bias": torch.zeros(400)}


def authors_tdn(tensors: Tensors) -> Tensors:
    out = {"module.new_fc.weight": torch.zeros(400, 4)}
    for name in ("conv1_temp", "conv1_temp1"):
        out[f"module.base_model.{name}.weight"] = torch.zeros(8, 3, 7, 7)
    for key, value in tensors.items():
        stage, _, rest = key.partition(".")
        theirs = {"layer1_diff": "resnext_layer1", "conv_diff": "conv1_5.0", "bn_diff": "conv1_5.1"}
        theirs |= {f"layer{k}": f"layer{k}_bak" for k in range(1, 5)}
        out[f"module.base_model.{theirs.get(stage, stage)}.{rest}"] = value
    return out


def torchvision(tensors: Tensors) -> Tensors:
    return tensors | {"fc.weight": torch.zeros(1000, 4), "fc.bias": torch.zeros(1000)}


def authors_atm(tensors: Tensors) -> Tensors:
    return tensors | {"head.weight": torch.zeros(1000, 64), "head.bias": torch.zeros(1000)}


def mmaction_c3d(tensors: Tensors) -> Tensors:
    out = {"cls_head.fc_cls.weight": torch.zeros(101, 4)}
    for key, value in tensors.items():
        layer, kind = key.split(".")
        out[f"backbone.{layer}.conv.{kind}" if layer.startswith("conv") else f"backbone.{layer}.{kind}"] = value
    return out


def c3d_pytorch(tensors: Tensors) -> Tensors:
    names = {"conv1a": "conv1", "conv2a": "conv2"}
    out = {}
    for key, value in tensors.items():
        layer, kind = key.split(".")
        out[f"{names.get(layer, layer)}.{kind}"] = value
    return out | {"fc8.weight": torch.zeros(487, 4), "fc8.bias": torch.zeros(487)}


CASES = [
    ("c3d", mmaction_c3d),
    ("c3d", c3d_pytorch),
    ("tsm", torchvision),
    ("tsm", authors_tsm),
    ("tsm", mmaction_resnet),
    ("tdn", authors_tdn),
    ("atm", authors_atm),
]


@pytest.mark.parametrize(("name", "publish"), CASES, ids=[f"{name}-{f.__name__}" for name, f in CASES])
def test_a_publishers_file_fills_everything_but_the_last_layer(name: str, publish) -> None:
    theirs, ours = network(name, 1), network(name, 2)
    adapted = adapt(ours, publish(plain(theirs)), "file")
    assert set(adapted.new) == {f"{ours.last_layer}.weight", f"{ours.last_layer}.bias"}
    ours.load_state_dict(ours.state_dict() | adapted.tensors)
    ours.get_submodule(ours.last_layer).load_state_dict(theirs.get_submodule(theirs.last_layer).state_dict())
    if name == "c3d":
        torch.testing.assert_close(ours.standardise.mean, torch.tensor(C3D_MEAN))
        theirs.standardise.load_state_dict(ours.standardise.state_dict())
    clip = torch.rand(1, 1, 16, 64, 64)
    torch.testing.assert_close(ours(clip), theirs(clip), atol=0, rtol=0)


def test_c3d_takes_gray_levels_less_the_means_of_its_files() -> None:
    ours = network("c3d")
    ours.load_state_dict(ours.state_dict() | adapt(ours, c3d_pytorch(plain(network("c3d", 1))), "file").tensors)
    got = ours.standardise(torch.full((1, 1, 1, 1, 1), 200 / 255)).flatten().tolist()
    assert got == pytest.approx([200 - 104, 200 - 117, 200 - 128], abs=1e-3)


def test_tdn_from_a_plain_resnet() -> None:
    """Both branches' stages are the ResNet's, the convolution of differences is its first one's mean over colours."""
    resnet, tdn = network("tsm", 1), network("tdn", 2)
    adapted = adapt(tdn, torchvision(plain(resnet)), "file")
    tdn.load_state_dict(tdn.state_dict() | adapted.tensors)
    assert all(key.startswith(("fc.", "bn_diff.")) or ".mse." in key or ".shift." in key for key in adapted.new)
    assert torch.equal(tdn.get_submodule("layer1_diff")[2].conv2.weight, resnet.get_submodule("layer1")[2].conv2.weight)
    mean = resnet.conv1.weight.mean(1)
    assert all(torch.equal(tdn.conv_diff.weight[:, k], mean) for k in range(12))
    assert not bool(tdn.conv1.bias.any())
    assert torch.equal(
        tdn.get_submodule("layer4")[0].downsample[1].bias, resnet.get_submodule("layer4")[0].downsample[1].bias
    )


@pytest.mark.parametrize("name", NAMES)
def test_our_own_names_stay(name: str) -> None:
    assert all(our_name(name, key) == key for key in plain(network(name)))


def test_what_does_not_fit_is_named() -> None:
    tsm = network("tsm")
    given = torchvision(plain(network("tsm", 1)))
    with pytest.raises(WeightsError, match=r"tensor 'layer9.weight' has no place in tsm"):
        adapt(tsm, given | {"layer9.weight": torch.zeros(1)}, "file")
    with pytest.raises(WeightsError, match=r"is \(64, 3, 7, 7\), this tsm needs \(8, 3, 7, 7\).*width 1"):
        adapt(tsm, given | {"conv1.weight": torch.zeros(64, 3, 7, 7)}, "file")
    del given["layer2.1.bn2.running_var"]
    with pytest.raises(WeightsError, match=r"lacks tensor 'layer2.1.bn2.running_var' of tsm \(1 are missing\)"):
        adapt(tsm, given, "file")
