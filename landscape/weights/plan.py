"""How to draw: the mixture that proposes, and the tempered path from it where it fits badly."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from landscape.energy import Energy
from landscape.errors import UsageError
from landscape.sampling import StudentMixture
from landscape.weights.adaptation import fitted
from landscape.weights.tails import effective_draws, share_beyond
from landscape.weights.tempering import TemperedPath, WeightedDraws, direct_path, plan_path, weighted_draws
from landscape.weights.wells import Wells

TRIAL, PILOT = 8192, 1024  # plain draws, and tempered ones, that try a proposal
GOOD = 0.5  # effective draws a draw above which nothing is improved
FITTABLE = 0.1  # below which a mixture is fitted to walkers, not to weighted draws
ENOUGH = (
    0.02  # below which draws are walked: plain ones are so cheap that a fiftieth of them is worth more than walkers
)
FITS = 3  # of the mixture at most
MAX_BEYOND = 0.05  # share of the weight expected beyond the largest of the trial draws (`share_beyond`)
# (loss a level, moves a level) of the paths that are tried in turn, each two to three times as long as the one before.
PATHS = ((0.2, 4), (0.05, 4), (0.0125, 6))
PLANNING = 4  # the part 1 / PLANNING of the evaluations may go into each path tried


@dataclass(frozen=True)
class ExactWeights:
    """How `exact_weights` works.

    target_se : standard error at which it stops, for every weight. relative_se : the same for the mass, on its own, of
    every state whose weight may be target_se or more. draws : most weighted draws. evaluations : most evaluations of
    the energy for draws. labels : most draws that are labelled by gradient flow. inflation, broad_weight, floor_weight,
    dof : of the proposal, see `harmonic_mixture`.
    """

    target_se: float = 0.005
    relative_se: float = 0.1
    draws: int = 250_000
    evaluations: int = 400_000
    labels: int = 6000
    inflation: float = 1.1
    broad_weight: float = 0.1
    floor_weight: float = 0.3
    dof: int = 8

    def __post_init__(self) -> None:
        for name, least in (("draws", 1024), ("evaluations", 1024), ("labels", 100), ("dof", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise UsageError(f"{name} of the exact weights is a whole number of at least {least}, not {value!r}")
        for name in ("target_se", "relative_se"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise UsageError(f"{name} is greater than 0, not {value!r}")
        if not (self.inflation > 0 and 0 < self.broad_weight < 1 and 0 < self.floor_weight <= 1):
            raise UsageError(
                "the proposal needs inflation > 0, 0 < broad_weight < 1 and 0 < floor_weight <= 1, not "
                f"{self.inflation!r}, {self.broad_weight!r}, {self.floor_weight!r}"
            )


@dataclass(frozen=True)
class Plan:
    """What was chosen, how many of its draws are effective (a share), and what the choice cost in evaluations."""

    mixture: StudentMixture
    path: TemperedPath
    efficiency: float
    evaluations: int


def make_plan(energy: Energy, wells: Wells, options: ExactWeights, generator: torch.Generator) -> Plan:
    """The harmonic mixture, fitted to draws from the target while that helps; then plain importance sampling where it
    is efficient, else the first tempered path that is, else the best of them.
    """
    planner = _Planner(energy, wells, options, generator)
    planner.fit_mixture()
    planner.choose_path()
    return Plan(planner.mixture, planner.path, planner.efficiency, planner.evaluations)


class _Planner:
    """The proposal in use, its efficiency, and the draws that tried it."""

    def __init__(self, energy: Energy, wells: Wells, options: ExactWeights, generator: torch.Generator) -> None:
        self.energy, self.beta, self.options, self.generator = energy, wells.beta, options, generator
        self.evaluations = 0
        self.mixture = wells.mixture(options.inflation, options.broad_weight, options.floor_weight, options.dof)
        self.path = direct_path(self.mixture)
        self.draws, self.efficiency = self._try(self.mixture, self.path)

    def fit_mixture(self) -> None:
        """Fit after fit, also where one of them is worse: that of arms in which there were few draws yet often is."""
        mixture, draws = self.mixture, self.draws
        for _ in range(FITS):
            if self.efficiency >= GOOD:
                return
            if effective_draws(draws.log_weights.numpy()) < FITTABLE * TRIAL:
                planned = self._plan(mixture, *PATHS[0])
                if planned is None:
                    return
                draws = WeightedDraws(planned[1], torch.zeros(len(planned[1]), dtype=torch.float64))
            mixture = fitted(mixture, draws.x, draws.log_weights, self.options.inflation)
            draws, efficiency = self._try(mixture, self.path)
            if efficiency > self.efficiency:
                self.mixture, self.efficiency = mixture, efficiency

    def choose_path(self) -> None:
        for loss, moves in PATHS:
            if self.efficiency >= ENOUGH:
                return
            planned = self._plan(self.mixture, loss, moves)
            if planned is None:
                return
            _, efficiency = self._try(self.mixture, planned[0])
            if efficiency > self.efficiency:
                self.path, self.efficiency = planned[0], efficiency

    def _plan(self, mixture: StudentMixture, loss: float, moves: int) -> tuple[TemperedPath, torch.Tensor] | None:
        most = self.options.evaluations // (PLANNING * PILOT * moves)
        planned = plan_path(
            self.energy, self.beta, mixture, n=PILOT, loss=loss, moves=moves, max_levels=most,
            generator=self.generator,
        )  # fmt: skip
        self.evaluations += PILOT * (1 + moves * (most if planned is None else len(planned[0].levels)))
        return planned

    def _try(self, mixture: StudentMixture, path: TemperedPath) -> tuple[WeightedDraws, float]:
        """Draws, and how many of them are effective, as a share; 0 where their tail is too heavy."""
        n = TRIAL if path.cost == 1 else PILOT
        draws = weighted_draws(self.energy, self.beta, mixture, path, n, self.generator)
        self.evaluations += n * path.cost
        log_w = draws.log_weights.numpy()
        return draws, 0.0 if share_beyond(log_w) > MAX_BEYOND else effective_draws(log_w) / n
