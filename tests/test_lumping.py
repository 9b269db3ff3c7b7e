"""Metastable sets: block networks with known sets, deeptime's PCCA+, and spectra over 1e100."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
import scipy.linalg

from landscape.errors import UsageError
from landscape.network import TransitionNetwork, log_timescales, lump
from landscape.network.sensitivity import eigenfunctions


def block_network(
    seed: int, sizes: tuple[int, ...], inner: float, outer: float, step: float
) -> tuple[TransitionNetwork, np.ndarray]:
    """Blocks of states, barriers up to `inner` inside, `outer` from each block to the next; each block lies `step`
    higher than the one before. States are shuffled. Also the block of each state."""
    rng = np.random.default_rng(seed)
    blocks = np.repeat(np.arange(len(sizes)), sizes)
    n = len(blocks)
    energies = step * blocks + rng.random(n)
    pairs = [(i, j) for i in range(n) for j in range(i) if blocks[i] == blocks[j]]
    for block in range(len(sizes) - 1):
        pairs += [tuple(rng.choice(np.flatnonzero(blocks == b)) for b in (block, block + 1)) for _ in range(2)]
    joins = np.array(pairs)
    within = blocks[joins[:, 0]] == blocks[joins[:, 1]]
    saddles = energies[joins].max(axis=1) + np.where(within, inner * rng.random(len(pairs)), outer)
    shuffled = rng.permutation(n)
    energies, blocks, joins = energies[shuffled], blocks[shuffled], np.argsort(shuffled)[joins]
    log_rates = energies[joins] - saddles[:, None]
    return TransitionNetwork(energies, np.zeros((n, 1)), -energies, joins, saddles, log_rates), blocks


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("sizes", "outer", "step"),
    [((5, 6), 8.0, 0.0), ((4, 5, 6), 12.0, 0.5), ((4, 5, 6), 300.0, 0.0), ((4, 5, 6, 7), 250.0, 120.0), ((3,), 0, 0)],
)
def test_blocks_are_found(seed: int, sizes: tuple[int, ...], outer: float, step: float) -> None:
    """Also where timescales span 1e300 and the weights of the sets 1e-150; the number of sets finds itself."""
    network, blocks = block_network(seed, sizes, 1.0, outer, step)
    lumped = lump(network, None if len(sizes) > 1 else 1)
    count = len(sizes)
    assert lumped.memberships.shape == (network.n_states, count)
    for own in range(count):
        inside = lumped.sets == own
        assert np.ptp(blocks[inside]) == 0 and inside.sum() == sizes[blocks[inside][0]]
        assert lumped.sets[lumped.representatives[own]] == own
        assert network.energies[lumped.representatives[own]] == network.energies[inside].min()
    assert np.all(lumped.memberships >= 0)
    np.testing.assert_allclose(lumped.memberships.sum(axis=1), 1, rtol=1e-14)
    if count > 1:
        error = 10 * np.exp(-lumped.log_gap)
        np.testing.assert_allclose(lumped.log_timescales, network.log_timescales[: count - 1], atol=1e-11 + error)
        assert 0.99 < lumped.crispness <= 1 + 1e-14
    np.testing.assert_allclose(np.logaddexp.reduce(lumped.log_weights), 0, atol=1e-12)
    assert np.all(np.diff(lumped.log_weights) <= 0)
    # coarse weights and rates keep detailed balance
    flow = lumped.log_weights[:, None] + lumped.log_rates
    np.testing.assert_allclose(flow[flow > -np.inf], flow.T[flow > -np.inf], atol=1e-10)


def test_two_states_each_a_set_are_left_as_they_are() -> None:
    network, _ = block_network(0, (1, 1, 1), 1.0, 4.0, 1.0)
    lumped = lump(network, 3)
    order = lumped.representatives
    np.testing.assert_allclose(lumped.log_rates, network.log_rate_matrix[np.ix_(order, order)], atol=1e-13)
    np.testing.assert_allclose(lumped.log_weights, network.log_stationary[order], atol=1e-13)
    np.testing.assert_allclose(lumped.memberships[order], np.eye(3), atol=1e-13)
    assert lumped.log_gap == np.inf


def test_separate_parts_are_sets_of_their_own() -> None:
    joins, log_rates = np.array([[0, 1], [2, 3]]), np.full((2, 2), -1.0)
    network = TransitionNetwork(np.zeros(4), np.zeros((4, 1)), np.log([3.0, 3, 1, 1]), joins, np.ones(2), log_rates)
    lumped = lump(network, 2)
    assert lumped.sets.tolist() == [0, 0, 1, 1] and lumped.log_timescales.tolist() == [np.inf]
    np.testing.assert_allclose(np.exp(lumped.log_weights), [0.75, 0.25])
    with pytest.raises(UsageError, match="2 to 4 sets"):
        lump(network, 1)


def test_what_is_refused() -> None:
    network, _ = block_network(0, (2, 2), 1.0, 4.0, 0.0)
    for wrong in (0, 5):
        with pytest.raises(UsageError, match=f"n_sets = {wrong}"):
            lump(network, wrong)
    ring = TransitionNetwork(
        np.zeros(3), np.zeros((3, 1)), np.zeros(3), np.array([[0, 1], [1, 2], [2, 0]]), np.ones(3),
        np.array([[0.0, -np.inf]] * 3),
    )  # fmt: skip
    with pytest.raises(UsageError, match="detailed balance"):
        lump(ring, 2)


@pytest.mark.parametrize("seed", range(3))
def test_eigenfunctions_against_lapack_where_it_is_accurate(seed: int) -> None:
    network, _ = block_network(seed, (4, 5, 3), 1.0, 3.0, 0.5)
    ours = eigenfunctions(network.log_rate_matrix, network.log_stationary, range(11))
    values, vectors = scipy.linalg.eig(network.rate_matrix)
    vectors = vectors[:, np.argsort(-values.real)][:, 1:].real
    vectors /= vectors[np.argmax(np.abs(vectors), axis=0), np.arange(11)]
    np.testing.assert_allclose(ours, vectors, atol=1e-9)


def test_memberships_against_multiprecision_where_weights_span_1e_minus_130() -> None:
    """Eigenvectors with 500 digits, combined so that the representatives are the corners; both in that form."""
    network, blocks = block_network(3, (3, 3, 3), 1.0, 60.0, 150.0)
    lumped = lump(network)
    assert network.log_stationary.min() < -130 * np.log(10) and len(np.unique(lumped.sets)) == 3
    with mpmath.workdps(500):
        n = network.n_states
        generator = mpmath.matrix(n, n)
        for i, j in np.argwhere(network.log_rate_matrix > -np.inf):
            generator[i, j] = mpmath.exp(mpmath.mpf(float(network.log_rate_matrix[i, j])))
        for i in range(n):
            generator[i, i] = -mpmath.fsum(generator[i, j] for j in range(n) if j != i)
        values, vectors = mpmath.eig(generator)
        slowest = sorted(range(n), key=lambda k: -mpmath.re(values[k]))[:3]
        basis = mpmath.matrix([[mpmath.re(vectors[i, k]) for k in slowest] for i in range(n)])
        corners = mpmath.matrix([[basis[int(i), k] for k in range(3)] for i in lumped.representatives])
        memberships = basis * corners**-1
        exact = np.array([[float(memberships[i, k]) for k in range(3)] for i in range(n)])
    ours = lumped.memberships @ np.linalg.inv(lumped.memberships[lumped.representatives])
    np.testing.assert_allclose(ours, exact, atol=1e-12)
    np.testing.assert_allclose(exact, blocks[lumped.representatives] == blocks[:, None], atol=1e-12)


@pytest.mark.parametrize(("outer", "tolerance"), [(6.0, 0.02), (2.0, 0.1)])
def test_memberships_against_deeptime(outer: float, tolerance: float) -> None:
    """A well-conditioned network, where deeptime's own eigenvectors are right; its objective is a little different."""
    markov = pytest.importorskip("deeptime.markov")
    network, _ = block_network(1, (4, 5, 6), 0.5, outer, 0.3)
    transition = scipy.linalg.expm(network.rate_matrix)
    theirs = markov.pcca(transition, 3, stationary_distribution=network.stationary)
    ours = lump(network, 3)
    match = theirs.assignments[ours.representatives]
    assert sorted(match.tolist()) == [0, 1, 2] and np.array_equal(theirs.assignments, match[ours.sets])
    np.testing.assert_allclose(ours.memberships, theirs.memberships[:, match], atol=tolerance)


def test_no_clear_gap_still_gives_memberships() -> None:
    """A chain of equal rates has no sets; positivity needs the optimisation then."""
    n = 30
    joins = np.column_stack([np.arange(n - 1), np.arange(1, n)])
    network = TransitionNetwork(
        np.zeros(n), np.zeros((n, 1)), np.zeros(n), joins, np.ones(n - 1), np.zeros((n - 1, 2))
    )  # fmt: skip
    lumped = lump(network, 3)
    assert np.all(lumped.memberships >= 0) and 0.5 < lumped.crispness < 0.98
    np.testing.assert_allclose(lumped.memberships.sum(axis=1), 1, rtol=1e-13)
    assert np.all(np.diff(np.sign(np.diff(lumped.sets))).nonzero()[0].size <= 4)  # three stretches of the chain
    assert log_timescales(lumped.log_rates)[0] == lumped.log_timescales[0]


@pytest.mark.parametrize("seed", [1, 5, 7])
@pytest.mark.parametrize("count", [2, 5, 8, 10])
def test_any_number_of_sets_of_a_network_with_weights_down_to_1e_minus_400(seed: int, count: int) -> None:
    """A random landscape at a thousandth of its spread: sets for every number, and coarse timescales by the gap."""
    rng = np.random.default_rng(seed)
    energies = 1000 * rng.random(10)
    joins = np.array([(i, j) for i in range(10) for j in range(i) if j == i - 1 or rng.random() < 0.2])
    saddles = energies[joins].max(axis=1) + 1000 * rng.random(len(joins))
    log_rates = energies[joins] - saddles[:, None]
    network = TransitionNetwork(energies, np.zeros((10, 1)), -energies, joins, saddles, log_rates)
    lumped = lump(network, count)
    assert sorted(set(lumped.sets.tolist())) == list(range(count)) and np.all(np.isfinite(lumped.memberships))
    np.testing.assert_allclose(lumped.log_timescales, network.log_timescales[: count - 1], atol=1e-10, rtol=1e-12)
