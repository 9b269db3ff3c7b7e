"""Langer's formula and its cases against published tables, exact identities and an independent oracle."""

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest

from landscape.dynamics import Dynamics, Overdamped, Underdamped
from landscape.energy import load_energy
from landscape.errors import UsageError
from landscape.rates import (
    is_degenerate,
    langer_rates,
    log_abs_determinant,
    log_eyring_kramers,
    log_kramers,
    log_rate,
    reduced_energy_loss,
)

PAPER = Path(os.environ.get("LANDSCAPE_PAPER_MODELS", Path(__file__).parents[2] / "shared" / "paper_models"))

# Triple well: energies and Hessian eigenvalues of the two deep wells, the upper well, and the saddles.
DEEP = (-3.994860601854, (8.472211868407, 13.55774076068))
UPPER = (-2.172153622994, (3.798386879729, 9.27235338458))
SIDE = (-1.646687453475, (-5.356906312071, 6.281133260592))
DIRECT = (-1.384586640398, (-10.47801293858, 4.914885555724))


def rotation(rng: np.random.Generator, d: int) -> np.ndarray:
    return np.linalg.qr(rng.normal(size=(d, d)))[0]


@pytest.mark.parametrize(
    ("temperature", "mean_time"),
    [(0.25, 12.0770079568), (0.1, 54.1253945622), (0.05, 659.382292375), (0.025, 97861.0090677)],
)
def test_quartic_overdamped_table(temperature: float, mean_time: float) -> None:
    """E = x^4/4 - x^2/2: curvature 2 in the wells, -1 on top, barrier 1/4."""
    assert math.exp(-log_kramers(2.0, -1.0, 0.25, Overdamped(1 / temperature))) == pytest.approx(mean_time, rel=1e-11)
    rate = log_eyring_kramers(np.array([2.0]), np.array([-1.0]), 0.25, 1 / temperature)
    assert math.exp(-rate) == pytest.approx(mean_time, rel=1e-11)


@pytest.mark.parametrize(
    ("temperature", "gamma", "twice_the_rate"),
    [
        (0.1, 0.05, 0.0360390), (0.1, 0.3, 0.0318219), (0.1, 1, 0.0228371), (0.1, 3, 0.0111879), (0.1, 10, 0.0036589),
        (0.05, 0.1, 0.0028853), (0.05, 1, 0.0018746), (0.05, 10, 3.003402e-4),
    ],
)  # fmt: skip
def test_quartic_underdamped_table(temperature: float, gamma: float, twice_the_rate: float) -> None:
    rate = 2 * math.exp(log_kramers(2.0, -1.0, 0.25, Underdamped(1 / temperature, gamma)))
    assert rate == pytest.approx(twice_the_rate, abs=0.51 * 10.0 ** (-7 if twice_the_rate > 1e-3 else -10))


@pytest.mark.parametrize(
    ("beta", "second", "third", "digits"),
    [(1.67, 0.094913506, 0.75660847, 7), (2, 0.041299477, 0.62429383, 7), (4, 2.7675083e-4, 0.21336431, 7),
     (6.67, 3.8526308e-7, 0.052425637, 7)],
)  # fmt: skip
def test_triple_well_network_eigenvalues(beta: float, second: float, third: float, digits: int) -> None:
    rates = langer_rates(
        Overdamped(beta),
        np.array([DEEP[0], DEEP[0], UPPER[0]]),
        np.array([DEEP[1], DEEP[1], UPPER[1]]),
        np.array([SIDE[0], SIDE[0], DIRECT[0]]),
        np.array([SIDE[1], SIDE[1], DIRECT[1]]),
        None,
        np.array([[0, 2], [1, 2], [0, 1]]),
    )
    assert rates.refused == ("", "", "")
    q = np.zeros((3, 3))
    for (i, j), (forward, back) in zip([(0, 2), (1, 2), (0, 1)], np.exp(rates.log_rates), strict=True):
        q[i, j] += forward
        q[j, i] += back
    q -= np.diag(q.sum(1))
    eigenvalues = np.sort(-np.linalg.eigvals(q).real)
    np.testing.assert_allclose(eigenvalues[1:], [second, third], rtol=10.0**-digits)


def test_detailed_balance_in_logarithms() -> None:
    """log w_i + log k_ij = log w_j + log k_ji to rounding, with barriers of up to 1e4 in units of 1/beta."""
    rng = np.random.default_rng(0)
    d, n, m = 4, 5, 12
    energies, tops = rng.normal(size=n) * 10, 100 + rng.normal(size=m) * 10
    wells = np.exp(rng.normal(size=(n, d)))
    spectra = np.sort(np.exp(rng.normal(size=(m, d))), 1) * np.array([-1, 1, 1, 1])
    turns = [rotation(rng, d) for _ in range(m)]
    hessians = np.stack([(q * s) @ q.T for q, s in zip(turns, spectra, strict=True)])
    joins = np.stack([rng.choice(n, 2, replace=False) for _ in range(m)])
    for beta in (0.01, 1.0, 100.0):
        for dynamics in (Overdamped(beta, [1, 2, 3, 4]), Underdamped(beta, [1, 2, 3, 4], [4, 1, 2, 1])):
            rates = langer_rates(dynamics, energies, wells, tops, spectra, hessians, joins)
            log_weight = -beta * energies - 0.5 * np.log(wells).sum(1)
            flux = log_weight[joins] + rates.log_rates
            np.testing.assert_allclose(flux[:, 0], flux[:, 1], rtol=1e-14, atol=1e-13)
            assert np.isfinite(rates.log_rates).all()


def test_separable_energy_reduces_to_one_dimension_and_rotation_changes_nothing() -> None:
    """A double well times stiff harmonic directions that do not change along the path: the 1-D rate, in any frame."""
    rng = np.random.default_rng(1)
    q = rotation(rng, 3)
    low, top = np.array([2.0, 5.0, 9.0]), np.array([-1.0, 5.0, 9.0])
    for dynamics in (Overdamped(7.0, 0.6), Underdamped(7.0, 0.6, 1.9)):
        one = log_kramers(2.0, -1.0, 0.25, dynamics)
        for frame in (np.eye(3), q):
            rates = langer_rates(
                dynamics, np.zeros(2), np.array([low, low]), np.array([0.25]), top[None],
                ((frame * top) @ frame.T)[None], np.array([[0, 1]]),
            )  # fmt: skip
            np.testing.assert_allclose(rates.log_rates, one, rtol=1e-13)
    # Friction and mass of the harmonic directions do not matter without coupling.
    expected = log_kramers(2.0, -1.0, 0.25, Underdamped(7.0, 0.6, 1.9))
    uncoupled = Underdamped(7.0, [0.6, 30.0, 0.01], [1.9, 0.1, 8.0])
    rates = langer_rates(
        uncoupled,
        np.zeros(2),
        np.array([low, low]),
        np.array([0.25]),
        top[None],
        np.diag(top)[None],
        np.array([[0, 1]]),
    )
    np.testing.assert_allclose(rates.log_rates, expected, rtol=1e-13)


def test_anisotropic_friction_against_the_written_out_formula() -> None:
    rng = np.random.default_rng(3)
    d = 3
    q, r = rotation(rng, d), rotation(rng, d)
    well, saddle = (q * [1.0, 3.0, 7.0]) @ q.T, (r * [-2.0, 1.0, 4.0]) @ r.T
    gamma, mass, beta, barrier = np.array([0.3, 1.0, 4.0]), np.array([2.0, 0.5, 1.0]), 1.3, 2.2
    drift = np.block([[np.zeros((d, d)), np.diag(1 / mass)], [-saddle, -np.diag(gamma / mass)]])
    growth = {
        Overdamped(beta, gamma): np.linalg.eigvals(-saddle / gamma[:, None]).real.max(),
        Underdamped(beta, gamma, mass): np.linalg.eigvals(drift).real.max(),
    }
    for dynamics, mu in growth.items():
        prefactor = mu / (2 * math.pi) * math.sqrt(np.linalg.det(well) / -np.linalg.det(saddle))
        rates = langer_rates(
            dynamics, np.array([-1.0]), np.linalg.eigvalsh(well)[None], np.array([barrier - 1]),
            np.linalg.eigvalsh(saddle)[None], saddle[None], np.array([[0, 0]]),
        )  # fmt: skip
        np.testing.assert_allclose(np.exp(rates.log_rates), prefactor * math.exp(-beta * barrier), rtol=1e-11)
        assert rates.log_unstable_rate[0] == pytest.approx(math.log(mu), abs=1e-11)


def test_underdamped_rate_tends_to_overdamped() -> None:
    for gamma in (1e2, 1e4, 1e8):
        slow, limit = (log_kramers(2.0, -1.0, 0.25, dyn(9.0, gamma)) for dyn in (Underdamped, Overdamped))
        # mu = |H| / gamma (1 - |H| m / gamma^2 + ...)
        assert slow - limit == pytest.approx(-1 / gamma**2, abs=3 / gamma**4 + 1e-13)


def test_log_rate_broadcasts_and_survives_barriers_that_underflow() -> None:
    rates = log_rate(np.zeros(3), 0.0, np.array([1.0, 10.0, 1e6]), 0.0, 2 * math.pi, 2.0)
    np.testing.assert_allclose(rates, [-2.0, -20.0, -2e6], rtol=1e-15)
    assert isinstance(log_rate(0, 0, 1, 0, 1, 1), float)
    for bad in ((math.nan, 0, 1, 0, 1, 1), (0, 0, math.inf, 0, 1, 1), (0, 0, 1, 0, 0.0, 1), (0, 0, 1, 0, 1, -1.0)):
        with pytest.raises(UsageError):
            log_rate(*bad)


def test_degenerate_points_are_refused() -> None:
    np.testing.assert_array_equal(
        is_degenerate(np.array([[1.0, 2.0], [1e-7, 1.0], [-1e-7, 1.0], [1.1e-6, 1.0], [0.0, 0.0], [math.nan, 1.0]])),
        [False, True, True, False, True, True],
    )
    with pytest.raises(UsageError, match="1e-6"):
        log_abs_determinant(np.array([1e-9, 1.0]))
    # The coupled chain of three sites at g = 2/3: the origin is a saddle with two eigenvalues -1 + 1.5 g = 0.
    with pytest.raises(UsageError, match="1e-6"):
        log_eyring_kramers(np.array([2.0, 3.0, 3.0]), np.array([-1.0, 0.0, 0.0]), 0.75, 1.0)
    with pytest.raises(UsageError, match="minimum"):
        log_kramers(-2.0, -1.0, 0.25, Overdamped())


def test_langer_rates_refuse_row_by_row_and_say_why() -> None:
    wells = np.array([[1.0, 2.0], [1.0, 3.0], [1e-9, 1.0]])
    spectra = np.array([[-1.0, 1.0], [-1e-9, 1.0], [-1.0, -2.0], [-1.0, 1.0], [-1.0, 2.0]])
    joins = np.array([[0, 1], [0, 1], [0, 1], [0, -1], [2, 1]])
    rates = langer_rates(
        Overdamped(), np.zeros(3), wells, np.ones(5), spectra, np.stack([np.diag(s) for s in spectra]), joins
    )
    assert [bool(text) for text in rates.refused] == [False, True, True, True, True]
    for text, word in zip(
        rates.refused, ("", "degenerate", "2 negative", "no known minimum", "minimum 2"), strict=True
    ):
        assert word in text
    np.testing.assert_array_equal(np.isfinite(rates.log_rates), [[1, 1], [0, 0], [0, 0], [1, 0], [0, 1]])
    none = langer_rates(
        Overdamped(), np.zeros(1), wells[:1], np.zeros(0), np.zeros((0, 2)), np.zeros((0, 2, 2)), np.zeros((0, 2), int)
    )
    assert none.log_rates.shape == (0, 2) and none.refused == ()
    with pytest.raises(UsageError, match="pairs of ends"):
        langer_rates(Overdamped(), np.zeros(3), wells, np.ones(1), spectra[:1], None, np.array([[0, 3]]))


@pytest.mark.parametrize(
    ("temperature", "gamma", "ratio"),
    [(0.1, 0.05, 0.216), (0.1, 0.3, 0.765), (0.1, 1, 0.986), (0.1, 3, 0.934), (0.05, 0.1, 0.517), (0.05, 1, 0.952),
     (0.05, 10, 0.917)],
)  # fmt: skip
def test_low_friction_is_flagged_where_the_formula_fails(temperature: float, gamma: float, ratio: float) -> None:
    """Flagged exactly where the exact rate of the quartic is below .8 of the formula's for want of friction."""
    dynamics, hessian = Underdamped(1 / temperature, gamma), np.array([[-1.0]])
    for hessians in (hessian[None], None):
        rates = langer_rates(
            dynamics, np.zeros(2), np.full((2, 1), 2.0), np.array([0.25]), np.array([[-1.0]]), hessians,
            np.array([[0, 1]]),
        )  # fmt: skip
        assert bool(rates.low_friction[0]) == (ratio < 0.8)
    assert reduced_energy_loss(dynamics, 0.25, hessian) == pytest.approx(rates.energy_loss[0, 0])
    assert reduced_energy_loss(Overdamped(), 0.25, hessian) == math.inf
    # The quartic's orbit at the height of the barrier has the action 4/3, which this estimate should come near.
    assert reduced_energy_loss(dynamics, 0.25, hessian) == pytest.approx(gamma / temperature * 4 / 3, rel=0.2)


@pytest.mark.skipif(not PAPER.is_dir(), reason="published models not found")
def test_published_models_rates_over_every_saddle() -> None:
    """All nine published models: mu and both rates of every saddle, Hessians evaluated here at the oracle's points."""
    checked = 0
    for file in sorted(PAPER.glob("*/oracle_*.json")):
        oracle = json.loads(file.read_text())
        energy = load_energy(str(file.with_name(file.name.replace("oracle_", "model_").replace("json", "pth"))))
        beta, gamma = oracle["beta"], np.array(oracle["gamma"])
        dynamics: Dynamics = Overdamped(beta, gamma)
        if oracle["dynamics"] == "underdamped":
            dynamics = Underdamped(beta, gamma, 1 / np.array(oracle["inverse_mass"]))
        minima, saddles = oracle["minima"], oracle["saddles"]
        hessians = energy.hessian(np.array([s["x"] for s in saddles]))
        rates = langer_rates(
            dynamics,
            np.array([p["energy"] for p in minima]),
            np.array([p["hessian_eigenvalues"] for p in minima]),
            np.array([s["energy"] for s in saddles]),
            np.array([s["hessian_eigenvalues"] for s in saddles]),
            hessians,
            np.array([s["joins"] for s in saddles]),
        )
        for k, saddle in enumerate(saddles):
            assert math.exp(rates.log_unstable_rate[k]) == pytest.approx(saddle["unstable_rate"], rel=1e-5)
            np.testing.assert_allclose(np.exp(rates.log_rates[k]), saddle["rates_from_each_end"], rtol=1e-5)
            checked += 1
    assert checked >= 18
