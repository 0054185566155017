"""The elastic field against closed forms: patch test, Eshelby's circular inclusion, incompressibility."""

import numpy as np
import pytest

from us_i2v.data.elasticity import ElasticSolver, at_centres, compress, strain
from us_i2v.errors import ConfigError


def disc_share(cells: int, radius: float) -> np.ndarray:
    """Share of each cell that a centred disc covers, (cells, cells)."""
    fine = (np.arange(cells * 8) + 0.5) / 8 - cells / 2
    inside = fine[:, None] ** 2 + fine[None] ** 2 < radius**2
    return inside.reshape(cells, 8, cells, 8).mean(axis=(1, 3))


@pytest.mark.parametrize("shape", [(12, 20), (20, 12)])
def test_homogeneous_tissue_strains_uniformly(shape):
    h = shape[0]
    nu = 0.45
    solver = ElasticSolver(np.full(shape, 3.0), poisson=nu, top="slip", bottom="slip")
    u = solver.solve(top_y=0.1 * h)[0]
    eps = strain(u)
    np.testing.assert_allclose(eps[1], -0.1, atol=1e-9)
    np.testing.assert_allclose(eps[0], 0.1 * nu / (1 - nu), atol=1e-9)  # plane strain, free sides
    np.testing.assert_allclose(eps[2], 0.0, atol=1e-9)


@pytest.mark.parametrize("ratio", [0.33, 0.5, 2.0, 5.0, 10.0])
def test_strain_ratio_and_divergence_of_a_circular_inclusion(ratio):
    cells, radius = 96, 8.0
    stiffness = ratio ** disc_share(cells, radius)
    solver = ElasticSolver(stiffness, top="slip", bottom="slip")
    eps = strain(solver.solve(top_y=0.01 * cells)[0])
    core = disc_share(cells, 0.7 * radius) == 1
    # Incompressible, plane strain, bonded: Eshelby's deviatoric factor is 1/2.
    assert eps[1][core].mean() / -0.01 == pytest.approx(2 / (1 + ratio), rel=0.05)
    assert eps[1][core].std() < 0.03 * abs(eps[1][core].mean())
    assert np.abs(eps[0] + eps[1]).mean() / 0.01 <= 0.02


def test_linear_field_is_reproduced_in_uneven_tissue_under_rigid_motion():
    stiffness = np.exp(np.random.default_rng(0).normal(size=(9, 14)))
    solver = ElasticSolver(stiffness, top="bonded", bottom="bonded")
    x = np.arange(15.0)
    angle = 0.01
    u = solver.solve(top_x=0.0, bottom_x=-9 * angle, top_y=angle * x, bottom_y=angle * x)[0]
    np.testing.assert_allclose(u[0], -angle * np.arange(10.0)[:, None] * np.ones(15), atol=1e-9)
    np.testing.assert_allclose(u[1], angle * x * np.ones((10, 1)), atol=1e-9)


def test_prescribed_edges_cases_and_superposition():
    stiffness = np.exp(0.5 * np.random.default_rng(1).normal(size=(10, 8)))
    solver = ElasticSolver(stiffness, top="bonded", bottom="bonded")
    tilt = np.linspace(-1, 1, 9)
    both = solver.solve(cases=2, top_y=np.stack([np.ones(9), tilt]), top_x=np.stack([0 * tilt, tilt]))
    assert both.shape == (2, 2, 11, 9)
    np.testing.assert_allclose(both[1, 0, 0], tilt, atol=1e-12)
    np.testing.assert_allclose(both[1, 1, 0], tilt, atol=1e-12)
    np.testing.assert_array_equal(both[:, :, -1], 0.0)
    summed = solver.solve(top_y=1 + tilt, top_x=tilt)[0]
    np.testing.assert_allclose(summed, both.sum(axis=0), atol=1e-10)
    # Only ratios of moduli matter.
    scaled = ElasticSolver(1000 * stiffness, top="bonded", bottom="bonded").solve(top_y=1 + tilt, top_x=tilt)[0]
    np.testing.assert_allclose(scaled, summed, atol=1e-9)


def test_transposed_problem_has_the_mirrored_answer():
    """The node numbering differs for wide and tall maps; mirroring a map left-right must mirror the field."""
    for shape in ((8, 13), (13, 8)):
        stiffness = np.exp(np.random.default_rng(2).normal(size=shape))
        u = ElasticSolver(stiffness).solve(top_y=1.0)[0]
        mirrored = ElasticSolver(stiffness[:, ::-1]).solve(top_y=1.0)[0]
        np.testing.assert_allclose(mirrored[0], -u[0][:, ::-1], atol=1e-9)
        np.testing.assert_allclose(mirrored[1], u[1][:, ::-1], atol=1e-9)


def test_no_locking_near_incompressibility():
    """Bonded tissue bulges the same for nu = 0.499 and 0.4999; a locking element would hardly move."""
    stiffness = np.ones((16, 24))
    bulge = [
        np.abs(ElasticSolver(stiffness, poisson=nu, top="bonded").solve(top_y=1.0)[0, 0, :, -1]).max()
        for nu in (0.49, 0.499, 0.4999)
    ]
    assert bulge[0] > 0.8
    assert bulge[2] == pytest.approx(bulge[1], rel=0.01)


def test_centres_and_compress():
    nodal = np.arange(6.0).reshape(1, 2, 3)
    np.testing.assert_allclose(at_centres(nodal), [[[2.0, 3.0]]])
    u = compress(np.ones((10, 10)), 1.0)
    assert u.shape == (2, 10, 10)
    np.testing.assert_allclose(u[1, :, 4], 1 - (np.arange(10) + 0.5) / 10, atol=1e-9)


@pytest.mark.parametrize(
    ("stiffness", "options"),
    [
        (np.ones(5), {}),
        (np.ones((1, 5)), {}),
        (np.zeros((5, 5)), {}),
        (np.full((5, 5), np.nan), {}),
        (np.ones((5, 5)), {"poisson": 0.5}),
    ],
)
def test_bad_tissue_is_refused(stiffness, options):
    with pytest.raises(ConfigError):
        ElasticSolver(stiffness, **options)


def test_lateral_motion_of_a_slipping_edge_is_refused():
    with pytest.raises(ConfigError, match="slips"):
        ElasticSolver(np.ones((5, 5)), top="slip").solve(top_x=1.0)
