"""The numerical mountain pass, against published saddles and the string method."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from landscape.energy.energy import Energy
from landscape.energy.potentials import MullerBrown, TripleWell
from landscape.errors import UsageError
from landscape.search import MountainPassOptions, Status, mountain_pass, string_method

WELLS, BROWN = TripleWell().stationary_points(), MullerBrown().stationary_points()


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
def test_published_saddles(potential, a, b, saddle) -> None:
    known = potential.stationary_points()
    result = mountain_pass(Energy(potential, 2), known.x[[a]], known.x[[b]])
    assert result.status.tolist() == [Status.CONVERGED] and result.index.tolist() == [1]
    np.testing.assert_allclose(result.saddle, known.x[[saddle]], atol=1e-8)
    np.testing.assert_allclose(result.energy, known.energy[[saddle]], atol=1e-7)


def test_agrees_with_the_string_method_in_a_batch() -> None:
    energy = Energy(TripleWell(), 2)
    start, end = WELLS.x[[0, 1, 0]], WELLS.x[[2, 2, 1]]
    passes, strings = mountain_pass(energy, start, end), string_method(energy, start, end)
    np.testing.assert_allclose(passes.saddle, strings.saddle, atol=1e-9)
    np.testing.assert_allclose(passes.energy, strings.saddle_energy, atol=1e-10)
    for k in range(3):
        single = mountain_pass(energy, start[[k]], end[[k]])
        np.testing.assert_allclose(single.saddle[0], passes.saddle[k], atol=1e-9)


def test_five_dimensions() -> None:
    """A rotated double well with four stiff directions: the saddle is the origin, energy 0."""
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(5, 5, generator=generator, dtype=torch.float64))[0]
    stiff = torch.tensor([1.0, 2.0, 5.0, 10.0], dtype=torch.float64)

    def function(x: torch.Tensor) -> torch.Tensor:
        y = x @ basis
        return y[:, 0] ** 4 / 4 - y[:, 0] ** 2 / 2 + (stiff * (y[:, 1:] - 0.3 * y[:, :1] ** 2 + 0.3) ** 2).sum(1)

    side = basis[:, 0].numpy()[None]
    result = mountain_pass(Energy(function, 5), -side, side)
    expected = basis @ torch.tensor([0.0, -0.3, -0.3, -0.3, -0.3], dtype=torch.float64)
    assert result.status.tolist() == [Status.CONVERGED]
    np.testing.assert_allclose(result.saddle, expected[None], atol=1e-8)
    np.testing.assert_allclose(result.energy, [0.0], atol=1e-10)


def test_no_barrier_no_saddle() -> None:
    """Two points of one well, and a slope: nothing is claimed."""
    for function in (lambda x: x.square().sum(1), lambda x: x[:, 0] + x[:, 1] ** 2):
        result = mountain_pass(Energy(function, 2), np.array([[-1.0, 0.2]]), np.array([[1.0, 0.1]]))
        assert result.status[0] != Status.CONVERGED
        assert np.isnan(result.saddle).all() and np.isnan(result.energy).all()


def test_a_degenerate_top_is_no_saddle() -> None:
    """E = (x^4 - 1)^2 + y^2: at its top the energy falls as -2 x^4, so an eigenvalue is zero."""
    energy = Energy(lambda x: (x[:, 0] ** 4 - 1) ** 2 + x[:, 1] ** 2, 2)
    result = mountain_pass(energy, np.array([[-1.0, 0.0]]), np.array([[1.0, 0.0]]))
    assert result.status[0] in (Status.DEGENERATE, Status.UNFINISHED)
    assert np.isnan(result.saddle).all()


def test_non_finite_energies_on_the_way_are_reported() -> None:
    energy = Energy(MullerBrown(), 2)
    result = mountain_pass(energy, np.array([[-60.0, 0.0], BROWN.x[1]]), np.array([[60.0, 0.0], BROWN.x[2]]))
    assert result.status.tolist() == [Status.NOT_FINITE, Status.CONVERGED]


def test_bad_input() -> None:
    energy = Energy(TripleWell(), 2)
    for start, end in [
        (np.zeros(2), np.ones(2)),
        (np.zeros((1, 3)), np.ones((1, 3))),
        (np.ones((1, 2)), np.ones((1, 2))),
    ]:
        with pytest.raises(UsageError):
            mountain_pass(energy, start, end)
    with pytest.raises(UsageError):
        MountainPassOptions(n_points=2)
