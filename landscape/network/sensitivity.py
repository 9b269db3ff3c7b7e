"""How each relaxation timescale answers to each barrier and to each well: first-order perturbation theory.

With c_s = pi_i k_ij through saddle s (symmetric under detailed balance), an eigenvalue of -Q is the Rayleigh quotient

    lambda = sum_s c_s (psi_i - psi_j)^2 / sum_i pi_i psi_i^2

which is stationary in psi. c_s goes with exp(-beta E_s) and pi_i with exp(-beta E_i), prefactors held fixed, so that

    d ln t / d(beta E_s) = c_s (psi_i - psi_j)^2 / lambda,      d ln t / d(beta E_i) = -pi_i psi_i^2

if sum pi psi^2 = 1. The first are shares: positive, and 1 in all. A saddle with share .9 sets the timescale; the others
hardly matter. The second sum to -1: a shift of all energies changes nothing. Both are squares of the components of
singular vectors, those of the symmetrised generator, and have a small absolute error however stiff the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from landscape.errors import UsageError
from landscape.network.algebra import components
from landscape.network.differences import Signed, differences, signed, signed_sum
from landscape.network.elimination import Array
from landscape.network.spectrum import Modes, is_reversible, reversible_modes
from landscape.network.transition_network import TransitionNetwork

_NOISE = 1e-12  # of the entries of unit vectors


@dataclass(frozen=True, eq=False)
class TimescaleSensitivity:
    """k finite timescales, slowest first, of a network with n states and m saddles.

    log_timescales (k,). saddles (k, m): d ln t / d(beta E) of each saddle's energy, 0 for saddles left out; rows sum
    to 1. states (k, n): d ln t / d(beta E) of each minimum's; rows sum to -1. Raising the barrier of a saddle alone,
    or the rates over it by a factor f, changes ln t by the share times its height in kT, or by -share times ln f. Where
    timescales coincide to r of their value, vectors are only known to about 1e-15 / r, and where they are equal only
    the sum over them has a meaning.
    """

    log_timescales: Array
    saddles: Array
    states: Array


def timescale_sensitivity(network: TransitionNetwork, n_timescales: int | None = None) -> TimescaleSensitivity:
    """Derivatives of the `n_timescales` slowest finite timescales (all by default).

    O(n^2 times the edges of a state) for each timescale after one eigendecomposition, see `log_timescales`.
    UsageError for a network without detailed balance, whose eigenvectors are another matter.
    """
    modes = checked_modes(network.log_rate_matrix)
    count = _count(n_timescales, len(modes.log_eigenvalues))
    log_pi = network.log_stationary
    saddles = np.zeros((count, network.n_saddles))
    first, second = network.joins[network.counted].T
    log_flow = log_pi[first] + network.log_rates[network.counted, 0]
    for k in range(count):
        change = mode_differences(modes, k, log_pi)[first, second]
        with np.errstate(under="ignore"):
            share = np.exp(2 * change.log + log_flow - modes.log_eigenvalues[k])
        saddles[k, network.counted] = np.where(change.sign == 0, 0.0, share)
    return TimescaleSensitivity(-modes.log_eigenvalues[:count], saddles, -(modes.vectors[:count] ** 2))


def checked_modes(log_rates: Array) -> Modes:
    """`reversible_modes` of a network with detailed balance, UsageError for any other."""
    if not is_reversible(log_rates):
        raise UsageError(
            "eigenfunctions are found for networks with detailed balance, and these rates have none: "
            "use committors, fluxes and timescales there"
        )
    return reversible_modes(log_rates)


def mode_differences(modes: Modes, k: int, log_pi: Array, noise: float = 0.0) -> Signed:
    """psi_j - psi_i of eigenfunction k with sum pi psi^2 = 1, (n, n); only within a connected part.

    noise : entries of the singular vector below it are taken as 0.
    """
    n = len(log_pi)
    sources = Signed(np.full(n, -np.inf), np.zeros(n))
    pivots = modes.pivot_vectors.shape[1]
    vector = modes.pivot_vectors[k]
    weights = signed(np.where(np.abs(vector) < noise, 0.0, vector))
    for column, record in enumerate(modes.records[:pivots]):
        scale = modes.log_eigenvalues[k] - record.log_escape - log_pi[record.node]
        source = weights[column].scaled(scale / 2)
        sources.log[record.node], sources.sign[record.node] = source.log, source.sign
    nothing = np.array([], dtype=np.int64)
    return differences(modes.records, nothing, np.zeros(0), sources, ground=modes.records[-1].node)


def eigenfunctions(log_rates: Array, log_pi: Array, states: Sequence[int]) -> Array:
    """The right eigenvectors of Q named by `states` (mode numbers, 0 the slowest finite), each scaled to a largest
    entry of 1, (n, k).

    States whose weight is below about 1e-24 of those that carry the mode get the mean of psi over where they lead,
    which neglects lambda against the rate at which they are left; all others have a small absolute error. A set of
    such states that is left as slowly as that is metastable itself, so that the sets found are the same.
    """
    modes = checked_modes(log_rates)
    labels = components(log_rates)
    columns = []
    for k in states:
        values = np.zeros(len(log_pi))
        # at states of tiny weight, rounding in the vector would be blown up beyond the function itself
        gaps = mode_differences(modes, k, log_pi, _NOISE)
        logs, signs = np.full(len(log_pi), -np.inf), np.zeros(len(log_pi))
        for part in np.unique(labels):
            inside = np.flatnonzero(labels == part)
            within = log_pi[inside] - np.logaddexp.reduce(log_pi[inside])
            # sum pi psi = 0 in each part: psi_i is the mean of psi_i - psi_j over j
            mean = signed_sum(gaps[np.ix_(inside, inside)].scaled(within[:, None]))
            logs[inside], signs[inside] = mean.log, mean.sign
        values = signs * np.exp(logs - logs.max())
        columns.append(values * np.sign(values[np.argmax(np.abs(values))]))
    return np.column_stack(columns) if columns else np.zeros((len(log_pi), 0))


def _count(asked: int | None, available: int) -> int:
    if asked is not None and asked < 1:
        raise UsageError(f"the number of timescales is at least 1, got {asked}: leave it out for all")
    return available if asked is None else min(asked, available)
