"""The driver loop, the batched descent, and where searches start."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import optimize

from landscape.energy.energy import Energy
from landscape.energy.potentials import MullerBrown, TripleWell
from landscape.errors import EnergyError, UsageError
from landscape.search import LBFGS, Box, Catalogue, Gaussian, MinimaSearch, Points, SaddleSearch, Status
from landscape.search.driver import Stages, State, in_one_batch, iterate
from landscape.search.lbfgs import relax
from landscape.search.recognition import known_points
from landscape.search.starts import draw_finite


def triple_well() -> Energy:
    return Energy(TripleWell(), 2)


def uniform(n: int, low: float, high: float, dim: int = 2, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return low + (high - low) * torch.rand(n, dim, generator=generator, dtype=torch.float64)


def countdown(state: State) -> State:
    """A method that counts `left` down and finishes a row at zero."""
    left = state["left"] - 1
    return {"left": left, "status": torch.where(left == 0, int(Status.CONVERGED), state["status"])}


def running(left: list[int]) -> State:
    return {"left": torch.tensor(left), "status": torch.full((len(left),), int(Status.RUNNING))}


def test_each_row_stops_at_its_own_iteration_and_keeps_its_place() -> None:
    seen: list[list[int]] = []
    ended = iterate(countdown, running([3, 1, 2, 9]), ("left",), 5, lambda rows, state: seen.append(rows.tolist()))
    assert ended["iterations"].tolist() == [3, 1, 2, 5]
    assert ended["status"].tolist() == [Status.CONVERGED] * 3 + [Status.UNFINISHED]
    assert ended["left"].tolist() == [0, 0, 0, 4]
    assert seen == [[0, 1, 2, 3], [0, 2, 3], [0, 3], [3], [3]]


def test_rows_that_arrive_with_a_status_are_returned_as_they_are() -> None:
    state = running([3, 1])
    state["status"][0] = Status.NOT_FINITE
    ended = iterate(countdown, state, ("left",), 5)
    assert ended["status"].tolist() == [Status.NOT_FINITE, Status.CONVERGED]
    assert ended["left"].tolist() == [3, 0]
    assert ended["iterations"].tolist() == [0, 1]


def test_methods_side_by_side_share_their_evaluations() -> None:
    """Each gets its own answers, however many stages it has; those of a stage are evaluated in one call."""
    energy, calls = triple_well(), []
    watched = Energy(lambda x: calls.append(len(x)) or energy.function(x), 2)

    def method(points: list[torch.Tensor]) -> Stages[list[float]]:
        sums = []
        for x in points:
            value, gradient = yield x
            sums.append(float(value.sum() + gradient.sum()))
        return sums

    parts = [[uniform(n, -1, 1, seed=n) for n in sizes] for sizes in ((3, 2, 5), (), (4,), (0, 1))]
    with torch.inference_mode():
        found = in_one_batch(watched, *(method(part) for part in parts))
    assert calls == [3 + 4 + 0, 2 + 1, 5]
    for part, sums in zip(parts, found, strict=True):
        wanted = [float(energy.value(x).sum() + energy.gradient(x).sum()) for x in part]
        np.testing.assert_allclose(sums, wanted, rtol=1e-12)
    assert in_one_batch(watched) == []


def test_the_last_rows_may_be_left_unfinished() -> None:
    ended = iterate(countdown, running([3, 9, 1, 7]), ("left",), 20, leave=2)
    assert ended["status"].tolist() == [Status.CONVERGED, Status.UNFINISHED, Status.CONVERGED, Status.UNFINISHED]
    assert ended["left"].tolist() == [0, 6, 0, 4] and ended["iterations"].tolist() == [3, 3, 1, 3]


def test_a_part_of_the_descents_may_be_left_on_its_way() -> None:
    """The others end as they do anyway, and those left have gone as far as the last of them."""
    energy, x = triple_well(), uniform(40, -2, 2)
    whole, part = relax(energy, x, 2.0), relax(energy, x, 2.0, leave=0.25)
    left = part["status"] == Status.UNFINISHED
    assert 0 < left.sum() <= 10
    for name in ("x", "energy", "iterations"):
        assert torch.equal(part[name][~left], whole[name][~left])
    last = part["iterations"][~left].max()
    assert (part["iterations"][left] == last).all() and (whole["iterations"][left] > last).all()
    assert (part["energy"][left] < energy.value(x[left])).all()


def test_no_rows() -> None:
    assert iterate(countdown, running([]), ("left",), 5)["status"].shape == (0,)
    assert relax(triple_well(), torch.zeros(0, 2, dtype=torch.float64), 1.0)["x"].shape == (0, 2)


@pytest.mark.parametrize("status", list(Status))
def test_every_status_has_a_text(status: Status) -> None:
    assert len(status.text) > 10


# -- descent ---------------------------------------------------------------------------------------------------------


def test_descent_costs_one_gradient_a_row_and_iteration() -> None:
    energy = triple_well()
    ended = relax(energy, uniform(50, -2, 2), 2.0)
    assert (ended["status"] == Status.CONVERGED).all()
    assert energy.evaluations.as_dict() == {
        "value": 0, "gradient": 50 + int(ended["iterations"].sum()), "hvp": 0, "hessian": 0,
    }  # fmt: skip


def test_descent_solves_a_quadratic_to_its_tolerance() -> None:
    """E = (x - c) A (x - c) / 2 with condition number 1e4 in ten dimensions."""
    generator = torch.Generator().manual_seed(1)
    basis = torch.linalg.qr(torch.randn(10, 10, generator=generator, dtype=torch.float64))[0]
    matrix = basis @ torch.diag(torch.logspace(-2, 2, 10, dtype=torch.float64)) @ basis.T
    center = torch.arange(10, dtype=torch.float64) / 5
    energy = Energy(lambda x: 0.5 * ((x - center) @ matrix * (x - center)).sum(1), 10)
    ended = relax(energy, uniform(20, -3, 3, 10), 3.0, LBFGS(step_tolerance=1e-9))
    assert (ended["status"] == Status.CONVERGED).all()
    # the step is measured with an estimate of the curvature that may be wrong by the condition number
    assert (ended["x"] - center).norm(dim=1).max() < 1e-9 * (1 + center.norm()) * 1e4


@pytest.mark.parametrize("memory", [2, 5])
def test_either_form_of_the_update_solves_a_quadratic(memory) -> None:
    """In ten dimensions five pairs keep the whole matrix, two use the recursion; the curvatures span 1 to 100."""
    curvature = torch.logspace(0, 2, 10, dtype=torch.float64)
    energy = Energy(lambda x: 0.5 * (curvature * x.square()).sum(1), 10)
    ended = relax(energy, uniform(20, -3, 3, 10), 3.0, LBFGS(memory=memory, step_tolerance=1e-9))
    assert (ended["status"] == Status.CONVERGED).all()
    assert ended["x"].norm(dim=1).max() < 1e-7


@pytest.mark.parametrize("radius", [3.0, 1e3, 1e4])
def test_a_wall_met_far_off_says_nothing_of_where_a_step_began(radius: float) -> None:
    """Double well from within [-3, 3], R up to ten thousand: first steps meet the x^4 wall, whose curvature would make
    every step near the flat top seem small (and cost 4,700 evaluations). All rows come to rest in a well, soon."""
    energy = Energy(lambda x: (x[:, 0] ** 2 - 1) ** 2, 1)
    ended = relax(energy, uniform(200, -3, 3, 1), radius)
    assert (ended["status"] == Status.CONVERGED).all()
    assert (ended["x"].abs() - 1).abs().max() < 1e-3 and ended["gradient"].abs().max() < 1e-2
    assert energy.evaluations.gradient < 15 * 200


def test_steps_to_where_there_is_no_energy_are_refused_and_shortened() -> None:
    """-sqrt(1 - x^2) - 100 sqrt(1 - y^2), nan beyond 1, where first steps of three times the scale lead. The estimate
    of the inverse Hessian stays free of nan: by gradients alone rows would take hundreds of evaluations."""
    energy = Energy(lambda x: -(1 - x.square()).sqrt() @ torch.tensor([1.0, 100.0], dtype=x.dtype), 2)
    ended = relax(energy, uniform(100, -0.99, 0.99), 1.0, first=3.0)
    assert (ended["status"] == Status.CONVERGED).all()
    assert ended["x"].norm(dim=1).max() < 1e-2  # estimates of curvature may be wrong by the condition number
    assert energy.evaluations.gradient < 25 * 100


def test_refused_steps_teach_the_recursion_too() -> None:
    """Fourteen dimensions (pairs, no matrix) of -x^2 / 2 + x^20, flat in the middle, with walls at the minima: all rows
    come to minima, |x_i| = 20^(-1/18), in fewer evaluations than scipy's L-BFGS-B takes."""
    energy = Energy(lambda x: (x**20 - 0.5 * x.square()).sum(1), 14)
    x = uniform(30, -1, 1, 14)
    ended = relax(energy, x, 3.0, LBFGS(step_tolerance=1e-7))
    assert (ended["status"] == Status.CONVERGED).all()
    assert (ended["x"].abs() - 20 ** (-1 / 18)).abs().max() < 1e-5
    taken = energy.evaluations.gradient

    def one(row: np.ndarray) -> tuple[float, np.ndarray]:
        return float((row**20 - 0.5 * row**2).sum()), 20 * row**19 - row

    theirs = sum(optimize.minimize(one, row, jac=True, method="L-BFGS-B", tol=1e-12).nfev for row in x.numpy())
    assert taken < theirs


def test_rows_that_come_to_a_known_minimum_stop_there() -> None:
    """They end with its number beside it; the others where they would anyway. Nothing more is evaluated than before."""
    energy, x = triple_well(), uniform(60, -2, 2)
    catalogue = Catalogue(energy)
    catalogue.add(torch.tensor([[0.0, 1.5], [1.05, -0.04]], dtype=torch.float64))
    center = torch.as_tensor(catalogue.points().x[1])
    alone = relax(energy, x, 2.0)
    mine = (alone["x"] - center).norm(dim=1) < 1e-3
    before = energy.evaluations.gradient
    ended = relax(energy, x, 2.0, known=known_points(energy, catalogue.points(), np.array([1])))
    captured = ended["status"] == Status.CAPTURED
    assert mine.sum() > 5 and bool(captured[mine].all()) and captured.sum() <= mine.sum() + 3
    assert torch.equal(ended["number"], torch.where(captured, 1, -1)) and (alone["number"] == -1).all()
    assert ((ended["x"] - center).norm(dim=1) < 1)[captured].all()  # the nearest saddle is 1.09 away
    torch.testing.assert_close(ended["x"][~captured & ~mine], alone["x"][~captured & ~mine], rtol=0, atol=1e-7)
    assert energy.evaluations.gradient - before < before - 2 * int(mine.sum())


def test_rows_end_in_balls_or_by_products_where_no_hessians_are_kept() -> None:
    """Near one of three wells, where a product or a radius tells; otherwise as without."""
    energy, x = triple_well(), uniform(60, -2, 2)
    catalogue = Catalogue(energy)
    catalogue.add(torch.tensor([[1.05, -0.04]], dtype=torch.float64))
    center = torch.as_tensor(catalogue.points().x)
    energy.dense_dim = 1
    assert energy.matrix_free
    alone = relax(energy, x, 2.0)
    mine = (alone["x"] - center[0]).norm(dim=1) < 1e-3
    products = []
    for radius in (0.0, 0.2):
        balls, before = torch.tensor([radius], dtype=torch.float64), energy.evaluations.hvp
        ended = relax(energy, x, 2.0, known=known_points(energy, catalogue.points(), np.array([0]), balls))
        assert mine.sum() > 5 and torch.equal(ended["status"] == Status.CAPTURED, mine)
        assert torch.equal(ended["number"], torch.where(mine, 0, -1))
        torch.testing.assert_close(ended["x"][~mine], alone["x"][~mine], rtol=0, atol=1e-7)
        assert (ended["x"] - center[0]).norm(dim=1)[mine].max() < 0.5
        products.append(energy.evaluations.hvp - before)
    assert mine.sum() <= products[0] <= 60 + mine.sum() and products[1] < products[0]


def test_known_minima_do_not_tie_rows_to_each_other() -> None:
    """However a batch is cut, each row ends at the same point with the same number."""
    energy, x = triple_well(), uniform(300, -2, 2)
    catalogue = Catalogue(energy)
    catalogue.add(torch.tensor([[1.05, -0.04], [-1.05, -0.04]], dtype=torch.float64))
    known = known_points(energy, catalogue.points(), np.array([0, 1]))
    whole = relax(energy, x, 0.3, center=x, known=known)
    parts = [relax(energy, part, 0.3, center=part, known=known) for part in x.split(37)]
    assert (whole["number"] >= 0).sum() > 100
    assert torch.equal(torch.cat([part["number"] for part in parts]), whole["number"])
    torch.testing.assert_close(torch.cat([part["x"] for part in parts]), whole["x"], rtol=0, atol=1e-7)


def test_descent_never_climbs() -> None:
    energy = triple_well()
    x = uniform(100, -2, 2)
    ended = relax(energy, x, 2.0)
    assert (ended["energy"] <= energy.value(x)).all()
    torch.testing.assert_close(ended["energy"], energy.value(ended["x"]))
    torch.testing.assert_close(ended["gradient"], energy.gradient(ended["x"]))


def test_rows_do_not_depend_on_their_neighbours() -> None:
    """Permuted, or with half of them dropped: the same ends."""
    energy, x = triple_well(), uniform(60, -2, 2)
    alone = relax(energy, x, 2.0)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    permuted, half = relax(energy, x[order], 2.0), relax(energy, x[::2], 2.0)
    torch.testing.assert_close(permuted["x"], alone["x"][order], rtol=0, atol=1e-7)
    torch.testing.assert_close(half["x"], alone["x"][::2], rtol=0, atol=1e-7)
    assert torch.equal(half["status"], alone["status"][::2])


def test_translation_with_the_center_changes_nothing() -> None:
    energy, shift = triple_well(), torch.tensor([640.0, -1280.0], dtype=torch.float64)
    moved = Energy(lambda x: TripleWell()(x - shift), 2)
    x = uniform(40, -2, 2)
    config = LBFGS(step_tolerance=1e-9)
    here, there = relax(energy, x, 2.0, config), relax(moved, x + shift, 2.0, config, center=shift)
    torch.testing.assert_close(there["x"] - shift, here["x"], rtol=0, atol=1e-5)


def test_one_length_scale_and_one_center_a_row() -> None:
    energy, x = triple_well(), uniform(4, -2, 2)
    radius = torch.tensor([2.0, 2.0, 1.0, 1.0], dtype=torch.float64)
    ended = relax(energy, x, radius, center=x)
    first, last = relax(energy, x[:1], 2.0, center=x[0]), relax(energy, x[3:], 1.0, center=x[3])
    torch.testing.assert_close(ended["x"][[0, 3]], torch.cat([first["x"], last["x"]]), rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    "function", [lambda x: -x.square().sum(1), lambda x: x.sum(1), lambda x: -(x[:, 0] ** 4) + x[:, 1] ** 2]
)
def test_energies_that_fall_without_end_diverge_soon(function) -> None:
    ended = relax(Energy(function, 2), uniform(20, -1, 1), 1.0)
    assert (ended["status"] == Status.DIVERGED).all()
    assert ended["iterations"].max() < 100


def test_wells_beyond_the_bound_are_divergence_whenever_they_are_met() -> None:
    """Steps grow by 1.7, so that a row passes 1000 R and comes to rest within few iterations."""
    x = torch.linspace(-1, 1, 40, dtype=torch.float64)[:, None]
    for place, status in ((900.0, Status.CONVERGED), (1500.0, Status.DIVERGED), (2000.0, Status.DIVERGED)):
        ended = relax(Energy(lambda x, m=place: 1e-3 * (x[:, 0] - m) ** 2, 1), x, 1.0)
        assert set(ended["status"].tolist()) == {int(status)}


def test_a_bottomless_hole_is_no_energy() -> None:
    """E = -inf beyond x = -1 is refused as nan is."""
    energy = Energy(lambda x: torch.where(x[:, 0] < -1, -torch.inf, x[:, 0] ** 2 + x[:, 0]), 1)
    ended = relax(energy, torch.tensor([[0.5], [3.0]], dtype=torch.float64), 20.0)
    assert ended["energy"].isfinite().all()
    torch.testing.assert_close(ended["x"], torch.full((2, 1), -0.5, dtype=torch.float64), atol=1e-6, rtol=0)


@pytest.mark.parametrize("dim", [3, 8, 20])
def test_nothing_is_asked_of_points_that_are_no_numbers(dim: int) -> None:
    """A row that comes upon the minimum exactly, before it knows anything of its curvature."""

    def function(x: torch.Tensor) -> torch.Tensor:
        assert not x.isnan().any()
        return 0.5 * (x * x).sum(1)

    start = torch.zeros(1, dim, dtype=torch.float64)
    start[0, 0] = 3 / 64
    ended = relax(Energy(function, dim), start, 0.78125)
    assert ended["status"].tolist() == [Status.CONVERGED] and ended["x"].abs().max() < 1e-50


def test_start_without_a_finite_energy_is_not_finite_and_leaves_the_others_alone() -> None:
    energy = Energy(MullerBrown(), 2)
    x = torch.tensor([[200.0, 200.0], [0.5, 0.1]], dtype=torch.float64)
    ended = relax(energy, x, 1.0)
    assert ended["status"].tolist() == [Status.NOT_FINITE, Status.CONVERGED]


def test_start_on_a_stationary_point_is_converged_at_once() -> None:
    ended = relax(Energy(lambda x: x.square().sum(1), 2), torch.zeros(1, 2, dtype=torch.float64), 1.0)
    assert ended["status"].tolist() == [Status.CONVERGED] and ended["iterations"].tolist() == [0]


@pytest.mark.parametrize("fields", [{"memory": 0}, {"max_iterations": 0}, {"step_tolerance": 0.0}])
def test_descent_options_are_checked(fields) -> None:
    with pytest.raises(UsageError):
        LBFGS(**fields)


# -- starts ----------------------------------------------------------------------------------------------------------


def test_box_and_gaussian_draw_what_they_say() -> None:
    """Means of 4,000 draws within five standard errors: false alarm below 1e-5 in all."""
    energy, generator = Energy(lambda x: x.square().sum(1), 2), torch.Generator().manual_seed(0)
    box = draw_finite(energy, Box((-1.0, 4.0), (1.0, 5.0)), 4000, generator)
    assert (box >= torch.tensor([-1.0, 4.0])).all() and (box < torch.tensor([1.0, 5.0])).all()
    np.testing.assert_allclose(box.mean(0), [0, 4.5], atol=5 * 2 / 12**0.5 / 4000**0.5)
    gaussian = draw_finite(energy, Gaussian((3.0, -1.0), 0.5), 4000, generator)
    np.testing.assert_allclose(gaussian.mean(0), [3, -1], atol=5 * 0.5 / 4000**0.5)
    np.testing.assert_allclose(gaussian.std(0), 0.5, atol=5 * 0.5 / 8000**0.5)


def test_points_without_a_finite_energy_are_drawn_anew() -> None:
    energy = Energy(lambda x: torch.where(x[:, 0] > 0, x.square().sum(1), torch.nan), 2)
    x = draw_finite(energy, Box(-1.0, 1.0), 200, torch.Generator().manual_seed(0))
    assert x.shape == (200, 2) and (x[:, 0] > 0).all()


def test_an_energy_that_is_never_finite_is_an_error() -> None:
    with pytest.raises(EnergyError, match="finite"):
        draw_finite(Energy(lambda x: x.sum(1) * torch.nan, 2), Box(-1.0, 1.0), 5, torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Box(1.0, -1.0),
        lambda: Box(0.0, float("inf")),
        lambda: Box((0.0, 1.0), (1.0, 1.0)),
        lambda: Gaussian(0.0, 0.0),
        lambda: Gaussian(float("nan"), 1.0),
        lambda: Points(np.zeros((0, 2))),
        lambda: Points(np.zeros(3)),
        lambda: Points(np.array([[np.nan, 0.0]])),
        lambda: Points([["a", "b"]]),  # type: ignore[arg-type]
        lambda: MinimaSearch(n_starts=0),
        lambda: MinimaSearch(n_starts=-3),
        lambda: MinimaSearch(n_starts=2.5),  # type: ignore[arg-type]
        lambda: MinimaSearch(n_starts=float("nan")),  # type: ignore[arg-type]
        lambda: SaddleSearch(max_rounds=0),
        lambda: SaddleSearch(max_index=0),
        lambda: SaddleSearch(max_rounds=1),
        lambda: SaddleSearch(max_rounds=5, quiet_rounds=6),
    ],
)
def test_bad_starts_are_refused(make) -> None:
    with pytest.raises(UsageError):
        make()


def test_a_box_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(UsageError, match="2"):
        draw_finite(triple_well(), Box((0.0, 0.0, 0.0), 1.0), 5, torch.Generator().manual_seed(0))
