"""Checks of rates in periodic energies: both ways round a ring count, whatever the place at which the period is cut."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.integrate import cumulative_trapezoid
from scipy.sparse import coo_array
from scipy.sparse.linalg import eigsh

import landscape
from landscape.checks import AGREES, DOUBTFUL, CheckOptions, Checks
from landscape.dynamics import Dynamics
from landscape.energy import Energy, Periodic
from landscape.plots import plot_committor
from landscape.rates import Cores, PassageOptions, grid_generator, make_cores, simulate_passages
from landscape.search import MinimaSearch, SaddleSearch

TURN = 2 * math.pi
SMALL = landscape.AnalysisConfig(
    minima=MinimaSearch(n_starts=100), saddles=SaddleSearch(sweep=200), weights=None, exact=None
)


def wells(x: np.ndarray | torch.Tensor) -> np.ndarray | torch.Tensor:
    """Two wells on a circle, and two passes between them: 1 and 1.4 above the higher well."""
    cos = torch.cos if isinstance(x, torch.Tensor) else np.cos
    return cos(2 * x) + 0.3 * cos(x - 0.5)


def ring(shift: float = 0.0) -> Energy:
    return Energy(lambda x: wells(x[:, 0] - shift), 1, symmetry=Periodic((TURN,)))


def checked(energy: Energy, dynamics: Dynamics) -> tuple[landscape.Analysis, Checks]:
    analysis = landscape.analysis.check(landscape.analyze(energy, dynamics, SMALL), energy, CheckOptions(budget=20.0))
    assert analysis.checks is not None
    return analysis, analysis.checks


def exact_rates(beta: float, gamma: float, cores: Cores, ways: int = 2) -> tuple[float, float]:
    """k_01 and k_10 between two cores of the ring by quadrature: the flux is D / Z (1 / R_A + 1 / R_B), with R the
    integral of exp(beta E) over either arc between the cores; a state's population is the integral of its committor,
    which is linear in R along each arc. ways = 1: one of the arcs only, which is wrong."""
    center, half = cores.center[:, 0], cores.form[:, 0, 0] ** -0.5
    flux, population, z = 0.0, np.zeros(2), 0.0
    for a in (0, 1):
        inside = np.linspace(center[a] - half[a], center[a] + half[a], 4001)
        mass = np.trapezoid(np.exp(-beta * wells(inside)), inside)
        start = center[a] + half[a]
        arc = np.linspace(start, start + np.mod(center[1 - a] - half[1 - a] - start, TURN), 40001)
        resistance = cumulative_trapezoid(np.exp(beta * wells(arc)), arc, initial=0.0)
        density, done = np.exp(-beta * wells(arc)), resistance / resistance[-1]
        population[a] += mass + np.trapezoid((1 - done) * density, arc)
        population[1 - a] += np.trapezoid(done * density, arc)
        z += mass + np.trapezoid(density, arc)
        flux += 1 / resistance[-1] if a < ways else 0.0
    return tuple(flux / (beta * gamma) / population)


def slowest(beta: float, gamma: float, n: int = 2000) -> float:
    """The second eigenvalue of the ring's generator: n cells, hops at rates D / h^2 exp(beta (E_a - E_b) / 2)."""
    x = np.arange(n) * TURN / n
    root = np.exp(-0.5 * beta * wells(x))
    up = (n / TURN) ** 2 / (beta * gamma)
    at, leave = np.arange(n), up * (np.roll(root, -1) + np.roll(root, 1)) / root
    rows = np.concatenate([at, at, (at + 1) % n])
    columns = np.concatenate([at, (at + 1) % n, at])
    matrix = coo_array((np.concatenate([leave, np.full(2 * n, -up)]), (rows, columns)), shape=(n, n)).tocsc()
    return float(np.sort(eigsh(matrix, k=2, sigma=-1e-7)[0])[1])


@pytest.mark.parametrize("shift", [0.0, 1.6, 4.7])  # the period is cut at 0: through a pass, a well, the other well
def test_rates_on_a_ring_are_those_of_quadrature(shift: float) -> None:
    """At 7 and 10 kT the formula agrees; at 2 and 3 kT the check calls it doubtful, which it is by 20 %."""
    energy, gamma = ring(shift), 1.7
    for beta, verdict in ((5.0, AGREES), (1.5, DOUBTFUL)):
        dynamics = landscape.Overdamped(beta, gamma)
        analysis, checks = checked(energy, dynamics)
        assert checks.pairs.tolist() == [[0, 1], [1, 0]] and checks.method == ("grid", "grid")
        cores = make_cores(ring(), dynamics, analysis.states.x - shift, torch.Generator().manual_seed(0))
        exact = np.log(exact_rates(beta, gamma, cores))
        assert np.allclose(checks.log_reference, exact, atol=2e-4)
        one_way = np.log(exact_rates(beta, gamma, cores, ways=1))
        assert (exact - one_way > 0.2).all()
        assert checks.verdict == (verdict, verdict)
        assert (np.abs(checks.log_formula - exact) < 0.1).all() == (verdict == AGREES)
        assert checks.timescale_log_reference[0] == pytest.approx(math.log(slowest(beta, gamma)), abs=2e-4)


def test_inertia_on_a_ring() -> None:
    """The Klein-Kramers operator with its ends joined, at a friction so high that the ring is as good as overdamped:
    corrections are of the order m E'' / gamma^2 = 1 %."""
    energy, beta = ring(), 5.0
    analysis, checks = checked(energy, landscape.Underdamped(beta, 20.0, 1.0))
    cores = make_cores(energy, landscape.Overdamped(beta, 20.0), analysis.states.x, torch.Generator().manual_seed(0))
    assert checks.method == ("operator", "operator") and checks.verdict == (AGREES, AGREES)
    assert np.allclose(checks.log_reference, np.log(exact_rates(beta, 20.0, cores)), atol=0.03)


def test_a_tube_has_the_timescale_of_its_ring() -> None:
    """One angle and one length: of a sum of two energies the generator's slowest eigenvalue is the ring's."""
    energy = Energy(lambda x: wells(x[:, 1]) + 1.5 * x[:, 0] ** 2, 2, symmetry=Periodic((None, TURN)))
    analysis, checks = checked(energy, landscape.Overdamped(4.0))
    assert checks.method == ("grid", "grid") and checks.verdict == (AGREES, AGREES)
    assert checks.timescale_log_reference[0] == pytest.approx(math.log(slowest(4.0, 1.0)), abs=2e-3)
    drawn = plot_committor(analysis, energy, cells=60)
    at = [np.linalg.norm(drawn.points - x, axis=1).argmin() for x in drawn.minima]  # in the box, whatever their copies
    assert np.allclose(drawn.values[at], [0, 1]) and 0 <= drawn.values.min() < 0.01 and 0.99 < drawn.values.max() <= 1


def test_two_angles() -> None:
    """A torus: two states, four saddles of which two join a state to itself round the other angle. The committor to a
    state is the same on both sides of the cut."""

    def function(x: torch.Tensor) -> torch.Tensor:
        return wells(x[:, 0]) + 0.8 * torch.cos(x[:, 1]) + 0.2 * torch.cos(x[:, 0] - x[:, 1])

    energy = Energy(function, 2, symmetry=Periodic((TURN, TURN)))
    analysis, checks = checked(energy, landscape.Overdamped(5.0))
    assert len(analysis.states.energy) == 2 and len(analysis.saddles.energy) == 4
    assert checks.method == ("grid", "grid") and checks.verdict == (AGREES, AGREES)
    grid = grid_generator(
        energy, landscape.Overdamped(5.0), cells=60,
        cores=make_cores(energy, landscape.Overdamped(5.0), analysis.states.x, torch.Generator().manual_seed(0)),
    )  # fmt: skip
    assert grid.wraps == (True, True) and len(grid.edges) == 2 * len(grid.points)  # no cell has a wall
    ends = grid.box[:, 0] + 0.3
    assert np.array_equal(grid.cell_of(ends[None]), grid.cell_of(ends[None] + [TURN, -3 * TURN]))
    values = np.cos(grid.points[:, 0])
    edge = np.array([[grid.box[0, 0] + 0.01 * k, 1.0] for k in range(-6, 7)])
    assert np.allclose(grid.interpolate(values, edge), np.cos(edge[:, 0]), atol=2e-3)


def test_trajectories_that_go_either_way_round_are_counted() -> None:
    """Simulated passages against quadrature, five standard errors (chance: 1e-6). One way round alone would fail."""
    energy, dynamics = ring(), landscape.Overdamped(1.0)
    generator = torch.Generator().manual_seed(0)
    minima = np.array([[4.64881643], [1.63912905 + TURN]])
    cores = make_cores(energy, dynamics, minima, generator)
    options = PassageOptions(target_error=0.05, budget=30.0, trajectories=1000)
    found = simulate_passages(energy, dynamics, cores, generator, options).estimate
    exact = np.log(exact_rates(1.0, 1.0, cores))
    errors = np.log(found.rates[[0, 1], [1, 0]]) - exact
    relative = found.standard_error[[0, 1], [1, 0]] / found.rates[[0, 1], [1, 0]]
    assert (relative < 0.06).all() and (np.abs(errors) < 5 * relative).all()
    assert (exact - np.log(exact_rates(1.0, 1.0, cores, ways=1)) > 6 * relative).all()
