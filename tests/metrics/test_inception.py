from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from us_i2v.errors import InputError
from us_i2v.metrics.inception import (
    BasicConv2d,
    BlockA,
    BlockE,
    InceptionV3,
    average_pool,
    max_pool,
    prepare,
)


def randomise(block: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(3)
    for name, tensor in block.state_dict().items():
        if name.endswith(("bn.weight", "running_var")):
            tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
        elif tensor.is_floating_point():
            tensor.copy_(torch.randn(tensor.shape, generator=generator) / max(1, tensor[0].numel()) ** 0.5)
    return block.eval().requires_grad_(False)


def plain(x: Tensor, state: dict[str, Tensor], name: str, padding: tuple[int, int] = (0, 0)) -> Tensor:
    """Convolution, batch norm with eps 1e-3 and ReLU from a state dict, without the module under test."""
    y = functional.conv2d(x, state[f"{name}.conv.weight"], padding=padding)
    norm = [state[f"{name}.bn.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
    return functional.relu(functional.batch_norm(y, *norm, training=False, eps=1e-3))


def test_average_leaves_padding_out_of_the_mean() -> None:
    x = torch.arange(12.0).reshape(1, 1, 3, 4)
    found = average_pool(x)[0, 0].numpy()
    for row, column in np.ndindex(3, 4):
        window = x[0, 0, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
        assert found[row, column] == pytest.approx(float(window.mean()))


def test_first_block_equals_a_plain_one() -> None:
    block = randomise(BlockA(5, 6))
    state = block.state_dict()
    x = torch.rand(2, 5, 7, 9, generator=torch.Generator().manual_seed(4))
    double = plain(plain(x, state, "branch3x3dbl_1"), state, "branch3x3dbl_2", (1, 1))
    counts = functional.conv2d(torch.ones(1, 1, 7, 9), torch.ones(1, 1, 3, 3), padding=1)
    mean = functional.conv2d(x, torch.ones(5, 1, 3, 3), padding=1, groups=5) / counts
    expected = torch.cat(
        [
            plain(x, state, "branch1x1"),
            plain(plain(x, state, "branch5x5_1"), state, "branch5x5_2", (2, 2)),
            plain(double, state, "branch3x3dbl_3", (1, 1)),
            plain(mean, state, "branch_pool"),
        ],
        1,
    )
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("pool", [average_pool, max_pool])
def test_last_block_equals_a_plain_one(pool: object) -> None:
    assert callable(pool)
    block = randomise(BlockE(4, pool))
    state = block.state_dict()
    x = torch.rand(1, 4, 5, 6, generator=torch.Generator().manual_seed(5))
    single = plain(x, state, "branch3x3_1")
    double = plain(plain(x, state, "branch3x3dbl_1"), state, "branch3x3dbl_2", (1, 1))
    counts = functional.conv2d(torch.ones(1, 1, 5, 6), torch.ones(1, 1, 3, 3), padding=1)
    pooled = functional.conv2d(x, torch.ones(4, 1, 3, 3), padding=1, groups=4) / counts
    if pool is max_pool:
        pooled = functional.pad(x, (1, 1, 1, 1), value=-9.0).unfold(2, 3, 1).unfold(3, 3, 1).amax((4, 5))
    expected = torch.cat(
        [
            plain(x, state, "branch1x1"),
            plain(single, state, "branch3x3_2a", (0, 1)),
            plain(single, state, "branch3x3_2b", (1, 0)),
            plain(double, state, "branch3x3dbl_3a", (0, 1)),
            plain(double, state, "branch3x3dbl_3b", (1, 0)),
            plain(pooled, state, "branch_pool"),
        ],
        1,
    )
    torch.testing.assert_close(block(x), expected)


def test_names_and_size() -> None:
    """Sum over the paper's table; with the running statistics it fills the published file of 95,628,359 bytes."""
    network = InceptionV3()
    assert sum(parameter.numel() for parameter in network.parameters()) == 23_850_960
    state = network.state_dict()
    stored = sum(4 * tensor.numel() for tensor in state.values() if tensor.is_floating_point())
    assert 0 < 95_628_359 - stored < 100_000
    units = [name for name, module in network.named_modules() if isinstance(module, BasicConv2d)]
    assert len(units) == 94
    some = {
        "Conv2d_1a_3x3.conv.weight": (32, 3, 3, 3),
        "Mixed_5b.branch5x5_2.conv.weight": (64, 48, 5, 5),
        "Mixed_6a.branch3x3dbl_3.bn.running_var": (96,),
        "Mixed_6c.branch7x7dbl_5.conv.weight": (192, 160, 1, 7),
        "Mixed_7a.branch7x7x3_4.conv.weight": (192, 192, 3, 3),
        "Mixed_7c.branch3x3_2b.conv.weight": (384, 384, 3, 1),
        "fc.weight": (1008, 2048),
    }
    assert {name: tuple(state[name].shape) for name in some} == some
    assert network.get_submodule("Mixed_7b").pool is average_pool
    assert network.get_submodule("Mixed_7c").pool is max_pool


def test_features_of_many_frames_equal_those_of_few() -> None:
    torch.manual_seed(0)
    network = InceptionV3()
    x = 2 * torch.rand(18, 3, 75, 75, generator=torch.Generator().manual_seed(6)) - 1
    found = network(x)
    assert found.shape == (18, 2048)
    torch.testing.assert_close(network(x[16:]), found[16:], rtol=0, atol=1e-6)


def test_preparation() -> None:
    rng = np.random.default_rng(0)
    clip = rng.integers(0, 256, (2, 598, 598), dtype=np.uint8)
    found = prepare(clip)
    assert found.shape == (2, 3, 299, 299)
    expected = torch.from_numpy(clip.reshape(2, 299, 2, 299, 2).mean((2, 4)) / 127.5 - 1).float()
    torch.testing.assert_close(found[:, 1], expected, rtol=0, atol=1e-5)
    with pytest.raises(InputError, match="FID got a clip"):
        prepare(np.zeros((2, 8, 8)))
