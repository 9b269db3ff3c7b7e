"""The Klein-Kramers operator against the reference table, a closed form and the overdamped limit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from landscape.dynamics import Overdamped, Underdamped
from landscape.energy import Energy, load_energy
from landscape.errors import UnsupportedError, UsageError
from landscape.rates import discs, klein_kramers_rates, klein_kramers_spectrum, make_cores, reference_spectrum
from landscape.rates.klein_kramers import klein_kramers_matrix

# kT, gamma, smallest nonzero |Re| for E = x^4/4 - x^2/2, m = 1
TABLE = [
    (0.1, 0.05, 0.0077730),
    (0.1, 0.3, 0.0243540),
    (0.1, 1, 0.0225192),
    (0.1, 3, 0.0104544),
    (0.1, 10, 0.0033325),
    (0.05, 0.1, 0.0014920),
    (0.05, 1, 0.0017854),
    (0.05, 10, 2.753720e-4),
]


@pytest.mark.parametrize(("kT", "gamma", "exact"), TABLE)
def test_quartic_double_well(kT: float, gamma: float, exact: float) -> None:
    energy = load_energy("potential:double-well")
    found = klein_kramers_spectrum(energy, Underdamped(1 / kT, gamma, 1.0), box=(-2.4, 2.4), cells=160)
    assert found.converged and found.reason == ""
    assert found.slowest == pytest.approx(exact, rel=1e-3)
    # the table is rounded to five digits
    assert abs(found.slowest - exact) <= found.error[0] + 5e-5 * exact


@pytest.mark.parametrize(("gamma", "mass"), [(0.5, 1.0), (6.0, 2.0)])
def test_harmonic_oscillator(gamma: float, mass: float) -> None:
    """Eigenvalues n a + m b with a, b = -gamma/2m +- sqrt(gamma^2/4m^2 - k/m): complex, or real and far apart."""
    stiffness = 1.5
    energy = Energy(lambda x: 0.5 * stiffness * x[:, 0] ** 2, 1)
    found = klein_kramers_spectrum(energy, Underdamped(2.0, gamma, mass), 1, box=(-4.5, 4.5), cells=300)
    root = np.sqrt(complex(gamma**2 / (4 * mass**2) - stiffness / mass))
    slow = -gamma / (2 * mass) + root
    assert found.eigenvalues[0].real == pytest.approx(slow.real, rel=2e-3)
    assert abs(found.eigenvalues[0].imag) == pytest.approx(abs(slow.imag), rel=2e-3, abs=1e-9)


def test_high_friction_is_the_overdamped_limit() -> None:
    energy = load_energy("potential:double-well")
    gamma = 300.0
    found = klein_kramers_spectrum(energy, Underdamped(10.0, gamma, 1.0), box=(-2.6, 2.6))
    overdamped = reference_spectrum(energy, Overdamped(10.0, gamma), 1, box=[[-2.6, 2.6]]).eigenvalues[0]
    assert found.slowest == pytest.approx(overdamped, rel=1e-4)


def test_mass_is_a_choice_of_units() -> None:
    """x kept, time stretched by c: m -> c^2 m, gamma -> c gamma divides every rate by c."""
    energy = load_energy("potential:double-well")
    one = klein_kramers_spectrum(energy, Underdamped(10.0, 1.0, 1.0), box=(-2.6, 2.6), cells=150)
    two = klein_kramers_spectrum(energy, Underdamped(10.0, 3.0, 9.0), box=(-2.6, 2.6), cells=150)
    assert two.slowest == pytest.approx(one.slowest / 3, rel=1e-8)


def test_null_vector_is_exact_on_both_sides() -> None:
    energy = load_energy("potential:double-well")
    matrix, null = klein_kramers_matrix(energy, Underdamped(10.0, 0.7, 2.0), np.array([[-2.0, 2.0]]), 60, 8)
    scale = np.abs(matrix).max()
    assert np.abs(matrix @ null).max() < 1e-14 * scale and np.abs(matrix.T @ null).max() < 1e-14 * scale
    assert (np.linalg.eigvals(matrix.toarray()).real < 1e-9).all()  # nothing grows


def tilted(x: torch.Tensor) -> torch.Tensor:
    return x[:, 0] ** 4 / 4 - x[:, 0] ** 2 / 2 + 0.05 * x[:, 0]


def test_rates_of_a_tilted_well_obey_detailed_balance_and_sum_to_the_eigenvalue() -> None:
    energy, dynamics = Energy(tilted, 1), Underdamped(20.0, 1.0, 1.0)
    minima = np.sort(np.roots([1, 0, -1, 0.05]).real)[[0, 2]][:, None]
    top = np.sort(np.roots([1, 0, -1, 0.05]).real)[1]
    cores = make_cores(energy, dynamics, minima, torch.Generator().manual_seed(0))
    found = klein_kramers_rates(energy, dynamics, cores)
    assert found.rates.sum() == pytest.approx(found.spectrum.slowest, rel=1e-5)

    def density(x: float) -> float:
        return float(np.exp(-20 * (x**4 / 4 - x**2 / 2 + 0.05 * x + 0.3)))

    left = quad(density, -3, top, points=[-1])[0]
    right = quad(density, top, 3, points=[1])[0]
    # populations are integrals of a committor, not of a step: equal to a few parts in a thousand at 5 kT
    assert found.rates[0, 1] / found.rates[1, 0] == pytest.approx(right / left, rel=5e-3)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda e: klein_kramers_spectrum(e, Overdamped(1.0), box=(-2, 2)), UnsupportedError, "underdamped"),
        (lambda e: klein_kramers_spectrum(e, Underdamped(1.0)), UsageError, "needs a box"),
        (lambda e: klein_kramers_spectrum(e, Underdamped(1.0), box=(-2, 2), cells=3), UsageError, "cells >= 16"),
        (lambda e: klein_kramers_rates(e, Underdamped(1.0), discs([[0.0]], 0.1)), UsageError, "2 to 5 cores"),
    ],
)
def test_bad_input_gets_one_line(call, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call(load_energy("potential:double-well"))
