"""The generator on a grid against quadrature, published eigenvalues and rates, and closed forms."""

from __future__ import annotations

import dataclasses
import resource
import time

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from landscape.dynamics import Overdamped, Underdamped
from landscape.energy import Energy, load_energy
from landscape.errors import UnsupportedError, UsageError
from landscape.rates import (
    GridGenerator,
    committors,
    core_rates,
    discs,
    eigenvalues,
    find_box,
    grid_generator,
    make_cores,
    mean_passage_times,
    reference_rates,
    reference_spectrum,
    relaxation_rates,
)
from landscape.rates.grid import bernoulli, symmetric_bernoulli
from landscape.rates.grid_rates import extrapolate, extrapolate_with_error

TRIPLE_WELL_BOX = [[-2, 2], [-1.5, 2.5]]
MULLER_BROWN_WELLS = [[-0.558223634633, 1.441725841805], [0.6234994049309, 0.02803775852869]]
# eps: tau(-1 -> 0), tau(-1 -> 1), smallest nonzero eigenvalue, for E = x^4/4 - x^2/2
PASSAGES = {
    0.25: (5.74343706804, 14.2777366365, 0.187170418086),
    0.1: (30.8213024727, 66.2686263649, 0.0335452873082),
    0.05: (361.903759501, 729.670691942, 0.0027761406371),
    0.025: (51050.7025086, 102108.365457, 1.95892733e-05),
}


def double_well() -> Energy:
    return load_energy("potential:double-well")


def double_well_value(x: float) -> float:
    return x**4 / 4 - x**2 / 2


def generator_of(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("beta", "second", "third"),
    [
        (1.67, 0.08139241881, 0.7547232942),
        (2, 0.03665150374, 0.6025178914),
        (4, 2.614929325e-4, 0.1883418223),
        (6.67, 3.653381e-7, 0.04603644),
    ],
)
def test_triple_well_eigenvalues(beta: float, second: float, third: float) -> None:
    energy = load_energy("potential:triple-well")
    found = reference_spectrum(energy, Overdamped(beta), 2, box=TRIPLE_WELL_BOX, cells=160)
    assert found.converged and found.reason == ""
    assert found.eigenvalues == pytest.approx([second, third], rel=1e-4)
    assert (np.abs(found.eigenvalues - [second, third]) <= found.error).all()
    # one grid alone would not do
    assert np.abs(found.fine / [second, third] - 1).max() > 1e-4


@pytest.mark.parametrize(("beta", "rate"), [(1 / 10, 0.0050453), (1 / 15, 0.14641), (1 / 20, 0.7406)])
def test_muller_brown_rates_between_discs(beta: float, rate: float) -> None:
    energy = load_energy("potential:muller-brown")
    found = reference_rates(energy, Overdamped(beta), discs(MULLER_BROWN_WELLS, 0.15), cells=200)
    assert found.converged
    assert found.rates[0, 1] == pytest.approx(rate, rel=0.01)
    # detailed balance, and an error estimate that is neither vain nor useless
    flux = found.populations[:, None] * found.rates
    assert flux[0, 1] == pytest.approx(flux[1, 0], rel=1e-3)
    assert found.error[0, 1] < 1e-3 * found.rates[0, 1]
    assert found.populations.sum() == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("eps", PASSAGES)
def test_passage_times_and_eigenvalue_in_one_dimension(eps: float) -> None:
    energy, dynamics = double_well(), Overdamped(1 / eps)
    middle, end, eigenvalue = PASSAGES[eps]
    found = reference_spectrum(energy, dynamics, 1, box=[[-3, 3]], cells=1000)
    assert found.eigenvalues[0] == pytest.approx(eigenvalue, rel=1e-6)
    # everything right of 0, or of 1
    for target, expected in ((discs([[50.0]], 50.0), middle), (discs([[50.0]], 49.0), end)):
        times = []
        for cells in (1500, 1000):
            grid = grid_generator(energy, dynamics, box=[[-3, 3]], cells=cells)
            times.append(grid.interpolate(mean_passage_times(grid, target), np.array([[-1.0]])))
        assert extrapolate(times[1], times[0], 1.5)[0] == pytest.approx(expected, rel=1e-5)


def test_box_is_found_and_cores_are_used_without_being_told() -> None:
    """Same answer as in a box given by hand; cores of the definition, and friction as a pure time scale."""
    energy = double_well()
    dynamics = Overdamped(20.0, gamma=4.0)
    cores = make_cores(energy, dynamics, np.array([[-1.0], [1.0]]), generator_of())
    box, bound = find_box(energy, 20.0, cores)
    assert bound == pytest.approx(20 + 20 * 0.25, abs=0.2)
    reduced = 20 * (energy.value(box.T) + 0.25)
    assert (reduced > bound).all() and np.abs(box).max() < 3
    found = reference_rates(energy, dynamics, cores)
    by_hand = reference_rates(energy, Overdamped(20.0), cores, box=[[-2.4, 2.4]], cells=1500)
    assert 4 * found.rates[0, 1] == pytest.approx(by_hand.rates[0, 1], rel=1e-6)
    # one core-to-core formula in one dimension: k = J / int q dpi, from quadrature
    a, b = -1 + 1 / np.sqrt(40.0), 1 - 1 / np.sqrt(40.0)
    resistance = quad(lambda x: np.exp(20 * double_well_value(x)), a, b, epsrel=1e-12)[0]
    mass = quad(lambda x: np.exp(-20 * double_well_value(x)), -3, 3, points=[-1, 1], epsrel=1e-12)[0]
    exact = 1 / (20 * resistance) / (0.5 * mass)  # the wells are mirror images: int q dpi = 1/2
    assert by_hand.rates[0, 1] == pytest.approx(exact, rel=1e-6)


def test_committor_closed_form() -> None:
    """q(x) = int_a^x exp(beta E) / int_a^b exp(beta E) between the intervals' ends a, b."""
    grid = grid_generator(double_well(), Overdamped(10.0), box=[[-2.5, 2.5]], cells=1201)
    q = committors(grid, discs([[-1.1], [0.9]], [0.37, 0.23]))
    a, b = -1.1 + 0.37, 0.9 - 0.23
    total = quad(lambda x: np.exp(10 * double_well_value(x)), a, b)[0]
    for x in (-0.5, -0.1, 0.2, 0.6):
        exact = quad(lambda y: np.exp(10 * double_well_value(y)), a, x)[0] / total
        assert grid.interpolate(q[:, 1], np.array([[x]]))[0] == pytest.approx(exact, abs=2e-6)
    assert q.sum(axis=1) == pytest.approx(1, abs=1e-10)


def test_curved_surfaces_are_met_with_second_order() -> None:
    """Mean time to a disc in the middle of a square with reflecting walls: the error falls by 4 when h is halved."""
    flat = Energy(lambda x: 0.0 * x[:, 0], 2)
    errors = []
    for cells in (41, 83, 167):
        grid = grid_generator(flat, Overdamped(1.0), box=[[-1, 1], [-1, 1]], cells=cells)
        times = mean_passage_times(grid, discs([[0.0, 0.0]], 0.31))
        errors.append(grid.interpolate(times, np.array([[0.61, 0.43]]))[0])
    first, second = abs(errors[0] - errors[1]), abs(errors[1] - errors[2])
    assert first / second > 2.8  # a staircase of cells gives 2, or noise


def test_stationary_distribution_against_quadrature() -> None:
    grid = grid_generator(double_well(), Overdamped(5.0), box=[[-3, 3]], cells=900)
    mass = quad(lambda x: np.exp(-5 * double_well_value(x)), -3, 3, points=[-1, 1])[0]
    for low, high in ((-1.5, -0.5), (-0.5, 0.5)):
        part = quad(lambda x: np.exp(-5 * double_well_value(x)), low, high)[0] / mass
        inside = (grid.points[:, 0] > low) & (grid.points[:, 0] < high)
        assert grid.stationary[inside].sum() == pytest.approx(part, rel=1e-4)
    q = grid.matrix()
    assert np.abs(q.sum(axis=1)).max() < 1e-13 * np.abs(q.diagonal()).max()
    assert np.abs(grid.stationary @ q).max() < 1e-12 * np.abs(q.diagonal()).max()


def test_matrix_and_its_symmetrised_form_agree_with_anisotropic_friction() -> None:
    energy = load_energy("potential:triple-well")
    grid = grid_generator(energy, Overdamped(2.0, gamma=(1.0, 3.0)), box=TRIPLE_WELL_BOX, cells=(12, 15))
    dense = -np.linalg.eigvals(grid.matrix().toarray())
    expected = np.sort(dense.real)[1:4]
    assert np.linalg.eigvalsh(grid.symmetrised().toarray())[1:4] == pytest.approx(expected, rel=1e-9)
    assert eigenvalues(grid, 3) == pytest.approx(expected, rel=1e-8)
    # a direction of the plane: D_y is a third of D_x
    hop = grid.hop
    ratio = hop[grid.axis == 0][0] / hop[grid.axis == 1][0]
    assert ratio == pytest.approx(3 * (grid.spacing[1] / grid.spacing[0]) ** 2)


def test_eigenvalues_of_separable_oscillators_in_three_dimensions() -> None:
    """E = sum k_i x_i^2 / 2: eigenvalues n . k / gamma. Iterative path (over 20,000 cells), under 2 GB and a minute."""
    stiffness = torch.tensor([1.0, 1.7, 2.6], dtype=torch.float64)
    energy = Energy(lambda x: 0.5 * (stiffness * x * x).sum(1), 3)
    began = time.perf_counter()
    box = [[-6.4, 6.4], [-5, 5], [-4, 4]]
    found = reference_spectrum(energy, Overdamped(1.0), 3, box=box, cells=36, bound=22.0)
    assert found.cells > 20_000
    assert found.eigenvalues == pytest.approx([1.0, 1.7, 2.0], rel=2e-3)
    assert time.perf_counter() - began < 60
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 2 * 2**20


def test_rates_in_three_dimensions_of_a_product() -> None:
    """A double well times two oscillators moves like the double well alone; cores that are slabs would be exact.

    The cores are ellipsoids, so their rate differs by their size; the relaxation rate K u = lambda M u is compared.
    """
    stiffness = torch.tensor([2.0, 3.0], dtype=torch.float64)

    def value(x: torch.Tensor) -> torch.Tensor:
        return x[:, 0] ** 4 / 4 - x[:, 0] ** 2 / 2 + 0.5 * (stiffness * x[:, 1:] ** 2).sum(1)

    energy, dynamics = Energy(value, 3), Overdamped(20.0)
    cores = make_cores(energy, dynamics, np.array([[-1.0, 0, 0], [1.0, 0, 0]]), generator_of())
    found = reference_rates(energy, dynamics, cores, cells=(48, 32, 32))
    assert found.cells > 10_000 and found.converged
    assert found.relaxation_rates()[0] == pytest.approx(PASSAGES[0.05][2], rel=0.01)


def test_core_geometry() -> None:
    """Disjoint, inside the basin, as defined where nothing is in the way; the surface is met where it is."""
    energy, dynamics = load_energy("potential:muller-brown"), Overdamped(0.1)
    minima = np.array([*MULLER_BROWN_WELLS, [-0.05001082299821, 0.466694104872]])
    cores = make_cores(energy, dynamics, minima, generator_of())
    hessians = energy.hessian(minima)
    free = cores.shrink == 1
    assert cores.form[free] == pytest.approx(0.1 * hessians[free], rel=1e-12)
    big = make_cores(energy, Overdamped(0.002), minima, generator_of())
    assert (big.shrink < 1).any()
    angle = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    for c in (cores, big):
        for i in range(3):
            rim = c.center[i] + circle @ np.linalg.inv(np.linalg.cholesky(c.form[i]))
            others = [j for j in range(3) if j != i]
            level = [np.einsum("mi,ij,mj->m", rim - c.center[j], c.form[j], rim - c.center[j]).min() for j in others]
            assert min(level) > 1
            assert (c.labels(0.99 * rim + 0.01 * c.center[i]) == i).all()
            assert (c.labels(1.01 * rim - 0.01 * c.center[i]) == -1).all()
            outside = 3 * (rim - c.center[i]) + c.center[i]
            share = c.crossing(outside, np.broadcast_to(c.center[i], outside.shape), np.full(400, i))
            assert share == pytest.approx(2 / 3, rel=1e-9)


def test_touching_ellipses_keep_a_gap() -> None:
    """Two discs of radius 1 at distance 1.6 touch at the scale .8: the cores are .72 in radius."""

    def value(x: torch.Tensor) -> torch.Tensor:
        near = torch.stack([(x - c).square().sum(1) for c in torch.tensor([[0.0, 0.0], [1.6, 0.0]], dtype=x.dtype)])
        return 0.5 * near.amin(0)

    cores = make_cores(Energy(value, 2), Overdamped(1.0), np.array([[0.0, 0.0], [1.6, 0.0]]), generator_of())
    assert cores.shrink == pytest.approx([0.72, 0.72], rel=1e-6)


def test_bernoulli_functions() -> None:
    u = np.array([-3.0, -1e-9, 1e-9, 2.5])
    assert bernoulli(u) == pytest.approx(u / np.expm1(u), rel=1e-12)
    assert bernoulli(np.array([-800.0, 0.0, 800.0])) == pytest.approx([800.0, 1.0, 0.0], abs=1e-200)
    product = np.sqrt(bernoulli(u) * bernoulli(-u))
    assert symmetric_bernoulli(u) == pytest.approx(product, rel=1e-12)


def test_extrapolation_is_exact_for_second_order_errors() -> None:
    value, error = extrapolate_with_error([3 + 0.01, 3 + 0.0225, 3 + 0.050625], 1.5)
    assert value == pytest.approx(3, abs=1e-12) and error == pytest.approx(1e-3)
    value, error = extrapolate_with_error([np.array(3.01), np.array(3.0225)], 1.5)
    assert error == pytest.approx(0.01)


def test_relaxation_rates_of_the_cores_are_close_to_the_eigenvalues() -> None:
    """K u = lambda M u is a Galerkin value: never below the eigenvalue, and nearer to it than K alone."""
    energy, dynamics = double_well(), Overdamped(10.0)
    cores = make_cores(energy, dynamics, np.array([[-1.0], [1.0]]), generator_of())
    found = reference_rates(energy, dynamics, cores)
    exact = PASSAGES[0.1][2]
    assert exact < found.relaxation_rates()[0] < 1.04 * exact
    assert relaxation_rates(found.rates, np.zeros((2, 2)))[0] < 0.96 * exact


def small_grid() -> GridGenerator:
    return grid_generator(double_well(), Overdamped(10.0), box=[[-2, 2]], cells=50)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda e: grid_generator(e, Overdamped(1.0)), UsageError, "needs a box"),
        (lambda e: grid_generator(e, Underdamped(1.0), box=[[-2, 2]]), UnsupportedError, "overdamped"),
        (lambda e: grid_generator(e, Overdamped(1.0), box=[[2, -2]]), UsageError, "low < high"),
        (lambda e: grid_generator(e, Overdamped(1.0), box=[[-2, 2], [0, 1]]), UsageError, "1 pairs"),
        (lambda e: grid_generator(e, Overdamped(1.0), box=[[-2, 2]], cells=2), UsageError, "4 or more"),
        (lambda e: core_rates(small_grid(), discs([[0.5], [-1.0]], [0.001, 0.2])), UsageError, "holds no cell"),
        (lambda e: reference_rates(e, Overdamped(1.0), discs([[0.5]], 0.1)), UsageError, "two or more"),
        (lambda e: discs([[0.5], [0.6]], 0.2), UsageError, "overlap"),
        (lambda e: make_cores(e, Overdamped(1.0), np.array([[0.0]]), generator_of()), UsageError, "no minimum"),
        (lambda e: eigenvalues(small_grid(), 80), UsageError, "between 1 and 48"),
        (
            lambda e: grid_generator(Energy(lambda x: x.square().sum(1), 4), Overdamped(1.0), box=[[-1, 1]] * 4),
            UnsupportedError,
            "up to 3",
        ),
        (
            lambda e: find_box(Energy(lambda x: 0.0 * x[:, 0], 1), 1.0, discs([[0.0], [1.0]], 0.1)),
            UsageError,
            "does not confine",
        ),
    ],
)
def test_bad_input_gets_one_line(call, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text) as caught:
        call(double_well())
    assert "\n" not in str(caught.value)


def test_results_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        small_grid().bound = 1.0  # type: ignore[misc]
