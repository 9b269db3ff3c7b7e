"""Differences u_j - u_i of a function on the states, each to its own relative accuracy, as signed logarithms.

Where two states are joined by a fast edge, u_i and u_j agree to many digits and their difference cannot be taken from
them. But if elimination gave u_k = sum_j p_kj u_j + z_k with sum_j p_kj = 1, then

    u_i - u_k = sum_{j != i} p_kj (u_i - u_j) - z_k,

so that the difference follows from others that are known already, and never from u itself. Currents through fast edges
come out right that way, whatever the spread of the rates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from landscape.network.elimination import Array, Eliminated


@dataclass(frozen=True, eq=False)
class Signed:
    """Numbers as log |value| and sign (-1, 0, 1), of equal shapes."""

    log: Array
    sign: Array

    def __getitem__(self, index: Any) -> Signed:
        return Signed(self.log[index], self.sign[index])

    def __neg__(self) -> Signed:
        return Signed(self.log, -self.sign)

    def scaled(self, log_factor: Array | float) -> Signed:
        """Times exp(log_factor); 0 stays 0."""
        return Signed(np.where(self.sign == 0, -np.inf, self.log + log_factor), self.sign)


def signed(values: Array) -> Signed:
    """Plain numbers as signed logarithms."""
    with np.errstate(divide="ignore"):
        return Signed(np.log(np.abs(values)), np.sign(values))


def signed_sum(terms: Signed, axis: int = 0) -> Signed:
    """The sum along an axis."""
    top = np.max(terms.log, axis=axis, keepdims=True)
    shift = np.where(np.isfinite(top), top, 0.0)
    total = signed(np.sum(terms.sign * np.exp(terms.log - shift), axis=axis))
    return total.scaled(np.squeeze(shift, axis=axis))


def differences(records: list[Eliminated], known: Array, values: Array, sources: Signed, ground: int) -> Signed:
    """u_j - u_i for all pairs, (n, n).

    records : of the eliminated states, in order. known : the states that were left, with plain `values`. sources :
    z_k (n,). ground : a state, last or left over, whose value a state that leads nowhere takes (plus its z).
    """
    n = len(sources.sign)
    result = Signed(np.full((n, n), -np.inf), np.zeros((n, n)))
    between = signed(values[None, :] - values[:, None])
    result.log[np.ix_(known, known)], result.sign[np.ix_(known, known)] = between.log, between.sign
    present = np.zeros(n, dtype=bool)
    present[known] = True
    for record in reversed(records):
        node, out, weight = record.node, record.out, record.log_branching
        if len(out) == 0:
            out, weight = np.array([ground]), np.zeros(1)
        here = np.flatnonzero(present)
        if len(here):
            terms = result[np.ix_(out, here)].scaled(weight[:, None])
            drop = (-sources)[node]
            log = np.vstack([terms.log, np.full(len(here), drop.log)])
            gap = signed_sum(Signed(log, np.vstack([terms.sign, np.full(len(here), drop.sign)])))
            result.log[node, here] = result.log[here, node] = gap.log
            result.sign[node, here], result.sign[here, node] = gap.sign, -gap.sign
        present[node] = True
    return result
