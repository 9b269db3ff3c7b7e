"""Network algebra against multiprecision solves, closed forms and scipy."""

from __future__ import annotations

import ast
import json
import os
import pickle
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import pytest
import scipy.linalg

from landscape import network as package
from landscape.errors import UsageError
from landscape.network import (
    TransitionNetwork,
    committor,
    communicating_classes,
    components,
    is_reversible,
    log_mfpt,
    log_mfpt_to,
    log_stationary,
    log_timescales,
)

PAPER_MODELS = Path(os.environ.get("LANDSCAPE_PAPER_MODELS", Path(__file__).parents[2] / "shared" / "paper_models"))


def landscape_rates(seed: int, n: int, spread: float, density: float) -> tuple[np.ndarray, np.ndarray]:
    """Log rates obeying detailed balance (a chain plus random edges) and log weights; logs between -2 spread and 0."""
    rng = np.random.default_rng(seed)
    energy = spread * rng.random(n)
    log_rates = np.full((n, n), -np.inf)
    for i in range(n):
        for j in range(i):
            if j == i - 1 or rng.random() < density:
                saddle = max(energy[i], energy[j]) + spread * rng.random()
                log_rates[i, j], log_rates[j, i] = energy[i] - saddle, energy[j] - saddle
    return log_rates, -energy - np.logaddexp.reduce(-energy)


def directed_rates(seed: int, n: int, spread: float) -> np.ndarray:
    """Log rates without detailed balance: a directed ring plus random directed edges."""
    rng = np.random.default_rng(seed)
    log_rates = np.where(rng.random((n, n)) < 0.4, -spread * rng.random((n, n)), -np.inf)
    log_rates[np.arange(n), (np.arange(n) + 1) % n] = -spread * rng.random(n)
    np.fill_diagonal(log_rates, -np.inf)
    return log_rates


def exact_generator(log_rates: np.ndarray) -> mpmath.matrix:
    n = len(log_rates)
    generator = mpmath.matrix(n, n)
    for i, j in np.argwhere(log_rates > -np.inf):
        generator[i, j] = mpmath.exp(mpmath.mpf(float(log_rates[i, j])))
    for i in range(n):
        generator[i, i] = -mpmath.fsum(generator[i, j] for j in range(n) if j != i)
    return generator


def exact_solve(generator: mpmath.matrix, inside: list[int], right: list[mpmath.mpf]) -> list[float]:
    """log of the solution of sum_j -Q_ij y_j = right_i over the states `inside`."""
    matrix = mpmath.matrix(len(inside), len(inside))
    for a, i in enumerate(inside):
        for b, j in enumerate(inside):
            matrix[a, b] = -generator[i, j]
    return [float(mpmath.log(value)) for value in mpmath.lu_solve(matrix, mpmath.matrix(right))]


STIFF = [
    pytest.param(landscape_rates(0, 9, 3.0, 0.3)[0], 60, id="mild"),
    pytest.param(landscape_rates(1, 9, 100.0, 0.3)[0], 400, id="landscape"),
    pytest.param(landscape_rates(2, 8, 800.0, 0.3)[0], 1500, id="landscape-passage-above-1e400"),
    pytest.param(landscape_rates(3, 12, 200.0, 0.0)[0], 600, id="chain"),
    pytest.param(directed_rates(4, 8, 100.0), 400, id="directed"),
    pytest.param(directed_rates(5, 8, 400.0), 900, id="directed-stiff"),
]


def assert_logs_agree(ours: np.ndarray, exact: np.ndarray) -> None:
    """12 digits of the number, or of its logarithm where that is large (its own last place limits the number then)."""
    np.testing.assert_allclose(ours, exact, rtol=2e-15, atol=1e-12)


@pytest.mark.parametrize(("log_rates", "digits"), STIFF)
def test_stationary_against_multiprecision(log_rates: np.ndarray, digits: int) -> None:
    n = len(log_rates)
    with mpmath.workdps(digits):
        generator = exact_generator(log_rates)
        # pi_0 = 1 and the balance equations of the others
        rest = list(range(1, n))
        weights = [0.0, *exact_solve(generator.T, rest, [generator[0, j] for j in rest])]
    exact = np.array(weights) - np.logaddexp.reduce(weights)
    assert_logs_agree(log_stationary(log_rates), exact)


@pytest.mark.parametrize(("log_rates", "digits"), STIFF)
def test_passage_times_against_multiprecision(log_rates: np.ndarray, digits: int) -> None:
    n = len(log_rates)
    exact = np.full((n, n), -np.inf)
    with mpmath.workdps(digits):
        generator = exact_generator(log_rates)
        for target in range(n):
            rest = [i for i in range(n) if i != target]
            exact[rest, target] = exact_solve(generator, rest, [mpmath.mpf(1)] * len(rest))
    assert_logs_agree(log_mfpt(log_rates), exact)
    assert_logs_agree(log_mfpt_to(log_rates, 2), exact[:, 2])


@pytest.mark.parametrize("seed", range(3))
def test_passage_times_above_1e300_against_900_digits(seed: int) -> None:
    """All pairs of a stiff network: every time above 1e300 agrees to 12 digits with an elimination in 900 digits.

    The elimination is the textbook one, Gauss with pivoting on the rate matrix without the target; at 900 digits it
    has hundreds to spare, which its repetition with 1,100 digits shows.
    """
    n = 8
    log_rates, _ = landscape_rates(20 + seed, n, 900.0, 0.3)
    ours = log_mfpt(log_rates)
    exact = {}
    for digits in (900, 1100):
        exact[digits] = np.full((n, n), -np.inf)
        with mpmath.workdps(digits):
            generator = exact_generator(log_rates)
            for target in range(n):
                rest = [i for i in range(n) if i != target]
                exact[digits][rest, target] = exact_solve(generator, rest, [mpmath.mpf(1)] * len(rest))
    np.testing.assert_array_equal(exact[900], exact[1100])
    long = exact[900] > 300 * np.log(10)
    assert long.sum() >= n
    # a difference of logarithms of 1e-12 is one in the twelfth digit of the time itself
    np.testing.assert_allclose(ours[long], exact[900][long], rtol=0, atol=1e-12)


def test_the_stiff_cases_are_stiff() -> None:
    """The multiprecision tests above reach passage times of 1e400, and a float64 solve fails there."""
    longest = log_mfpt(landscape_rates(2, 8, 800.0, 0.3)[0]).max() / np.log(10)
    assert longest > 400
    generator = np.exp(landscape_rates(1, 9, 100.0, 0.3)[0])
    np.fill_diagonal(generator, -generator.sum(axis=1))
    with np.errstate(all="ignore"):
        plain = np.log(np.linalg.solve(-generator[1:, 1:], np.ones(8)).clip(1e-300))
    assert np.max(np.abs(plain - log_mfpt(landscape_rates(1, 9, 100.0, 0.3)[0])[1:, 0])) > 1e-3


@pytest.mark.parametrize(("log_rates", "digits"), STIFF)
def test_committor_against_multiprecision(log_rates: np.ndarray, digits: int) -> None:
    n = len(log_rates)
    source, target = [0, 3], [2]
    inside = [i for i in range(n) if i not in source + target]
    with mpmath.workdps(digits):
        generator = exact_generator(log_rates)
        exact = exact_solve(generator, inside, [mpmath.fsum(generator[i, j] for j in target) for i in inside])
    ours = committor(log_rates, source, target)
    assert_logs_agree(ours[inside], np.array(exact))
    assert np.all(ours[source] == -np.inf) and np.all(ours[target] == 0)
    np.testing.assert_allclose(np.exp(ours) + np.exp(committor(log_rates, target, source)), 1, rtol=1e-12)


@pytest.mark.parametrize("spread", [1.0, 30.0, 115.0, 700.0])
@pytest.mark.parametrize(("n", "density"), [(12, 0.0), (12, 0.3), (10, 1.0)])
def test_timescales_against_multiprecision(spread: float, n: int, density: float) -> None:
    log_rates, _ = landscape_rates(int(spread) + n, n, spread, density)
    with mpmath.workdps(int(60 + 2 * spread)):
        assert_logs_agree(log_timescales(log_rates), exact_timescales(log_rates))


def test_timescales_of_thirty_states_with_rates_from_1e_minus_100_to_1() -> None:
    """float64 is not enough: the slowest timescale of the symmetric eigensolver is off by more than a factor of 2."""
    log_rates, _ = landscape_rates(7, 30, 150.0, 0.05)
    assert log_rates[log_rates > -np.inf].min() < -100 * np.log(10)
    with mpmath.workdps(300):
        exact = exact_timescales(log_rates)
    assert_logs_agree(log_timescales(log_rates), exact)
    symmetric = -np.exp((log_rates + log_rates.T) / 2)
    np.fill_diagonal(symmetric, np.exp(log_rates).sum(axis=1))
    plain = -np.log(np.abs(np.linalg.eigvalsh(symmetric)[1:]).clip(1e-300))
    assert abs(plain[0] - exact[0]) > np.log(2)


def exact_timescales(log_rates: np.ndarray) -> np.ndarray:
    """By the general eigensolver: mpmath's symmetric one (1.3.0) loses eigenvalues here at any precision."""
    values = mpmath.eig(exact_generator(log_rates), left=False, right=False)
    decay = sorted(-mpmath.re(value) for value in values)[1:]
    return np.array([float(-mpmath.log(rate)) for rate in decay])


def test_two_states() -> None:
    log_rates = np.array([[-np.inf, -900.0], [-1000.0, -np.inf]])
    np.testing.assert_allclose(log_mfpt(log_rates), [[-np.inf, 900], [1000, -np.inf]])
    np.testing.assert_allclose(log_stationary(log_rates), [-100, 0], atol=1e-13)
    np.testing.assert_allclose(log_timescales(log_rates), [900], rtol=1e-15)


def test_one_state() -> None:
    lonely = np.array([[-np.inf]])
    assert log_stationary(lonely).tolist() == [0] and log_timescales(lonely).shape == (0,)
    assert log_mfpt(lonely).tolist() == [[-np.inf]] and components(lonely).tolist() == [0]


def test_long_birth_death_chain_closed_form() -> None:
    """pi_i k_i,i+1 M(i -> i+1) = sum_{j <= i} pi_j and passage times add; 2,000 states, weights over 1e-170."""
    rng = np.random.default_rng(11)
    n = 2000
    up, down = rng.normal(0, 8, n - 1), rng.normal(0, 8, n - 1)
    log_rates = np.full((n, n), -np.inf)
    log_rates[np.arange(n - 1), np.arange(1, n)] = up
    log_rates[np.arange(1, n), np.arange(n - 1)] = down
    log_pi = np.concatenate([[0.0], np.cumsum(up - down)])
    log_pi -= np.logaddexp.reduce(log_pi)
    np.testing.assert_allclose(log_stationary(log_rates), log_pi, rtol=1e-12, atol=1e-10)
    steps = np.logaddexp.accumulate(log_pi)[:-1] - log_pi[:-1] - up
    times = np.logaddexp.accumulate(steps[::-1])[::-1]
    np.testing.assert_allclose(log_mfpt_to(log_rates, n - 1)[:-1], times, rtol=1e-12, atol=1e-10)


def test_uniform_chain_and_rank_one_network_have_known_timescales() -> None:
    n, log_rate = 60, -321.0
    chain = np.full((n, n), -np.inf)
    chain[np.arange(n - 1), np.arange(1, n)] = chain[np.arange(1, n), np.arange(n - 1)] = log_rate
    expected = -log_rate - np.log(2 - 2 * np.cos(np.pi * np.arange(1, n) / n))
    np.testing.assert_allclose(log_timescales(chain), expected, rtol=1e-14)
    # k_ij = pi_j: every nonzero eigenvalue is -1, whatever pi
    log_pi = np.linspace(-500.0, 0.0, n)
    log_pi -= np.logaddexp.reduce(log_pi)
    np.testing.assert_allclose(log_timescales(np.tile(log_pi, (n, 1))), 0, atol=1e-12)


def test_well_conditioned_network_against_scipy() -> None:
    rng = np.random.default_rng(3)
    log_rates = rng.normal(0, 1, (15, 15))
    generator = np.exp(log_rates)
    np.fill_diagonal(generator, 0)
    np.fill_diagonal(generator, -generator.sum(axis=1))
    pi = scipy.linalg.null_space(generator.T)[:, 0]
    np.testing.assert_allclose(np.exp(log_stationary(log_rates)), pi / pi.sum(), rtol=1e-11)
    for target in range(15):
        rest = np.delete(np.arange(15), target)
        times = np.linalg.solve(-generator[np.ix_(rest, rest)], np.ones(14))
        np.testing.assert_allclose(np.exp(log_mfpt(log_rates)[rest, target]), times, rtol=1e-11)
    decay = np.sort(-np.linalg.eigvals(generator).real)[1:]
    np.testing.assert_allclose(np.exp(-log_timescales(log_rates)), decay, rtol=1e-9)


@pytest.mark.parametrize("exponents", [(0, -1, -2), (0, -40, -90), (-300, 0, -150)])
def test_three_state_cycle_without_detailed_balance(exponents: tuple[int, int, int]) -> None:
    """0 -> 1 -> 2 -> 0 with rates a, b, c: the eigenvalues solve x^2 + (a + b + c) x + (ab + bc + ca) = 0."""
    log_rates = np.full((3, 3), -np.inf)
    log_rates[[0, 1, 2], [1, 2, 0]] = np.log(10) * np.array(exponents)
    with mpmath.workdps(700):
        a, b, c = (mpmath.exp(mpmath.mpf(float(log_rates[i, (i + 1) % 3]))) for i in range(3))
        total, product = a + b + c, a * b + b * c + c * a
        root = mpmath.sqrt(mpmath.mpc(total**2 - 4 * product))
        exact = [float(-mpmath.log(mpmath.re(total - sign * root) / 2)) for sign in (1, -1)]
    assert not is_reversible(log_rates)
    np.testing.assert_allclose(log_timescales(log_rates), exact, rtol=1e-13, atol=1e-9)


@pytest.mark.parametrize(("seed", "spread"), [(0, 2.0), (1, 30.0), (2, 100.0), (3, 300.0)])
def test_timescales_without_detailed_balance_against_multiprecision(seed: int, spread: float) -> None:
    """-1 / Re(eigenvalue) of random directed generators; where rates are alike, complex pairs are among them."""
    log_rates = directed_rates(seed, 8, spread)
    assert not is_reversible(log_rates)
    with mpmath.workdps(int(100 + 3 * spread)):
        values = mpmath.eig(exact_generator(log_rates), left=False, right=False)
        exact = exact_timescales(log_rates)
    assert (spread > 10) == all(abs(mpmath.im(value)) < 1e-20 * abs(value) for value in values)
    np.testing.assert_allclose(log_timescales(log_rates), exact, rtol=1e-13, atol=1e-8)


def test_directed_ring_has_complex_eigenvalues() -> None:
    """k (exp(2 pi i m / n) - 1): the timescale is -1 over the real part."""
    n = 7
    ring = np.full((n, n), -np.inf)
    ring[np.arange(n), (np.arange(n) + 1) % n] = -50.0
    expected = np.sort(50.0 - np.log(1 - np.cos(2 * np.pi * np.arange(1, n) / n)))[::-1]
    np.testing.assert_allclose(log_timescales(ring), expected, rtol=1e-12)


def test_unresolved_timescales_are_nan_and_never_wrong() -> None:
    """40 states left one after the other, and a slow way back: too large for multiprecision, too stiff for float64."""
    n = 40
    log_rates = np.full((n, n), -np.inf)
    exits = -5.0 * np.arange(n)
    log_rates[np.arange(n), (np.arange(n) + 1) % n] = exits
    times = log_timescales(log_rates)
    unresolved = np.isnan(times)
    assert unresolved.any() and not unresolved.all()
    assert not np.any(np.diff(unresolved.astype(int)) > 0)
    # eigenvalues of the ring are the exit rates up to a factor 1 + O(exp(-5)), but for the slowest
    np.testing.assert_allclose(times[~unresolved], -exits[: n - 1][::-1][~unresolved], atol=0.02)


def test_separate_parts() -> None:
    log_rates = np.full((5, 5), -np.inf)
    log_rates[0, 3], log_rates[3, 0] = -2.0, -1.0
    log_rates[1, 4], log_rates[4, 1] = -300.0, -302.0
    assert components(log_rates).tolist() == [0, 1, 2, 0, 1]
    with pytest.raises(UsageError, match="log_weights"):
        log_stationary(log_rates)
    log_weights = np.log([0.1, 0.2, 0.3, 0.2, 0.2])
    expected = np.array([0.0, 0.0, 0.3, 0.0, 0.0])
    expected[[0, 3]] = 0.3 * np.array([np.exp(-1), np.exp(-2)]) / (np.exp(-1) + np.exp(-2))
    expected[[1, 4]] = 0.4 * np.array([np.exp(-2), 1]) / (np.exp(-2) + 1)
    np.testing.assert_allclose(np.exp(log_stationary(log_rates, log_weights)), expected, rtol=1e-13)
    times = log_mfpt(log_rates)
    assert times[0, 1] == times[2, 0] == times[4, 3] == np.inf
    np.testing.assert_allclose([times[0, 3], times[4, 1]], [2, 302])
    slow = np.logaddexp(-300, -302), np.logaddexp(-1, -2)
    np.testing.assert_allclose(log_timescales(log_rates), [np.inf, np.inf, -slow[0], -slow[1]], rtol=1e-14)
    assert committor(log_rates, 0, 1).tolist() == [-np.inf, 0, -np.inf, -np.inf, 0]


def test_states_that_are_left_for_ever() -> None:
    """0 -> 1 at rate 2, 0 -> 2 at rate 1, 1 and 2 joined, 3 absorbs nothing and leads to 0."""
    log_rates = np.full((4, 4), -np.inf)
    log_rates[0, 1], log_rates[0, 2] = np.log(2), 0.0
    log_rates[1, 2], log_rates[2, 1] = np.log(3), np.log(1)
    log_rates[3, 0] = np.log(5)
    labels, closed = communicating_classes(log_rates)
    assert labels.tolist() == [0, 1, 1, 2] and closed.tolist() == [False, True, False]
    np.testing.assert_allclose(np.exp(log_stationary(log_rates)), [0, 0.25, 0.75, 0], atol=1e-15)
    times = np.exp(log_mfpt(log_rates))
    # 0 waits 1/3, then goes to 1 with probability 2/3; from 2 it takes 1 to reach 1, from 1 a third to reach 2
    expected = [[0, 1 / 3 + 1 / 3, 1 / 3 + 2 / 9, np.inf], [np.inf, 0, 1 / 3, np.inf], [np.inf, 1, 0, np.inf]]
    np.testing.assert_allclose(times[:3], expected, rtol=1e-14)
    np.testing.assert_allclose(times[3], [0.2, 0.2 + 2 / 3, 0.2 + 5 / 9, 0], rtol=1e-14)
    np.testing.assert_allclose(np.exp(-log_timescales(log_rates)), [3, 4, 5], rtol=1e-12)


def test_a_trap_makes_passage_times_infinite() -> None:
    """0 leads to 1 and to the trap 2: 1 is reached with probability 1/2 only."""
    log_rates = np.full((3, 3), -np.inf)
    log_rates[0, 1] = log_rates[0, 2] = log_rates[1, 0] = 0.0
    assert log_mfpt(log_rates)[0, 1] == np.inf
    np.testing.assert_allclose(np.exp(log_mfpt(log_rates)[:2, 2]), [2, 3], rtol=1e-14)
    np.testing.assert_allclose(np.exp(committor(log_rates, 1, 2)), [0.5, 0, 1], rtol=1e-14)


@pytest.mark.parametrize("seed", range(5))
def test_detailed_balance_and_kemeny_constant(seed: int) -> None:
    """pi is the Boltzmann weight, and Kemeny's constant ties pi, passage times and timescales together."""
    log_rates, log_pi = landscape_rates(seed, 30, 300.0, 0.1)
    assert is_reversible(log_rates)
    ours = log_stationary(log_rates)
    np.testing.assert_allclose(ours, log_pi, rtol=1e-13, atol=1e-11)
    # sum_j pi_j M_ij does not depend on i and equals the sum of the timescales
    kemeny = np.logaddexp.reduce(ours + log_mfpt(log_rates), axis=1)
    np.testing.assert_allclose(kemeny, np.logaddexp.reduce(log_timescales(log_rates)), atol=1e-10)


def test_bad_input_is_refused() -> None:
    with pytest.raises(UsageError, match="square"):
        log_stationary(np.zeros((2, 3)))
    with pytest.raises(UsageError, match="from state 0 to 1"):
        log_mfpt(np.array([[0, np.nan], [0, 0]]))
    with pytest.raises(UsageError, match="share"):
        committor(np.zeros((3, 3)), [0, 1], [1])
    wrong: list[list[Any]] = [[], [7], [-1], [0.5]]
    for states in wrong:
        with pytest.raises(UsageError, match="target must name"):
            committor(np.zeros((3, 3)), 0, states)
    assert not is_reversible(np.array([[0, 0.0, 0], [0, 0, 1e-3], [0, 0, 0]]))


def small_network(**changes: object) -> TransitionNetwork:
    """Three states, saddles: two parallel ones 0-1, one 1-2, one 0-0, one with an unknown side."""
    fields: dict[str, object] = {
        "energies": [0.0, 1.0, 2.0],
        "coordinates": np.arange(6.0).reshape(3, 2),
        "log_weights": [0.0, -1.0, -2.0],
        "joins": [[0, 1], [1, 0], [1, 2], [0, 0], [2, -1]],
        "saddle_energies": [3.0, 3.5, 4.0, 5.0, 6.0],
        "log_rates": [[-3.0, -2.0], [-2.5, -3.5], [-3.0, -2.0], [-5.0, -5.0], [-4.0, np.nan]],
        "weights": {"sampled": [0.5, np.nan, 0.1]},
    }
    return TransitionNetwork(**(fields | changes))  # type: ignore[arg-type]


def test_rate_matrix_adds_parallel_saddles_and_leaves_out_the_rest() -> None:
    network = small_network()
    expected = np.zeros((3, 3))
    expected[0, 1] = np.exp(-3.0) + np.exp(-3.5)
    expected[1, 0] = np.exp(-2.0) + np.exp(-2.5)
    expected[1, 2], expected[2, 1] = np.exp(-3.0), np.exp(-2.0)
    np.testing.assert_allclose(np.exp(network.log_rate_matrix), expected, rtol=1e-14)
    np.testing.assert_allclose(network.rate_matrix.sum(axis=1), 0, atol=1e-16)
    np.testing.assert_allclose(network.rate_matrix - np.diag(np.diag(network.rate_matrix)), expected, rtol=1e-14)
    assert network.counted.tolist() == [True, True, True, False, False]
    np.testing.assert_array_equal(network.barriers, [[3, 2], [2.5, 3.5], [3, 2], [5, 5], [4, np.nan]])
    np.testing.assert_allclose(network.stationary, np.array([np.e**2, np.e, 1]) / (np.e**2 + np.e + 1), rtol=1e-13)
    np.testing.assert_allclose(network.mfpt[2, 1], np.exp(2.0), rtol=1e-14)
    np.testing.assert_allclose(network.timescales, 1 / np.sort(-np.linalg.eigvals(network.rate_matrix).real)[1:])
    np.testing.assert_allclose(np.exp(network.log_committor(0, 2)[1]), expected[1, 2] / expected[1].sum())


def test_network_without_saddles_keeps_the_given_weights() -> None:
    network = small_network(joins=[], saddle_energies=[], log_rates=[])
    np.testing.assert_allclose(network.log_stationary, np.array([0, -1, -2]) - np.logaddexp.reduce([0, -1, -2]))
    assert network.components.tolist() == [0, 1, 2] and np.all(network.timescales == np.inf)
    assert network.to_networkx().number_of_edges() == 0


def test_networkx_graph() -> None:
    network = small_network()
    graph = network.to_networkx()
    assert sorted(graph.nodes) == [0, 1, 2] and graph.number_of_edges() == 6
    assert graph.graph["saddles_left_out"] == [3, 4]
    assert graph.nodes[1]["x"] == [2.0, 3.0] and graph.nodes[0]["sampled"] == 0.5
    edge = graph.edges[0, 1, 3]
    assert edge["saddle"] == 1 and edge["log_rate"] == -3.5 and edge["barrier"] == 3.5 and edge["saddle_energy"] == 3.5
    rates = np.zeros((3, 3))
    for i, j, rate in graph.edges(data="rate"):
        rates[i, j] += rate
    np.testing.assert_allclose(rates - np.diag(rates.sum(axis=1)), network.rate_matrix, rtol=1e-14)


def test_network_is_immutable_and_pickles() -> None:
    energies = np.array([0.0, 1.0, 2.0])
    network = small_network(energies=energies)
    energies[0] = 9.0
    assert network.energies[0] == 0
    for name in ("energies", "log_rate_matrix", "mfpt"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(network, name)[...] = 1.0
    again = pickle.loads(pickle.dumps(network))
    np.testing.assert_array_equal(again.log_rate_matrix, network.log_rate_matrix)
    np.testing.assert_array_equal(again.weights["sampled"], [0.5, np.nan, 0.1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"energies": []}, "at least one state"),
        ({"energies": [0.0, np.nan, 1.0]}, "energies must be finite"),
        ({"coordinates": np.zeros(3)}, "coordinates"),
        ({"log_weights": [0.0]}, "log_weights must have shape"),
        ({"joins": [[0, 1]] * 4}, "joins must be"),
        ({"joins": [[0, 3]] * 5}, "0 to 2"),
        ({"joins": [[0.0, 1.0]] * 5}, "integers"),
        ({"log_rates": [[np.nan, 0.0]] * 5}, "saddle 0"),
        ({"weights": {"energy": [1.0, 2.0, 3.0]}}, "rename"),
        ({"weights": {"sampled": [1.0]}}, "sampled"),
    ],
)
def test_bad_networks_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        small_network(**changes)


@pytest.mark.parametrize("name", ["symmetric_overdamped", "symmetric_underdamped", "asymmetric_underdamped"])
def test_published_rates_have_the_published_weights_as_stationary_distribution(name: str) -> None:
    files = sorted((PAPER_MODELS / name).glob("oracle_*.json"))
    if not files:
        pytest.skip("the published models are not here; set LANDSCAPE_PAPER_MODELS")
    for file in files:
        oracle = json.loads(file.read_text())
        minima, saddles = oracle["minima"], oracle["saddles"]
        network = TransitionNetwork(
            energies=np.array([m["energy"] for m in minima]),
            coordinates=np.array([m["x"] for m in minima]),
            log_weights=np.log(oracle["weights_2nd"]),
            joins=np.array([s["joins"] for s in saddles]),
            saddle_energies=np.array([s["energy"] for s in saddles]),
            log_rates=np.log([s["rates_from_each_end"] for s in saddles]),
        )
        np.testing.assert_allclose(network.stationary, oracle["weights_2nd"], rtol=1e-6)


def test_the_room_imports_nothing_to_its_right() -> None:
    """The network knows errors and itself only: no torch, no energies."""
    allowed = {"numpy", "scipy", "networkx", "mpmath", "deeptime", "landscape.errors", "landscape.network"}
    standard = {"__future__", "collections", "contextlib", "csv", "dataclasses", "errno", "functools", "heapq", "io"}
    standard |= {"json", "math", "os", "pathlib", "secrets", "types", "typing"}
    for file in Path(str(package.__file__)).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                known = any(name == a or name.startswith(f"{a}.") for a in allowed)
                assert known or name.split(".")[0] in standard, f"{file.name} imports {name}"
