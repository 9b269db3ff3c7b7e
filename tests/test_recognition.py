"""Known points recognised by their quadratic models: where they must be, and where they must not be."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from large_energies import reflect, reflections
from scipy import optimize

from landscape.energy import Energy, Periodic
from landscape.energy.potentials import TripleWell
from landscape.search import Catalogue, Points
from landscape.search.lbfgs import FIRST, relax
from landscape.search.minima import MinimaSearch, find_minima
from landscape.search.recognition import KnownPoints, known_points

TOLERANCE = 0.1


def known(energy: Energy, x, models: bool = True) -> KnownPoints:
    """The stationary points at or beside x."""
    catalogue = Catalogue(energy)
    assert (catalogue.add(torch.as_tensor(x, dtype=torch.float64)) >= 0).all()
    found = known_points(energy, catalogue.points(), np.arange(len(catalogue)), models=models)
    assert found is not None
    return found


def recognised(energy: Energy, points: KnownPoints, y, tolerance: float = TOLERANCE) -> list[int]:
    y = torch.as_tensor(y, dtype=torch.float64)
    return points.recognise(y, *energy.value_and_gradient(y), tolerance).tolist()


@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, 1), (-1, -1, 1), (-1, -1, -1)])
def test_all_of_a_quadratic_is_recognised_whatever_its_index_and_stiffness(signs) -> None:
    """Also at the point itself, where nothing but rounding is left of energy and gradient."""
    basis = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0]
    hessian = basis @ torch.diag(torch.tensor(signs) * torch.tensor([1e-2, 1.0, 1e3], dtype=torch.float64)) @ basis.T
    center = torch.tensor([7.0, -3.0, 0.5], dtype=torch.float64)
    energy = Energy(lambda x: 5 + 0.5 * torch.einsum("ni,ij,nj->n", x - center, hessian, x - center), 3)
    points = known(energy, center[None])
    y = center + torch.randn(200, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert recognised(energy, points, y, 1e-6) == [0] * 200
    assert recognised(energy, points, points.x) == [0]


def test_where_the_model_fails_by_more_than_the_tolerance() -> None:
    """E = x^2/2 + a x^3/3: the gradient misses x by a x^2, a part a x of it, the energy by a part 2 a x / 3."""
    a = 0.2
    energy = Energy(lambda x: (x.square() / 2 + a * x**3 / 3).sum(1), 1)
    points = known(energy, [[0.0]])
    y = np.array([[0.99], [1.01], [-0.99], [-1.01]]) * TOLERANCE / a
    assert recognised(energy, points, y) == [0, -1, 0, -1]


def test_an_energy_that_does_not_fit_is_refused() -> None:
    """A gradient alone could be that of a well at another height."""
    energy = Energy(lambda x: x.square().sum(1), 2)
    points, y = known(energy, [[0.0, 0.0]]), torch.tensor([[0.3, 0.4]], dtype=torch.float64)
    value, gradient = energy.value_and_gradient(y)
    for part, number in ((0.91, 0), (1.09, 0), (0.89, -1), (1.11, -1)):
        assert points.recognise(y, part * value, gradient, TOLERANCE).tolist() == [number]


@pytest.mark.parametrize("stiffness", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize("length", [1e-3, 1.0, 1e3])
def test_units_change_nothing(stiffness, length) -> None:
    scaled = Energy(lambda x: stiffness * TripleWell()(x / length), 2)
    places = TripleWell().stationary_points().x
    y = np.random.default_rng(0).uniform((-2, -1.5), (2, 2.5), (600, 2))
    plain = Energy(TripleWell(), 2)
    expected = recognised(plain, known(plain, places), y)
    assert 20 < sum(number >= 0 for number in expected) < 560
    assert recognised(scaled, known(scaled, length * places), length * y) == expected


def test_only_the_nearest_point_and_its_own_catalogue_number() -> None:
    energy = Energy(lambda x: (x**4 / 4 - x.square() / 2).sum(1), 1)
    catalogue = Catalogue(energy)
    catalogue.add(torch.tensor([[0.0], [1.0], [-1.0]], dtype=torch.float64))
    minima = np.flatnonzero(catalogue.points().index == 0)
    points = known_points(energy, catalogue.points(), minima)
    assert points is not None and points.numbers.tolist() == minima.tolist()
    at = {round(float(x)): k for k, x in enumerate(catalogue.points().x[:, 0])}
    assert recognised(energy, points, [[1.01], [-0.99], [0.01], [0.6]]) == [at[1], at[-1], -1, -1]


def test_a_small_well_within_a_large_one_is_another() -> None:
    """A bowl with a dimple of depth .005 and width .05: around the dimple the bowl's model is right to a few percent of
    the energy, but not of the gradient."""
    dimple = torch.tensor([0.5, 0.0], dtype=torch.float64)

    def bowl(x: torch.Tensor) -> torch.Tensor:
        return 0.5 * x.square().sum(1) - 0.05 * torch.exp(-0.5 * (x - dimple).square().sum(1) / 0.05**2)

    energy = Energy(bowl, 2)
    points = known(energy, [[0.0, 0.0]])
    angle = np.linspace(0, 2 * np.pi, 50)
    ring = dimple.numpy() + 0.05 * np.stack([np.cos(angle), np.sin(angle)], 1)
    assert recognised(energy, points, ring) == [-1] * 50
    assert recognised(energy, points, -ring) == [0] * 50


def test_stiff_modes_do_not_hide_another_well() -> None:
    """cos(3 pi x) + .2 x^2 beside five stiff modes: far out along these all wells look alike.

    At a point that is a well off and far out, energy and gradient as a whole agree with the first well's model to 2 %.
    And 1,000 starts find all minima of the line, which are the rising zeros of its slope.
    """
    stiffness, root = 1e4, 3 * np.pi
    energy = Energy(
        lambda x: 0.5 * stiffness * x[:, 1:].square().sum(1) + torch.cos(root * x[:, 0]) + 0.2 * x[:, 0] ** 2, 6
    )
    slope = 0.4 * (line := np.linspace(-30, 30, 600_000)) - root * np.sin(root * line)
    rising = line[:-1][(slope[:-1] < 0) & (slope[1:] > 0)]
    points = known(energy, [[rising[np.abs(rising).argmin()], 0, 0, 0, 0, 0]])
    away = np.full((2, 6), 2.0)
    away[:, 0] = float(points.x[0, 0]) + np.array([0.01, 0.66])
    assert recognised(energy, points, away, 0.25) == [0, -1]
    starts = np.random.default_rng(0).uniform(-30, 30, (1000, 6))
    found = find_minima(energy, MinimaSearch(starts=Points(starts)))
    np.testing.assert_allclose(np.sort(found.minima.x[:, 0]), rising, atol=1e-4)
    assert (found.start_state < 0).sum() <= 10  # a descent must not rest for want of knowing the soft mode


def test_copies_of_a_periodic_energy() -> None:
    energy = Energy(
        lambda x: (1 - torch.cos(x[:, 0])) + 0.5 * x[:, 1].square(), 2, symmetry=Periodic((2 * np.pi, None))
    )
    points = known(energy, [[0.0, 0.0], [np.pi, 0.0]])
    y = np.array([[0.05, 0.1], [2 * np.pi - 0.05, 0.1], [-4 * np.pi + 0.05, 0.1], [3 * np.pi + 0.05, 0.02]])
    assert recognised(energy, points, y) == [0, 0, 0, 1]
    alone = known(energy, [[0.0, 0.0]], models=False)
    assert reached(energy, alone, y, 3.0)[0] == [True] * 3 + [False]  # copies of the minimum


def test_degenerate_points_have_no_model() -> None:
    energy = Energy(lambda x: x[:, 0].square() + x[:, 1] ** 4, 2)
    catalogue = Catalogue(energy)
    catalogue.add(torch.tensor([[0.0, 1e-5]], dtype=torch.float64))
    assert catalogue.points().degenerate.all() and len(catalogue) == 1
    assert known_points(energy, catalogue.points(), np.arange(1)) is None


def reached(energy: Energy, points: KnownPoints, y, scale: float, due=None) -> tuple[list[bool], list[float], int]:
    """What products say of y, at which distances they would be asked again, and how many there were."""
    y = torch.as_tensor(y, dtype=torch.float64)
    before, value = energy.evaluations.hvp, energy.value_and_gradient(y)
    due = torch.full((len(y),), torch.inf) if due is None else torch.as_tensor(due)
    there, due = points.reached_by_products(energy, y, *value, torch.full((len(y),), scale), due.double())
    return there.tolist(), due.tolist(), energy.evaluations.hvp - before


@pytest.mark.parametrize("kept", [False, True])
def test_without_models_a_product_tells(kept: bool) -> None:
    """E = (x^2 + y^2) / 2 + c x^2 y at y = 0: the energy is half the work x^2, and H dx = (x, 0) misses the gradient
    (x, c x^2) by a part c x of x. A row that fails is tested again as much nearer as its model was too wrong. Products
    with Hessians that are kept are free."""
    c, tests = 0.5, 0 if kept else 6
    energy = Energy(lambda x: 0.5 * x.square().sum(1) + c * x[:, 0].square() * x[:, 1], 2, dense_dim=2 if kept else 1)
    points = known(energy, [[0.0, 0.0]], models=False)
    assert energy.matrix_free != kept and not points.has_models
    part = np.array([0.01, 0.1, 0.14, 0.17, 0.3, 0.9])
    y = np.column_stack([part / c, np.zeros(6)])
    there, due, products = reached(energy, points, y, 100.0)
    assert there == [True] * 3 + [False] * 3 and products == tests
    missed = part / np.sqrt(1 + part**2)
    np.testing.assert_allclose(due, y[:, 0] * np.minimum(0.15 / missed, 0.8))
    early, late = 0.99 * y[:, 0], 1.01 * y[:, 0]
    assert reached(energy, points, y, 100.0, early) == ([False] * 6, list(early), 0)
    assert reached(energy, points, y, 100.0, late) == (there, due, tests)


def test_products_are_taken_near_a_point_alone_and_at_its_energy() -> None:
    """Within half the way to the next known point and half of the scale, at the energy of a quadratic function."""
    energy = Energy(lambda x: torch.minimum((x - 1).square(), (x + 1).square()).sum(1), 1, dense_dim=0)
    points = known(energy, [[1.0], [-1.0]])
    y = [[1.5], [1.9], [2.1], [-0.1], [-2.1]]
    assert reached(energy, points, y, 9.0)[::2] == ([True, True, False, True, False], 3)
    assert reached(energy, points, y, 1.0)[::2] == ([True, False, False, False, False], 1)
    cubic = Energy(lambda x: (x.square() / 2 + x**3 / 3).sum(1), 1, dense_dim=0)
    # The energy misses half the work x^2 + x^3 by x^3 / 6, a part x / 3 / (1 + x).
    assert reached(cubic, known(cubic, [[0.0]]), [[0.098], [0.1]], 9.0)[::2] == ([True, False], 1)


class FourWells:
    """E = sum_i (y_i^2 - 1)^2 of the first two of 300 coordinates, and stiff and soft quartic wells of the others,
    k y^2 / 2 + y^4 / 4 with k from .5 to 50, which are a tenth softer between the wells; y = Q x with reflections Q."""

    def __init__(self) -> None:
        self.normals = reflections(300)
        self.k = torch.logspace(-0.3, 1.7, 298, dtype=torch.float64)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        y = reflect(x, self.normals)
        double, rest = y[:, :2].square(), y[:, 2:].square()
        k = self.k * (1 - 0.1 * torch.exp(-4 * double.sum(1, keepdim=True)))
        return (double - 1).square().sum(1) + (0.5 * k * rest + 0.25 * rest.square()).sum(1)


def test_labels_in_many_dimensions_are_those_of_whole_descents_for_fewer_gradients_than_scipy() -> None:
    """100 starts and four minima, y = (+-1, +-1, 0, ...): polish and classification included."""
    wells, y = FourWells(), np.random.default_rng(0).uniform(-2, 2, (100, 300))
    energy = Energy(wells, 300)
    found = find_minima(energy, MinimaSearch(starts=Points(y)))
    cost = energy.evaluations.gradient_equivalents(300)
    place = reflect(torch.as_tensor(found.minima.x), wells.normals).numpy()
    np.testing.assert_allclose(np.abs(place), np.arange(300)[None].repeat(4, 0) < 2, atol=1e-7)
    whole = relax(energy, torch.as_tensor(y), 2.0, first=FIRST * 300**0.5)  # as the search begins, but to the end
    signs = reflect(whole["x"], wells.normals).numpy()[:, :2].round()
    assert (np.sign(place)[found.start_state, :2] == signs).all() and len(np.unique(found.start_state)) == 4

    peer = Energy(wells, 300)

    def one(row: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = peer.value_and_gradient(row[None])
        return float(value[0]), gradient[0]

    for row in y:
        optimize.minimize(one, row, jac=True, method="L-BFGS-B")
    assert cost < peer.evaluations.gradient


def test_many_rows_are_worked_off_in_blocks(monkeypatch) -> None:
    energy, y = Energy(TripleWell(), 2), torch.as_tensor(np.random.default_rng(0).uniform(-2, 2, (101, 2)))
    points = known(energy, TripleWell().stationary_points().x)
    value, gradient = energy.value_and_gradient(y)
    at = points.nearest(y)
    whole = points.compare(at, y, value, gradient)
    monkeypatch.setattr("landscape.search.recognition.BLOCK", 80)
    assert torch.equal(points.nearest(y), at) and torch.equal(at, torch.cdist(y, points.x).argmin(1))
    for part, expected in zip(points.compare(at, y, value, gradient), whole, strict=True):
        torch.testing.assert_close(part, expected, rtol=1e-12, atol=1e-12)


def test_float32_recognises_the_same() -> None:
    energy = Energy(TripleWell(), 2)
    points = known(energy, TripleWell().stationary_points().x)
    y = points.x.repeat_interleave(30, 0) + 0.03 * torch.randn(
        30 * len(points), 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    value, gradient = energy.value_and_gradient(y)
    double = points.recognise(y, value, gradient)
    single = points.to(y.float()).recognise(y.float(), value.float(), gradient.float())
    assert (double >= 0).sum() > 50 and (single == double).double().mean() > 0.97


def test_labels_are_those_of_whole_descents() -> None:
    """2,000 random points of the triple well: what is recognised as a minimum descends to it."""
    energy, y = Energy(TripleWell(), 2), np.random.default_rng(0).uniform((-2, -1.5), (2, 2.5), (2000, 2))
    found = find_minima(energy, MinimaSearch(starts=Points(y)))
    points = known(energy, found.minima.x)
    state = torch.cdist(points.x, torch.as_tensor(found.minima.x)).argmin(1).numpy()
    labels = np.array(recognised(energy, points, y))
    some = labels >= 0
    assert some.sum() > 50
    assert (state[labels[some]] == found.start_state[some]).all()
