"""Harmonic basin weights: formulas in the energies and Hessians of the minima alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from landscape.errors import UsageError


@dataclass(frozen=True)
class HarmonicWeights:
    """log_weights (n,) and weights (n,) of n states; the weights sum to 1."""

    log_weights: np.ndarray

    @property
    def weights(self) -> np.ndarray:
        return np.exp(self.log_weights)


def zeroth_order(energies: np.ndarray, beta: float) -> HarmonicWeights:
    """w_i proportional to exp(-beta E_i): energies (n,). UsageError unless finite, and beta > 0."""
    return _normalised(-_finite("energies", energies) * positive_beta(beta))


def second_order(energies: np.ndarray, log_dets: np.ndarray, beta: float) -> HarmonicWeights:
    """w_i proportional to exp(-beta E_i) / sqrt(det H_i): energies and log det H_i, both (n,).

    UsageError unless all are finite and beta > 0: a degenerate minimum has no harmonic weight and is left out by the
    caller.
    """
    values, dets = _finite("energies", energies), _finite("log determinants", log_dets)
    if values.shape != dets.shape:
        raise UsageError(f"one log determinant a state is needed, but {dets.size} came with {values.size} energies")
    return _normalised(-positive_beta(beta) * values - 0.5 * dets)


def second_order_errors(weights: np.ndarray, log_det_samples: np.ndarray, brackets: np.ndarray) -> np.ndarray:
    """Standard errors (n,) of 2nd-order weights (n,) whose log-determinants are means over random directions.

    log_det_samples (n, p) : as each direction sees them, brackets (n,) : what is unknown besides (`LogDeterminants`).
    d log w_i = -(d_i - sum_j w_j d_j) / 2 with d the deviations of the log-determinants: what all share drops out.
    """
    p = log_det_samples.shape[1]
    apart = log_det_samples - weights @ log_det_samples
    scatter = apart.std(axis=1, ddof=1) / math.sqrt(p) if p > 1 else np.zeros(len(weights))
    return np.asarray(0.5 * weights * (scatter + brackets + weights @ brackets))


def _normalised(log_weights: np.ndarray) -> HarmonicWeights:
    return HarmonicWeights(log_weights - np.logaddexp.reduce(log_weights))


def _finite(name: str, values: np.ndarray) -> np.ndarray:
    array = np.asarray(values, dtype=float)
    if array.ndim != 1 or array.size == 0 or not np.isfinite(array).all():
        raise UsageError(
            f"{name} of the states are finite numbers, one a state; leave degenerate states out: {array!r}"
        )
    return array


def positive_beta(beta: float) -> float:
    """beta as a float; UsageError unless finite and greater than 0."""
    if not (math.isfinite(beta) and beta > 0):
        raise UsageError(f"beta is finite and greater than 0, not {beta!r}")
    return float(beta)
