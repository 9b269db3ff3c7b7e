"""The string method: closed-form minimum energy paths, published saddles, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from landscape.energy.energy import Energy
from landscape.energy.potentials import CoupledChain, MullerBrown, TripleWell
from landscape.errors import UsageError
from landscape.search import Status, StringOptions, string_method
from landscape.search.string import arclengths, relax_strings, resample

WELLS = TripleWell().stationary_points().x
BROWN = MullerBrown().stationary_points().x


def triple_well() -> Energy:
    return Energy(TripleWell(), 2)


def test_a_string_asks_once_an_image_and_move_and_never_again_at_its_ends() -> None:
    energy = triple_well()
    ends = torch.as_tensor(WELLS[:3])
    t = torch.linspace(0, 1, 9, dtype=torch.float64)[None, :, None]
    relaxed = relax_strings(energy, ends[[0, 0], None] * (1 - t) + ends[[1, 2], None] * t, StringOptions(9, 30))
    assert energy.evaluations.gradient == 2 * 9 + 7 * int(relaxed["iterations"].sum())


# -- images ------------------------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 12), st.integers(5, 41), st.integers(1, 4), st.integers(0, 2**31))
def test_resampling_keeps_the_ends_and_spaces_images_evenly(m, n_images, dim, seed) -> None:
    """On a smooth random arc (no corners) no two neighbours are 30 % farther apart than the mean."""
    rng = np.random.default_rng(seed)
    t = np.sort(np.concatenate([[0, 1], rng.uniform(0.02, 0.98, m)]))[:, None]
    arc = 3 * t * rng.normal(size=dim) + 0.1 * np.sin(2 * t + rng.uniform(0, 6, dim)) + rng.normal(size=dim)
    images = torch.as_tensor(arc)[None]
    new = resample(images, n_images)
    assert new.shape == (1, n_images, dim)
    assert torch.equal(new[:, [0, -1]], images[:, [0, -1]])
    if dim > 1:
        pieces = new.diff(dim=1).norm(dim=-1)
        assert pieces.max() < 1.3 * pieces.mean()


def test_resampling_a_straight_line_is_exact() -> None:
    t = torch.tensor([0.0, 0.1, 0.15, 0.7, 1.0], dtype=torch.float64)[:, None]
    line = (torch.tensor([1.0, -2.0]) + t * torch.tensor([3.0, 4.0]))[None]
    expected = torch.tensor([1.0, -2.0]) + torch.linspace(0, 1, 9, dtype=torch.float64)[:, None] * torch.tensor(
        [3.0, 4.0]
    )
    torch.testing.assert_close(resample(line, 9)[0], expected, rtol=0, atol=1e-9)
    assert float(arclengths(line)[0, -1]) == pytest.approx(5)


def test_resampling_images_that_coincide() -> None:
    images = torch.tensor([[[0.0, 0.0], [0.0, 0.0], [1.0, 0.0], [1.0, 0.0]]], dtype=torch.float64)
    new = resample(images, 5)
    assert new.isfinite().all()
    assert (new[0, :, 0].diff() >= 0).all() and torch.equal(new[0, -1], images[0, -1])


# -- paths -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "potential, a, b, saddle",
    [
        (TripleWell(), 0, 2, 3),
        (TripleWell(), 1, 2, 4),
        (TripleWell(), 0, 1, 5),
        (MullerBrown(), 1, 2, 3),
        (MullerBrown(), 0, 2, 4),
    ],
)
def test_saddle_between_two_neighbours(potential, a, b, saddle) -> None:
    known = potential.stationary_points()
    result = string_method(Energy(potential, 2), known.x[[a]], known.x[[b]])
    assert result.status.tolist() == result.saddle_status.tolist() == [Status.CONVERGED]
    np.testing.assert_allclose(result.saddle, known.x[[saddle]], atol=1e-8)
    np.testing.assert_allclose(result.saddle_energy, known.energy[[saddle]], atol=1e-7)
    images, energy = result.images[0], result.energy[0]
    assert (images[[0, -1]] == known.x[[a, b]]).all()
    top = int(energy.argmax())
    np.testing.assert_allclose(images[top], known.x[saddle], atol=1e-8)
    # up to the saddle and down again, images evenly spaced on each side
    assert (np.diff(energy[: top + 1]) > 0).all() and (np.diff(energy[top:]) < 0).all()
    for half in (result.arclength[0, : top + 1], result.arclength[0, top:]):
        np.testing.assert_allclose(np.diff(half), np.diff(half).mean(), rtol=0.02)
    gradient = np.linalg.norm(Energy(potential, 2).gradient(images), axis=1)
    assert result.perpendicular_force[0] <= StringOptions().force_tolerance * gradient.max()


def test_closed_form_path_on_a_straight_line() -> None:
    """E = (x^2 - 1)^2 + 3 y^2: along y = 0 from a bent first guess, the saddle at the origin, energy 1."""
    energy = Energy(lambda x: (x[:, 0] ** 2 - 1) ** 2 + 3 * x[:, 1] ** 2, 2)
    t = np.linspace(-1, 1, 9)
    guess = np.stack([t, 0.6 * np.cos(np.pi * t / 2)], 1)[None]
    result = string_method(energy, np.array([[-1.0, 0.0]]), np.array([[1.0, 0.0]]), images=guess)
    np.testing.assert_allclose(result.saddle, [[0.0, 0.0]], atol=1e-9)
    np.testing.assert_allclose(result.saddle_energy, [1.0], atol=1e-12)
    np.testing.assert_allclose(result.images[0, :, 1], 0, atol=5e-3)
    x = result.images[0, :, 0]
    np.testing.assert_allclose(result.energy[0], (x**2 - 1) ** 2, atol=1e-3)
    assert result.arclength[0, -1] == pytest.approx(2, abs=1e-3)


def test_closed_form_path_on_a_circle() -> None:
    """E = 20 (r - 1)^2 + cos 2 phi: the flow keeps r = 1, so the path is the unit circle from phi = pi/2 to -pi/2."""

    def function(x: torch.Tensor) -> torch.Tensor:
        r = x.norm(dim=1)
        return 20 * (r - 1) ** 2 + (x[:, 0] ** 2 - x[:, 1] ** 2) / r**2

    start, end = np.array([[0.0, 1.0]]), np.array([[0.0, -1.0]])
    angle = np.linspace(np.pi / 2, -np.pi / 2, 9)
    guess = 0.8 * np.stack([np.cos(angle), np.sin(angle)], 1)[None]
    guess[:, 0], guess[:, -1] = start, end
    result = string_method(Energy(function, 2), start, end, images=guess)
    np.testing.assert_allclose(result.saddle, [[1.0, 0.0]], atol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(result.images[0], axis=1), 1, atol=0.01)
    assert result.arclength[0, -1] == pytest.approx(np.pi, rel=0.01)


def test_a_batch_equals_single_runs() -> None:
    pairs = [(0, 2), (1, 2), (0, 1)]
    energy = triple_well()
    start, end = (WELLS[[p[k] for p in pairs]] for k in (0, 1))
    batch = string_method(energy, start, end)
    for k in range(3):
        single = string_method(energy, start[[k]], end[[k]])
        np.testing.assert_allclose(single.images[0], batch.images[k], atol=1e-7)
        np.testing.assert_allclose(single.saddle[0], batch.saddle[k], atol=1e-10)
        assert single.status[0] == batch.status[k]


def test_both_directions_give_one_path() -> None:
    forward = string_method(triple_well(), WELLS[[0]], WELLS[[2]])
    backward = string_method(triple_well(), WELLS[[2]], WELLS[[0]])
    np.testing.assert_allclose(forward.images[0], backward.images[0, ::-1], atol=0.02)


def test_a_pass_that_only_a_fine_path_shows() -> None:
    """Two wells with a narrow wall at x = 5/14, halfway between images of a string of 15: its top is the saddle, not
    the origin (E = 1), where a coarse string is highest."""
    wall, width = 5 / 14, 0.04

    def function(x: torch.Tensor) -> torch.Tensor:
        return (x[:, 0] ** 2 - 1) ** 2 + 3 * x[:, 1] ** 2 + 2 * torch.exp(-(((x[:, 0] - wall) / width) ** 2))

    result = string_method(Energy(function, 2), np.array([[-1.0, 0.0]]), np.array([[1.0, 0.0]]))
    x = np.linspace(wall - width, wall + width, 200_001)
    along = (x**2 - 1) ** 2 + 2 * np.exp(-(((x - wall) / width) ** 2))
    np.testing.assert_allclose(result.saddle_energy, [along.max()], atol=1e-8)
    np.testing.assert_allclose(result.saddle, [[x[along.argmax()], 0.0]], atol=1e-6)
    assert result.energy[0].max() == pytest.approx(along.max(), abs=1e-8)


def test_lowest_saddle_of_the_chain() -> None:
    """N = 3, g = .1: from all +1 to one site turned, saddle .3040472472 above (Berglund, Fernandez and Gentz 2007)."""
    energy = Energy(CoupledChain(3, 0.1), 3)
    flipped = torch.tensor([[1.0, 1.0, -1.0]], dtype=torch.float64)
    for _ in range(60):
        flipped = flipped - torch.linalg.solve(energy.hessian(flipped), energy.gradient(flipped))
    result = string_method(energy, np.ones((1, 3)), flipped.numpy())
    np.testing.assert_allclose(result.saddle_energy + 0.75, [0.3040472472], atol=1e-9)


def test_without_a_barrier_no_saddle_is_claimed() -> None:
    """Between two points of one quadratic well."""
    energy = Energy(lambda x: x.square().sum(1), 2)
    result = string_method(energy, np.array([[-1.0, 0.2]]), np.array([[1.0, 0.1]]))
    assert result.saddle_status[0] != Status.CONVERGED
    assert np.isnan(result.saddle).all() and np.isnan(result.saddle_energy).all()
    assert np.isfinite(result.images).all()


def test_a_path_over_non_finite_energies_is_reported() -> None:
    energy = Energy(MullerBrown(), 2)
    result = string_method(energy, np.array([[-60.0, 0.0], BROWN[1]]), np.array([[60.0, 0.0], BROWN[2]]))
    assert result.status.tolist() == [Status.NOT_FINITE, Status.CONVERGED]
    assert result.saddle_status.tolist() == [Status.NOT_FINITE, Status.CONVERGED]


def test_an_iteration_limit_is_reported() -> None:
    options = StringOptions(max_iterations=1, force_tolerance=1e-9)
    ended = relax_strings(triple_well(), torch.as_tensor(np.linspace(WELLS[0], WELLS[2], 9))[None], options)
    assert ended["status"].tolist() == [Status.UNFINISHED]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_images_in_one_place_are_spread_out_along_the_line(dtype) -> None:
    images = torch.ones(1, 31, 2, dtype=dtype)
    images[:, 0] = 0
    x, y = resample(images, 7)[0].T
    assert torch.equal(x, y) and x[0] == 0 and x[-1] == 1
    assert (x.diff() > 0.05).all()


def test_no_pair_gives_no_path() -> None:
    result = string_method(triple_well(), np.zeros((0, 2)), np.zeros((0, 2)))
    assert result.images.shape == (0, 31, 2) and result.saddle.shape == (0, 2) and not len(result.status)


@pytest.mark.parametrize(
    "start, end, images",
    [
        (np.zeros(2), np.ones(2), None),
        (np.zeros((2, 2)), np.ones((1, 2)), None),
        (np.zeros((1, 3)), np.ones((1, 3)), None),
        (np.zeros((1, 2)), np.ones((1, 2)), np.zeros((1, 5, 3))),
        (np.zeros((1, 2)), np.ones((1, 2)), np.zeros((5, 2))),
        (np.zeros((1, 2)), np.zeros((1, 2)), None),
        (np.array([[np.nan, 0.0]]), np.ones((1, 2)), None),
    ],
)
def test_ends_that_do_not_fit_are_refused(start, end, images) -> None:
    with pytest.raises(UsageError):
        string_method(triple_well(), start, end, images=images)


@pytest.mark.parametrize("fields", [{"n_images": 3}, {"max_iterations": 0}, {"force_tolerance": 0.0}])
def test_bad_options(fields) -> None:
    with pytest.raises(UsageError):
        StringOptions(**fields)
