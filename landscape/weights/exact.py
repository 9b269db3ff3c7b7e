"""Basin weights by importance sampling from the harmonic wells, tempered where they fit badly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from landscape.energy import Energy
from landscape.errors import UsageError
from landscape.sampling.independence import inverse_factors, squared_distances
from landscape.weights.harmonic import positive_beta
from landscape.weights.intervals import weight_interval
from landscape.weights.neighbours import LEAST, Guess, Guide, Neighbours, harmonic_guess
from landscape.weights.plan import ExactWeights, make_plan
from landscape.weights.tails import effective_draws, pareto_shape, share_beyond
from landscape.weights.tempering import WeightedDraws, weighted_draws
from landscape.weights.weighted import LabelledDraws, Masses, label_probabilities
from landscape.weights.wells import Wells

Assign = Callable[[torch.Tensor], Any]
Progress = Callable[[str], None]

# Parts of the budget that rounds spend: the labels of each teach the guess of the next, and many flow faster together.
# After these a round spends what the errors call for.
TEACHING = (1 / 16, 3 / 16)
LEAST_PART = 1 / 16
# The largest error, and the largest relative one, fall as labels^(-1 / LEARNING): guesses improve with them.
LEARNING = np.array([1.6, 0.8])
MARGIN = 1.1  # of labels over those that errors call for
AT_MOST = 2.0  # times the labels so far in all, as for errors so many times too large: early ones are rough
EARLY = (1 / 8, 1 / 2)  # what corrections of these rounds count for, beside 1 of the others
CLEARLY = 1.25  # times as often
MIN_ROUND = 256
DRAWS_PER_LABEL = 6  # effective ones: with many more, single labels would speak for too many draws
MAX_BEYOND = 0.01  # share of the weight expected beyond the largest draw (`share_beyond`)
MIN_EFFECTIVE = 200  # effective draws below which there is no result
MAX_RELATIVE = 0.25  # standard error of a log mass above which the state has no number
LEAST_HITS = 10  # labelled draws in a state below which it has none: what is guessed elsewhere shows only where asked
VISIBLE = 0.5  # part of the target error: rarer states may stay without a number
MAX_LOST = 0.05  # share of the mass in no known basin above which the weights mean nothing
GUIDING = 0.1  # effective draws a draw above which a mixture is one for chains to propose from
FAR = "far from harmonic"


@dataclass(frozen=True)
class ExactResult:
    """Weights of n states from independent weighted draws.

    weights, standard_errors (n,) : they sum to 1 - unassigned; nan for a state whose own mass stayed unknown (below
    the target error). log_z, log_z_se (n,) : log of the integral of exp(-beta E) over each basin, and its standard
    error. All four are None where the draws could not be trusted; `reason` then says why.
    unassigned, unassigned_se : share of the mass whose gradient flow reaches none of the known minima.
    converged : healthy, and within the target errors. reason : what is wrong where it is not, else "".
    guide : what the draws have taught about the landscape, for chains; None where plain importance sampling does not
    serve. effective : (sum w)^2 / sum w^2. largest_share : of one draw in the total weight. pareto_shape : of the tail
    of the weights. n_draws, n_labelled, evaluations : spent. levels : of the tempered path, 1 for plain importance
    sampling.
    """

    weights: np.ndarray | None
    standard_errors: np.ndarray | None
    log_z: np.ndarray | None
    log_z_se: np.ndarray | None
    unassigned: float
    unassigned_se: float
    converged: bool
    reason: str
    guide: Guide | None
    effective: float
    largest_share: float
    pareto_shape: float
    n_draws: int
    n_labelled: int
    evaluations: int
    levels: int

    def interval(self, confidence: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
        """Confidence intervals of the weights, (n,) and (n,): see `weight_interval`. UsageError where there are no
        weights."""
        if self.weights is None or self.standard_errors is None:
            raise UsageError(f"there are no exact weights to give an interval of: {self.reason}")
        return weight_interval(self.weights, self.standard_errors, confidence)


def exact_weights(
    energy: Energy,
    minima: np.ndarray,
    hessians: np.ndarray,
    beta: float,
    assign: Assign,
    options: ExactWeights,
    generator: torch.Generator,
    progress: Progress | None = None,
) -> ExactResult:
    """Basin weights of `minima` (n, d), hessians (n, d, d) there, by self-normalised importance sampling.

    Independent draws x from the mixture q of all harmonic wells (Student's t, and a broad component over all of them)
    carry the weights w = exp(-beta E(x)) / q(x). Where fewer than a tenth of them are effective or their tail is
    heavy - in many dimensions, in anharmonic wells - the draws are walked from q to exp(-beta E) first (`tempering`).
    Mass of basin i: Z_i = E[w 1(x in basin i)]; weight: Z_i / sum_j Z_j; standard errors by the delta method over the
    draws, which are independent of each other.

    assign : positions (m, d), a float64 tensor -> (m,) integers, the number of the minimum that the gradient flow
    reaches or -1. Flows are dear, so a draw is labelled with a probability p only, which is large where it matters to
    its state and its guess (the lowest harmonic well, later what the nearest labelled draws of its half say) is in
    doubt. With the guess g by the labels of the other half it enters as
    w [1(g = i) + (labelled / p) (1(label = i) - 1(g = i))], which is unbiased whatever the guess is worth.

    There are no numbers where the draws cannot be trusted (`ExactResult.reason`): too few effective ones, most of the
    weight on one, a tail without a mean, or mass in no known basin. UsageError for inputs that do not fit.
    """
    wells = Wells.at(energy, minima, hessians, positive_beta(beta))
    estimate = _Estimate(energy, wells, assign, options, generator)
    while not estimate.finished:
        result = estimate.extend()
        if progress is not None:
            progress(f"weights: {result.n_draws:,} weighted draws, {result.effective:,.0f} effective")
    return result


@dataclass(frozen=True)
class _Round:
    """Draws x (m, d) with log_weights (m,). correction (m,) : 1 / p where it was asked for a label, with probability p,
    else 0. label (m,) : the answer, without meaning elsewhere. counts : of the round's corrections beside others'."""

    x: np.ndarray
    log_weights: np.ndarray
    label: np.ndarray
    correction: np.ndarray
    counts: float

    @property
    def half(self) -> np.ndarray:
        """Every other draw belongs to half 1, (m,)."""
        return np.arange(len(self.x)) % 2


class _Estimate:
    """Weighted draws so far: `extend` adds a round of them and sums up."""

    def __init__(
        self, energy: Energy, wells: Wells, assign: Assign, options: ExactWeights, generator: torch.Generator
    ) -> None:
        self.energy, self.wells, self.assign, self.options, self.generator = energy, wells, assign, options, generator
        self.plan = make_plan(energy, wells, options, generator)
        self.evaluations, self.n_labelled = self.plan.evaluations, 0
        self.finished = False
        affordable = min(options.draws, (options.evaluations - self.evaluations) // self.plan.path.cost)
        self.most_draws = min(DRAWS_PER_LABEL * options.labels / max(self.plan.efficiency, 1e-3), affordable)
        self.rounds: list[_Round] = []
        self.spent, self.wanted = 0.0, 0.0  # parts of the budget: so far, and in all by the present errors
        self.hits = np.zeros(len(wells.x), int)  # labelled draws in each state
        # What the labels of each half of the draws teach; None where the harmonic wells guess.
        self.neighbours: list[Neighbours | None] = [None, None]

    def extend(self) -> ExactResult:
        plan, part = self.plan, self._next_part()
        self.spent += part
        n = max(int(part * self.most_draws), MIN_ROUND)
        drawn = weighted_draws(self.energy, self.wells.beta, plan.mixture, plan.path, n, self.generator)
        self.evaluations += n * plan.path.cost
        log_w = drawn.log_weights.numpy()
        # Flows are dear: none where the weights alone say that there will be no result.
        hopeless = not self.rounds and (
            effective_draws(log_w) < part * MIN_EFFECTIVE or share_beyond(log_w) > 10 * MAX_BEYOND
        )
        self.rounds.append(self._labelled(drawn, 0 if hopeless else max(1, round(part * self.options.labels))))
        self._learn()
        self.draws = self._combined()
        result = self._summary()
        self.finished = self.finished or hopeless
        return result

    def _next_part(self) -> float:
        if len(self.rounds) < len(TEACHING):
            return TEACHING[len(self.rounds)]
        left = 1 - self.spent
        part = max(LEAST_PART, self.wanted - self.spent)
        return left if left - part < LEAST_PART else part

    def _labelled(self, drawn: WeightedDraws, n_labels: int) -> _Round:
        log_w, n = drawn.log_weights.numpy(), len(self.wells.x)
        counts = EARLY[len(self.rounds)] if len(self.rounds) < len(EARLY) else 1.0
        answered = _Round(drawn.x.numpy(), log_w, np.zeros(len(log_w), int), np.zeros(len(log_w)), counts)
        if n_labels == 0:
            return answered
        large = self.options.target_se / self.options.relative_se
        p = np.empty(len(log_w))
        for k in range(2):
            own = slice(k, None, 2)
            p[own] = label_probabilities(log_w[own], self._guess(k, drawn.x[own]), n, n_labels / 2, large)
        chosen = torch.rand(len(p), dtype=torch.float64, generator=self.generator).numpy() < p
        answer = np.asarray(self.assign(drawn.x[torch.as_tensor(chosen)]))
        if answer.shape != (chosen.sum(),) or ((answer < -1) | (answer >= n)).any():
            raise UsageError(f"assign returns one integer from -1 to {n - 1} a point, not an array {answer.shape}")
        self.n_labelled += len(answer)
        self.hits += np.bincount(answer[answer >= 0], minlength=n)
        answered.label[chosen], answered.correction[chosen] = answer, 1 / p[chosen]
        return answered

    def _guess(self, half: int, x: torch.Tensor) -> Guess:
        """By the labels of one half of the draws."""
        neighbours = self.neighbours[half]
        return self._harmonic(x) if neighbours is None else neighbours.guess(x.numpy())

    def _harmonic(self, x: torch.Tensor) -> Guess:
        # Reduced harmonic energies of the wells, as wide as the mixture was fitted.
        means, inverses = self.plan.mixture.means[:-1], inverse_factors(self.plan.mixture.factors[:-1])
        harmonic = 0.5 * self.options.inflation**2 * squared_distances(x, means, inverses)
        return harmonic_guess((self.wells.beta * self.wells.bottoms + harmonic).numpy())

    def _learn(self) -> None:
        """From now on the labelled draws of each half guess, unless they would have been wrong clearly more often than
        the harmonic wells were, which know less of where they are in doubt."""
        for half in range(2):
            x, label, log_u = self._known(half)
            self.neighbours[half] = None
            if len(label) < LEAST:
                continue
            learned = Neighbours(x, label, self._units)
            u = np.exp(log_u - log_u.max())
            wrong = u @ (learned.guess_of_themselves().first != label)
            if wrong < CLEARLY * (u @ (self._harmonic(torch.as_tensor(x)).first != label)):
                self.neighbours[half] = learned

    def _known(self, *halves: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Positions, labels and log weights of the labelled draws of these halves that are in a known basin."""
        x, log_w, label, correction, half = self._all()
        known = (correction > 0) & (label >= 0) & np.isin(half, halves)
        return x[known], label[known], log_w[known] + np.log(correction[known])

    @property
    def _units(self) -> np.ndarray:
        """Coordinates times these are in units in which the landscape is as wide as long."""
        return inverse_factors(self.plan.mixture.factors[-1:])[0].mT.numpy()

    def _all(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Positions, log weights, labels, corrections and halves (0 or 1) of the draws of all rounds."""
        parts = [(part.x, part.log_weights, part.label, part.correction, part.half) for part in self.rounds]
        x, log_w, label, correction, half = (np.concatenate(part) for part in zip(*parts, strict=True))
        return x, log_w, label, correction, half

    def _combined(self) -> LabelledDraws:
        """The draws of all rounds, those of each half guessed anew by the labels of the other.

        Guesses, those of early draws too, are then as good as the last ones. They know nothing of the labels that
        correct them, nor of which were asked for: labels of a half have no part in what is asked in the other. (If they
        had, oddities that were met would draw labels around them, be guessed right, and those not met never corrected.)
        How much guesses are wrong by every round estimates, the early ones badly: where a guess without experience saw
        no doubt, single labels speak for many draws. So the rounds that teach count less in that, by fixed parts.
        Rounds that count by their own errors count less where they came upon a rare state, and its mass is too low.
        """
        x, log_w, label, correction, half = self._all()
        guess = np.empty(len(x), int)
        for k in range(2):
            guess[half == k] = self._guess(1 - k, torch.as_tensor(x[half == k])).first
        counts = np.concatenate([np.full(len(part.x), part.counts) for part in self.rounds])
        return LabelledDraws(log_w, guess, np.where(correction > 0, label, guess), correction * counts / counts.mean())

    def _summary(self) -> ExactResult:
        n, options, log_w = len(self.wells.x), self.options, self.draws.log_weights
        effective = effective_draws(log_w)
        largest = float(np.exp(log_w.max() - np.logaddexp.reduce(log_w))) if effective else 1.0
        masses = self.draws.masses(n) if effective else Masses(*np.full((4, n + 1), np.nan))
        share, error = masses.share[:n], masses.share_se[:n]
        matters, visible = (~(share + 3 * error < part * options.target_se) for part in (1, VISIBLE))
        beyond = np.array([share_beyond(log_w[self.draws.guess == i]) for i in range(n)])
        known = (beyond <= MAX_RELATIVE) & (masses.log_z_se[:n] <= MAX_RELATIVE) & (self.hits >= LEAST_HITS)
        lost = masses.share[n] > MAX_LOST + 3 * masses.share_se[n]
        reason = self._distrust(effective, share_beyond(log_w), lost, np.flatnonzero(matters & ~known))
        trusted = not reason
        precise = trusted and bool(error[known].max(initial=0) <= options.target_se)
        if trusted and not precise:
            reason = (
                f"the largest standard error {error[known].max():.2g} stayed above the target {options.target_se:g}: "
                "allow more draws, evaluations and labels"
            )
        limits = np.where(matters, options.relative_se, MAX_RELATIVE)
        relative = np.where(self.hits < LEAST_HITS, np.inf, masses.log_z_se[:n] / limits)
        # In units of those asked for; AT_MOST while a mass is not known.
        excess = np.array([(error / options.target_se).max(), relative[visible].max(initial=0)])
        excess = np.nan_to_num(excess, nan=AT_MOST).clip(max=AT_MOST)
        self.wanted = self.spent * min(MARGIN * float((excess**LEARNING).max()), AT_MOST)
        self.finished = self.spent >= 1 or (precise and bool((excess <= 1).all()))

        def kept(values: np.ndarray) -> np.ndarray | None:
            return np.where(known, values[:n], np.nan) if trusted else None

        return ExactResult(
            weights=kept(share), standard_errors=kept(error), log_z=kept(masses.log_z), log_z_se=kept(masses.log_z_se),
            unassigned=float(masses.share[n]), unassigned_se=float(masses.share_se[n]), converged=precise,
            reason=reason, guide=self._guide(), effective=effective, largest_share=largest,
            pareto_shape=pareto_shape(log_w), n_draws=len(log_w), n_labelled=self.n_labelled,
            evaluations=self.evaluations, levels=len(self.plan.path.levels),
        )  # fmt: skip

    def _guide(self) -> Guide | None:
        """A guide need not be right, but chains stay long at points that its mixture hardly ever proposes."""
        direct = len(self.plan.path.levels) == 1 and self.plan.efficiency >= GUIDING
        if not direct:
            return None
        x, label, _ = self._known(0, 1)
        learned = None not in self.neighbours
        return Guide(self.plan.mixture, Neighbours(x, label, self._units) if learned else None)

    def _distrust(self, effective: float, beyond: float, lost: bool, unknown: np.ndarray) -> str:
        """Why there are no numbers, "" where there are."""
        count = f"{len(self.draws):,}"
        if effective < MIN_EFFECTIVE:
            return f"{count} draws are worth {effective:.0f}, fewer than {MIN_EFFECTIVE}: the wells are {FAR}"
        if beyond > MAX_BEYOND:
            return f"about {min(beyond, 1):.0%} of the mass is not seen by {count} draws: the wells are {FAR}"
        if lost:
            share = 1 - self.draws.masses(len(self.wells.x)).share[:-1].sum()
            return f"{share:.1%} of the mass flows to no known minimum: the search has missed some, or there is no Z"
        if len(unknown):
            return (
                f"the mass of state {unknown[0]} is too uncertain, {len(unknown)} in all: allow more draws and labels"
            )
        return ""
