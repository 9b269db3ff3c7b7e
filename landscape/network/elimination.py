"""Elimination of states from a network of log rates, without a single subtraction of rates.

Eliminating state k from a continuous-time chain leaves a chain on the others with the same order of visits:

    k'_ij = k_ij + k_ik k_kj / S_k,     S_k = sum of k_kj over the states that remain,     t'_i = t_i + k_ik t_k / S_k

where t_i / S_i is the mean time spent between entering i and reaching another remaining state (t_i = 1 at the start).
S_k is summed anew from the remaining rates (Grassmann, Taksar and Heyman, Oper. Res. 33, 1107, 1985) and never found as
minus a diagonal, so every number is a sum and product of positive ones: each keeps its relative accuracy whatever the
spread of the rates (O'Cinneide, Numer. Math. 65, 109, 1993). As logarithms they cannot overflow either. The same
update is known in chemical kinetics as graph transformation (Trygubenko and Wales, J. Chem. Phys. 124, 234110, 2006).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from landscape.errors import UsageError

Array = np.ndarray


class Eliminated(NamedTuple):
    """One state at the moment it left: its links to the states that remained then (all values are logarithms)."""

    node: int
    out: Array
    """States it leads to, (a,) int."""
    log_branching: Array
    """log k_kj / S_k for these, (a,)."""
    into: Array
    """States that lead to it, (b,) int."""
    log_into: Array
    """log k_ik of these, (b,)."""
    log_escape: float
    """log S_k; -inf where nothing that remains can be reached."""
    log_wait: float
    """log t_k / S_k, the mean time until a remaining state is reached; +inf where none is."""


def log_sum(values: Array, axis: int = -1) -> Array:
    """log of the sum of exp(values) along an axis; right for -inf, +inf and empty slices."""
    if values.shape[axis] == 0:
        return np.full(np.delete(values.shape, axis), -np.inf)
    top = np.max(values, axis=axis, keepdims=True)
    shift = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore", over="ignore"):
        total = np.log(np.sum(np.exp(values - shift), axis=axis))
    return np.asarray(total + np.squeeze(shift, axis=axis))


def _log_add(old: Array, new: Array) -> Array:
    """np.logaddexp for a finite `new`, which is overwritten; twice as fast, and this is where the time goes."""
    gap: Array = np.subtract(old, new)
    np.abs(gap, out=gap)
    np.negative(gap, out=gap)
    np.log1p(np.exp(gap, out=gap), out=gap)
    gap += np.maximum(old, new, out=new)
    return gap


def checked_log_rates(log_rates: Array) -> Array:
    """A float64 copy of an (n, n) matrix of log rates with -inf on the diagonal; UsageError for anything else."""
    matrix = np.array(log_rates, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.shape[0] == 0:
        raise UsageError(
            f"log_rates must be a square matrix (n, n) with n >= 1, got shape {matrix.shape}: pass one row per state"
        )
    np.fill_diagonal(matrix, -np.inf)
    bad = np.argwhere(~(matrix < np.inf))
    if len(bad):
        i, j = bad[0]
        raise UsageError(
            f"log rates must be finite, or -inf for no edge; got {matrix[i, j]} from state {i} to {j}: leave it out"
        )
    return matrix


def eliminate(log_rates: Array, log_time: Array, nodes: Array, fastest_first: bool = False) -> list[Eliminated]:
    """Eliminate `nodes` one by one; `log_rates` (n, n) and `log_time` (n,) are overwritten with the reduced network.

    Order: the state with the fewest exits left, which keeps a sparse network sparse; with `fastest_first` the one that
    leaves fastest (complete pivoting for eigenvalues). Only links of the state that leaves are touched: O(n^3) if
    everything is joined to everything, far less for a sparse network. The diagonal is ignored; on return it has no
    meaning.
    """
    n = len(log_rates)
    linked = log_rates > -np.inf
    np.fill_diagonal(linked, False)
    alive = np.ones(n, dtype=bool)
    waiting = np.zeros(n, dtype=bool)
    waiting[nodes] = True
    key = -log_sum(np.where(linked, log_rates, -np.inf)) if fastest_first else linked.sum(axis=1).astype(np.float64)
    records = []
    for _ in range(len(nodes)):
        candidates = np.flatnonzero(waiting)
        node = int(candidates[np.argmin(key[candidates])])
        waiting[node] = alive[node] = False
        out = np.flatnonzero(linked[node] & alive)
        into = np.flatnonzero(linked[:, node] & alive)
        log_into = log_rates[into, node]
        log_escape = float(log_sum(log_rates[node, out]))
        log_branching = log_rates[node, out] - log_escape
        log_wait = float(log_time[node]) - log_escape
        records.append(Eliminated(node, out, log_branching, into, log_into, log_escape, log_wait))
        log_time[into] = np.logaddexp(log_time[into], log_into + log_wait)
        block = np.ix_(into, out)
        log_rates[block] = _log_add(log_rates[block], log_into[:, None] + log_branching)
        new_links = len(out) - np.isin(into, out) - np.count_nonzero(linked[block], axis=1)
        if new_links.any():
            linked[block] = True
            linked[into, into] = False
        if fastest_first:
            key[into] = -log_sum(np.where(linked[into] & alive, log_rates[into], -np.inf))
        else:
            key[into] += new_links - 1
    return records
