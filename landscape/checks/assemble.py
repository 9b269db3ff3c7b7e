"""From rates by a formula and rates by a reference to the table of verdicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from landscape.checks.causes import Subject, find_causes
from landscape.checks.record import Checks
from landscape.checks.references import MAX_TIMESCALES, Reference
from landscape.checks.verdicts import (
    DOUBTFUL,
    NOT_CHECKED,
    NOT_CONVERGED,
    TOLERANCE,
    UNDECIDED,
    effort_factor,
    effort_text,
    intervals,
    verdict_of,
)
from landscape.dynamics import Dynamics
from landscape.energy import Energy
from landscape.network import TransitionNetwork


@dataclass(frozen=True, eq=False)
class StepEffect:
    """k(time step) / k(continuous time) for n states: factor (n, n), interval (n, n, 2), nan where not seen; reason
    why it may not be exact, or "".
    """

    factor: np.ndarray
    interval: np.ndarray
    reason: str


def assemble(
    energy: Energy,
    dynamics: Dynamics,
    subject: Subject,
    pairs: np.ndarray,
    reference: Reference | None,
    step: StepEffect | None,
    problem: str,
    left: Callable[[], float],
    settings: Mapping[str, Any],
) -> Checks:
    """The `Checks` of the pairs (m, 2). problem : why there is no reference. left : seconds of the budget. settings :
    the fields of `Checks` that say how it was made."""
    m, (i, j), spent = len(pairs), pairs.T, settings["budget"] - left()
    network = subject.network
    log_formula = np.asarray(network.log_rate_matrix[i, j])
    log_reference, log_interval, converged = np.full(m, np.nan), np.full((m, 2), np.nan), np.full(m, True)
    counts = np.full(m, np.inf)
    if reference is not None:
        log_reference, log_interval = reference.log_rates[i, j], reference.log_interval[i, j]
        converged, counts = reference.converged[i, j], reference.counted(i, j)
    known = ~np.isnan(log_interval).any(axis=1)
    spread = intervals(log_formula, log_interval)
    verdict = [
        verdict_of(low, high, counts[k]) if converged[k] or not known[k] else NOT_CONVERGED
        for k, (low, high) in enumerate(spread)
    ]
    causes = find_causes(energy, dynamics, subject, pairs, np.array([v == DOUBTFUL for v in verdict], bool), left)
    reason, effort = [], []
    for k, found in enumerate(verdict):
        low, high = spread[k]
        more = effort_factor(log_formula[k] - log_reference[k], low, high, counts[k])
        cause = causes.reason(k) if found == DOUBTFUL else ""
        reason.append(cause or _reason(found, problem, reference, (int(i[k]), int(j[k]))))
        effort.append(effort_text(more, spent) if found == UNDECIDED else "")
    times = _timescales(network, reference, settings["confidence"])
    return Checks(
        pairs=pairs, log_formula=log_formula, log_reference=log_reference, log_interval=log_interval,
        method=tuple(
            reference.method_of(a, b) if reference is not None and have else ""
            for (a, b), have in zip(pairs.tolist(), known, strict=True)
        ),
        verdict=tuple(verdict), reason=tuple(reason), effort=tuple(effort),
        correction=causes.names, log_corrected=causes.corrected, log_string=causes.string,
        time_step_factor=np.full(m, np.nan) if step is None else step.factor[i, j],
        time_step_interval=np.full((m, 2), np.nan) if step is None else step.interval[i, j],
        time_step_reason="" if step is None else step.reason,
        timescale_log_formula=times[0], timescale_log_reference=times[1], timescale_log_interval=times[2],
        timescale_verdict=tuple(
            verdict_of(low, high, number)
            for (low, high), number in zip(intervals(times[0], times[2]), times[3], strict=True)
        ),
        timescale_method="" if reference is None else reference.method,
        tolerance=TOLERANCE, seconds=settings["budget"] - left(), **settings,
    )  # fmt: skip


def _reason(verdict: str, problem: str, reference: Reference | None, pair: tuple[int, int]) -> str:
    if reference is not None and pair in reference.notes and verdict in (NOT_CHECKED, UNDECIDED):
        return reference.notes[pair]
    if verdict == NOT_CONVERGED and reference is not None:
        return reference.reason or f"the {reference.method} does not resolve this rate"
    if verdict == NOT_CHECKED:
        return problem or "no rate was seen" if reference is None else reference.reason or "no rate was seen"
    return ""


def _timescales(network: TransitionNetwork, reference: Reference | None, confidence: float) -> tuple[np.ndarray, ...]:
    """Log relaxation rates of the formula's network and of the reference, the intervals of the latter, their counts."""
    formula = -np.asarray(network.log_timescales)[:MAX_TIMESCALES]
    known, spread = np.full(len(formula), np.nan), np.full((len(formula), 2), np.nan)
    counts = np.full(len(formula), np.inf)
    if reference is not None:
        count = min(len(formula), len(reference.log_relaxation))
        known[:count] = reference.log_relaxation[:count]
        spread[:count] = reference.log_relaxation_interval[:count]
        counts[:count] = reference.counted_relaxation(confidence)[:count]
    return formula, known, spread, counts
