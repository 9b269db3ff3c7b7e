"""The network at a lag time: transition matrix, and a Markov state model of deeptime."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from landscape.errors import UsageError
from landscape.network.elimination import Array, log_sum
from landscape.network.spectrum import is_reversible
from landscape.network.transition_network import TransitionNetwork

_TERMS = 20  # of the series at a uniformised step of 1/2: the rest is below 1e-24
_MOST_SQUARINGS = 2000


def default_lag_time(network: TransitionNetwork) -> float:
    """A tenth of the slowest finite timescale, at which the slow processes show and the fast ones are over."""
    times = network.log_timescales[np.isfinite(network.log_timescales)]
    if len(times) == 0:
        raise UsageError("no timescale is finite and known, so no lag time follows from them: give one")
    if abs(times[0]) > 690:
        raise UsageError(f"the slowest timescale is exp({times[0]:.4g}), beyond floating point: give a lag time")
    return 0.1 * math.exp(times[0])


def transition_matrix(network: TransitionNetwork, lag_time: float) -> Array:
    """exp(Q t) (n, n): probability to be in j a lag time t after i; rows sum to 1.

    A series of positive terms for a small step and repeated squaring, in which a diagonal near 1 is found as 1 minus
    the rest of its row: probabilities keep their relative accuracy while they are small (Xue and Ye, SIAM J. Matrix
    Anal. Appl. 30, 1442, 2008, for the idea). O(n^3 log(fastest rate x lag time)).
    UsageError unless the lag time is finite and positive.
    """
    if not (math.isfinite(lag_time) and lag_time > 0):
        raise UsageError(f"a lag time is finite and greater than 0, not {lag_time!r}")
    logs = network.log_rate_matrix + math.log(lag_time)
    exits = log_sum(logs)
    fastest = float(exits.max())
    squarings = max(0, math.ceil((fastest + math.log(2)) / math.log(2))) if fastest > -np.inf else 0
    if squarings > _MOST_SQUARINGS:
        raise UsageError(f"the fastest rate is exp({fastest:.4g}) times the lag time: give a shorter one")
    with np.errstate(under="ignore"):
        step = np.exp(logs - squarings * math.log(2))
        # I + Q h / (1/2) is stochastic for h = t / 2^squarings, and exp(Q h) a Poisson mixture of its powers
        jump = 2 * step
        np.fill_diagonal(jump, 1 - jump.sum(axis=1))
        term = np.exp(-0.5) * np.eye(len(jump))
        total = term.copy()
        for order in range(1, _TERMS):
            term = term @ jump * (0.5 / order)
            total += term
        for _ in range(squarings):
            total = _with_exact_rows(total)
            total = total @ total
        return _with_exact_rows(total)


def to_deeptime(network: TransitionNetwork, lag_time: float | None = None) -> Any:
    """A `deeptime.markov.msm.MarkovStateModel` at this lag time, with our stationary distribution handed over.

    lag_time : in the network's unit of time; by default `default_lag_time`. Timescales and passage times that deeptime
    finds are right as long as float64 linear algebra is, which `log_timescales` and `log_mfpt` do not need.
    UsageError where deeptime is not installed.
    """
    try:
        from deeptime.markov.msm import MarkovStateModel  # an extra, and slow to import
    except ImportError as error:
        raise UsageError(f'deeptime cannot be imported ({error}): pip install "learned-landscape[deeptime]"') from error
    lag_time = default_lag_time(network) if lag_time is None else lag_time
    return MarkovStateModel(
        transition_matrix(network, lag_time), network.stationary, reversible=is_reversible(network.log_rate_matrix),
        lagtime=lag_time,
    )  # fmt: skip


def _with_exact_rows(matrix: Array) -> Array:
    """Rows that sum to 1: by the diagonal where it holds most of its row, else by a common factor."""
    result = matrix.copy()
    np.fill_diagonal(result, 0.0)
    others = result.sum(axis=1)
    mostly = others < 0.5
    diagonal = np.where(mostly, 1 - others, np.diagonal(matrix))
    np.fill_diagonal(result, diagonal)
    return np.asarray(np.where(mostly[:, None], result, result / result.sum(axis=1, keepdims=True)))
