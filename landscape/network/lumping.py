"""Metastable sets: the slow part of a network, by robust Perron cluster analysis (PCCA+).

The eigenfunctions of the k slowest processes, the constant among them, are nearly constant on k sets of states.
Memberships chi = psi A (n, k), rows summing to 1, are their combinations that are as crisp as positivity allows
(Deuflhard and Weber, Linear Algebra Appl. 398, 161, 2005; Roeblitz and Weber, Adv. Data Anal. Classif. 7, 147, 2013).
The eigenfunctions come from `sensitivity.eigenfunctions`, which holds where timescales span 1e100.

Coarse rates follow the definition used for all rates: the representative state of each set is its core, and k_IJ is the
number of passages from core I to core J next, by the time during which I was the core visited last,

    k_IJ = pi_I k'_IJ / sum_i pi_i q_I(i),

k' being the network with all other states eliminated and q_I the probability to have come from core I last. With
detailed balance this is the projection of Q on the committors of the cores; it keeps detailed balance, its rates are
positive, and its slow timescales are those of the network up to a relative error of the order of the gap.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy  # its parts load on first use

from landscape.errors import UsageError
from landscape.network.algebra import components
from landscape.network.elimination import Array, eliminate, log_sum
from landscape.network.sensitivity import eigenfunctions
from landscape.network.spectrum import log_timescales
from landscape.network.transition_network import TransitionNetwork

_NEGATIVE = 1e-9  # memberships as small as this are rounding
_MOST_STEPS = 4000  # of the search for crisper memberships


@dataclass(frozen=True, eq=False)
class MetastableSets:
    """k sets of n states, largest stationary weight first.

    memberships (n, k): rows sum to 1. sets (n,) int: the set in which each state has its largest membership.
    representatives (k,) int: the state that stands for each set, its core. log_weights (k,): log of the share of time
    in which it was the core visited last. log_rates (k, k): between sets, -inf on the diagonal. log_timescales
    (k - 1,): of these rates. log_gap: log of the fastest timescale kept over the slowest one left out, which says how
    well the sets are separated; inf where none is left out. crispness: membership of the states of a set in it,
    weighted by the stationary distribution and averaged over sets; 1 for sets that do not overlap.
    """

    memberships: Array
    sets: Array
    representatives: Array
    log_weights: Array
    log_rates: Array
    log_timescales: Array
    log_gap: float
    crispness: float


def lump(network: TransitionNetwork, n_sets: int | None = None) -> MetastableSets:
    """The states of a network with detailed balance in `n_sets` metastable sets.

    n_sets : by default as many as stand before the largest gap between the logarithms of neighbouring timescales, and
    at least one a connected part. UsageError: no detailed balance, or a number that does not fit.
    """
    matrix = network.log_rate_matrix
    log_pi, times = network.log_stationary, network.log_timescales
    labels = components(matrix)
    parts = int(labels.max()) + 1
    count = _number(times) if n_sets is None else n_sets
    if not max(parts, 1) <= count <= network.n_states:
        raise UsageError(
            f"{network.n_states} states in {parts} connected parts make {parts} to {network.n_states} sets, "
            f"got n_sets = {count}"
        )
    slow = eigenfunctions(matrix, log_pi, range(count - parts))
    basis = np.column_stack([*(labels == part for part in range(parts)), slow]).astype(np.float64)
    corners = _corners(basis)
    memberships = _crisp(basis @ np.linalg.inv(basis[corners]))
    sets = memberships.argmax(axis=1)
    sets[corners] = np.arange(count)
    members = [np.flatnonzero(sets == c) for c in range(count)]
    representatives = np.array([inside[np.argmax(log_pi[inside])] for inside in members])
    weights, rates = coarse_rates(matrix, log_pi, representatives)
    order = np.argsort(-weights, kind="stable")
    place = np.argsort(order)
    own = [np.average(memberships[g, c], weights=np.exp(log_pi[g] - log_pi[g].max())) for c, g in enumerate(members)]
    rates = rates[np.ix_(order, order)]
    return MetastableSets(
        memberships[:, order], place[sets], representatives[order], weights[order], rates, log_timescales(rates),
        float(times[count - 2] - times[count - 1]) if 1 < count < network.n_states else np.inf, float(np.mean(own)),
    )  # fmt: skip


def coarse_rates(log_rates: Array, log_pi: Array, cores: Array) -> tuple[Array, Array]:
    """log weights (k,) and log rates (k, k) between single states `cores` (k,), as in the module's formula.

    With detailed balance only: q_I is then the committor of the chain itself.
    """
    n, k = len(log_rates), len(cores)
    rest = np.setdiff1d(np.arange(n), cores)
    reduced = log_rates.copy()
    reach = np.full((n, k), -np.inf)
    reach[cores, np.arange(k)] = 0.0
    for record in reversed(eliminate(reduced, np.zeros(n), rest)):
        reach[record.node] = log_sum(record.log_branching[:, None] + reach[record.out], axis=0)
    held = log_sum(log_pi[:, None] + reach, axis=0)
    rates = log_pi[cores][:, None] + reduced[np.ix_(cores, cores)] - held[:, None]
    np.fill_diagonal(rates, -np.inf)
    return held, rates


def _number(times: Array) -> int:
    """How many sets the largest gap of the log timescales tells apart."""
    if np.isnan(times).any():
        raise UsageError("some timescales are not resolved, so the number of sets has to be given: pass n_sets")
    parts = int(np.isinf(times).sum()) + 1
    gaps = times[parts - 1 : -1] - times[parts:]
    # one process more than parts at least, or lumping would do no more than tell the parts apart
    return parts + 1 + int(np.argmax(gaps)) if len(gaps) else len(times) + 1


def _corners(basis: Array) -> Array:
    """Rows that span the simplex best (inner simplex algorithm), one a column."""
    rows = basis.copy()
    first = int(np.argmax(np.linalg.norm(rows, axis=1)))
    chosen = [first]
    rows = rows - rows[first]
    for _ in range(basis.shape[1] - 1):
        chosen.append(int(np.argmax(np.linalg.norm(rows, axis=1))))
        direction = rows[chosen[-1]] / np.linalg.norm(rows[chosen[-1]])
        rows = rows - np.outer(rows @ direction, direction)
    return np.array(chosen)


def _crisp(start: Array) -> Array:
    """The crispest nonnegative memberships in the span of `start` (n, k), whose rows sum to 1.

    With free numbers for rows and columns 1 to k - 1 of the transformation A, its first column makes the rows sum
    to 1, its first row lifts every membership to at least 0 at all states, and a scale makes them sum to 1. What is
    made as large as possible is the sum over sets of the largest membership in each, at most k (Deuflhard and Weber).
    """
    n, k = start.shape
    if k in (1, n) or start.min() > -_NEGATIVE:
        return _normalised(start)
    basis = np.column_stack([np.ones(n), start[:, 1:]])

    def filled(free: Array) -> Array:
        inner = np.zeros((k, k))
        inner[1:, 1:] = free.reshape(k - 1, k - 1)
        inner[1:, 0] = -inner[1:, 1:].sum(axis=1)
        inner[0] = -(basis[:, 1:] @ inner[1:]).min(axis=0)
        return np.asarray(inner / inner[0].sum())

    def loss(free: Array) -> float:
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            largest = (basis @ filled(free)).max(axis=0).sum()
        return -float(largest) if np.isfinite(largest) else 0.0  # no crispness where no scale exists

    steps = min(200 * k * k, _MOST_STEPS)
    found = scipy.optimize.minimize(loss, np.eye(k - 1).ravel(), method="Nelder-Mead", options={"maxiter": steps})
    return _normalised(basis @ filled(found.x))


def _normalised(memberships: Array) -> Array:
    positive = np.maximum(memberships, 0.0)
    return np.asarray(positive / positive.sum(axis=1, keepdims=True))
