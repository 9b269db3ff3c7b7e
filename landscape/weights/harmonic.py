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
