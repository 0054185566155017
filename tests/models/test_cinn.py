"""The flow: exact inverse, exact log-determinants, data-dependent start, what it may be built over."""

from __future__ import annotations

import math

import pytest
import torch

from us_i2v.errors import ConfigError
from us_i2v.models.cinn import (
    ActNorm,
    AffineCoupling,
    CINNConfig,
    ConditionalFlow,
    Flow,
    FlowBlock,
    InvertibleLeakyReLU,
    latent_numbers,
    shuffle,
)
from us_i2v.models.conditioner import ConditionerConfig, StillDecoder, StillEncoder

SMALL = CINNConfig(
    blocks=3, hidden=12, depth=1, conditioner=ConditionerConfig(channels=6, size=32, widths=(8, 8)), slope=0.7
)


def excited(module: torch.nn.Module, seed: int = 0, by: float = 0.3) -> torch.nn.Module:
    """Move every parameter off its start, where couplings are at rest, and compute in float64."""
    generator = torch.Generator().manual_seed(seed)
    module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * by)
    return module


def draws(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def jacobian_log_det(function, x: torch.Tensor) -> torch.Tensor:
    """log |det| of a map (B, n) -> (B, n), sample by sample, by automatic differentiation."""
    out = []
    for row in x:
        jacobian = torch.autograd.functional.jacobian(lambda v: function(v[None])[0], row)
        out.append(torch.linalg.slogdet(jacobian).logabsdet)
    return torch.stack(out)


@pytest.mark.parametrize("numbers", [2, 5, 8])
def test_log_determinants_equal_those_of_the_jacobian(numbers):
    flow = excited(Flow(numbers, 4, SMALL))
    x, c = draws(3, numbers), draws(1, 4, seed=2)
    _, log_det = flow(x, c.expand(3, -1))
    expected = jacobian_log_det(lambda v: flow(v, c)[0], x)
    assert torch.allclose(log_det, expected, rtol=1e-10, atol=1e-10)
    assert float(log_det.detach().std()) > 1e-3


@pytest.mark.parametrize("layer", [ActNorm(5), InvertibleLeakyReLU(0.9), FlowBlock(5, 3, SMALL, 0)])
def test_every_layer_is_exact_by_itself(layer):
    layer = excited(layer)
    x, c = draws(4, 5), draws(4, 3, seed=3)
    given = (c,) if isinstance(layer, FlowBlock) else ()
    y, log_det = layer(x, *given)
    assert torch.allclose(layer.inverse(y, *given), x, atol=1e-12)
    for k in range(4):
        one = (c[k : k + 1],) if given else ()
        expected = jacobian_log_det(lambda v, one=one: layer(v, *one)[0], x[k : k + 1])
        assert torch.allclose(log_det[k : k + 1], expected, atol=1e-12)


def test_every_negative_number_counts_in_the_leaky_relu():
    y, log_det = InvertibleLeakyReLU(0.9)(torch.tensor([[-1.0, 2.0, -3.0], [1.0, 2.0, 3.0]]))
    assert torch.allclose(y, torch.tensor([[-0.9, 2.0, -2.7], [1.0, 2.0, 3.0]]))
    assert log_det.tolist() == pytest.approx([2 * math.log(0.9), 0.0])


def test_coupling_leaves_its_first_half_alone():
    coupling = excited(AffineCoupling(2, 3, 4, SMALL))
    a, b, c = draws(6, 2), draws(6, 3, seed=4), draws(6, 4, seed=5)
    moved, _ = coupling(a, b, c)
    assert not torch.allclose(moved, b)
    assert torch.allclose(coupling.inverse(a, moved, c), b, atol=1e-12)
    other, _ = coupling(a, b, c + 1)
    assert not torch.allclose(moved, other)


@pytest.mark.parametrize("shape", [(8, 1, 1, 1), (3, 2, 2, 1), (64, 1, 1, 1)])
def test_inverse_undoes_forward(shape):
    network = excited(ConditionalFlow(SMALL.model_copy(update={"blocks": 20}), shape), by=0.1)
    z = draws(5, *shape)
    condition = draws(5, 6 + 32, seed=2)
    noise, _ = network(z, condition)
    assert noise.shape == z.shape
    assert torch.allclose(network.inverse(noise, condition), z, atol=1e-8)
    single = network.float().inverse(noise.float(), condition.float())
    assert torch.allclose(single, z.float(), atol=2e-2)


def test_density_integrates_to_one():
    """Two numbers, on a grid: only with right log-determinants is the sum of exp(-nll) one."""
    torch.manual_seed(3)
    network = excited(ConditionalFlow(SMALL.model_copy(update={"interval": False}), (2, 1, 1, 1)), by=0.1)
    axis = torch.linspace(-16, 16, 641, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis).reshape(-1, 2, 1, 1, 1)
    condition = draws(1, 6, seed=9).expand(len(grid), -1)
    with torch.no_grad():
        density = torch.exp(-2 * network.nll(grid, condition))
    assert float(density.sum() * (axis[1] - axis[0]) ** 2) == pytest.approx(1, abs=2e-3)


def test_learns_a_distribution_that_depends_on_the_condition():
    """x = 2 c + correlated noise: the likelihood reaches the known entropy, samples the known moments."""
    torch.manual_seed(0)
    config = SMALL.model_copy(update={"blocks": 2, "hidden": 24, "slope": 0.9})
    flow = Flow(2, 1, config)
    mix = torch.tensor([[1.0, 0.0], [0.9, 0.3]])

    def data(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        c = torch.randn(count, 1)
        return 2 * c + torch.randn(count, 2) @ mix.T, c

    def nll(x: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        u, log_det = flow(x, c)
        return (0.5 * u.square().sum(1) - log_det + math.log(2 * math.pi)).mean()

    flow.set_from(*data(512))
    optimiser = torch.optim.Adam(flow.parameters(), lr=1e-2)
    for step in range(150):
        optimiser.param_groups[0]["lr"] = 1e-2 * (1 - step / 150)
        optimiser.zero_grad()
        nll(*data(256)).backward()
        optimiser.step()
    entropy = 1 + math.log(2 * math.pi) + math.log(float(torch.linalg.det(mix)))
    with torch.no_grad():
        assert float(nll(*data(4096))) == pytest.approx(entropy, abs=0.06)
        c = torch.full((4096, 1), 0.5)
        x = flow.inverse(torch.randn(4096, 2), c)
    assert torch.allclose(x.mean(0), torch.ones(2), atol=0.1)
    assert torch.allclose(torch.cov(x.T), mix @ mix.T, atol=0.12)


def test_first_batch_gives_every_block_standard_input():
    flow = Flow(6, 4, SMALL).double()
    x = draws(200, 6) * torch.arange(1.0, 7.0) + 3
    c = draws(200, 4, seed=2)
    flow.set_from(x, c)
    inside = x
    for block in flow.blocks:
        normed, _ = block.norm(inside)
        assert torch.allclose(normed.mean(0), torch.zeros(6, dtype=torch.float64), atol=1e-9)
        assert torch.allclose(normed.std(0, correction=0), torch.ones(6, dtype=torch.float64), atol=1e-9)
        inside, _ = block(inside, c)
    again = Flow(6, 4, SMALL).double()
    again.load_state_dict({**again.state_dict(), **{k: v for k, v in flow.state_dict().items() if "norm" in k}})
    assert torch.equal(again(x, c)[0], flow(x, c)[0])  # couplings start at rest


def test_a_constant_number_stays_finite():
    norm = ActNorm(2)
    norm.set_from(torch.tensor([[1.0, 5.0], [2.0, 5.0]]))
    assert torch.isfinite(norm(torch.tensor([[1.0, 5.1]]))[0]).all()


def test_shuffles_are_fixed_and_differ_by_block():
    assert shuffle(8, 0, 0).tolist() == [5, 4, 0, 2, 7, 3, 6, 1]  # weights depend on it: it must never change
    orders = [tuple(shuffle(16, 0, k).tolist()) for k in range(5)]
    assert len(set(orders)) == 5
    assert all(sorted(order) == list(range(16)) for order in orders)
    assert tuple(shuffle(16, 1, 0).tolist()) != orders[0]


def test_interval_is_a_condition_with_an_unknown_value():
    network = ConditionalFlow(SMALL, (4, 1, 1, 1))
    code = torch.zeros(2, 6)
    known = network.condition(code, torch.tensor([0.05, 0.1]))
    assert known.shape == (2, 6 + 32)
    assert not torch.allclose(known[0], known[1])
    unknown = network.condition(code, torch.tensor([torch.nan, 0.1]))
    assert torch.equal(unknown[0], network.condition(code, None)[0])
    without = ConditionalFlow(SMALL.model_copy(update={"interval": False}), (4, 1, 1, 1))
    assert torch.equal(without.condition(code, torch.tensor([0.05, 0.1])), code)


@pytest.mark.parametrize(("shape", "count"), [((8, 2, 16, 17), 4352), ((1, 1, 1, 1), 1)])
def test_latents_that_do_not_fit_are_refused(shape, count):
    with pytest.raises(ConfigError, match=rf"{count} numbers.*latent_mode=vector"):
        ConditionalFlow(SMALL, shape)


def test_a_map_of_4096_numbers_is_flattened():
    assert latent_numbers((8, 2, 16, 16)) == 4096


@pytest.mark.parametrize("side", [32, 48, 20])
def test_conditioner_reads_any_square(side):
    config = ConditionerConfig(channels=6, size=32, widths=(8, 16))
    code = StillEncoder(config)(torch.rand(2, 1, side, side))
    assert code.shape == (2, 6)
    painted = StillDecoder(config)(code)
    assert painted.shape == (2, 1, 32, 32)
    assert float(painted.detach().min()) >= 0
    assert float(painted.detach().max()) <= 1
