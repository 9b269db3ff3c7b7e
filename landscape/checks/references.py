"""Rates independent of any formula, for the verdict: which method can give them, and what exactly they are.

Overdamped, reversible: k_ij = (transitions from last core i to next other core j) / (time with last core i), the one
definition of `landscape.rates.cores`, by the grid in up to three dimensions, else by simulation. A transition over
several saddles in a row that touches no core between counts for its first and last state, as it does there.

With inertia or a rotation: k_ij / (1 - t_ij - t_ji), t the probabilities of being under way between the two cores. A
trajectory that has crossed then circles, in phase space or in x, before it is counted as arrived; this time is no part
of the formula, and with it the quartic double well at 2.5 kT looks 14 % slower than its generator's eigenvalue says
(underdamped with gamma = 1; rotated with a = 1), against 5 to 7 % for reversible overdamped dynamics. With two states
the quotient is what the eigenvalue of the rates and transits gives; the rates from the Klein-Kramers operator, which
are used in one dimension, are of this kind by themselves.

The slowest relaxation rates stand beside those of the formula's network as well: eigenvalues of the generator where a
grid or the operator gives them, else those of the rates and transits between cores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.special import ndtri

from landscape.dynamics import Dynamics, Overdamped
from landscape.energy import Energy
from landscape.errors import LandscapeError
from landscape.rates import (
    Cores,
    CountedRates,
    GridRates,
    PassageOptions,
    klein_kramers_rates,
    reference_rates,
    reference_spectrum,
    relaxation_rates,
    simulate_passages,
)
from landscape.rates.grid import CELLS
from landscape.rates.klein_kramers import NEAREST

Progress = Callable[[float, str], None]

GRID, OPERATOR, SIMULATION, BRACKET = "grid", "operator", "simulation", "bracket"
RESOLVED = 0.03  # relative error up to which a rate of the grid or the operator counts as converged
FINER = 1.5  # times the cells of a grid that was too coarse
MAX_GRID_STATES = 60
MAX_TIMESCALES = 6
SMALLEST_SHARE = 0.1  # of the time that is not spent under way; below it there are no two states


@dataclass(frozen=True, eq=False)
class Reference:
    """Rates between n states by one method. log_rates (n, n), log_interval (n, n, 2), nan where unknown.

    converged (n, n) bool : the rate passes the method's own test. reason : why some do not, or "".
    log_relaxation (t,), log_relaxation_interval (t, 2) : the slowest relaxation rates, slowest first.
    counts (n, n) : transitions seen, for simulations. bracketed (n, n) bool : rates that are known by bounds instead;
    notes : of single pairs, why there is no rate.
    """

    method: str
    log_rates: np.ndarray
    log_interval: np.ndarray
    converged: np.ndarray
    reason: str
    log_relaxation: np.ndarray
    log_relaxation_interval: np.ndarray
    counts: np.ndarray | None = None
    bracketed: np.ndarray | None = None
    notes: Mapping[tuple[int, int], str] = field(default_factory=dict)

    def counted(self, i: np.ndarray, j: np.ndarray) -> np.ndarray:
        """On how many counts the rates from i (m,) to j (m,) rest, infinite where they are not counted."""
        if self.counts is None:
            return np.full(len(i), np.inf)
        by_bounds = False if self.bracketed is None else self.bracketed[i, j]
        return np.where(by_bounds, np.inf, self.counts[i, j])

    def counted_relaxation(self, confidence: float) -> np.ndarray:
        """So many counts alone would give each relaxation rate the width of its interval, (t,)."""
        if self.counts is None:
            return np.full(len(self.log_relaxation), np.inf)
        half = 0.5 * np.ptp(self.log_relaxation_interval, axis=1)
        return np.square(ndtri(0.5 + 0.5 * confidence) / np.maximum(half, 1e-9))

    def method_of(self, i: int, j: int) -> str:
        return BRACKET if self.bracketed is not None and self.bracketed[i, j] else self.method


def suitable_method(dynamics: Dynamics, d: int, n: int) -> str:
    """The method for n states in d dimensions: grid, Klein-Kramers operator, or simulation."""
    if isinstance(dynamics, Overdamped):
        return GRID if d <= 3 and n <= MAX_GRID_STATES else SIMULATION
    return OPERATOR if d == 1 and n <= NEAREST // 2 + 1 else SIMULATION


def from_grid(energy: Energy, dynamics: Dynamics, cores: Cores, pairs: np.ndarray) -> Reference:
    """Grid rates; up to two dimensions on a finer grid if one of the `pairs` (m, 2) is not resolved at first.

    LandscapeError where no grid will do (no box, a core without a cell).
    """
    cells = CELLS[energy.dim]
    try:
        found = reference_rates(energy, dynamics, cores)
    except LandscapeError:
        if energy.dim > 2:
            raise
        found = None
    if energy.dim <= 2 and (found is None or _worst(found, pairs) > RESOLVED / 3):
        cells = round(FINER * cells)
        found = reference_rates(energy, dynamics, cores, cells=cells)
    assert found is not None
    share = under_way(found.transit, dynamics)
    log_rates, log_interval, relative = _with_errors(found.rates / share, found.error / share)
    relaxation, spread = _grid_relaxation(energy, dynamics, cores, found, cells)
    reason = "" if _worst(found, pairs) <= RESOLVED else found.reason
    return Reference(GRID, log_rates, log_interval, relative <= RESOLVED, reason, relaxation, spread)


def from_operator(energy: Energy, dynamics: Dynamics, cores: Cores) -> Reference:
    """Rates of underdamped dynamics in one dimension. LandscapeError where the operator has too few slow modes."""
    found = klein_kramers_rates(energy, dynamics, cores)
    log_rates, log_interval, relative = _with_errors(found.rates, found.error)
    values, errors = np.abs(found.spectrum.eigenvalues.real), found.spectrum.error
    relaxation, spread, _ = _with_errors(values, errors)
    ok = (relative <= RESOLVED) & found.spectrum.converged
    return Reference(OPERATOR, log_rates, log_interval, ok, found.spectrum.reason, relaxation, spread)


def from_simulation(
    energy: Energy,
    dynamics: Dynamics,
    cores: Cores,
    generator: torch.Generator,
    options: PassageOptions,
    progress: Progress | None,
) -> Reference:
    """Rates counted in simulated trajectories. A rate of which nothing was seen has an interval from -inf on."""
    found = simulate_passages(energy, dynamics, cores, generator, options, progress)
    rates, interval = effective_rates(found.estimate, dynamics)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_rates = np.where(rates > 0, np.log(rates), np.nan)
        log_interval = np.log(interval)
    log_interval[np.isnan(found.estimate.rates)] = np.nan
    sound = found.compatible and not found.estimate.diverged
    relaxation, spread = _counted_relaxation(found.estimate, options.confidence)
    return Reference(
        SIMULATION, log_rates, log_interval, np.full(rates.shape, sound), found.reason, relaxation, spread,
        found.estimate.counts,
    )  # fmt: skip


def nothing_simulated(n: int) -> Reference:
    """A simulation that was not worth its start."""
    unknown = np.full((n, n), np.nan)
    times = np.full(min(n - 1, MAX_TIMESCALES), np.nan)
    return Reference(
        SIMULATION, unknown, np.full((n, n, 2), np.nan), np.full((n, n), True),
        "transitions are too rare to be simulated", times, np.column_stack([times, times]),
        np.zeros((n, n), dtype=int),
    )  # fmt: skip


def effective_rates(counted: CountedRates, dynamics: Dynamics) -> tuple[np.ndarray, np.ndarray]:
    """The counted rates (n, n) and intervals (n, n, 2) that are held against the formula; see the module."""
    share = under_way(counted.transit, dynamics)
    return counted.rates / share, counted.interval / share[:, :, None]


def under_way(transit: np.ndarray, dynamics: Dynamics) -> np.ndarray:
    """By what counted rates (n, n) are divided: 1 for reversible overdamped dynamics, else 1 - t_ij - t_ji."""
    if isinstance(dynamics, Overdamped) and dynamics.reversible:
        return np.ones(transit.shape)
    share = np.nan_to_num(transit - np.diag(np.diag(transit)))
    return np.maximum(1 - share - share.T, SMALLEST_SHARE)


def _worst(found: GridRates, pairs: np.ndarray) -> float:
    i, j = pairs.T
    rates = found.rates[i, j]
    # a neighbour that all transitions pass by on the way from elsewhere carries nothing that could be resolved
    seen = rates > 1e-9 * found.rates.max(axis=1)[i]
    return float((found.error[i, j][seen] / rates[seen]).max(initial=0.0))


def _with_errors(values: np.ndarray, errors: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logarithms, their intervals value +- error, and the relative error, infinite where the value is not positive."""
    good = values > 0
    safe = np.where(good, values, 1.0)
    relative = np.where(good, errors / safe, np.inf)
    logs = np.where(good, np.log(safe), np.nan)
    width = np.minimum(relative, 0.999)
    spread = np.stack([logs + np.log1p(-width), logs + np.log1p(width)], axis=-1)
    return logs, spread, relative


def _grid_relaxation(
    energy: Energy, dynamics: Dynamics, cores: Cores, found: GridRates, cells: int
) -> tuple[np.ndarray, np.ndarray]:
    """The spectrum of the grid generator; beyond the digits of its eigenvalues, that of the rates between cores."""
    k = min(len(cores) - 1, MAX_TIMESCALES)
    if energy.dim <= 2:
        spectrum = reference_spectrum(energy, dynamics, k, cores=cores, cells=cells)
        if spectrum.converged:
            return _with_errors(np.real(spectrum.eigenvalues), spectrum.error)[:2]
    values = found.relaxation_rates()[:k]
    seen = found.rates > 1e-6 * found.rates.sum(axis=1, keepdims=True)
    error = float((found.error[seen] / found.rates[seen]).max(initial=0.0))
    return _with_errors(values, error * values)[:2]


def _counted_relaxation(counted: CountedRates, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """Relaxation rates, with the width that independent errors of the counted rates give them (differences)."""
    values = counted.relaxation_rates()[:MAX_TIMESCALES]
    if not (np.isfinite(values).all() and (values > 0).all()):
        return np.full(len(values), np.nan), np.full((len(values), 2), np.nan)
    variance = np.zeros(len(values))
    for i, j in np.argwhere(counted.counts > 0):
        relative = counted.standard_error[i, j] / counted.rates[i, j]
        moved = counted.rates.copy(), counted.transit.copy()
        for array in moved:
            array[i, j] *= 1 + 1e-4
        other = relaxation_rates(moved[0], moved[1])[: len(values)]
        variance += (np.log(np.abs(other) / values) / 1e-4 * relative) ** 2
    width = ndtri(0.5 + 0.5 * confidence) * np.sqrt(variance)
    logs = np.log(values)
    return logs, np.stack([logs - width, logs + width], axis=1)
