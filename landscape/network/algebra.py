"""Stationary distribution, passage times and committor of a network, from its log rates.

Every function takes `log_rates` (n, n): the natural logarithm of the rate k_ij from i to j (1/time), -inf where there
is no edge; the diagonal is ignored. Results are logarithms too. No rate is ever subtracted (see `elimination`), so the
error of a result is a few units in the last place of the logarithms that went in, however stiff the network: 12 digits
of a passage time of 1e400. Directed edges without a way back are allowed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from landscape.errors import UsageError
from landscape.network.elimination import Array, Eliminated, checked_log_rates, eliminate, log_sum


def components(log_rates: Array) -> Array:
    """Label (n,) of the connected component of each state, edges taken without direction; the first state is in 0."""
    return _classes(checked_log_rates(log_rates), "weak")


def communicating_classes(log_rates: Array) -> tuple[Array, Array]:
    """Labels (n,) of the classes of states that reach each other, and for each class whether it is closed, (c,) bool.

    A closed class is never left, and carries stationary weight; for reversible networks they are the components.
    """
    matrix = checked_log_rates(log_rates)
    labels = _classes(matrix, "strong")
    source, target = np.nonzero(matrix > -np.inf)
    closed = np.ones(labels.max() + 1, dtype=bool)
    closed[labels[source[labels[source] != labels[target]]]] = False
    return labels, closed


def log_stationary(log_rates: Array, log_weights: Array | None = None) -> Array:
    """log pi (n,), with pi Q = 0 and sum pi = 1; -inf for states that are left for ever.

    With several closed classes pi is not unique. `log_weights` (n,), up to a constant, then gives each class the summed
    weight of its own states; inside a class it plays no part. 2,000 states with a few edges each take two seconds, all
    joined to all a minute. UsageError if it is missing there, or not finite.
    """
    matrix = checked_log_rates(log_rates)
    labels, closed = communicating_classes(matrix)
    groups = [np.flatnonzero(labels == c) for c in np.flatnonzero(closed)]
    shares = np.zeros(len(groups))
    if len(groups) > 1:
        if log_weights is None:
            raise UsageError(
                f"the stationary distribution is unique only in one piece, got {len(groups)} parts: pass log_weights"
            )
        weights = np.asarray(log_weights, dtype=np.float64)
        if weights.shape != (len(matrix),) or not np.all(np.isfinite(weights)):
            raise UsageError(
                f"log_weights must be {len(matrix)} finite numbers, got shape {weights.shape}: one per state"
            )
        shares = np.array([log_sum(weights[group]) for group in groups])
    result = np.full(len(matrix), -np.inf)
    for group, share in zip(groups, shares, strict=True):
        result[group] = _log_stationary_of_class(matrix[np.ix_(group, group)]) + share
    return np.asarray(result - log_sum(result))


def log_mfpt(log_rates: Array) -> Array:
    """log of the mean first passage time from i to j, (n, n): -inf on the diagonal, +inf where j may never be reached.

    All pairs at the cost of a few eliminations, O(n^3): one half of the states is eliminated, the other half solved
    in the same manner, and the first half filled in backwards; then the halves change places. Measured: 500 states all
    joined to all 3 s, 1,000 with a few edges each 6 s; for one target of a larger network use `log_mfpt_to`.
    """
    matrix = checked_log_rates(log_rates)
    return _log_passage(matrix, np.zeros(len(matrix)))


def log_mfpt_to(log_rates: Array, target: int | Sequence[int]) -> Array:
    """log of the mean time (n,) until any state of `target` is reached; -inf inside, +inf where none may be."""
    matrix = checked_log_rates(log_rates)
    kept = state_set(target, len(matrix), "target")
    rest = np.setdiff1d(np.arange(len(matrix)), kept)
    result = np.full((len(matrix), 1), -np.inf)
    _fill_times(result, eliminate(matrix, np.zeros(len(matrix)), rest), np.array([0]))
    return result[:, 0]


def committor(log_rates: Array, source: int | Sequence[int], target: int | Sequence[int]) -> Array:
    """log q (n,): q_i is the probability that the chain from i reaches `target` before `source`.

    0 on the target, -inf on the source and where the target is out of reach. For log(1 - q) in a connected network,
    exchange source and target. UsageError if the two sets overlap, are empty or name unknown states.
    """
    matrix = checked_log_rates(log_rates)
    start, end = state_set(source, len(matrix), "source"), state_set(target, len(matrix), "target")
    both = np.intersect1d(start, end)
    if len(both):
        raise UsageError(f"source and target must not share a state, both have {both.tolist()}: take it out of one")
    rest = np.setdiff1d(np.arange(len(matrix)), np.concatenate([start, end]))
    result = np.full(len(matrix), -np.inf)
    result[end] = 0.0
    for record in reversed(eliminate(matrix, np.zeros(len(matrix)), rest)):
        result[record.node] = min(0.0, float(log_sum(record.log_branching + result[record.out])))
    return result


def _classes(matrix: Array, connection: str) -> Array:
    """Component labels numbered by their first state."""
    _, raw = connected_components(csr_array(matrix > -np.inf), directed=True, connection=connection)
    _, first, inverse = np.unique(raw, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse]


def _log_stationary_of_class(matrix: Array) -> Array:
    """log pi up to a constant of one class whose states all reach each other; overwrites `matrix`."""
    n = len(matrix)
    last = int(np.argmax((matrix > -np.inf).sum(axis=1)))
    result = np.zeros(n)
    for record in reversed(eliminate(matrix, np.zeros(n), np.delete(np.arange(n), last))):
        result[record.node] = log_sum(result[record.into] + record.log_into) - record.log_escape
    return np.asarray(result - log_sum(result))


def _log_passage(log_rates: Array, log_time: Array) -> Array:
    """All-pairs log passage times if a visit to i takes exp(log_time_i)/S_i on average (S_i its escape rate)."""
    n = len(log_rates)
    result = np.full((n, n), -np.inf)
    if n == 1:
        return result
    links = log_rates > -np.inf
    np.fill_diagonal(links, False)
    order = np.argsort(links.sum(axis=1), kind="stable")
    halves = order[: n // 2], order[n // 2 :]
    for gone, kept in (halves, halves[::-1]):
        reduced, time = log_rates.copy(), log_time.copy()
        records = eliminate(reduced, time, gone)
        inner = np.ix_(kept, kept)
        result[inner] = _log_passage(reduced[inner], time[kept])
        _fill_times(result, records, kept)
    return result


def _fill_times(result: Array, records: list[Eliminated], targets: Array) -> None:
    """Passage times from the eliminated states to the columns `targets`: M_k = t_k/S_k + sum_j (k_kj/S_k) M_j."""
    for record in reversed(records):
        later = log_sum(record.log_branching[:, None] + result[np.ix_(record.out, targets)], axis=0)
        result[record.node, targets] = np.logaddexp(record.log_wait, later)


def state_set(states: int | Sequence[int], n: int, name: str) -> Array:
    """Sorted distinct state numbers, checked."""
    chosen = np.unique(np.atleast_1d(np.asarray(states)))
    if chosen.size == 0 or not np.issubdtype(chosen.dtype, np.integer) or chosen[0] < 0 or chosen[-1] >= n:
        raise UsageError(f"{name} must name states from 0 to {n - 1}, got {states!r}: pass one or more of them")
    return chosen
