"""Newton polish, classification, merging and the order of stationary points."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from oracles import MULLER_BROWN, TRIPLE_WELL
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from landscape.energy.energy import Energy
from landscape.energy.potentials import MullerBrown, TripleWell
from landscape.search import Catalogue, Status
from landscape.search.stationary import MERGE_E, MERGE_X, canonical_order, classify, group_rows, newton_polish


def tensor(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize("potential, oracle", [(MullerBrown, MULLER_BROWN), (TripleWell, TRIPLE_WELL)])
def test_polish_reaches_the_published_points_of_every_index(potential, oracle) -> None:
    """From 1e-3 away; energies to the digits of the reference, gradients at rounding level."""
    known = potential().stationary_points()
    noise = np.random.default_rng(0).normal(size=known.x.shape) * 1e-3
    polished = newton_polish(Energy(potential(), 2), torch.as_tensor(known.x + noise))
    assert (polished["status"] == Status.CONVERGED).all()
    np.testing.assert_allclose(polished["energy"], [row[0] for row in oracle], rtol=0, atol=1e-7)
    np.testing.assert_allclose(polished["x"], known.x, rtol=0, atol=1e-8)
    largest = polished["eigenvalues"].abs().amax(1)
    assert (polished["gradient"].norm(dim=1) < 1e-12 * largest).all()
    assert ((polished["eigenvalues"] < 0).sum(1).numpy() == [row[1] for row in oracle]).all()


def test_polish_passes_kinks_of_the_hessian() -> None:
    """C1 with a jump of the second derivative next to the minimum, as in networks with CELU."""

    def kinked(x: torch.Tensor) -> torch.Tensor:
        return torch.where(x > 0, 5 * x.square(), 0.5 * x.square()).sum(1) + 0.01 * x[:, 0] + 0.2 * x[:, 1]

    polished = newton_polish(Energy(kinked, 2), tensor([0.3, 0.3], [1e-4, -1e-4], [-0.5, 0.2]))
    assert (polished["status"] == Status.CONVERGED).all()
    np.testing.assert_allclose(polished["x"], [[-0.01, -0.2]] * 3, atol=1e-12)


def test_polish_does_not_call_a_slope_stationary() -> None:
    """A straight slope, an exponential tail, the floor of a bent valley far out, a V-shaped minimum."""
    functions = [
        lambda x: x.square()[:, 1] + 1e-3 * x[:, 0],
        lambda x: torch.exp(-x[:, 0]) + x.square()[:, 1],
        lambda x: 100 * (x[:, 1] - x[:, 0] ** 2) ** 2 + (1 - x[:, 0]) ** 2,
        lambda x: x[:, 0].abs() + x.square().sum(1),
    ]
    starts = [[0.3, 0.1], [3.0, 0.2], [1e3, 1e6], [1e-9, 0.1]]
    for function, start in zip(functions, starts, strict=True):
        energy = Energy(function, 2)
        polished = newton_polish(energy, tensor(start), 20)
        gradient = float(energy.gradient(polished["x"]).norm())
        assert polished["status"].item() != Status.CONVERGED or gradient < 1e-8


def test_a_point_without_a_finite_energy_is_reported() -> None:
    assert newton_polish(Energy(MullerBrown(), 2), tensor([200.0, 200.0]))["status"].item() == Status.NOT_FINITE


# -- index and degeneracy --------------------------------------------------------------------------------------------


def test_index_counts_negative_eigenvalues_and_zero_has_no_sign() -> None:
    values = np.array([[1.0, 2.0], [-1.0, 2.0], [-2.0, -1.0], [-1e-7, 1.0], [1e-7, 1.0], [2e-6, 1.0], [0.0, 0.0]])
    index, degenerate = classify(values)
    assert index.tolist() == [0, 1, 2, 0, 0, 0, 0]
    assert degenerate.tolist() == [False, False, False, True, True, False, True]


@pytest.mark.parametrize(
    "function, dim",
    [
        (lambda x: x[:, 0] ** 4, 1),  # the only eigenvalue vanishes: no larger one beside it
        (lambda x: x.square().sum(1) ** 2, 3),
        (lambda x: x[:, 0] ** 4 + x[:, 1] ** 2, 2),
        (lambda x: x[:, 0] ** 3 - 3 * x[:, 0] * x[:, 1] ** 2, 2),  # monkey saddle
        (lambda x: x[:, 0] ** 3 + x[:, 1] ** 2, 2),  # a shoulder
        (lambda x: 0 * x.sum(1), 2),
        (lambda x: x[:, 0] ** 2 + 1e-8 * x[:, 1] ** 2, 2),
    ],
)
def test_points_with_a_zero_eigenvalue_are_degenerate(function, dim) -> None:
    catalogue = Catalogue(Energy(function, dim))
    number = catalogue.add(torch.full((1, dim), 1e-4, dtype=torch.float64))
    assert number.tolist() == [0]
    assert catalogue.points().degenerate.tolist() == [True]
    assert catalogue.count(0) == 0 and len(catalogue.points().of_index(0)) == 0


@pytest.mark.parametrize("condition", [1.0, 1e3, 1e5])
def test_stiff_wells_are_not_degenerate(condition) -> None:
    stiffness = torch.tensor([1.0, condition], dtype=torch.float64)
    catalogue = Catalogue(Energy(lambda x: (stiffness * (x - 0.3) ** 2).sum(1), 2))
    catalogue.add(tensor([0.3001, 0.29999]))
    assert catalogue.points().degenerate.tolist() == [False]
    np.testing.assert_allclose(catalogue.points().x, [[0.3, 0.3]], atol=1e-10)


# -- merging -----------------------------------------------------------------------------------------------------------


def two_wells(gap: float, lift: float) -> Energy:
    """Wells at x = -gap/2 and gap/2 (quartic, with a maximum between), the right one higher by about `lift`."""
    half = gap / 2

    def function(x: torch.Tensor) -> torch.Tensor:
        u = x[:, 0] / half
        return u**4 / 4 - u**2 / 2 + 0.5 * lift * u

    return Energy(function, 1)


@pytest.mark.parametrize("gap, lift, merged", [(0.5e-5, 0.0, True), (2.5e-5, 0.0, False), (0.5e-5, 1e-3, False)])
def test_the_merging_rule(gap, lift, merged) -> None:
    """One point if |dx| < 1e-5 (1 + |x|) and |dE| < 1e-8 (1 + |E|); either alone is not enough."""
    catalogue = Catalogue(two_wells(gap, lift))
    numbers = [int(catalogue.add(torch.tensor([[x * gap / 2]], dtype=torch.float64))[0]) for x in (-1.0, 1.0)]
    assert (numbers[0] == numbers[1]) == merged
    assert len(catalogue) == (1 if merged else 2)


def test_points_of_other_index_are_not_merged() -> None:
    """A minimum and a saddle 0.4e-5 apart with energies equal within 1e-8."""
    catalogue = Catalogue(Energy(lambda x: 1e-9 * ((x[:, 0] / 2e-6) ** 3 / 3 - x[:, 0] / 2e-6) + 0 * x[:, 0], 1))
    catalogue.add(tensor([2e-6]))
    catalogue.add(tensor([-2e-6]))
    assert sorted(catalogue.points().index.tolist()) == [0, 1]


def test_a_flat_spectrum_in_many_dimensions_is_not_degenerate() -> None:
    """E = sum_i k_i x_i^2 / 2 with k = 2e-5 and 999 times 1: a ratio of 2e-5, although |H| is 32 times its largest
    eigenvalue. x^4 is degenerate in many dimensions too."""
    k = torch.ones(1000, dtype=torch.float64)
    k[0] = 2e-5
    cases = ((lambda x: 0.5 * (k * x * x).sum(1), 1000, False), (lambda x: (x**4).sum(1), 300, True))
    for function, dim, degenerate in cases:
        catalogue = Catalogue(Energy(function, dim))
        catalogue.add(torch.full((1, dim), 1e-3, dtype=torch.float64))
        assert catalogue.points().degenerate.tolist() == [degenerate]


def test_copies_of_a_known_point_are_not_polished_again() -> None:
    """They cost their energies; a point that is only near, or a copy that is not, is polished."""
    energy = Energy(TripleWell(), 2)
    catalogue = Catalogue(energy)
    catalogue.add(tensor([1.05, -0.04], [0.0, 1.54]))
    before, x = energy.evaluations.as_dict(), catalogue.points().x.copy()
    shift = 1e-6 * np.random.default_rng(0).normal(size=(20, 2))
    assert catalogue.add(torch.as_tensor(x[np.arange(20) % 2] + shift), "minima").tolist() == [0, 1] * 10
    assert energy.evaluations.as_dict() == before | {"value": before["value"] + 20}
    assert catalogue.points().hits.tolist() == [10, 10] and (catalogue.points().x == x).all()
    assert catalogue.add(torch.as_tensor(x[:1] + 1e-2)).tolist() == [0]
    assert energy.evaluations.gradient > before["gradient"]


def test_copies_are_told_by_products_where_no_hessians_are_kept() -> None:
    """One product a row that is near; a row that is farther off is polished, and comes to the same point."""
    energy = Energy(TripleWell(), 2, dense_dim=1)
    catalogue = Catalogue(energy)
    catalogue.add(tensor([1.05, -0.04], [0.0, 1.54]))
    before, x = energy.evaluations.as_dict(), catalogue.points().x.copy()
    shift = 1e-6 * np.random.default_rng(0).normal(size=(20, 2))
    assert catalogue.add(torch.as_tensor(x[np.arange(20) % 2] + shift), "minima").tolist() == [0, 1] * 10
    assert energy.evaluations.as_dict() == before | {"value": before["value"] + 20, "hvp": before["hvp"] + 20}
    assert catalogue.add(torch.as_tensor(x[:1] + 1e-2)).tolist() == [0]
    assert energy.evaluations.gradient > before["gradient"]


def test_a_polish_takes_two_hessians_from_nearby() -> None:
    """Muller and Brown's minima from 1e-4 away: Hessians there and at their ends, and two products of each for its
    norm beside the point. The exact places stay what they are."""
    energy, known = Energy(MullerBrown(), 2), MullerBrown().stationary_points()
    catalogue = Catalogue(energy)
    assert (catalogue.add(torch.as_tensor(known.x + 1e-4)) >= 0).all()
    n, spent = len(known.x), energy.evaluations
    assert (spent.hessian, spent.hvp) == (2 * n, 2 * n) and spent.gradient <= 5 * n
    assert np.abs(energy.gradient(catalogue.points().x)).max() < 1e-10


def test_hits_are_counted_and_numbers_last() -> None:
    catalogue = Catalogue(Energy(TripleWell(), 2))
    left, right, top = [-1.05, -0.04], [1.05, -0.04], [0.0, 1.54]
    saddle = [0.617, 1.103]
    assert catalogue.add(tensor(left, right, left, left), "minima").tolist() == [0, 1, 0, 0]
    assert catalogue.add(tensor(top, right, saddle), "minima").tolist() == [2, 1, 3]
    assert catalogue.add(tensor(right)).tolist() == [1]
    assert catalogue.add(tensor(saddle, right), "others").tolist() == [3, 1]
    # A start on a saddle is no hit of that saddle: it is pushed off and goes on; a walk to a minimum is no start.
    assert catalogue.points().hits.tolist() == [3, 2, 1, 1]
    assert catalogue.add(torch.zeros(0, 2, dtype=torch.float64)).tolist() == []


def test_many_points_outgrow_no_buffer() -> None:
    catalogue = Catalogue(Energy(lambda x: -torch.cos(x[:, 0]), 1))
    x = 2 * np.pi * np.arange(100.0)[:, None]
    assert catalogue.add(torch.as_tensor(x)).tolist() == list(range(100))
    assert catalogue.add(torch.as_tensor(x[::-1].copy())).tolist() == list(range(99, -1, -1))
    np.testing.assert_allclose(catalogue.points().x, x, atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4), st.integers(1, 6), st.integers(1, 12), st.integers(0, 2**31), st.sampled_from([1.0, 10.0]))
def test_grouping_equals_brute_force_merging(dim, n_points, n_copies, seed, factor) -> None:
    """Clusters well inside the tolerance, of points well apart in x or in energy."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(n_points, dim)) * 10.0 ** rng.integers(-2, 3)
    levels = rng.integers(0, 3, n_points) * 1.0
    if n_points > 1:
        centers[1], levels[1] = centers[0], levels[0] + 0.5  # same place, other energy
    which = rng.integers(0, n_points, n_points * n_copies)
    noise = rng.uniform(-1, 1, (len(which), dim)) * 0.2 * factor * MERGE_X / dim**0.5
    x = centers[which] + noise
    energy = levels[which] + rng.uniform(-1, 1, len(which)) * 0.2 * factor**2 * MERGE_E
    near = np.linalg.norm(x[:, None] - x[None], axis=-1) < factor * MERGE_X * (1 + np.linalg.norm(x, axis=1))
    near &= np.abs(energy[:, None] - energy) < factor**2 * MERGE_E * (1 + np.abs(energy))
    expected = connected_components(coo_array(near & near.T), directed=False)[1]
    labels = group_rows(x, energy, factor)
    assert ((labels[:, None] == labels) == (expected[:, None] == expected)).all()
    assert set(labels) == set(range(labels.max() + 1))


# -- order -------------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    arrays(int, (6, 2), elements=st.integers(-3, 3)), st.lists(st.integers(0, 2), min_size=6, max_size=6), st.randoms()
)
def test_order_does_not_depend_on_rounding_or_input_order(x, levels, random) -> None:
    """Points on a lattice, energies on few levels, both with noise far below the tolerances."""
    points = {(level, *row) for level, row in zip(levels, x.tolist(), strict=True)}
    rows = np.array(sorted(points), float)
    shuffled = rows.copy()
    random.shuffle(order := list(range(len(rows))))
    rng = np.random.default_rng(random.randint(0, 2**31))
    shuffled = rows[order] + rng.uniform(-1, 1, rows.shape) * [1e-9, 1e-7, 1e-7]
    result = shuffled[canonical_order(shuffled[:, 0], shuffled[:, 1:])]
    np.testing.assert_allclose(result, rows, atol=1e-6)


def test_order_of_nothing() -> None:
    assert canonical_order(np.zeros(0), np.zeros((0, 2))).tolist() == []


def test_many_copies_in_many_dimensions_are_grouped_in_little_memory() -> None:
    """20,000 copies of three points in 32 dimensions, each in a cell of its own: 67 million pairs took 1 GB."""
    rng = np.random.default_rng(0)
    which = rng.integers(3, size=20_000)
    x = rng.normal(size=(3, 32))[which] + 1e-6 * rng.normal(size=(20_000, 32)) / 32**0.5
    tracemalloc.start()
    labels = group_rows(x, which.astype(float))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200e6
    assert len(set(zip(labels, which, strict=True))) == len(set(labels)) == 3
