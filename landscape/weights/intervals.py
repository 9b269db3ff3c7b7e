"""Confidence intervals of probabilities from an estimate and its standard error."""

from __future__ import annotations

import numpy as np
from scipy import special

from landscape.errors import UsageError


def weight_interval(
    weights: np.ndarray, standard_errors: np.ndarray, confidence: float = 0.95, dof: float = np.inf
) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper ends, (n,) each, of intervals around weights (n,) with standard_errors (n,).

    On the logit scale, where an estimate is nearer to normal and no interval leaves (0, 1):
    logit w +- t se / (w (1 - w)), t the quantile of Student's distribution with `dof` degrees of freedom (the number of
    independent chains less one; infinite where the draws themselves are independent). A weight of 0 or 1 with an
    error has the one-sided interval of t se; one without an error, a single state's, is exact. nan stays nan.
    """
    if not 0 < confidence < 1:
        raise UsageError(f"a confidence lies between 0 and 1, not {confidence!r}")
    w, se = np.asarray(weights, dtype=float), np.asarray(standard_errors, dtype=float)
    upper = 0.5 + 0.5 * confidence
    t = float(special.stdtrit(dof, upper) if np.isfinite(dof) else special.ndtri(upper))
    inside = (w > 0) & (w < 1)
    safe = np.where(inside, w, 0.5)
    center, half = special.logit(safe), t * se / (safe * (1 - safe))
    low = np.where(inside, special.expit(center - half), np.clip(w - t * se, 0, 1))
    high = np.where(inside, special.expit(center + half), np.clip(w + t * se, 0, 1))
    return low, high
