"""`run_checks`: every rate of the formula beside an independent one, within a budget of time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.special import ndtri

from landscape.checks.assemble import StepEffect, assemble
from landscape.checks.brackets import with_brackets
from landscape.checks.causes import Subject
from landscape.checks.flags import reduced_time_step
from landscape.checks.options import CheckOptions
from landscape.checks.record import Checks
from landscape.checks.references import (
    GRID,
    OPERATOR,
    Reference,
    effective_rates,
    from_grid,
    from_operator,
    from_simulation,
    nothing_simulated,
    suitable_method,
)
from landscape.checks.verdicts import UNDECIDED, effort_factor, intervals, verdict_of
from landscape.dynamics import Dynamics, Overdamped
from landscape.energy import Energy
from landscape.errors import LandscapeError
from landscape.rates import Cores, PassageOptions, make_cores, rates_at_step

Report = Callable[[str], None]

STEP_SHARE = 0.25  # of the budget that a simulation leaves to the rates at the user's time step
FEWEST_SECONDS = 1.0  # below it a simulation is not worth its start
SECOND_LOOK = 3.0  # a simulation that met its target is repeated if so many times its cost is left
TRAJECTORIES = 500  # in a batch: more would spend a short budget on their burn-in
HANDFUL = 5.0  # counts below which a transition is left to bounds
SIMULATED_SHARE = 0.4  # of the budget for a simulation that leaves some transitions to bounds
HOPELESS = 100.0  # times the statistics: rows that need more do not make a simulation longer


@dataclass
class _Run:
    """One call of `run_checks`: what it was given, and its clock."""

    energy: Energy
    dynamics: Dynamics
    subject: Subject
    options: CheckOptions
    report: Report
    generator: torch.Generator
    pairs: np.ndarray
    began: float = field(default_factory=time.perf_counter)

    def left(self, share: float = 1.0) -> float:
        return share * (self.options.budget - (time.perf_counter() - self.began))

    def reference(self, cores: Cores) -> Reference:
        method = suitable_method(self.dynamics, self.energy.dim, len(cores))
        try:
            if method == GRID:
                self.report("check: grid")
                return from_grid(self.energy, self.dynamics, cores, self.pairs)
            if method == OPERATOR:
                self.report("check: Klein-Kramers operator")
                return from_operator(self.energy, self.dynamics, cores)
        except LandscapeError as error:
            self.report(f"check: {error}; simulation instead")
        return self.rare(cores)

    def rare(self, cores: Cores) -> Reference:
        """A simulation, and bounds for the transitions of which it can hope to see only a handful."""
        i, j = self.pairs.T
        expected = self._sampled_time(cores) * np.exp(np.minimum(self.subject.network.log_rate_matrix[i, j], 50.0))
        hopeless = expected < HANDFUL
        bounds = isinstance(self.dynamics, Overdamped) and self.dynamics.reversible and self.energy.symmetry is None
        if not (bounds and hopeless.any()):
            return self.simulation(cores)
        none = nothing_simulated(len(cores))
        found = none if hopeless.all() else self.simulation(cores, SIMULATED_SHARE)
        return with_brackets(
            self.energy, self.dynamics, cores, self.subject, found, self.pairs[hopeless], self.options.confidence,
            self.left, self.generator, self.report,
        )  # fmt: skip

    def _sampled_time(self, cores: Cores) -> float:
        """About how long a simulation within the budget follows trajectories after each core."""
        points = torch.as_tensor(np.resize(cores.center, (TRAJECTORIES, self.energy.dim)))
        self.energy.gradient(points)
        began = time.perf_counter()
        self.energy.gradient(points)
        seconds = time.perf_counter() - began
        eigenvalues = np.concatenate([self.subject.eigenvalues, self.subject.saddle_eigenvalues])
        step = 0.1 / float(reduced_time_step(1.0, self.dynamics, eigenvalues).max())
        return 0.5 * self.left() / (2 * seconds) * step * TRAJECTORIES / len(cores)

    def simulation(self, cores: Cores, part: float = 1.0) -> Reference:
        """Simulated until the target error; once more, longer, if that decides rows that were left undecided."""
        share = part * (1.0 if self.options.time_step is None else 1 - STEP_SHARE)
        target, left = self.options.target_error, max(self.left(share), FEWEST_SECONDS)
        found = self._simulate(cores, target, left)
        used, left = left - self.left(share), self.left(share)
        factor = 1.2 * self._worst_factor(found)
        if found.reason or factor <= 1 or left < SECOND_LOOK * used:
            return found
        return self._simulate(cores, target / math.sqrt(min(factor, 0.8 * left / used)), left)

    def _simulate(self, cores: Cores, target: float, seconds: float) -> Reference:
        options = PassageOptions(target, seconds, TRAJECTORIES, confidence=self.options.confidence)
        return from_simulation(
            self.energy, self.dynamics, cores, self.generator, options,
            lambda part, text: self.report(f"check: simulation {part:.0%}, {text}"),
        )  # fmt: skip

    def _worst_factor(self, reference: Reference) -> float:
        """How many times the statistics the rows need that are undecided and not hopeless."""
        i, j = self.pairs.T
        log_formula = self.subject.network.log_rate_matrix[i, j]
        spread, counts = intervals(log_formula, reference.log_interval[i, j]), reference.counted(i, j)
        factors = [
            effort_factor(r, low, high, number)
            for r, (low, high), number in zip(log_formula - reference.log_rates[i, j], spread, counts, strict=True)
            if verdict_of(low, high, number) == UNDECIDED
        ]
        return max((factor for factor in factors if factor < HOPELESS), default=0.0)

    def step_effect(self, cores: Cores, reference: Reference, time_step: float) -> StepEffect:
        """Rates simulated at the user's time step over those of the reference."""
        options = PassageOptions(
            self.options.target_error,
            max(self.left(), FEWEST_SECONDS),
            TRAJECTORIES,
            confidence=self.options.confidence,
        )
        coarse = rates_at_step(
            self.energy, self.dynamics, cores, time_step, self.generator, options, scheme=self.options.scheme,
            progress=lambda part, text: self.report(f"check: time step {time_step:g}, {part:.0%}, {text}"),
        )  # fmt: skip
        rates = effective_rates(coarse, self.dynamics)[0]
        with np.errstate(divide="ignore", invalid="ignore"):  # unseen rates, and the diagonal
            logs = np.where(rates > 0, np.log(rates), np.nan) - reference.log_rates
            error = ndtri(0.5 + 0.5 * self.options.confidence) * coarse.standard_error / coarse.rates
            half = np.hypot(error, 0.5 * np.ptp(reference.log_interval, axis=-1))
        reason = ""
        if coarse.diverged:
            number = coarse.diverged + coarse.trajectories
            reason = f"{coarse.diverged} of {number} trajectories overflow at this time step"
        elif np.isnan(logs[*self.pairs.T]).all():
            reason = reference.reason or "no transition was seen at this time step: give a larger budget"
        return StepEffect(np.exp(logs), np.exp(np.stack([logs - half, logs + half], axis=-1)), reason)


def run_checks(
    energy: Energy,
    dynamics: Dynamics,
    subject: Subject,
    options: CheckOptions | None = None,
    progress: Report | None = None,
) -> Checks:
    """Formula against reference for every transition between neighbouring states; see `verdicts` and `references`.

    Neighbours are states that share a saddle. The reference is the grid (overdamped, d <= 3), the Klein-Kramers
    operator (underdamped, d = 1) or simulation, with bounds for what is too rare to be simulated (overdamped and
    reversible, not periodic); a grid or operator that fails gives way to simulation. A reference that cannot be had is
    no error: its rows are "not checked", and say why.
    """
    options, report = options or CheckOptions(), progress or (lambda text: None)
    generator = torch.Generator().manual_seed(options.seed)
    pairs = np.argwhere(subject.network.log_rate_matrix > -np.inf)
    run = _Run(energy, dynamics, subject, options, report, generator, pairs)
    cores, reference, step, problem = None, None, None, ""
    try:
        if len(pairs):
            report("check: cores")
            cores = make_cores(energy, dynamics, np.array(subject.network.coordinates), generator)
            reference = run.reference(cores)
            if options.time_step is not None:
                step = run.step_effect(cores, reference, options.time_step)
    except LandscapeError as error:
        problem = str(error)
    return assemble(
        energy, dynamics, subject, pairs, reference, step, problem, run.left,
        settings={
            "shrink": np.full(subject.network.n_states, np.nan) if cores is None else cores.shrink,
            "confidence": options.confidence, "seed": options.seed, "budget": options.budget,
            "time_step": options.time_step,
        },
    )  # fmt: skip
