"""The verdict on a rate: what the interval of r = ln(k_formula / k_reference) allows to say.

| verdict | the interval of r |
|---|---|
| agrees | inside +-ln 1.15 |
| asymptotics doubtful | outside of it altogether; a reason is named |
| undecided | straddles one of its ends, or both, or is outside by fewer than 20 counts; what would decide is named |
| not checked | there is no reference, and it is said why |
| not converged | the reference does not pass its own test (finer grid, halved time step) |
"""

from __future__ import annotations

import math

import numpy as np

TOLERANCE = math.log(1.15)
FEWEST_COUNTS = 20  # on which a counted rate may call a formula doubtful: bursts cannot be told from fewer
LOW_BARRIER = 5.0  # reduced barriers below this make asymptotic rates doubtful

AGREES = "agrees"
DOUBTFUL = "asymptotics doubtful"
UNDECIDED = "undecided"
NOT_CHECKED = "not checked"
NOT_CONVERGED = "not converged"
VERDICTS = (AGREES, DOUBTFUL, UNDECIDED, NOT_CHECKED, NOT_CONVERGED)

LOW_FRICTION_REASON = "low friction"
FLAT_SADDLE_REASON = "flat saddle"
LOW_BARRIER_REASON = "low barrier"
ANHARMONIC_REASON = "anharmonic well"
UNKNOWN_REASON = "unknown"
REASONS = (LOW_BARRIER_REASON, LOW_FRICTION_REASON, FLAT_SADDLE_REASON, ANHARMONIC_REASON, UNKNOWN_REASON)

NONE_SEEN = 3.7  # mean number of counts of which none is seen with probability 2.5 %

ANHARMONIC = 0.5 * TOLERANCE  # |log(partition function of the well / harmonic one)| that is a reason


def verdict_of(low: float, high: float, counts: float = math.inf) -> str:
    """The verdict on an interval of r; `NOT_CHECKED` for nan. counts : seen, where the reference is counted."""
    if math.isnan(low) or math.isnan(high):
        return NOT_CHECKED
    if low >= -TOLERANCE and high <= TOLERANCE:
        return AGREES
    outside = low > TOLERANCE or high < -TOLERANCE
    return DOUBTFUL if outside and counts >= FEWEST_COUNTS else UNDECIDED


def effort_factor(ratio: float, low: float, high: float, counts: float = math.inf) -> float:
    """How many times the statistics would shrink the interval around `ratio` until it no longer straddles an end, and
    leave no fewer than `FEWEST_COUNTS`.

    Errors fall as the square root. Infinite where the estimate itself is unknown; where nothing was counted, so many
    times as the formula needs, and no fewer than if one had been.
    """
    if counts == 0 and math.isfinite(low):
        # the upper end of the rate is NONE_SEEN counts in the time simulated: low tells what the formula expects there
        return FEWEST_COUNTS * max(1.0, math.exp(min(-low, 50.0)) / NONE_SEEN)
    if not (math.isfinite(ratio) and math.isfinite(low) and math.isfinite(high)):
        return math.inf
    if ratio < 0:
        ratio, low, high = -ratio, -high, -low
    side, room = (high - ratio, TOLERANCE - ratio) if ratio < TOLERANCE else (ratio - low, ratio - TOLERANCE)
    return max((side / room) ** 2, FEWEST_COUNTS / counts) if room > 0 else math.inf


def effort_text(factor: float, budget: float) -> str:
    """What to ask for, for a row that `budget` seconds left undecided."""
    if not math.isfinite(factor) or factor > 1e6:
        return "no budget within reach would decide"
    seconds = max(float(f"{max(factor, 1.0) * 1.2 * budget:.1g}"), math.ceil(1.5 * budget))
    return f"about {max(factor, 1.0):.2g} times the statistics (landscape check DIR --budget {seconds:.0f})"


def intervals(log_formula: np.ndarray, log_interval: np.ndarray) -> np.ndarray:
    """Intervals of r (m, 2) from log k_formula (m,) and those of log k_reference (m, 2)."""
    return np.stack([log_formula - log_interval[:, 1], log_formula - log_interval[:, 0]], axis=1)
