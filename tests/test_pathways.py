"""Reactive flux, pathways and sensitivities against multiprecision, closed forms and brute force."""

from __future__ import annotations

import itertools

import mpmath
import networkx as nx
import numpy as np
import pytest

from landscape.dynamics import Overdamped
from landscape.errors import UsageError
from landscape.network import (
    TransitionNetwork,
    is_reversible,
    log_mfpt,
    reaction_pathways,
    reactive_flux,
    timescale_sensitivity,
)
from landscape.rates import langer_rates


def landscape_network(seed: int, n: int, spread: float, density: float) -> TransitionNetwork:
    """A chain and random further saddles at kT = 1 and unit prefactors; energies within 2 spread."""
    rng = np.random.default_rng(seed)
    energies = spread * rng.random(n)
    pairs = [(i, j) for i in range(n) for j in range(i) if j == i - 1 or rng.random() < density]
    joins = np.array(pairs)
    saddles = energies[joins].max(axis=1) + spread * rng.random(len(pairs))
    log_rates = energies[joins] - saddles[:, None]
    return TransitionNetwork(energies, np.zeros((n, 1)), -energies, joins, saddles, log_rates)


def directed_rates(seed: int, n: int, spread: float) -> np.ndarray:
    """Log rates without detailed balance: a directed ring, and random directed edges."""
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


def exact_committor(generator: mpmath.matrix, zero: list[int], one: list[int]) -> mpmath.matrix:
    n = generator.rows
    system, right = generator.copy(), mpmath.matrix(n, 1)
    for i in zero + one:
        for j in range(n):
            system[i, j] = mpmath.mpf(i == j)
        right[i] = mpmath.mpf(i in one)
    return mpmath.lu_solve(system, right)


def exact_flux(log_rates: np.ndarray, source: list[int], target: list[int], digits: int) -> dict[str, np.ndarray]:
    """Everything by linear solves with so many digits, and net flows as plain differences of gross ones."""
    n = len(log_rates)
    with mpmath.workdps(digits):
        generator = exact_generator(log_rates)
        system, right = generator.T, mpmath.matrix(n, 1)
        for j in range(n):
            system[0, j] = 1
        right[0] = 1
        pi = mpmath.lu_solve(system, right)
        backwards = mpmath.matrix(n, n)
        for i, j in itertools.product(range(n), repeat=2):
            backwards[i, j] = pi[j] * generator[j, i] / pi[i]
        forward, backward = exact_committor(generator, source, target), exact_committor(backwards, target, source)
        gross, net = np.full((n, n), -np.inf), np.full((n, n), -np.inf)
        for i, j in itertools.permutations(range(n), 2):
            there = pi[i] * backward[i] * generator[i, j] * forward[j]
            back = pi[j] * backward[j] * generator[j, i] * forward[i]
            gross[i, j] = float(mpmath.log(there)) if there > 0 else -np.inf
            if there - back > mpmath.mpf(10) ** (-digits // 2) * there:
                net[i, j] = float(mpmath.log(there - back))
        total = mpmath.fsum(
            pi[i] * generator[i, j] * forward[j] for i in source for j in range(n) if j not in source
        )  # fmt: skip
        rate = total / mpmath.fsum(pi[i] * backward[i] for i in range(n))
        return {
            "log_gross": gross, "log_net": net, "log_total": np.array(float(mpmath.log(total))),
            "log_rate": np.array(float(mpmath.log(rate))),
            "log_backward": np.array([float(mpmath.log(q)) if q > 0 else -np.inf for q in backward]),
            "log_forward": np.array([float(mpmath.log(q)) if q > 0 else -np.inf for q in forward]),
        }  # fmt: skip


CASES = [
    pytest.param(landscape_network(0, 9, 3.0, 0.3).log_rate_matrix, 60, id="mild"),
    pytest.param(landscape_network(1, 9, 100.0, 0.3).log_rate_matrix, 400, id="stiff"),
    pytest.param(landscape_network(2, 8, 800.0, 0.3).log_rate_matrix, 1500, id="fluxes-below-1e-300"),
    pytest.param(directed_rates(4, 8, 3.0), 60, id="directed"),
    pytest.param(directed_rates(5, 8, 100.0), 400, id="directed-stiff"),
    pytest.param(directed_rates(6, 8, 600.0), 1500, id="directed-fluxes-below-1e-300"),
]


@pytest.mark.parametrize(("log_rates", "digits"), CASES)
def test_flux_against_multiprecision(log_rates: np.ndarray, digits: int) -> None:
    """Twelve digits of every committor, flow, total and rate; net flows are -inf in the same places."""
    ours = reactive_flux(log_rates, [0, 3], [2])
    for name, exact in exact_flux(log_rates, [0, 3], [2], digits).items():
        np.testing.assert_allclose(getattr(ours, name), exact, rtol=3e-15, atol=1e-12, err_msg=name)


def test_the_flux_cases_defeat_plain_arithmetic() -> None:
    """Net flows as differences of gross ones are off in the stiff case, so that the test above can fail."""
    flux = reactive_flux(landscape_network(1, 9, 100.0, 0.3).log_rate_matrix, [0, 3], [2])
    plain = np.exp(flux.log_gross - flux.log_total) - np.exp(flux.log_gross.T - flux.log_total)
    ours = np.exp(flux.log_net - flux.log_total)
    known = ours > 0
    assert np.max(np.abs(plain[known] / ours[known] - 1)) > 1e-6
    assert reactive_flux(landscape_network(2, 8, 800.0, 0.3).log_rate_matrix, [0, 3], [2]).log_total < -300 * np.log(10)


@pytest.mark.parametrize("seed", range(4))
def test_flux_and_passage_times_agree(seed: int) -> None:
    """Between single states 1/F is the mean round trip, and the rate is 1 over the mean passage time."""
    for log_rates in (landscape_network(seed, 12, 80.0, 0.2).log_rate_matrix, directed_rates(seed, 12, 80.0)):
        times, flux = log_mfpt(log_rates), reactive_flux(log_rates, 1, 5)
        np.testing.assert_allclose(-flux.log_total, np.logaddexp(times[1, 5], times[5, 1]), atol=1e-11)
        np.testing.assert_allclose(-flux.log_rate, times[1, 5], atol=1e-11)


@pytest.mark.parametrize("spread", [3.0, 200.0])
def test_net_flow_is_conserved_and_pathways_use_it_up(spread: float) -> None:
    flux = reactive_flux(landscape_network(8, 10, spread, 0.3).log_rate_matrix, [0, 1], [8, 9])
    net = np.exp(flux.log_net - flux.log_total)
    inner = np.arange(2, 8)
    np.testing.assert_allclose(net.sum(axis=0)[inner], net.sum(axis=1)[inner], atol=1e-14)
    np.testing.assert_allclose([net[:2].sum(), net[:, 8:].sum()], 1, rtol=1e-13)
    paths = reaction_pathways(flux, 1000)
    assert 1 < len(paths) < 1000 and len({path.states for path in paths}) == len(paths)
    assert sum(path.share for path in paths) == pytest.approx(1, abs=1e-10)
    used = np.zeros_like(net)
    for path in paths:
        assert path.states[0] in (0, 1) and path.states[-1] in (8, 9) and len(set(path.states)) == len(path.states)
        np.add.at(used, (path.states[:-1], path.states[1:]), path.share)
        assert path.log_flux - flux.log_total == pytest.approx(np.log(path.share), abs=1e-12)
    np.testing.assert_allclose(used, net, atol=1e-10)
    # the first is the widest of all simple paths, one by one
    graph = nx.DiGraph([(i, j) for i, j in np.argwhere(net > 0).tolist()])
    widest = max(
        min(net[i, j] for i, j in itertools.pairwise(path))
        for a in (0, 1)
        for b in (8, 9)
        if a in graph and b in graph
        for path in nx.all_simple_paths(graph, a, b)
    )
    assert paths[0].share == pytest.approx(widest, rel=1e-12)
    rises = np.diff(np.exp(flux.log_forward[list(paths[0].states)]))
    step = paths[0].states.index(paths[0].limiting[0])
    assert paths[0].limiting[1] == paths[0].states[step + 1] and rises[step] == rises.max()


def test_two_routes_by_hand() -> None:
    """0 -> 1 -> 3 and 0 -> 2 -> 3 with conductances 2 and 6 in series, 1 and 1: currents 3/2 and 1/2 of 2."""
    log_rates = np.full((4, 4), -np.inf)
    for i, j, conductance in [(0, 1, 2.0), (1, 3, 6.0), (0, 2, 1.0), (2, 3, 1.0)]:
        log_rates[i, j] = log_rates[j, i] = np.log(conductance)
    flux = reactive_flux(log_rates, 0, 3)
    assert np.exp(flux.log_total) == pytest.approx(2 / 4)
    first, second = reaction_pathways(flux)
    assert first.states == (0, 1, 3) and first.share == pytest.approx(0.75)
    assert first.limiting == (0, 1)  # the committor of 1 is 3/4
    assert second.states == (0, 2, 3) and second.share == pytest.approx(0.25)
    assert reaction_pathways(flux, 1) == (first,)


def test_separate_parts_and_traps() -> None:
    log_rates = np.full((5, 5), -np.inf)
    log_rates[0, 1] = log_rates[1, 0] = 0.0
    log_rates[2, 3] = log_rates[3, 2] = -1.0
    log_rates[4, 2] = 0.0
    weights = np.log([0.1, 0.2, 0.3, 0.35, 0.05])
    flux = reactive_flux(log_rates, 2, 3, weights)
    # state 4 is left for ever: the part of 2 and 3 weighs .65 of .95, half of it in state 2
    assert np.exp(flux.log_total) == pytest.approx(0.65 / 0.95 / 2 * np.exp(-1)) and flux.log_rate == pytest.approx(-1)
    nowhere = reactive_flux(log_rates, 0, 3, weights)
    assert nowhere.log_total == nowhere.log_rate == -np.inf
    with pytest.raises(UsageError, match="no way leads"):
        reaction_pathways(nowhere)
    with pytest.raises(UsageError, match="at least 1"):
        reaction_pathways(flux, 0)
    with pytest.raises(UsageError, match="share"):
        reactive_flux(log_rates, [0, 1], [1, 2], weights)


def test_rotated_dynamics_leaves_detailed_balance_between_states() -> None:
    """Langer's rates with a rotation J differ by mu at the saddle, which is the same from both sides.

    The trajectories have no detailed balance, but the network has, and with the same stationary distribution; only its
    rates are faster. So sets and sensitivities exist there as well.
    """
    rng = np.random.default_rng(5)
    minima, joins = np.array([0.0, 0.4, 1.0]), np.array([[0, 1], [1, 2], [0, 2]])
    lows = rng.uniform(1, 8, (3, 2))
    heights = np.array([4.0, 4.5, 5.0])
    tops = np.array([np.diag([-2.0, 3.0]), [[1.0, 3.0], [3.0, 2.0]], np.diag([5.0, -1.0])])
    log_weights = -2.0 * minima - np.log(lows).sum(axis=1) / 2
    networks = []
    for rotation in (None, np.array([[0.0, 1.5], [-1.5, 0.0]])):
        dynamics = Overdamped(2.0, 1.0, rotation)
        rates = langer_rates(dynamics, minima, lows, heights, np.linalg.eigvalsh(tops), tops, joins).log_rates
        networks.append(TransitionNetwork(minima, np.zeros((3, 2)), log_weights, joins, heights, rates))
    still, rotated = networks
    assert np.all(rotated.log_rates > still.log_rates + 0.1) and is_reversible(rotated.log_rate_matrix)
    exact = log_weights - np.logaddexp.reduce(log_weights)
    np.testing.assert_allclose(rotated.log_stationary, exact, atol=1e-12)
    np.testing.assert_allclose(still.log_stationary, exact, atol=1e-12)


def exact_derivatives(network: TransitionNetwork, digits: int) -> tuple[np.ndarray, np.ndarray]:
    """d ln t / dE of every saddle and minimum by central differences of the eigenvalues, with so many digits."""
    with mpmath.workdps(digits):
        levels = [mpmath.mpf(float(e)) for e in (*network.energies, *network.saddle_energies)]
        step = mpmath.mpf(10) ** (-digits // 6)
        n = network.n_states

        def log_times() -> list[mpmath.mpf]:
            generator = mpmath.matrix(n, n)
            for saddle, pair in enumerate(network.joins.tolist()):
                for i, j in (pair, pair[::-1]):
                    rate = mpmath.exp(levels[i] - levels[n + saddle])
                    generator[i, j] += rate
                    generator[i, i] -= rate
            values = mpmath.eig(generator, left=False, right=False)
            return [-mpmath.log(value) for value in sorted(-mpmath.re(value) for value in values)[1:]]

        columns = []
        for k in range(len(levels)):
            levels[k] += step
            up = log_times()
            levels[k] -= 2 * step
            down = log_times()
            levels[k] += step
            columns.append([float((a - b) / (2 * step)) for a, b in zip(up, down, strict=True)])
    table = np.array(columns).T
    return table[:, n:], table[:, :n]


@pytest.mark.parametrize(("spread", "digits"), [(2.0, 60), (100.0, 250)])
def test_sensitivities_against_differences_in_multiprecision(spread: float, digits: int) -> None:
    network = landscape_network(1, 6, spread, 0.4)
    ours = timescale_sensitivity(network)
    saddles, states = exact_derivatives(network, digits)
    np.testing.assert_allclose(ours.saddles, saddles, atol=1e-11)
    np.testing.assert_allclose(ours.states, states, atol=1e-11)
    np.testing.assert_array_equal(ours.log_timescales, timescale_sensitivity(network, 99).log_timescales)


def test_sensitivities_of_a_large_stiff_network_are_shares() -> None:
    """Timescales up to 1e75: shares are positive, sum to 1 and -1, and parallel saddles share by their rates."""
    network = landscape_network(3, 60, 200.0, 0.1)
    ours = timescale_sensitivity(network, 20)
    assert ours.log_timescales[0] > 75 * np.log(10) and ours.saddles.shape == (20, network.n_saddles)
    assert np.all(ours.saddles >= 0) and np.all(ours.states <= 0)
    np.testing.assert_allclose(ours.saddles.sum(axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(ours.states.sum(axis=1), -1, atol=1e-12)
    parallel = TransitionNetwork(
        np.zeros(2), np.zeros((2, 1)), np.zeros(2), np.array([[0, 1], [1, 0], [1, 1]]), np.ones(3),
        np.log([[0.6, 0.6], [0.3, 0.3], [9.0, 9.0]]),
    )  # fmt: skip
    np.testing.assert_allclose(timescale_sensitivity(parallel).saddles, [[2 / 3, 1 / 3, 0]], rtol=1e-14)


def test_sensitivities_by_part_and_what_is_refused() -> None:
    """Two separate pairs of states: a timescale answers only to the saddle of its own pair."""
    joins, log_rates = np.array([[0, 2], [3, 1]]), np.array([[-30.0, -30.0], [-1.0, -1.0]])
    network = TransitionNetwork(np.zeros(4), np.zeros((4, 1)), np.zeros(4), joins, np.ones(2), log_rates)
    ours = timescale_sensitivity(network)
    np.testing.assert_allclose(ours.saddles, np.eye(2), atol=1e-15)
    np.testing.assert_allclose(ours.states, [[-0.5, 0, -0.5, 0], [0, -0.5, 0, -0.5]], atol=1e-15)
    np.testing.assert_allclose(ours.log_timescales, [30 - np.log(2), 1 - np.log(2)])
    with pytest.raises(UsageError, match="at least 1"):
        timescale_sensitivity(network, 0)
    ring = TransitionNetwork(
        np.zeros(3), np.zeros((3, 1)), np.zeros(3), np.array([[0, 1], [1, 2], [2, 0]]), np.ones(3),
        np.array([[0.0, -np.inf]] * 3),
    )  # fmt: skip
    with pytest.raises(UsageError, match="detailed balance"):
        timescale_sensitivity(ring)
