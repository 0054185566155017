from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from us_i2v.errors import InputError
from us_i2v.metrics.gray import gray_levels
from us_i2v.metrics.lpips import LPIPS, Backbone
from us_i2v.metrics.pretrained import fill

from .fake_publishers import lpips_heads, vgg16
from .real import lung_clips

every = pytest.mark.parametrize("backbone", get_args(Backbone))


def untrained(backbone: Backbone) -> LPIPS:
    """The network with fixed random weights; what is tested holds for any of them."""
    network = LPIPS(backbone)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in network.named_parameters():
        values = torch.randn(parameter.shape, generator=generator) / parameter[0].numel() ** 0.5
        parameter.data = values.abs() if name.startswith("lin") else values
    return network


def pictures(channels: int, side: int = 48) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    x = torch.rand(3, channels, side, side, generator=generator)
    return x, torch.rand(3, channels, side, side, generator=generator)


@every
def test_distance_properties(backbone: Backbone) -> None:
    network = untrained(backbone)
    x, y = pictures(3)
    distance = network(x, y)
    assert distance.shape == (3,)
    assert bool((distance > 0).all())
    assert torch.equal(network(x, x), torch.zeros(3))
    torch.testing.assert_close(network(y, x), distance)
    # A pair's value does not depend on its neighbours in the batch.
    torch.testing.assert_close(network(x[1:2], y[1:2]), distance[1:2])


@every
def test_gray_and_8_bit_equal_their_rgb_floats(backbone: Backbone) -> None:
    network = untrained(backbone)
    x, y = ((picture * 255).to(torch.uint8) for picture in pictures(1))
    expected = network(x.float() / 255, y.float() / 255)
    torch.testing.assert_close(network(x, y), expected)
    torch.testing.assert_close(network(x.expand(-1, 3, -1, -1), y.expand(-1, 3, -1, -1)), expected)


@every
def test_it_is_a_loss_with_finite_gradients(backbone: Backbone) -> None:
    network = untrained(backbone)
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            parameter.data = -parameter.data.abs() - 10  # Every activation of a picture is 0 at first.
    x, y = torch.zeros(1, 1, 48, 48, requires_grad=True), pictures(1)[1][:1]
    network(x, y).sum().backward()
    assert x.grad is not None
    assert bool(torch.isfinite(x.grad).all())
    network = untrained(backbone)
    x = pictures(1)[0][:1].requires_grad_()
    before = network(x, y)
    before.sum().backward()
    assert x.grad is not None
    assert x.grad.abs().max() > 0
    assert network(x.detach() - 1e-3 * x.grad / x.grad.norm(), y).item() < before.item()
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize("shape", [(1, 2, 48, 48), (3, 48, 48), (1, 3, 31, 48)])
def test_bad_shape(shape: tuple[int, ...]) -> None:
    x = torch.zeros(shape)
    with pytest.raises(InputError, match="LPIPS got a batch"):
        LPIPS("alex")(x, x)


def test_different_shapes() -> None:
    with pytest.raises(InputError, match="got pictures of"):
        LPIPS("alex")(torch.zeros(1, 1, 48, 48), torch.zeros(1, 1, 48, 40))


@pytest.mark.parametrize(("backbone", "near", "far"), [("alex", 0.138, 0.722), ("squeeze", 0.148, 0.711)])
def test_published_example(shared_data: Path, backbone: Backbone, near: float, far: float) -> None:
    folder = shared_data / "weights"

    def read(name: str) -> Tensor:
        with Image.open(folder / f"ex_{name}.png") as picture:
            return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)[None]

    network = LPIPS.load(backbone, folder)
    reference = read("ref")
    assert round(float(network(reference, read("p0"))), 3) == far
    assert round(float(network(reference, read("p1"))), 3) == near


def test_real_frames_rank_as_they_should(shared_data: Path) -> None:
    network = LPIPS.load("alex", shared_data / "weights")
    rng = np.random.default_rng(0)
    for clip in lung_clips(shared_data, 3):
        frame = torch.from_numpy(gray_levels(clip)[0])[None, None] / 255
        noise = torch.from_numpy(rng.normal(size=frame.shape)).float()
        distances = [float(network(frame, (frame + scale * noise).clamp(0, 1))) for scale in (0.02, 0.05, 0.2)]
        shifted = float(network(frame[..., 1:], frame[..., :-1]))
        assert 0 < shifted < distances[0] < distances[1] < distances[2]


def test_vgg_equals_a_plain_one_from_the_published_names() -> None:
    """torchvision's vgg16 `features.N` beside LPIPS's `lin{k}.model.1`, written out by hand."""
    state = vgg16() | lpips_heads("vgg")
    network = fill(LPIPS("vgg"), {k: v for k, v in state.items() if not k.startswith("classifier")}, "test")
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])

    def units(picture: Tensor) -> list[Tensor]:
        y = (2 * picture - 1 - shift.view(1, 3, 1, 1)) / scale.view(1, 3, 1, 1)
        found = []
        for stage in ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28)):
            y = y if not found else functional.max_pool2d(y, 2)
            for index in stage:
                y = functional.relu(
                    functional.conv2d(y, state[f"features.{index}.weight"], state[f"features.{index}.bias"], padding=1)
                )
            found.append(y)
        return [y / (y.norm(dim=1, keepdim=True) + 1e-10) for y in found]

    a, b = pictures(3)
    expected = torch.zeros(len(a))
    for index, (u, v) in enumerate(zip(units(a), units(b), strict=True)):
        weight = state[f"lin{index}.model.1.weight"].reshape(1, -1, 1, 1)
        expected += (weight * (u - v).square()).sum(1).mean((1, 2))
    torch.testing.assert_close(network(a, b), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("backbone", ["alex", "squeeze", "vgg"])
def test_squared_distances_of_embeddings_are_lpips(backbone):
    torch.manual_seed(0)
    network = LPIPS(backbone)
    for index in range(len(network.taps)):
        weight = network.get_submodule(f"lin{index}").get_parameter("model.1.weight")
        weight.data = weight.data.abs()  # Published heads are not negative.
    x = torch.randint(0, 256, (3, 1, 48, 40), dtype=torch.uint8)
    vectors = network.embed(x).double()
    for i in range(3):
        pairs = network(x[i : i + 1].expand(3, -1, -1, -1), x)
        torch.testing.assert_close((vectors - vectors[i]).square().sum(1), pairs.double(), rtol=1e-4, atol=1e-7)
