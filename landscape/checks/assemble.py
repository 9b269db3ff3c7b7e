"""From rates by a formula and rates by a reference to the table of verdicts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from landscape.checks.flags import flat_saddles
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
    reason_for,
    verdict_of,
)
from landscape.checks.wells import anharmonicity
from landscape.dynamics import Dynamics
from landscape.energy import Energy
from landscape.network import TransitionNetwork
from landscape.rates import LangerRates


@dataclass(frozen=True, eq=False)
class Subject:
    """What is checked: n states and m saddles with their network and the formula's rates through every saddle.

    eigenvalues (n, d), saddles (m, d), saddle_eigenvalues (m, d), saddle_hessians (m, d, d) or None.
    path_saddle (p,), path_images (p, k, d) : minimum energy paths.
    """

    network: TransitionNetwork
    rates: LangerRates
    eigenvalues: np.ndarray
    saddles: np.ndarray
    saddle_eigenvalues: np.ndarray
    saddle_hessians: np.ndarray | None
    path_saddle: np.ndarray
    path_images: np.ndarray


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
    settings: Mapping[str, Any],
) -> Checks:
    """The `Checks` of the pairs (m, 2). problem : why there is no reference. settings : the fields of `Checks` that say
    how it was made."""
    m, (i, j) = len(pairs), pairs.T
    network = subject.network
    log_formula = np.asarray(network.log_rate_matrix[i, j])
    log_reference, log_interval, converged = np.full(m, np.nan), np.full((m, 2), np.nan), np.full(m, True)
    if reference is not None:
        log_reference, log_interval = reference.log_rates[i, j], reference.log_interval[i, j]
        converged = reference.converged[i, j]
    known = ~np.isnan(log_interval).any(axis=1)
    spread, causes = intervals(log_formula, log_interval), _causes(energy, dynamics, subject, pairs)
    verdict, reason, effort = [], [], []
    for k in range(m):
        found = verdict_of(*spread[k]) if converged[k] or not known[k] else NOT_CONVERGED
        more = effort_factor(log_formula[k] - log_reference[k], *spread[k])
        verdict.append(found)
        reason.append(_reason(found, causes[k], problem, reference))
        effort.append(effort_text(more, settings["seconds"]) if found == UNDECIDED else "")
    times = _timescales(network, reference)
    return Checks(
        pairs=pairs, log_formula=log_formula, log_reference=log_reference, log_interval=log_interval,
        method=tuple(reference.method if reference is not None and have else "" for have in known),
        verdict=tuple(verdict), reason=tuple(reason), effort=tuple(effort),
        correction=("",) * m, log_corrected=np.full(m, np.nan),
        time_step_factor=np.full(m, np.nan) if step is None else step.factor[i, j],
        time_step_interval=np.full((m, 2), np.nan) if step is None else step.interval[i, j],
        time_step_reason="" if step is None else step.reason,
        timescale_log_formula=times[0], timescale_log_reference=times[1], timescale_log_interval=times[2],
        timescale_verdict=tuple(verdict_of(*row) for row in intervals(times[0], times[2])),
        timescale_method="" if reference is None else reference.method,
        tolerance=TOLERANCE, **settings,
    )  # fmt: skip


def _reason(verdict: str, cause: str, problem: str, reference: Reference | None) -> str:
    if verdict == DOUBTFUL:
        return cause
    if verdict == NOT_CONVERGED and reference is not None:
        return reference.reason or f"the {reference.method} does not resolve this rate"
    if verdict == NOT_CHECKED:
        return problem or "no rate was seen" if reference is None else reference.reason or "no rate was seen"
    return ""


def _causes(energy: Energy, dynamics: Dynamics, subject: Subject, pairs: np.ndarray) -> list[str]:
    """What would make each rate doubtful, from the saddle that carries most of it."""
    network, rates = subject.network, subject.rates
    if not len(pairs):
        return []
    flat = flat_saddles(
        dynamics.beta, network.coordinates, subject.eigenvalues, network.energies, subject.saddles,
        subject.saddle_eigenvalues, network.saddle_energies, network.joins,
    )  # fmt: skip
    minima = np.array(network.coordinates)
    hessians = np.asarray(energy.hessian(minima))
    deviation = anharmonicity(energy, minima, hessians, dynamics.beta, torch.Generator().manual_seed(0))
    causes = []
    for i, j in pairs:
        ways = np.flatnonzero(network.counted & ((network.joins == i).any(axis=1) & (network.joins == j).any(axis=1)))
        side = np.where(network.joins[ways, 0] == i, 0, 1)
        main = int(ways[np.argmax(rates.log_rates[ways, side])])
        barrier = dynamics.beta * float(network.barriers[main].min())
        causes.append(
            reason_for(bool(rates.low_friction[main]), bool(flat[main]), barrier, float(deviation[i]))
        )  # fmt: skip
    return causes


def _timescales(network: TransitionNetwork, reference: Reference | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log relaxation rates of the formula's network and of the reference, and the intervals of the latter."""
    formula = -np.asarray(network.log_timescales)[:MAX_TIMESCALES]
    known, spread = np.full(len(formula), np.nan), np.full((len(formula), 2), np.nan)
    if reference is not None:
        count = min(len(formula), len(reference.log_relaxation))
        known[:count] = reference.log_relaxation[:count]
        spread[:count] = reference.log_relaxation_interval[:count]
    return formula, known, spread
