"""Gradient flows at one gradient a step: against closed forms, a stiff integrator of scipy's, and published saddles."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from landscape.energy import Energy, load_energy
from landscape.errors import UsageError
from landscape.search import MinimaSearch, SaddleSearch, find_minima, find_saddles
from landscape.search.driver import Status
from landscape.search.particle_saddles import ParticleRounds
from landscape.search.particles import settled_clouds
from landscape.search.saddles import EigenvectorFollowing, follow_eigenvectors
from landscape.search.stationary import Catalogue
from landscape.search.updated_flow import phi_2, updated_flow

SADDLES_7 = [
    -15.44473380, -15.31986444, -15.28342128, -15.09784565, -15.03338435, -15.02643811, -14.81639980, -14.81112965,
    -14.59694571, -14.56806144, -14.54857294, -12.54893771,
]  # fmt: skip

Beside = tuple[Energy, torch.Tensor, torch.Tensor, float]


def test_a_quadratic_of_any_stiffness() -> None:
    """log x_i / lambda_i is the same for all modes along an exact flow, and a stiffness of 1e6 shortens no step."""
    curvature = torch.tensor([1.0, 1.5, 1e3, 1e6], dtype=torch.float64)
    energy = Energy(lambda x: 0.5 * (curvature * x.square()).sum(1), 4)
    start = torch.tensor([[2.0, 1.0, -1.0, 1.0], [-1.0, 0.5, 0.5, 0.2]], dtype=torch.float64)
    ended = updated_flow(energy, start, energy.hessian(start), 1.0)
    assert (ended["status"] == Status.CONVERGED).all() and int(ended["iterations"].max()) < 80
    time = -torch.log(ended["x"][:, :2] / start[:, :2]) / curvature[:2]
    assert torch.allclose(time[:, 0], time[:, 1], rtol=1e-4)
    assert (ended["x"][:, 2:].abs() < 1e-12).all() and (ended["x"][:, 0].abs() < 0.1).all()


def test_phi_2() -> None:
    t, c = torch.tensor([0.5, 2.0, 1e-9, 3.0]), torch.tensor([2.0, -1.5, 1.0, 0.0])
    z = -(t * c).double()[:2]
    exact = t[:2] * (torch.exp(z) - 1 - z) / z**2
    assert torch.allclose(phi_2(t.double(), c.double())[:2], exact.double(), rtol=1e-12)
    assert torch.allclose(phi_2(t.double(), c.double())[2:], 0.5 * t[2:].double(), rtol=1e-8)


@pytest.fixture(scope="module")
def beside_saddles() -> Beside:
    """Points beside both sides of saddles of six atoms, the saddles' Hessians, and the spacing of atoms."""
    energy = load_energy("potential:lennard-jones:n=6")
    catalogue, generator = Catalogue(energy), torch.Generator().manual_seed(0)
    minima = find_minima(energy, MinimaSearch(n_starts=50), generator=generator, catalogue=catalogue)
    rounds = ParticleRounds(energy, catalogue, minima, generator, SaddleSearch(), lambda text: None)
    rounds._walk(settled_clouds(energy, rounds.radius, 60, generator))
    x, hessian = rounds.sides(rounds.numbers(1))
    return energy, x, hessian, rounds.spacing


def test_the_way_down_from_saddles_is_that_of_a_stiff_integrator(beside_saddles: Beside) -> None:
    """Radau with exact Hessians, tolerance 1e-7: the largest distance from its path, for less than 40 gradients. The
    straight line between the ends is not as near."""
    energy, x, hessian, spacing = beside_saddles
    assert len(x) >= 4
    evaluations = energy.evaluations.gradient
    ended = updated_flow(energy, x, hessian, spacing, traced=True)
    assert energy.evaluations.gradient - evaluations < 40 * len(x) and (ended["status"] == Status.CONVERGED).all()
    off, straight = [], []
    for start, trace in zip(x.numpy(), ended["trace"].numpy(), strict=True):
        solution = solve_ivp(
            lambda t, y: -energy.gradient(y[None])[0], (0, 30), start, "Radau", rtol=1e-7, atol=1e-9,
            jac=lambda t, y: -energy.hessian(y[None])[0], dense_output=True,
        )  # fmt: skip
        way = solution.sol(np.geomspace(1e-5, 30, 4000)).T
        off.append(np.linalg.norm(trace[:, None] - way[None], axis=2).min(1).max())
        chord = trace[0] + np.linspace(0, 1, 64)[:, None] * (trace[-1] - trace[0])
        straight.append(np.linalg.norm(chord[:, None] - way[None], axis=2).min(1).max())
    assert max(off) < 0.02 * spacing < 0.06 * spacing < max(straight)


def test_rows_do_not_depend_on_their_neighbours(beside_saddles: Beside) -> None:
    energy, x, hessian, spacing = beside_saddles
    whole, alone = updated_flow(energy, x, hessian, spacing), updated_flow(energy, x[1:2], hessian[1:2], spacing)
    assert torch.allclose(whole["x"][1:2], alone["x"], atol=1e-10)


def test_walks_with_products_reach_saddles_for_less() -> None:
    """From 300 clouds of seven atoms: all that arrive are published saddles, each at less than eight tenths of what it
    costs with exact Hessians, and about as many arrive. (Of 100 clouds the ratio is between .48 and .80.)"""
    energy = load_energy("potential:lennard-jones:n=7")
    x = settled_clouds(energy, 1.2, 300, torch.Generator().manual_seed(0))
    far = torch.full((21,), 4.0, dtype=x.dtype)
    one = torch.ones(len(x), dtype=torch.long)
    arrived, costs = [], []
    for options in (EigenvectorFollowing(max_iterations=120), EigenvectorFollowing(max_iterations=120, products=2)):
        before = energy.evaluations.gradient_equivalents(21)
        ended = follow_eigenvectors(energy, x, one, 2.2, (-far, far), options)
        costs.append(energy.evaluations.gradient_equivalents(21) - before)
        catalogue = Catalogue(energy)
        at = catalogue.add(ended["x"][ended["status"] == Status.CONVERGED])
        found = catalogue.points()
        saddles = at[found.index[at] == 1]
        arrived.append(len(saddles))
        assert np.abs(found.energy[saddles][:, None] - np.array(SADDLES_7)).min(1).max() < 1e-7
    assert costs[1] / arrived[1] < 0.8 * costs[0] / arrived[0] and arrived[1] > 0.8 * arrived[0] > 60


def test_fewer_modes_than_products_take_whole_hessians() -> None:
    """Three atoms have three modes. The triangle is their one minimum; on a line they bend two ways: no saddle."""
    energy = load_energy("potential:lennard-jones:n=3")
    minima = find_minima(energy, MinimaSearch(n_starts=50))
    found = find_saddles(energy, minima, SaddleSearch(sweep=200), generator=torch.Generator().manual_seed(0))
    assert found.complete and np.allclose(found.minima.energy, [-3]) and not len(found.saddles)
    with pytest.raises(UsageError, match="products"):
        EigenvectorFollowing(products=-1)
