"""Log-Sobolev constant of a reversible jump process on a landscape's states.

Convention as for diffusions: Ent_pi(f^2) <= (2 / alpha) E(f, f), E(f, f) = 1/2 sum_ij pi_i k_ij (f_i - f_j)^2; then
alpha <= spectral gap, and KL(p_t | pi) falls at least like exp(-2 alpha t) along dX = -grad f dt + sqrt(2) dW.

Two states (P. Diaconis and L. Saloff-Coste, Ann. Appl. Probab. 6, 695 (1996), corollary A.3):
    alpha = 2 Lambda(pi_1, pi_2) (k_12 + k_21),  Lambda(a, b) = (a - b) / (log a - log b), 1/2 for equal weights.
With the Eyring-Kramers rates this is the leading term of G. Menz and A. Schlichting, Ann. Probab. 42, 1809 (2014),
section 2.4. As the second weight vanishes alpha / gap -> 2 / |log pi_2|.
"""

from __future__ import annotations

import numpy as np
import scipy  # its parts load on first use
from scipy.special import xlogy

from landscape.errors import UsageError

MOST_REFINED = 60  # states up to which the minimum over all functions is looked for
STARTS = 6  # cuts from which it is looked for
STIFFEST = 1e8  # conductances above this, in units of those of the best cut, count as this: they only tie f together


def log_sobolev_of_network(log_rates: np.ndarray, log_weights: np.ndarray, log_gap: float) -> float:
    """log alpha of a reversible network: log_rates (n, n), -inf where there is no edge, log_weights (n,) normalised.

    The least of the spectral gap (log_gap, the limit of functions near a constant) and 2 E / Ent over functions of two
    values on the cuts of the network's best spanning tree, which is exact for two states and in the limit of well
    separated rates; up to 60 states then improved over all functions. An estimate from above. -inf for a network that
    falls into parts. UsageError for a single state, which has no such constant.
    """
    n = len(log_weights)
    if n < 2 or log_rates.shape != (n, n):
        raise UsageError(f"a log-Sobolev constant needs rates (n, n) between 2 states or more, not {log_rates.shape}")
    flows = log_weights[:, None] + log_rates
    np.fill_diagonal(flows, -np.inf)
    flows = 0.5 * (flows + flows.T)
    sides = _tree_cuts(flows)
    if log_gap == -np.inf or len(sides) < 1:
        return -np.inf
    values = np.array([_cut(flows, log_weights, side) for side in sides])
    best = min(log_gap, float(values.min()))
    if n == 2 or n > MOST_REFINED:
        return best
    conductance = np.minimum(np.exp(np.minimum(flows - best, 700)), STIFFEST)
    weights = np.exp(log_weights)
    refined = best
    for k in np.argsort(values)[:STARTS]:
        refined = min(refined, _refined(conductance, weights, sides[k], best))
    return refined


def log_logarithmic_mean(log_a: float, log_b: float) -> float:
    """log Lambda(a, b) = log((a - b) / (log a - log b)) from the logarithms; log a where both are equal."""
    high, difference = max(log_a, log_b), abs(log_a - log_b)
    return high + (np.log(-np.expm1(-difference) / difference) if difference > 1e-8 else -0.5 * difference)


def _tree_cuts(flows: np.ndarray) -> list[np.ndarray]:
    """Kruskal's tree of the widest channels; for each component that ever merges, its states (n,) bool."""
    n = len(flows)
    group = np.arange(n)
    i, j = np.triu_indices(n, 1)
    order = np.argsort(-flows[i, j])
    sides: list[np.ndarray] = []
    for a, b in zip(i[order], j[order], strict=True):
        if flows[a, b] == -np.inf:
            return []
        if group[a] != group[b]:
            sides += [group == group[a], group == group[b]]
            group[group == group[b]] = group[a]
            if (group == group[a]).all():
                return sides
    return []


def _cut(flows: np.ndarray, log_weights: np.ndarray, side: np.ndarray) -> float:
    """log alpha of the two-state process that only sees on which side it is."""
    log_flow = np.logaddexp.reduce(flows[np.ix_(side, ~side)].ravel())
    a, b = np.logaddexp.reduce(log_weights[side]), np.logaddexp.reduce(log_weights[~side])
    return float(np.log(2) + log_logarithmic_mean(a, b) + log_flow - a - b)


def _refined(conductance: np.ndarray, weights: np.ndarray, side: np.ndarray, unit: float) -> float:
    """log of the least 2 E(f, f) / Ent(f^2) that descent finds from a function on the two sides; the conductances are
    in units of exp(unit)."""

    def quotient(f: np.ndarray) -> tuple[float, np.ndarray]:
        slope = f[:, None] - f[None]
        form = float((conductance * slope**2).sum())
        mass = float(weights @ f**2)
        entropy = float(weights @ xlogy(f**2, f**2 / mass))
        if not (form > 0 and entropy > 1e-14 * mass):  # a constant: the limit there is the gap, which is known
            return 1e3, np.zeros_like(f)
        d_form = 4 * (conductance * slope).sum(1)
        d_entropy = 2 * weights * xlogy(f, f**2 / mass)
        return float(np.log(form / entropy)), d_form / form - d_entropy / entropy

    best = np.inf
    for low in (0.05, 0.5):
        for high in (side, ~side):
            start = np.where(high, 1.0, low)
            ended = scipy.optimize.minimize(quotient, start / np.sqrt(weights @ start**2), jac=True, method="L-BFGS-B")
            best = min(best, float(ended.fun))
    return unit + best
