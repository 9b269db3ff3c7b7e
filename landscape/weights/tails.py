"""Can a set of importance weights be trusted? Effective sample size, and the shape of their tail."""

from __future__ import annotations

import math

import numpy as np

STEEPEST = 0.9  # Pareto shape that is believed at most
MIN_TAIL = 5  # fewer values than this have no tail that could be fitted


def effective_draws(log_weights: np.ndarray) -> float:
    """(sum w)^2 / sum w^2: log w (n,) -> how many independent draws from the target they are worth (Kong 1992)."""
    log_weights = log_weights[np.isfinite(log_weights)]
    if not len(log_weights):
        return 0.0
    w = np.exp(log_weights - log_weights.max())
    return float(w.sum() ** 2 / (w @ w))


def pareto_shape(log_weights: np.ndarray) -> float:
    """Shape k of a generalised Pareto distribution fitted to the largest weights: log w (n,) -> k, nan for too few.

    Above k = 1/2 the weights have no variance, and from about 0.7 on neither their mean nor its standard error can be
    trusted at any practical number of draws (Vehtari, Simpson, Gelman, Yao and Gabry, JMLR 25 (2024) 72). The tail is
    the largest min(n / 5, 3 sqrt n); the fit is Zhang and Stephens's (Technometrics 51 (2009) 316), drawn towards 1/2
    with the strength of ten values, as there. Weights of 0 are left out.
    """
    ordered = np.sort(log_weights[np.isfinite(log_weights)])
    n = len(ordered)
    size = math.ceil(min(0.2 * n, 3 * math.sqrt(n)))
    if size < MIN_TAIL:
        return math.nan
    w = np.exp(ordered[-size - 1 :] - ordered[-1])
    excess = w[1:] - w[0]
    if excess[-1] <= 0:
        return -math.inf  # all equal: no tail at all
    raw = generalised_pareto_shape(excess[excess > 0])
    return (raw * size + 10 * 0.5) / (size + 10)


def share_beyond(log_weights: np.ndarray) -> float:
    """Share of the total weight that is to be expected beyond the largest draw so far; inf for too few draws.

    A tail of shape k holds E[w; w > w_max] = w_max / (n (1 - k)) there, if k < 1: a heavy tail does no harm while its
    largest weight is a small part of the sum, and a single draw that dominates does at any k. Above STEEPEST the k of a
    few draws is mostly noise; where it is not, a large k shows in the largest weight itself.
    """
    shape = pareto_shape(log_weights)
    if math.isnan(shape):
        return math.inf
    largest = math.exp(log_weights.max() - np.logaddexp.reduce(log_weights))
    return largest / (1 - min(shape, STEEPEST))


def generalised_pareto_shape(excess: np.ndarray) -> float:
    """k of the density (1 + k x / s)^(-1 - 1/k) / s, from excesses over the threshold (n,), ascending and positive.

    The quasi-Bayesian estimate of Zhang and Stephens (2009): with b = -k / s on a grid, the profile likelihood
    weighs the grid, and k is that of the mean b.
    """
    n = len(excess)
    grid = 30 + int(math.sqrt(n))
    quartile = excess[max(int(n / 4 + 0.5) - 1, 0)]
    b = 1 - np.sqrt(grid / (np.arange(1, grid + 1) - 0.5))
    b = b / (3 * quartile) + 1 / excess[-1]
    k = np.log1p(-b[:, None] * excess).mean(1)
    log_likelihood = n * (np.log(-b / k) - k - 1)
    share = np.exp(log_likelihood - np.logaddexp.reduce(log_likelihood))
    return float(np.log1p(-(share @ b) * excess).mean())
