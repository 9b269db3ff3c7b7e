"""Known points recognised by their quadratic models: where they must be, and where they must not be."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from landscape.energy import Energy, Periodic
from landscape.energy.potentials import TripleWell
from landscape.search import Catalogue, Points
from landscape.search.minima import MinimaSearch, find_minima
from landscape.search.recognition import KnownPoints, known_points

TOLERANCE = 0.1


def known(energy: Energy, x) -> KnownPoints:
    """The stationary points at or beside x."""
    catalogue = Catalogue(energy)
    assert (catalogue.add(torch.as_tensor(x, dtype=torch.float64)) >= 0).all()
    found = known_points(energy, catalogue.points(), np.arange(len(catalogue)))
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
    y = np.random.default_rng(0).uniform((-2, -1.5), (2, 2.5), (300, 2))
    plain = Energy(TripleWell(), 2)
    expected = recognised(plain, known(plain, places), y)
    assert 20 < sum(number >= 0 for number in expected) < 280
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


def test_copies_of_a_periodic_energy() -> None:
    energy = Energy(
        lambda x: (1 - torch.cos(x[:, 0])) + 0.5 * x[:, 1].square(), 2, symmetry=Periodic((2 * np.pi, None))
    )
    points = known(energy, [[0.0, 0.0], [np.pi, 0.0]])
    y = np.array([[0.05, 0.1], [2 * np.pi - 0.05, 0.1], [-4 * np.pi + 0.05, 0.1], [3 * np.pi + 0.05, 0.02]])
    assert recognised(energy, points, y) == [0, 0, 0, 1]


def test_degenerate_points_have_no_model() -> None:
    energy = Energy(lambda x: x[:, 0].square() + x[:, 1] ** 4, 2)
    catalogue = Catalogue(energy)
    catalogue.add(torch.tensor([[0.0, 1e-5]], dtype=torch.float64))
    assert catalogue.points().degenerate.all() and len(catalogue) == 1
    assert known_points(energy, catalogue.points(), np.arange(1)) is None


def test_no_model_without_hessians() -> None:
    energy = Energy(lambda x: x.square().sum(1), 3)
    energy.dense_dim = 1
    catalogue = Catalogue(energy)
    catalogue.add(torch.zeros(1, 3, dtype=torch.float64))
    assert energy.matrix_free and len(catalogue) == 1
    assert known_points(energy, catalogue.points(), np.arange(1)) is None


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
