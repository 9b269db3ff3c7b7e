"""The multi-start search for minima: what it finds, in which region, and what it says about the rest."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oracles import TRIPLE_WELL

from landscape.energy.energy import Energy
from landscape.energy.potentials import CoupledChain, DoubleWell, MullerBrown, TripleWell
from landscape.errors import EnergyError, UsageError
from landscape.search import LBFGS, Box, Catalogue, Gaussian, MinimaResult, MinimaSearch, Points, Status, find_minima

WELLS = TripleWell().stationary_points()
MINIMA = WELLS.x[WELLS.index == 0]  # two lower ones of equal energy (left first), the upper one


def search(function, dim: int = 2, seed: int = 0, **fields) -> MinimaResult:
    fields = {"n_starts": 200, **fields}
    return find_minima(Energy(function, dim), MinimaSearch(**fields), generator=torch.Generator().manual_seed(seed))


def scaled(s: float, shift=(0.0, 0.0)):
    """The triple well with lengths multiplied by s and the origin moved to `shift`."""
    return lambda x: TripleWell()((x - torch.tensor(shift, dtype=torch.float64)) / s)


@pytest.mark.parametrize("s", [1e-3, 1e-2, 1.0, 1e2, 1e3, 1e4])
def test_every_unit_of_length_finds_its_own_scale(s) -> None:
    result = search(scaled(s))
    np.testing.assert_allclose(result.minima.x, s * MINIMA, atol=1e-9 * s)
    np.testing.assert_allclose(result.minima.energy, [row[0] for row in TRIPLE_WELL[:3]], atol=1e-11)
    assert result.converged and not result.warnings
    assert 2 * 1.5 * s < result.radius < 50 * s


@pytest.mark.parametrize("shift", [(50.0, -30.0), (1000.0, -600.0), (0.0, 7.0)])
@pytest.mark.parametrize("seed", [0, 1])
def test_wells_far_from_the_origin(shift, seed) -> None:
    result = search(scaled(1.0, shift), seed=seed)
    np.testing.assert_allclose(result.minima.x, MINIMA + shift, atol=1e-9)
    assert result.converged and np.abs(result.center - shift).max() < 2


@pytest.mark.parametrize("factor, constant", [(1e-6, 0.0), (1e6, 0.0), (1.0, 1e6), (1.0, -1e9), (1e6, 1e9)])
def test_units_and_constants_of_the_energy(factor, constant) -> None:
    """The merging rule must neither split nor join wells; order within 1e-8 (1 + |E|) is by coordinates."""
    result = search(lambda x: factor * TripleWell()(x) + constant)
    by_x = result.minima.select(np.argsort(result.minima.x[:, 0]))  # y is equal in two of them, to the last bits
    expected = np.argsort(MINIMA[:, 0])
    np.testing.assert_allclose(by_x.x, MINIMA[expected], atol=1e-6)
    energies = np.array([row[0] for row in TRIPLE_WELL[:3]])[expected]
    np.testing.assert_allclose(by_x.energy - constant, factor * energies, atol=1e-9 * factor + 1e-14 * abs(constant))


def test_wells_that_are_close_and_one_far_away() -> None:
    centers = torch.tensor([[0.0, 0.0], [3.0, 0.0], [500.0, 0.0]], dtype=torch.float64)
    result = search(lambda x: -torch.logsumexp(-0.5 * (x[:, None] - centers).square().sum(2), 1))
    assert len(result.minima) == 3
    assert sorted(np.round(result.minima.x[:, 0]).tolist()) == [0, 3, 500]


@pytest.mark.parametrize("dim", [1, 2, 50])
@pytest.mark.parametrize("center", [0.0, 20.0])
def test_a_single_well(dim, center) -> None:
    result = search(lambda x: (x - center).square().sum(1), dim)
    np.testing.assert_allclose(result.minima.x, np.full((1, dim), center), atol=1e-9)
    assert result.converged and (result.start_status == Status.CONVERGED).all() and (result.start_state == 0).all()
    assert result.minima.hits.tolist() == [200]


def test_every_start_has_a_status_and_converged_ones_a_state() -> None:
    result = search(TripleWell(), n_starts=300)
    assert result.start_status.shape == result.start_state.shape == (300,)
    assert (result.start_status == Status.CONVERGED).all()
    assert (np.bincount(result.start_state, minlength=3) == result.minima.hits).all()
    assert (result.minima.index == 0).all() and (result.minima.eigenvalues > 0).all()
    assert (result.minima.gradient_norm < 1e-8).all()


def test_ids_do_not_depend_on_the_seed() -> None:
    """All corners of the cube are equal or nearly equal in energy: order by coordinates within a level."""
    results = [search(CoupledChain(3, 0.1), 3, seed) for seed in (0, 1, 2)]
    for result in results:
        assert len(result.minima) == 8
        np.testing.assert_allclose(result.minima.x, results[0].minima.x, atol=1e-9)
        levels = np.round(result.minima.energy, 7)
        assert (np.diff(levels) >= 0).all()
        for level in set(levels):
            rows = [tuple(np.round(row, 5)) for row in result.minima.x[levels == level]]
            assert rows == sorted(rows)


def test_the_same_seed_gives_the_same_answer() -> None:
    first, second = search(TripleWell(), seed=5), search(TripleWell(), seed=5)
    assert (first.minima.x == second.minima.x).all() and (first.minima.hits == second.minima.hits).all()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_starts_hardly_depend_on_each_other(seed) -> None:
    """Given starts in another order, and half of them: the same minima, and the same one for nearly every start. A few
    near a ridge are led to another side by the minima that were known before them, one in a hundred on average."""
    x = np.random.default_rng(seed).uniform(-2, 2, (80, 2))
    order = np.random.default_rng(1).permutation(80)
    all_of_them, permuted = search(TripleWell(), starts=Points(x)), search(TripleWell(), starts=Points(x[order]))
    np.testing.assert_allclose(permuted.minima.x, all_of_them.minima.x, atol=1e-9)
    assert (permuted.start_state == all_of_them.start_state[order]).mean() >= 0.9
    # the box of the starts sets the length scale: keep its corners
    corners = np.array([x.min(0), x.max(0)])
    part, rest = (search(TripleWell(), starts=Points(np.concatenate([corners, x[k::2]]))) for k in (0, 1))
    assert (part.start_state[2:] == all_of_them.start_state[::2]).mean() >= 0.9
    assert (rest.start_state[2:] == all_of_them.start_state[1::2]).mean() >= 0.9


# -- saddles and plateaus ----------------------------------------------------------------------------------------------


def test_starts_on_saddles_maxima_and_their_symmetric_lines_go_on_to_minima() -> None:
    line = np.stack([np.zeros(20), np.linspace(-2.0, 0.51, 20)], 1)  # flows to the saddle at x = 0
    starts = np.concatenate([WELLS.x[WELLS.index > 0], line])
    result = search(TripleWell(), starts=Points(starts))
    assert (result.start_status == Status.CONVERGED).all() and (result.start_state >= 0).all()
    assert (result.minima.index == 0).all() and (result.minima.eigenvalues > 0).all()
    assert len(result.minima) <= 3
    np.testing.assert_allclose(TripleWell()(torch.as_tensor(result.minima.x)), result.minima.energy)


def test_both_wells_are_reached_from_the_saddle_between_them() -> None:
    """40 starts exactly on it, each to a random side: one side only has probability 2^-39."""
    result = search(lambda x: (x**4 / 4 - x**2 / 2).sum(1), 1, starts=Points(np.zeros((40, 1))))
    np.testing.assert_allclose(result.minima.x, [[-1.0], [1.0]], atol=1e-9)
    assert result.minima.hits.sum() == 40 and (result.minima.hits > 0).all()


def test_a_saddle_in_fifty_dimensions_is_left() -> None:
    stiffness = torch.linspace(1, 5, 49, dtype=torch.float64)
    function = lambda x: x[:, 0] ** 4 / 4 - x[:, 0] ** 2 / 2 + (stiffness * x[:, 1:] ** 2).sum(1)  # noqa: E731
    starts = np.concatenate([np.zeros((5, 1)), np.random.default_rng(0).normal(size=(5, 49))], 1)
    result = search(function, 50, starts=Points(starts))
    assert (result.start_status == Status.CONVERGED).all()
    np.testing.assert_allclose(np.abs(result.minima.x[:, 0]), 1, atol=1e-9)


def test_a_start_on_a_plateau_is_degenerate_and_not_a_minimum() -> None:
    """A well in a plain that is flat to the last bit: one start in the well, one far out on the plain."""
    starts = np.array([[0.1, 0.1], [60.0, 10.0]])
    result = search(lambda x: -torch.exp(-x.square().sum(1)), starts=Points(starts))
    np.testing.assert_allclose(result.minima.x, [[0.0, 0.0]], atol=1e-9)
    assert result.start_status.tolist() == [Status.CONVERGED, Status.DEGENERATE]
    assert result.start_state.tolist() == [0, -1]
    assert len(result.degenerate) >= 1 and any("eigenvalue" in text for text in result.warnings)


def test_a_degenerate_saddle_is_left_where_it_can_be() -> None:
    """Exactly on a monkey saddle the Hessian vanishes; a random push falls into one of the three wells."""
    function = lambda x: x[:, 0] ** 3 - 3 * x[:, 0] * x[:, 1] ** 2 + x.square().sum(1) ** 2  # noqa: E731
    result = search(function, starts=Points(np.concatenate([np.zeros((20, 2)), [[1.0, 1.0], [-1.0, -1.0]]])))
    assert len(result.minima) == 3 and (result.minima.hits[:3] > 0).all()
    np.testing.assert_allclose(np.linalg.norm(result.minima.x, axis=1), 0.75, atol=1e-9)


def test_degenerate_minima_are_listed_apart() -> None:
    """A nondegenerate well at (1, 0) and a quartic one at the origin, of equal energy."""
    result = search(lambda x: x[:, 1] ** 2 + x[:, 0] ** 4 * (x[:, 0] - 1) ** 2)
    np.testing.assert_allclose(result.minima.x, [[1.0, 0.0]], atol=1e-8)
    assert (np.abs(result.degenerate.x) < 1e-2).all() and len(result.degenerate) >= 1
    at_origin = result.start_status == Status.DEGENERATE
    assert at_origin.any() and (result.start_state[at_origin] == -1).all()


# -- bad landscapes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "function, reason",
    [
        (lambda x: 0 * x.sum(1) + 1, "degenerate"),
        (lambda x: x.sum(1), "ran away"),
        (lambda x: -x.square().sum(1), "ran away"),
        (lambda x: x[:, 0] ** 3 + x[:, 1] ** 2, "zero gradient|ran away|degenerate"),
        (lambda x: (x.square().sum(1) - 1) ** 2, "degenerate"),
        (lambda x: x[:, 0] ** 4 + x[:, 1] ** 4, "degenerate"),
        (lambda x: x.abs().sum(1), "zero gradient"),
        (lambda x: -1 / x.norm(dim=1) + x.square().sum(1), "zero gradient"),
        (lambda x: x.sum(1) * torch.nan, "finite"),
    ],
)
def test_without_a_minimum_one_line_says_why(function, reason) -> None:
    with pytest.raises(EnergyError, match=reason) as caught:
        search(function, n_starts=100)
    assert "\n" not in str(caught.value)


def test_rows_that_run_away_are_diverged_and_reported() -> None:
    """A well with an exit: E = x^2/2 - x^3/3 + y^2 falls without end beyond the saddle at x = 1."""
    result = search(lambda x: x[:, 0] ** 2 / 2 - x[:, 0] ** 3 / 3 + x[:, 1] ** 2)
    np.testing.assert_allclose(result.minima.x, [[0.0, 0.0]], atol=1e-9)
    diverged = result.start_status == Status.DIVERGED
    assert diverged.any() and (result.start_state[diverged] == -1).all()
    assert not result.converged
    assert any("unbounded below" in text for text in result.warnings)
    assert any(f"{diverged.sum()} of 200" in text for text in result.warnings)


def test_rows_that_fall_into_a_singularity_are_diverged() -> None:
    """E -> -infinity at the origin: far below all minima, though nowhere far away."""
    function = lambda x: TripleWell()(x) - 0.1 / x.norm(dim=1)  # noqa: E731
    near = np.random.default_rng(0).normal(size=(20, 2)) * 1e-3
    result = search(function, starts=Points(np.concatenate([near, MINIMA])))
    assert len(result.minima) == 3
    assert set(result.start_status[:20].tolist()) <= {Status.DIVERGED, Status.UNFINISHED, Status.NOT_FINITE}
    assert (result.start_status[:20] == Status.DIVERGED).any() and (result.start_state[:20] == -1).all()


def test_a_region_that_never_ends_is_said() -> None:
    with pytest.raises(EnergyError, match="periodic"):
        search(lambda x: -torch.cos(x).sum(1))
    assert len(search(lambda x: -torch.cos(x).sum(1), starts=Box(-1.0, 7.0)).minima) >= 4


def test_overflow_needs_no_box_and_no_finite_start_is_lost() -> None:
    result = search(MullerBrown())
    np.testing.assert_allclose(result.minima.energy, [-146.69951721, -108.1667241169, -80.76781812966], atol=1e-7)
    assert not (result.start_status == Status.NOT_FINITE).any()


def test_given_starts_without_a_finite_energy_are_reported() -> None:
    result = search(MullerBrown(), starts=Points(np.array([[200.0, 200.0], [0.6, 0.0]])))
    assert result.start_status.tolist() == [Status.NOT_FINITE, Status.CONVERGED]
    assert any("not finite" in text for text in result.warnings)


def test_an_iteration_limit_that_is_too_low_is_said() -> None:

    with pytest.raises(EnergyError):
        search(MullerBrown(), starts=Box(-1.0, 1.0), descent=LBFGS(max_iterations=1))


# -- starts the user gives ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("starts", [Box((-2.0, -1.0), (2.0, 2.0)), Gaussian(0.0, 1.0)])
def test_box_and_gaussian_starts(starts) -> None:
    result = search(TripleWell(), starts=starts)
    np.testing.assert_allclose(result.minima.x, MINIMA, atol=1e-9)


@pytest.mark.parametrize("start", [[0.1, 0.2], [0.0, 9.0], [-30.0, 40.0]])
def test_a_single_start_reaches_a_minimum(start) -> None:
    result = search(TripleWell(), starts=Points(np.array([start])))
    assert len(result.minima) == 1 and result.start_state.tolist() == [0]
    assert np.linalg.norm(MINIMA - result.minima.x, axis=1).min() < 1e-9


def test_a_start_in_a_small_well_stays_there() -> None:
    """The whole landscape in 1e-2: the extent of the starts is the length scale, not 1."""
    result = search(scaled(1e-2), starts=Points(1e-2 * (MINIMA + 0.05)))
    assert result.start_state.tolist() == [0, 1, 2]


def test_starts_of_another_dimension_are_refused() -> None:
    with pytest.raises(UsageError, match="dimension"):
        search(TripleWell(), starts=Points(np.zeros((3, 5))))


def test_the_catalogue_keeps_the_saddles_met_on_the_way() -> None:
    catalogue = Catalogue(Energy(DoubleWell(), 1))
    find_minima(catalogue.energy, MinimaSearch(starts=Points(np.zeros((40, 1)))), catalogue=catalogue)
    assert [catalogue.count(k) for k in (0, 1)] == [2, 1]


# -- invariance --------------------------------------------------------------------------------------------------------


def test_rotation_translation_and_constant() -> None:
    angle = 0.7
    rotation = torch.tensor([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    shift = torch.tensor([3.0, -8.0], dtype=torch.float64)
    result = search(lambda x: MullerBrown()((x - shift) @ rotation) + 250.0)
    known = MullerBrown().stationary_points()
    expected = known.x[known.index == 0] @ rotation.numpy().T + shift.numpy()
    np.testing.assert_allclose(result.minima.x, expected, atol=1e-8)
    np.testing.assert_allclose(result.minima.energy, known.energy[known.index == 0] + 250, atol=1e-7)
    eigenvalues = [[410.5311346929, 4068.198955026], [543.8361890186, 3005.395864533], [221.0374728723, 1479.197022013]]
    np.testing.assert_allclose(result.minima.eigenvalues, eigenvalues, rtol=1e-9)


def test_a_bent_valley_takes_a_quarter_more_than_with_scipy_at_most() -> None:
    """Rosenbrock's valley from afar, where scipy's L-BFGS-B takes 84 and 80 evaluations, in no more than 105."""

    def valley(x: torch.Tensor) -> torch.Tensor:
        return 100 * (x[:, 1] - x[:, 0] ** 2) ** 2 + (1 - x[:, 0]) ** 2

    starts = Points(np.array([[-5.0, 20.0], [-4.0, 18.0]]))
    found = find_minima(Energy(valley, 2), MinimaSearch(starts=starts, descent=LBFGS(max_iterations=105)))
    np.testing.assert_allclose(found.minima.x, [[1, 1]], atol=1e-8)
    assert (found.start_state == 0).all()
