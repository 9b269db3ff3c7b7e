"""The saddle search: every stationary point, what each saddle joins, when the search stops, and what it admits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from oracles import CHAINS, MULLER_BROWN, TRIPLE_WELL

from landscape.energy.energy import Energy
from landscape.energy.potentials import CoupledChain, MullerBrown, TripleWell
from landscape.search import (
    Catalogue,
    MinimaSearch,
    Points,
    SaddleResult,
    SaddleSearch,
    Status,
    assign_basins,
    find_minima,
    find_saddles,
    make_basins,
)
from landscape.search.confinement import confines
from landscape.search.connect import _Rounds
from landscape.search.explore import Explorer
from landscape.search.recognition import known_points
from landscape.search.saddles import EigenvectorFollowing, bofill, follow_eigenvectors

QUICK = SaddleSearch(sweep=500)


def test_updated_hessians_map_the_step_to_the_change_of_the_gradient() -> None:
    """Bofill's update is symmetric, fulfils the secant equation, and leaves a Hessian that already does as it is."""
    generator = torch.Generator().manual_seed(0)
    draw = torch.randn(2, 30, 4, 4, generator=generator, dtype=torch.float64)
    estimate, step = draw[0] + draw[0].mT, draw[1, :, 0]
    change = draw[1, :, 1]
    updated = bofill(estimate, step, change)
    torch.testing.assert_close(updated, updated.mT)
    torch.testing.assert_close(torch.bmm(updated, step[:, :, None])[:, :, 0], change)
    right = torch.bmm(estimate, step[:, :, None])[:, :, 0]
    torch.testing.assert_close(bofill(estimate, step, right), estimate)


def test_walks_on_a_quadratic_ask_for_one_hessian() -> None:
    """The model never fails there: after the start there is nothing to learn."""
    energy = Energy(lambda x: -0.5 * x[:, 0] ** 2 + 2 * x[:, 1] ** 2 + x[:, 2] ** 2, 3)
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    far = torch.full((3,), 50.0, dtype=torch.float64)
    ended = follow_eigenvectors(energy, x, torch.ones(20, dtype=torch.long), 5.0, (-far, far))
    assert (ended["status"] == Status.CONVERGED).all() and ended["x"].abs().max() < 1e-9
    assert energy.evaluations.hessian == 20


def test_walks_end_beside_known_points_of_the_index_they_seek() -> None:
    """E = (x^2 - 1)^2 / 4 + y^2: walks to the saddle at 0 are captured where it is known, at fewer gradients than they
    need to converge, and those to a minimum, beside which the saddle is known too, converge."""
    energy = Energy(lambda x: 0.25 * (x[:, 0] ** 2 - 1) ** 2 + x[:, 1] ** 2, 2)
    catalogue = Catalogue(energy)
    number = int(catalogue.add(torch.zeros(1, 2, dtype=torch.float64))[0])
    points = known_points(energy, catalogue.points(), np.array([number]))
    assert points is not None
    known = (points, torch.ones(1, dtype=torch.long))
    x = torch.tensor([[0.4, 0.3], [-0.3, 0.2], [0.7, -0.2], [-0.7, 0.1]], dtype=torch.float64)
    far, target = torch.full((2,), 4.0, dtype=torch.float64), torch.tensor([1, 1, 0, 0])
    iterations = []
    for given in (None, known):
        ended = follow_eigenvectors(energy, x, target, 1.0, (-far, far), known=given)
        iterations.append(ended["iterations"])
        assert (ended["x"][2:, 0].abs() - 1).abs().max() < 1e-4 and (ended["label"][2:] == -1).all()
        assert (ended["status"][2:] == Status.CONVERGED).all()
        assert (ended["status"][:2] == (Status.CONVERGED if given is None else Status.CAPTURED)).all()
    assert (ended["label"][:2] == number).all()
    assert (iterations[1][:2] < iterations[0][:2]).all() and (iterations[1][2:] == iterations[0][2:]).all()


def test_walks_take_hessians_of_points_nearby_and_exact_ones_where_there_is_none() -> None:
    energy = Energy(TripleWell(), 2)
    x = torch.tensor([[0.1, 0.2], [-0.6, 0.3], [0.5, 0.4]], dtype=torch.float64)
    far = torch.full((2,), 9.0, dtype=torch.float64)
    near = energy.hessian(x + 0.01)
    near[1] = torch.nan
    before = energy.evaluations.hessian
    one_step = EigenvectorFollowing(max_iterations=1, initial_trust=1e-3, largest_trust=1e-3)
    ended = follow_eigenvectors(energy, x, torch.ones(3, dtype=torch.long), 1.0, (-far, far), one_step, near)
    assert energy.evaluations.hessian == before + 1
    exact = follow_eigenvectors(energy, x, torch.ones(3, dtype=torch.long), 1.0, (-far, far), one_step)
    torch.testing.assert_close(ended["x"][1], exact["x"][1], atol=0, rtol=0)
    moved = (ended["x"] - exact["x"]).norm(dim=1)
    assert 0 < moved[0] < 1e-4 and 0 < moved[2] < 1e-4


def test_rounds_shrink_only_where_every_point_has_been_met_often() -> None:
    """With hits h of the rarest saddle after one round of 124 walks, another part s of a round leaves exp(-h (1 + s))
    below .001 for s = 1/4 from h = 5.6 on, and for s = 1/2 from 4.7 on."""
    energy, catalogue = Energy(TripleWell(), 2), Catalogue(Energy(TripleWell(), 2))
    minima = find_minima(energy, MinimaSearch(200), catalogue=catalogue)
    find_saddles(energy, minima, QUICK, catalogue=catalogue)
    points = catalogue.points()
    without_top = Catalogue(energy)
    without_top.add(torch.as_tensor(points.x[points.index < 2]))
    for known, wrong in ((catalogue, False), (without_top, True)):
        explorer = Explorer(energy, known, minima, torch.Generator(), QUICK)
        rounds = _Rounds(explorer, QUICK, lambda text: None)
        rounds.confining = True
        assert rounds._share(1) == 1.0  # nothing is known yet
        assert (rounds.morse_sum != rounds.expected) == wrong
        for rarest, share in ((2, 1.0), (4, 1.0), (5, 0.5), (6, 0.25), (20, 0.25)):
            rounds.walked = {1: 124}
            rounds.walk_hits = {int(k): h for k, h in zip(explorer.numbers(1), (rarest, 30, 30), strict=True)}
            assert rounds._share(1) == (1.0 if wrong else share)


def test_many_minima_are_searched_for_saddles_of_index_1_only(monkeypatch) -> None:
    monkeypatch.setattr("landscape.search.connect.MANY_MINIMA", 2)
    result = search(TripleWell())
    assert result.complete and result.morse_sum is None and result.expected is None
    assert list(result.index_counts) == [0, 1] and len(result.saddles) == 3
    asked = search(TripleWell(), config=SaddleSearch(sweep=500, max_index=2))
    assert asked.morse_sum == 1 and len(asked.higher) == 1


def search(function, dim: int = 2, seed: int = 0, config: SaddleSearch = QUICK, starts=None) -> SaddleResult:
    energy, catalogue = Energy(function, dim), Catalogue(Energy(function, dim))
    generator = torch.Generator().manual_seed(seed)
    minima = find_minima(energy, MinimaSearch(200, starts), generator=generator, catalogue=catalogue)
    return find_saddles(energy, minima, config, generator=generator, catalogue=catalogue)


@pytest.mark.parametrize("potential, oracle", [(TripleWell(), TRIPLE_WELL), (MullerBrown(), MULLER_BROWN)])
def test_every_stationary_point_and_connection(potential, oracle) -> None:
    result = search(potential)
    for index, points in enumerate((result.minima, result.saddles, result.higher)):
        np.testing.assert_allclose(points.energy, sorted(e for e, i in oracle if i == index), atol=1e-7)
        assert (points.index == index).all() and (points.gradient_norm < 1e-8).all()
    # both chains of wells: the upper one (Mueller-Brown: the middle one) is the neighbour of the others
    expected = [[0, 2], [1, 2], [0, 1]] if potential.dim == 2 and len(result.saddles) == 3 else [[1, 2], [0, 2]]
    assert result.joins.tolist() == expected
    assert result.morse_sum == result.expected == 1
    assert result.complete and not result.warnings and result.rounds >= 2


@pytest.mark.parametrize("g", [0.1, 0.275, 0.675])
def test_coupled_chain_of_three(g) -> None:
    counts, barrier = CHAINS[3, g]
    result = search(CoupledChain(3, g), 3, config=SaddleSearch())
    assert tuple(result.index_counts[k] for k in range(4)) == counts
    assert result.complete and result.morse_sum == 1
    assert result.saddles.energy.min() + 0.75 == pytest.approx(barrier, abs=1e-9)
    if g > 0.2:  # only the aligned states are left
        assert (result.joins == [0, 1]).all()


def test_above_ten_dimensions_index_one_only() -> None:
    """Two double wells and ten quadratic directions, rotated: 4 minima, 4 saddles, joined around a square."""
    generator = torch.Generator().manual_seed(3)
    basis = torch.linalg.qr(torch.randn(12, 12, generator=generator, dtype=torch.float64))[0]

    def function(x: torch.Tensor) -> torch.Tensor:
        y = x @ basis
        return (
            (y[:, :2] ** 4 / 4 - y[:, :2] ** 2 / 2).sum(1) + y[:, 2:].square().sum(1) + 0.01 * y[:, 0] + 0.02 * y[:, 1]
        )

    result = search(function, 12)
    assert result.index_counts == {0: 4, 1: 4}
    assert sorted(map(tuple, result.joins.tolist())) == [(0, 1), (0, 2), (1, 3), (2, 3)]
    assert result.morse_sum is None and result.expected is None and result.complete


def test_one_dimension() -> None:
    """E = x^2/10 + cos 5x: minima and saddles (maxima) in turn, counted on a grid."""
    grid = np.linspace(-60, 60, 2_000_000)  # without the extremum at 0
    slope = np.sign(0.2 * grid - 5 * np.sin(5 * grid))
    turns = np.nonzero(np.diff(slope))[0]
    result = search(lambda x: 0.1 * x[:, 0] ** 2 + torch.cos(5 * x[:, 0]), 1)
    assert len(result.minima) + len(result.saddles) == len(turns)
    found = np.sort(np.concatenate([result.minima.x[:, 0], result.saddles.x[:, 0]]))
    np.testing.assert_allclose(found, grid[turns], atol=1e-4)
    assert result.complete and result.morse_sum == 1


def test_budget_that_ends_is_said() -> None:
    result = search(TripleWell(), config=SaddleSearch(max_rounds=1, quiet_rounds=1))
    assert not result.complete and result.rounds == 1
    assert any("max_rounds" in text for text in result.warnings)


def test_a_limit_on_the_index_is_kept() -> None:
    result = search(TripleWell(), config=SaddleSearch(max_index=1, sweep=0))
    assert set(result.index_counts) == {0, 1} and result.morse_sum is None


def test_a_degenerate_point_takes_the_morse_sum_away() -> None:
    """At g = 2/3 the saddle at the origin of the chain is degenerate: listed apart, no saddle, nothing expected."""
    result = search(CoupledChain(3, 2 / 3), 3)
    assert len(result.saddles) == 0 and result.expected is None
    assert len(result.degenerate) >= 1
    assert (np.abs(result.degenerate.x) < 0.05).all()


@pytest.mark.parametrize(
    "function, expected",
    [
        (lambda x: x.square().sum(1), True),
        (MullerBrown(), True),  # overflows far out
        (lambda x: (x.square().sum(1) + 1).sqrt(), True),
        (lambda x: x[:, 0] ** 2 / 2 - x[:, 0] ** 3 / 3 + x[:, 1] ** 2, False),
        (lambda x: -torch.exp(-x.square().sum(1)), False),
    ],
)
def test_whether_an_energy_confines(function, expected) -> None:
    energy = Energy(function, 2)
    generator, catalogue = torch.Generator().manual_seed(0), Catalogue(energy)
    minima = find_minima(energy, MinimaSearch(100), generator=generator, catalogue=catalogue)
    assert confines(Explorer(energy, catalogue, minima, generator, QUICK)) is expected


# -- what saddles join -------------------------------------------------------------------------------------------------


def test_a_side_that_runs_away_is_minus_one_with_a_warning() -> None:
    """E = x^2/2 - x^3/3 + y^2: the saddle (1, 0), energy 1/6, joins the well at the origin to nothing."""
    result = search(lambda x: x[:, 0] ** 2 / 2 - x[:, 0] ** 3 / 3 + x[:, 1] ** 2)
    np.testing.assert_allclose(result.saddles.x, [[1.0, 0.0]], atol=1e-9)
    np.testing.assert_allclose(result.saddles.energy, [1 / 6], atol=1e-12)
    assert result.joins.tolist() == [[-1, 0]]
    assert any("no known state" in text and Status.DIVERGED.text in text for text in result.warnings)
    assert result.expected is None and len(result.path_saddle) == 0 and result.paths.images.shape[0] == 0


def test_a_saddle_that_joins_a_state_to_itself() -> None:
    """A tilted ring: one minimum and one saddle, opposite each other, and the maximum near the centre."""
    result = search(lambda x: 4 * (x.square().sum(1) - 1) ** 2 + 0.3 * x[:, 0])
    assert result.joins.tolist() == [[0, 0]] and result.index_counts == {0: 1, 1: 1, 2: 1}
    assert result.complete and any("itself" in text for text in result.warnings)
    images = result.paths.images[0]
    np.testing.assert_allclose(images[[0, -1]], result.minima.x[[0, 0]], atol=1e-9)
    # the path goes once around: angles seen from the centre add up to a full turn
    angle = np.unwrap(np.arctan2(images[:, 1], images[:, 0]))
    assert abs(angle[-1] - angle[0]) == pytest.approx(2 * np.pi, abs=1e-6)


def test_a_side_that_ends_at_a_degenerate_point_says_so() -> None:
    """E = y^2 + x^4 (x - 1)^2: the saddle at x = 2/3 leads to the quartic minimum at the origin on one side."""
    result = search(lambda x: x[:, 1] ** 2 + x[:, 0] ** 4 * (x[:, 0] - 1) ** 2)
    np.testing.assert_allclose(result.saddles.x, [[2 / 3, 0.0]], atol=1e-8)
    assert result.joins.tolist() == [[-1, 0]]
    assert any(Status.DEGENERATE.text in text for text in result.warnings)


def test_shallow_wells_in_a_wide_landscape_are_not_stepped_over() -> None:
    """Wells at 0, 3 and 500 on a line: the saddle at 1.5 joins the two close ones."""

    def function(x: torch.Tensor) -> torch.Tensor:
        centers = torch.tensor([0.0, 3.0, 500.0], dtype=x.dtype)
        return -torch.logsumexp(-0.5 * (x[:, :1] - centers).square(), 1) + x[:, 1].square()

    result = search(function)
    np.testing.assert_allclose(np.sort(result.saddles.x[:, 0]), [1.5, 251.5], atol=0.01)
    by_x = np.argsort(result.minima.x[:, 0])
    close = result.joins[result.saddles.x[:, 0] < 10]
    assert sorted(close[0].tolist()) == sorted(by_x[:2].tolist())


def test_a_string_adds_the_minimum_it_passes() -> None:
    """Three wells in a row with the middle one hidden: walks are kept short, so that only the string can meet it."""
    energy = Energy(lambda x: 0.2 * x[:, 0] ** 2 * (x[:, 0] ** 2 - 4) ** 2 + 3 * x[:, 1] ** 2, 2)
    catalogue, generator = Catalogue(energy), torch.Generator().manual_seed(0)
    ends = Points(np.array([[-2.0, 0.01], [2.0, 0.0]]))
    minima = find_minima(energy, MinimaSearch(starts=ends), generator=generator, catalogue=catalogue)
    assert len(minima.minima) == 2
    walk = EigenvectorFollowing(max_iterations=1, initial_trust=1e-6, largest_trust=1e-6)
    config = SaddleSearch(rows=1, rows_per_point=0, sweep=0, walk=walk)
    result = find_saddles(energy, minima, config, generator=generator, catalogue=catalogue)
    np.testing.assert_allclose(np.sort(result.minima.x[:, 0]), [-2, 0, 2], atol=1e-9)
    np.testing.assert_allclose(np.abs(result.saddles.x[:, 0]), 2 / 3**0.5, atol=1e-9)


def test_each_saddle_has_its_minimum_energy_path() -> None:
    result = search(TripleWell())
    paths = result.paths
    assert result.path_saddle.tolist() == [0, 1, 2]
    for k, (a, b) in enumerate(result.joins):
        images, energy = paths.images[k], paths.energy[k]
        np.testing.assert_allclose(images[[0, -1]], result.minima.x[[a, b]], atol=1e-9)
        top = energy.argmax()
        np.testing.assert_allclose(images[top], result.saddles.x[k], atol=1e-9)
        assert (np.diff(energy[: top + 1]) > 0).all() and (np.diff(energy[top:]) < 0).all()


# -- walks -------------------------------------------------------------------------------------------------------------


def walk(x: np.ndarray, index: int, potential=None, **fields) -> dict[str, torch.Tensor]:
    box = torch.full((2,), -5.0, dtype=torch.float64), torch.full((2,), 5.0, dtype=torch.float64)
    energy = Energy(potential or TripleWell(), 2)
    target = torch.full((len(x),), index)
    return follow_eigenvectors(energy, torch.as_tensor(x), target, 1.0, box, EigenvectorFollowing(**fields))


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_walk_ends_at_the_wanted_index_from_nearby(index) -> None:
    known = TripleWell().stationary_points()
    wanted = known.x[known.index == index]
    ended = walk(wanted + 0.05, index)
    assert (ended["status"] == Status.CONVERGED).all()
    np.testing.assert_allclose(ended["x"], wanted, atol=1e-4)


def test_walks_are_independent() -> None:
    x = np.random.default_rng(0).uniform(-1.5, 1.5, (60, 2))
    together, half = walk(x, 1), walk(x[::2], 1)
    assert torch.equal(half["status"], together["status"][::2])
    torch.testing.assert_close(half["x"], together["x"][::2], rtol=0, atol=1e-9)


def test_walks_out_of_the_region_and_from_nowhere_are_reported() -> None:
    out = walk(np.array([[4.9, 4.9]]), 1, lambda x: -((x[:, 0] - 40) ** 2) + (x[:, 1] - 40) ** 2)
    assert out["status"].item() == Status.DIVERGED
    assert walk(np.array([[200.0, 0.0]]), 1, MullerBrown())["status"].item() == Status.NOT_FINITE


# -- invariance --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor, length", [(1.0, 1.0), (1e6, 1.0), (1e-6, 1.0), (1.0, 1e3), (1.0, 1e-2)])
def test_rotation_translation_constant_and_units(factor, length) -> None:
    angle = 2.2
    rotation = torch.tensor([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    shift = length * torch.tensor([7.0, -3.0], dtype=torch.float64)
    result = search(lambda x: factor * (TripleWell()((x - shift) @ rotation / length) + 17.0))
    known = TripleWell().stationary_points()
    for index, points in enumerate((result.minima, result.saddles, result.higher)):
        expected = length * known.x[known.index == index] @ rotation.numpy().T + shift.numpy()
        distance = np.linalg.norm(expected[:, None] - points.x[None], axis=-1)
        assert len(points) == len(expected) and distance.min(1).max() < 1e-8 * length
        np.testing.assert_allclose(
            np.sort(points.energy), factor * (known.energy[known.index == index] + 17), rtol=1e-10
        )
    assert result.complete and result.morse_sum == 1
    lower = result.saddles.energy.argmax()
    between = result.minima.energy[result.joins[lower]]
    np.testing.assert_allclose(between, factor * (17 - 3.994860601854), rtol=1e-10)


# -- regions of capture ------------------------------------------------------------------------------------------------


def tilted_wells(x: torch.Tensor) -> torch.Tensor:
    """A deep well, a shallow one just beyond the saddle, and nine stiff directions."""
    stiffness = torch.linspace(2, 8, 9, dtype=x.dtype, device=x.device)
    return x[:, 0] ** 4 / 4 - x[:, 0] ** 2 / 2 + 0.35 * x[:, 0] + (stiffness * x[:, 1:].square()).sum(1)


TILTED = np.sort(np.roots([1, 0, -1, 0.35]).real)  # minimum, saddle, minimum, along the first coordinate


@pytest.mark.parametrize("seed", range(3))
def test_a_shallow_well_is_left_across_its_saddle(seed: int) -> None:
    """In ten dimensions random directions do not meet a saddle that is near in one of them, and a ball and ellipsoid
    which they test would hold it: both sides of the saddle would be told to end in the shallow well."""
    energy = Energy(tilted_wells, 10)
    found = find_saddles(energy, config=SaddleSearch(max_index=1), generator=torch.Generator().manual_seed(seed))
    np.testing.assert_allclose(found.minima.x[:, 0], TILTED[[0, 2]], atol=1e-8)
    np.testing.assert_allclose(found.saddles.x[:, 0], TILTED[[1]], atol=1e-8)
    assert found.joins.tolist() == [[0, 1]] and found.complete


def test_regions_of_capture_hold_no_other_stationary_point() -> None:
    energy = Energy(tilted_wells, 10)
    x = np.zeros((3, 10))
    x[:, 0] = TILTED
    tested = make_basins(energy, x[[0, 2]], torch.Generator().manual_seed(0))
    saddle, wide = torch.as_tensor(x[[1]]), torch.tensor([1.0, 5.0], dtype=torch.float64)
    assert tested.nearest(saddle)[0].tolist() == [-1]  # the softest mode has met it
    assert tested.extent is not None
    tested = replace(tested, radius=wide * tested.radius, extent=wide * tested.extent)  # had none been tested along it
    assert tested.nearest(saddle)[0].tolist() == [1]
    clear = tested.without(saddle)
    assert clear.nearest(saddle)[0].tolist() == [-1]
    np.testing.assert_allclose(clear.radius[1], 0.5 * (TILTED[2] - TILTED[1]))
    np.testing.assert_allclose(clear.extent[1], 0.5 * (TILTED[2] - TILTED[1]) * (3 * TILTED[2] ** 2 - 1) ** 0.5)
    assert clear.radius[0] == tested.radius[0] and (clear.extent <= tested.extent).all()
    away = torch.full((1, 10), 50.0, dtype=torch.float64)
    assert (tested.without(away).radius == tested.radius).all() and (tested.without(away).extent == tested.extent).all()


def test_basins_of_a_search_are_those_of_its_minima_in_their_order() -> None:
    """They label as basins made anew do, and their regions hold no other stationary point."""
    energy = Energy(TripleWell(), 2)
    found = find_saddles(energy, generator=torch.Generator().manual_seed(0))
    assert found.basins is not None
    np.testing.assert_array_equal(found.basins.x.numpy(), found.minima.x)
    order = np.array([2, 0, 1])
    turned = found.basins.ordered(order)
    points = np.random.default_rng(0).uniform(-2, 2, (500, 2))
    labels = assign_basins(energy, points, found.basins)
    anew = make_basins(energy, found.minima.x, torch.Generator().manual_seed(1))
    np.testing.assert_array_equal(labels, assign_basins(energy, points, anew))
    np.testing.assert_array_equal(order[assign_basins(energy, points, turned)], labels)
    assert (found.basins.nearest(torch.as_tensor(found.saddles.x))[0] == -1).all()
