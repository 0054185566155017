from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from us_i2v.errors import InputError
from us_i2v.metrics.i3d import (
    I3D,
    LEAST_FRAMES,
    Mixed,
    Pool3D,
    Unit3D,
    pad_same,
    prepare_dt,
    prepare_styleganv,
    prepare_videogpt,
)

from .fake_publishers import i3d

Array = np.ndarray


def random_unit(channels: int, width: int, kernel: int, stride: int = 1, seed: int = 0) -> Unit3D:
    torch.manual_seed(seed)
    unit = Unit3D(channels, width, (kernel,) * 3, (stride,) * 3).eval()
    assert unit.bn is not None
    for part in (unit.bn.weight, unit.bn.running_var):
        assert part is not None
        part.data.uniform_(0.5, 1.5)
    for part in (unit.bn.bias, unit.bn.running_mean):
        assert part is not None
        part.data.normal_()
    return unit.requires_grad_(False)


def places(size: int, kernel: int, stride: int) -> list[list[tuple[int, int]]]:
    """TensorFlow's "same", position by position: (input index, kernel index) that each output sees."""
    count = math.ceil(size / stride)
    before = max((count - 1) * stride + kernel - size, 0) // 2
    return [
        [(o * stride - before + k, k) for k in range(kernel) if 0 <= o * stride - before + k < size]
        for o in range(count)
    ]


def slow_unit(x: Array, unit: Unit3D) -> Array:
    """Convolution, batch norm and ReLU of one clip (C, T, H, W), element by element in float64."""
    weight = unit.conv3d.weight.double().numpy()
    axes = [places(n, k, s) for n, k, s in zip(x.shape[1:], unit.kernel, unit.stride, strict=True)]
    out = np.zeros((len(weight), *(len(axis) for axis in axes)))
    for t, h, w in np.ndindex(*out.shape[1:]):
        for (i, a), (j, b), (k, c) in itertools.product(axes[0][t], axes[1][h], axes[2][w]):
            out[:, t, h, w] += weight[:, :, a, b, c] @ x[:, i, j, k]
    norm = unit.bn
    assert norm is not None
    assert norm.running_var is not None
    assert norm.running_mean is not None
    mean, variance, scale, shift = (
        v.double().numpy().reshape(-1, 1, 1, 1) for v in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    return np.maximum((out - mean) / np.sqrt(variance + 1e-5) * scale + shift, 0)


def slow_pool(x: Array, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Array:
    axes = [places(n, k, s) for n, k, s in zip(x.shape[1:], kernel, stride, strict=True)]
    out = np.zeros((len(x), *(len(axis) for axis in axes)))
    for t, h, w in np.ndindex(*out.shape[1:]):
        index = np.ix_(*([i for i, _ in axis[o]] for axis, o in zip(axes, (t, h, w), strict=True)))
        out[:, t, h, w] = x[(slice(None), *index)].reshape(len(x), -1).max(1)
    return out


def clip_like(*shape: int, seed: int = 1) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (2, 2), (3, 1), (3, 2), (7, 2)])
@pytest.mark.parametrize("size", [4, 5, 7, 8])
def test_same_padding_as_tensorflow_has_it(size: int, kernel: int, stride: int) -> None:
    """All sides differ, so that a mix-up of axes would show."""
    x = clip_like(1, 2, size, size + 1, size + 2)
    padded = pad_same(x, (kernel,) * 3, (stride,) * 3)
    for n, total in zip(x.shape[2:], padded.shape[2:], strict=True):
        assert (total - kernel) // stride + 1 == math.ceil(n / stride)
    unit = random_unit(2, 3, kernel, stride)
    np.testing.assert_allclose(unit(x)[0].numpy(), slow_unit(x[0].double().numpy(), unit), atol=1e-5)
    found = Pool3D((kernel,) * 3, (stride,) * 3)(x)[0].numpy()
    np.testing.assert_allclose(found, slow_pool(x[0].numpy(), (kernel,) * 3, (stride,) * 3))


def test_odd_padding_goes_behind() -> None:
    x = torch.ones(1, 1, 4, 4, 4)
    assert pad_same(x, (3, 3, 3), (2, 2, 2))[0, 0, 0, 0].tolist() == [1, 1, 1, 1, 0]


def test_mixed_block_equals_a_slow_one() -> None:
    block = Mixed(3, (2, 3, 4, 1, 2, 3))
    for seed, (name, unit) in enumerate(block.named_children()):
        if isinstance(unit, Unit3D):
            made = random_unit(unit.conv3d.in_channels, unit.conv3d.out_channels, unit.kernel[0], seed=seed)
            setattr(block, name, made)
    x = clip_like(1, 3, 3, 4, 5)
    y = x[0].double().numpy()
    pooled = slow_pool(y, (3, 3, 3), (1, 1, 1))
    expected = np.concatenate(
        [
            slow_unit(y, block.b0),
            slow_unit(slow_unit(y, block.b1a), block.b1b),
            slow_unit(slow_unit(y, block.b2a), block.b2b),
            slow_unit(pooled, block.b3b),
        ]
    )
    np.testing.assert_allclose(block.eval()(x)[0].numpy(), expected, atol=1e-5)


@pytest.mark.parametrize(("classes", "parameters"), [(400, 12_697_264), (18, 12_305_714)])
def test_names_and_size_are_those_published(classes: int, parameters: int) -> None:
    network = I3D(classes)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    own = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert own == {name: tuple(tensor.shape) for name, tensor in i3d(classes).items()}


def test_shapes_and_logits() -> None:
    """Logits are linear in the pooled features: no softmax, no normalisation."""
    torch.manual_seed(0)
    network = I3D()
    x = 2 * clip_like(2, 3, LEAST_FRAMES, 224, 224) - 1
    pooled, logits = network.pooled(x), network(x)
    assert pooled.shape == (2, 1024, 1)
    weight, bias = network.logits.conv3d.weight.reshape(400, 1024), network.logits.conv3d.bias
    assert bias is not None
    torch.testing.assert_close(logits, pooled[..., 0] @ weight.T + bias, rtol=1e-4, atol=1e-5)
    longer = torch.cat([x[:1], x[:1, :, :8]], 2)
    assert network.pooled(longer).shape == (1, 1024, 2)
    torch.testing.assert_close(network.pooled_mean(longer), network.pooled(longer).mean(2))


def test_videogpt_preparation_by_hand() -> None:
    rng = np.random.default_rng(0)
    clip = rng.integers(0, 256, (9, 448, 600), dtype=np.uint8)  # The shorter side is halved: means of two by two.
    halved = clip.reshape(9, 224, 2, 300, 2).mean((2, 4))
    found = prepare_videogpt(clip)
    assert found.shape == (1, 3, 9, 224, 224)
    expected = torch.from_numpy(halved[:, :, 38:262] / 127.5 - 1).float()
    for channel in range(3):
        torch.testing.assert_close(found[0, channel], expected, rtol=0, atol=1e-5)
    tall = prepare_videogpt(np.ascontiguousarray(clip.transpose(0, 2, 1)))
    torch.testing.assert_close(tall, found.transpose(3, 4), rtol=0, atol=1e-5)


def test_styleganv_preparation_keeps_size_and_range() -> None:
    clip = np.full((9, 30, 40), 255, np.uint8)
    found = prepare_styleganv(clip)
    assert found.shape == (1, 3, 9, 30, 40)
    assert found.unique().tolist() == [255]


def test_dt_preparation_takes_16_frames_and_keeps_corners() -> None:
    clip = np.zeros((20, 60, 70), np.uint8)
    clip[15, 0, 0], clip[16:] = 255, 7
    found = prepare_dt(clip)
    assert found.shape == (1, 3, 16, 224, 224)
    assert found[0, :, 15, 0, 0].tolist() == [1, 1, 1]
    assert found[0, :, :, -1].unique().tolist() == [-1]


@pytest.mark.parametrize(
    ("prepare", "frames", "least"), [(prepare_videogpt, 8, 9), (prepare_styleganv, 8, 9), (prepare_dt, 15, 16)]
)
def test_too_few_frames(prepare: object, frames: int, least: int) -> None:
    assert callable(prepare)
    with pytest.raises(InputError, match=rf"FVD got a clip of {frames} frames, needs at least {least}"):
        prepare(np.zeros((frames, 32, 32), np.uint8))
