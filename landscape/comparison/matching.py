"""Which state of one landscape is which state of another: by position, by weight, or by weights and rates together.

Every function returns pairs (p, 2) of state numbers, sorted by the first.
"""

from __future__ import annotations

import itertools

import numpy as np
from scipy.optimize import linear_sum_assignment

Array = np.ndarray

MISSING = np.log(1e3)  # the most by which one log rate or weight can count; an edge on one side only counts as much
LARGEST_EXHAUSTIVE = 8  # states of the larger landscape up to which all assignments are tried


def match_positions(x_a: Array, x_b: Array, stiffness_a: Array, stiffness_b: Array, furthest: float) -> Array:
    """The assignment with the least sum of squared distances, in units of the wells' thermal widths.

    x_a (n_a, d), x_b (n_b, d): minima. stiffness (n, d, d): beta times the Hessian, or (n,)
    numbers that stand for multiples of the unit matrix; the squared distance of i and j is
    (x_i - x_j)' S (x_i - x_j) with S the mean of both. Pairs further apart than `furthest` are no pairs, and count as
    much as one at that distance, so that a close pair is not given up to make a far one possible.
    """
    squared = np.minimum(squared_distances(x_a, x_b, stiffness_a, stiffness_b), furthest**2)
    first, second = linear_sum_assignment(squared)
    near = squared[first, second] < furthest**2
    return np.column_stack([first[near], second[near]])


def squared_distances(x_a: Array, x_b: Array, stiffness_a: Array, stiffness_b: Array) -> Array:
    """(n_a, n_b), as in `match_positions`."""
    result = np.zeros((len(x_a), len(x_b)))
    for i, x in enumerate(x_a):
        step = x_b - x
        result[i] = _squares(step, stiffness_a[i : i + 1]) + _squares(step, stiffness_b)
    return result / 2


def _squares(step: Array, stiffness: Array) -> Array:
    """s.Ss of the rows of step (m, d) with S (m, d, d) or (1, d, d), or numbers (m,) or (1,) times the unit matrix."""
    if stiffness.ndim == 1:
        return np.asarray(stiffness * np.square(step).sum(axis=1))
    return np.einsum("jk,jkl,jl->j", step, np.broadcast_to(stiffness, (len(step), *stiffness.shape[1:])), step)


def match_weights(log_weights_a: Array, log_weights_b: Array) -> Array:
    """The assignment with the least sum of squared log ratios of the weights (n_a,) and (n_b,)."""
    first, second = linear_sum_assignment(_squared(log_weights_a[:, None], log_weights_b[None, :]))
    return np.column_stack([first, second])


def match_networks(log_weights_a: Array, log_rates_a: Array, log_weights_b: Array, log_rates_b: Array) -> Array:
    """The assignment that makes weights (n,) and rate matrices (n, n) most alike; no coordinates are needed.

    Least is the sum of squared log ratios of the weights, plus that of the rates divided by the number of other states
    (each at most MISSING^2; an edge that only one side has counts as much). All assignments are tried up to
    LARGEST_EXHAUSTIVE states; beyond it the assignment by weights, escape rates and sorted rates is improved by
    exchanges of two until none helps, which finds a local optimum.
    """
    if len(log_weights_a) > len(log_weights_b):
        return _sorted(match_networks(log_weights_b, log_rates_b, log_weights_a, log_rates_a)[:, ::-1])
    cost = _Cost(log_weights_a, log_rates_a, log_weights_b, log_rates_b)
    n, m = len(log_weights_a), len(log_weights_b)
    if m <= LARGEST_EXHAUSTIVE:
        every = np.array(list(itertools.permutations(range(m), n)))
        best = every[np.argmin(cost(every))]
    else:
        best = _improved(cost, _by_profile(log_weights_a, log_rates_a, log_weights_b, log_rates_b))
    return np.column_stack([np.arange(n), best[:n]])


class _Cost:
    """Of assignments (c, >= n): state i of the smaller landscape is state [i] of the larger one."""

    def __init__(self, log_weights_a: Array, log_rates_a: Array, log_weights_b: Array, log_rates_b: Array) -> None:
        self.weights = _squared(log_weights_a[:, None], log_weights_b[None, :])
        self.rates_a, self.rates_b = log_rates_a, log_rates_b

    def __call__(self, assignments: Array) -> Array:
        n = len(self.rates_a)
        total = np.zeros(len(assignments))
        for i in range(n):
            total += self.weights[i, assignments[:, i]]
            for j in range(n):
                if i != j:
                    theirs = self.rates_b[assignments[:, i], assignments[:, j]]
                    total += _squared(self.rates_a[i, j], theirs) / max(n - 1, 1)
        return total

    def one(self, assignment: Array) -> float:
        n = len(self.rates_a)
        chosen = assignment[:n]
        terms = _squared(self.rates_a, self.rates_b[np.ix_(chosen, chosen)])
        np.fill_diagonal(terms, 0.0)
        return float(self.weights[np.arange(n), chosen].sum() + terms.sum() / max(n - 1, 1))


def _improved(cost: _Cost, assignment: Array) -> Array:
    """Exchanges of two places, the spare ones behind the first n included, until no exchange lowers the cost."""
    current, value = assignment, cost.one(assignment)
    better = True
    while better:
        better = False
        for i, j in itertools.combinations(range(len(assignment)), 2):
            if i >= len(cost.rates_a):
                break
            trial = current.copy()
            trial[[i, j]] = current[[j, i]]
            new = cost.one(trial)
            if new < value - 1e-9:
                current, value, better = trial, new, True
    return current


def _by_profile(log_weights_a: Array, log_rates_a: Array, log_weights_b: Array, log_rates_b: Array) -> Array:
    """A permutation of the larger landscape by features of each state that do not depend on numbering."""
    depth = min(len(log_weights_a), len(log_weights_b)) - 1
    profiles = []
    for weights, rates in ((log_weights_a, log_rates_a), (log_weights_b, log_rates_b)):
        out, into = (-np.sort(-matrix, axis=1)[:, :depth] for matrix in (rates, rates.T))
        profiles.append(np.column_stack([weights, np.logaddexp.reduce(rates, axis=1), out, into]))
    ours, theirs = profiles
    squared = _squared(ours[:, None, :], theirs[None, :, :])
    squared[:, :, 2:] /= max(2 * depth, 1)
    first, second = linear_sum_assignment(squared.sum(axis=2))
    chosen = second[np.argsort(first)]
    return np.concatenate([chosen, np.setdiff1d(np.arange(len(log_weights_b)), chosen)])


def _squared(first: Array, second: Array) -> Array:
    """Squared differences of logarithms, at most MISSING^2; 0 where both are -inf."""
    both = (first == -np.inf) & (second == -np.inf)
    with np.errstate(invalid="ignore"):
        gap = np.where(both, 0.0, np.abs(np.subtract(first, second)))
    return np.minimum(gap, MISSING) ** 2


def _sorted(pairs: Array) -> Array:
    return pairs[np.argsort(pairs[:, 0], kind="stable")]
