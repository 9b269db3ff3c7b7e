"""Basin weights from Markov chains that move between the wells, labelled by gradient flow."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from landscape.energy import Energy
from landscape.errors import UsageError
from landscape.sampling import Ahead, Chains, Independence, Mala, StudentMixture, preconditioner, run, warm_up
from landscape.sampling.diagnostics import LabelledChains
from landscape.sampling.driver import Kernel
from landscape.weights.harmonic import positive_beta
from landscape.weights.intervals import weight_interval
from landscape.weights.neighbours import Guide
from landscape.weights.wells import Wells

Assign = Callable[[torch.Tensor], Any]
Progress = Callable[[str], None]

AHEAD = 8  # steps for which moves between wells are drawn and evaluated together
GUESSED = 2**14  # positions whose labels are guessed together
MARGIN = 1.1  # of sweeps over those that errors call for ...
UNSEEN = 1.3  # ... and before anything is labelled, since labels add errors
FIRST_ROUND = 100  # sweeps before the first look at the errors
MAX_UNASSIGNED = 0.05  # share of positions in no known basin above which the weights mean nothing
RARELY = 0.125  # least probability of a label: where the neighbours of a point agree; later more, if they were wrong
MIN_TOLD = 30  # labels of points that are asked about so seldom, or twice as often, that tell how often they are wrong
COMMON = 0.04  # share of a state below which its points are labelled more often
MAX_DRIFT = 5.0  # standard errors between the halves of the chains; chance exceeds it about once in a million labels


@dataclass(frozen=True)
class SampledWeights:
    """How `sample_weights` samples.

    n_chains : independent chains. target_se : standard error at which it stops, for every weight. warm_up : discarded
    sweeps, in which the local move finds its step; a sweep is one move between wells and one local move. max_sweeps :
    budget after the warm-up. label_every : sweeps between two positions that are labelled by gradient flow.
    min_changes : effective changes of label below which there is no result. inflation, broad_weight, floor_weight, dof
    : of the proposal, see `harmonic_mixture`.
    """

    n_chains: int = 128
    target_se: float = 0.005
    warm_up: int = 50
    max_sweeps: int = 2000
    label_every: int = 8
    min_changes: int = 100
    inflation: float = 1.1
    broad_weight: float = 0.1
    floor_weight: float = 0.3
    dof: int = 8

    def __post_init__(self) -> None:
        for name, least in (("n_chains", 8), ("warm_up", 0), ("label_every", 1), ("min_changes", 0), ("dof", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise UsageError(f"{name} of the sampled weights is a whole number of at least {least}, not {value!r}")
        if not isinstance(self.max_sweeps, int) or self.max_sweeps < 4 * self.label_every:
            least = 4 * self.label_every
            raise UsageError(f"max_sweeps is at least 4 label_every = {least}, not {self.max_sweeps!r}")
        if not (math.isfinite(self.target_se) and self.target_se > 0):
            raise UsageError(f"target_se is greater than 0, not {self.target_se!r}")
        if not (self.inflation > 0 and 0 < self.broad_weight < 1 and 0 < self.floor_weight <= 1):
            raise UsageError(
                "the proposal needs inflation > 0, 0 < broad_weight < 1 and 0 < floor_weight <= 1, not "
                f"{self.inflation!r}, {self.broad_weight!r}, {self.floor_weight!r}"
            )


@dataclass(frozen=True)
class SampledResult:
    """Weights of n states from chains that mix between the wells.

    weights, standard_errors : (n,), or None where the chains changed wells too seldom for any. They sum to 1 -
    unassigned.
    unassigned, unassigned_se : share of positions whose gradient flow reached none of the known minima, in its own bin.
    converged : every standard error is at most the target, with enough changes of label, no drift, and no share of
    positions in unknown basins.
    effective_changes : changes of label, no more of them counted than independent draws would give for the observed
    errors.
    chains : the labelled chains after the warm-up, of which everything above is a summary. acceptance : of the moves
    between wells and of the local moves. warnings : what the user should be told.
    """

    weights: np.ndarray | None
    standard_errors: np.ndarray | None
    unassigned: float
    unassigned_se: float
    converged: bool
    effective_changes: float
    n_labelled: int
    acceptance: tuple[float, float]
    chains: LabelledChains
    warnings: tuple[str, ...]

    def interval(self, confidence: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
        """Confidence intervals of the weights, (n,) and (n,): see `weight_interval`; the errors come from n_chains
        independent values. UsageError where there are no weights."""
        if self.weights is None or self.standard_errors is None:
            raise UsageError("there are no sampled weights to give an interval of: the chains did not mix")
        return weight_interval(self.weights, self.standard_errors, confidence, self.chains.n_chains - 1)


def sample_weights(
    energy: Energy,
    minima: np.ndarray,
    hessians: np.ndarray,
    beta: float,
    assign: Assign,
    config: SampledWeights,
    generator: torch.Generator,
    progress: Progress | None = None,
    guide: Guide | None = None,
) -> SampledResult:
    """Basin weights of `minima` (n, d), hessians (n, d, d) there, by sampling exp(-beta E) and gradient flow.

    All chains move as one batch: an independence Metropolis-Hastings move from the harmonic mixture, which carries
    them from well to well, then a Metropolis-adjusted Langevin move. assign : positions (m, d), a float64 tensor ->
    (m,) integers, the number of the minimum that the gradient flow reaches or -1. It is asked about few positions
    (`LabelledChains.occupancy`), and never twice about one that a chain has not left. Runs until every standard error
    is at most config.target_se, or config.max_sweeps end. Standard errors come from the spread between chains. A move
    to a point without a finite energy is rejected.

    guide : of `exact_weights` on the same energy, in place of the harmonic mixture and of the harmonic guess of labels:
    chains mix faster, and fewer labels do. Whatever it is worth, the weights keep no bias from it.
    """
    wells = Wells.at(energy, minima, hessians, positive_beta(beta))
    sampler = _Sampler(energy, wells, assign, config, generator, guide)
    sampler.move(min(FIRST_ROUND, config.max_sweeps))
    if sampler.neighbours is not None:  # guesses are good enough to tell what is called for: all labels flow together
        sampler.move(min(sampler.more(UNSEEN), config.max_sweeps - sampler.n_sweeps))
    summary = sampler.label()
    while not sampler.finished and sampler.n_sweeps < config.max_sweeps:
        if progress is not None:
            progress(f"weights: {sampler.n_sweeps} sweeps, largest standard error {sampler.largest_error:.4f}")
        sampler.move(min(max(sampler.n_sweeps // 4, sampler.more(1.0)), config.max_sweeps - sampler.n_sweeps))
        summary = sampler.label()
    return summary


class _Sampler:
    """Chains in progress: `move` runs them on, `label` labels what is new and sums up."""

    def __init__(
        self,
        energy: Energy,
        wells: Wells,
        assign: Assign,
        config: SampledWeights,
        generator: torch.Generator,
        guide: Guide | None,
    ) -> None:
        self.neighbours = None if guide is None else guide.neighbours
        self.rarely = RARELY
        self.energy, self.wells = energy, wells
        self.assign, self.config, self.generator = assign, config, generator
        self.n_sweeps, self.largest_error = 0, math.inf
        self.wanted = 1.0  # sweeps, in units of those so far, that the present errors and changes of label call for
        self.finished = False  # the target is met, or more sweeps cannot help

        def mixture(floor_weight: float) -> StudentMixture:
            return wells.mixture(config.inflation, config.broad_weight, floor_weight, config.dof)

        local = Mala(preconditioner(wells.covariances, wells.weights), energy.dim ** (-1 / 6))
        # The starts are spread over the wells evenly, and settle there by local moves alone, so that a well which the
        # moves between wells cannot reach or leave shows as chains that stay.
        state = Chains.init(energy, mixture(1.0).sample(config.n_chains, generator))
        # Starts without a finite energy are replaced by the bottom of a well.
        home = torch.randint(len(wells.x), (config.n_chains,), generator=generator)
        state = state.where(state.energy.isfinite(), Chains.init(energy, wells.x[home]))
        state, settled = warm_up([local], energy, wells.beta, state, config.warm_up // 2, generator)
        proposal = mixture(config.floor_weight) if guide is None else guide.mixture
        kernels: list[Kernel] = [Independence(proposal, Ahead(AHEAD)), *settled]
        remaining = config.warm_up - config.warm_up // 2
        self.state, self.kernels = warm_up(kernels, energy, wells.beta, state, remaining, generator)
        self.accepted = np.zeros(2)
        self.last_x = np.full((config.n_chains, energy.dim), np.nan)
        self.last_label, self.last_correction = np.full(config.n_chains, -1), np.ones(config.n_chains)
        self.chains = LabelledChains(
            np.empty((0, config.n_chains, energy.dim)), np.empty((0, config.n_chains)),
            np.empty((0, config.n_chains), dtype=int), np.empty((0, config.n_chains), dtype=int),
            np.empty((0, config.n_chains)), config.label_every,
        )  # fmt: skip
        self.unlabelled: list[np.ndarray] = []  # probabilities with which the last records are to be labelled
        self.n_labelled = 0
        self.first = 0  # labelled positions dropped at the start because the chains still drifted

    def move(self, n_sweeps: int) -> None:
        """Run the chains; for now the guesses are their labels."""
        if n_sweeps <= 0:
            return
        stride = self.config.label_every
        n_sweeps = stride * math.ceil(n_sweeps / stride)
        x: list[torch.Tensor] = []
        energies: list[torch.Tensor] = []

        def observe(state: Chains) -> None:
            energies.append(state.energy)
            x.append(state.x)

        self.state, accepted = run(
            self.kernels, self.energy, self.wells.beta, self.state, n_sweeps, self.generator, observe
        )
        self.accepted += n_sweeps * np.array(accepted)
        self.n_sweeps += n_sweeps
        old = self.chains
        guess, p = (part.reshape(n_sweeps, -1) for part in self._guess(torch.cat(x)))
        kept = torch.stack(x[stride - 1 :: stride]).numpy()
        p = p[stride - 1 :: stride]
        self.unlabelled.append(p)
        self.chains = LabelledChains(
            np.concatenate([old.x, kept]),
            np.concatenate([old.energy, torch.stack(energies).numpy()]),
            np.concatenate([old.guess, guess]),
            np.concatenate([old.label, guess[stride - 1 :: stride]]),
            np.concatenate([old.correction, np.zeros(p.shape)]),
            stride,
        )
        chains = self.chains.tail(self.first)
        self._look(*chains.occupancy(len(self.wells.x)), chains)

    def label(self) -> SampledResult:
        p = np.concatenate(self.unlabelled)
        new = slice(len(self.chains.label) - len(p), None)
        label, correction = self._label(self.chains.x[new], self.chains.label[new], p)
        self.chains.label[new], self.chains.correction[new] = label, correction
        self.unlabelled.clear()
        return self._summary()

    def more(self, factor: float) -> int:
        """Sweeps that are called for, `factor` times, and a few more, but at most three times as many as there are:
        early errors are rough."""
        return int(np.clip(factor * MARGIN * self.wanted - 1, 0, 3) * self.n_sweeps)

    def _guess(self, x: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Guessed labels of x (m, d), and how probable it is to be that each is asked for, both (m,).

        The error that a draw adds where its guess is wrong, which has the probability `doubt`, is least for the number
        of labels if they go in proportion to the root of it. In rare states errors are to be small beside the weight.
        """
        if self.neighbours is None:
            guess = torch.cat([self.wells.guess(part) for part in x.split(GUESSED)]).numpy()
            return guess, np.ones(len(x))
        parts = [self.neighbours.guess(part.numpy()) for part in x.split(GUESSED)]
        first, second, doubt = (np.concatenate(part) for part in zip(*parts, strict=True))
        share = np.bincount(first, minlength=len(self.wells.x)) / len(first)
        rare = (COMMON / share.clip(1e-12)).clip(1)
        return first, (np.sqrt(2 * doubt).clip(self.rarely, 1) * np.maximum(rare[first], rare[second])).clip(max=1)

    def _label(self, x: np.ndarray, guess: np.ndarray, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Labels and corrections of x (n_records, n_chains, d), asking about each position of a chain at most once
        however long it stays there, and with probability p (n_records, n_chains) only.
        """
        before = np.concatenate([self.last_x[None], x[:-1]])
        moved = (x != before).any(2)
        p = p[moved]
        asked = torch.rand(len(p), dtype=torch.float64, generator=self.generator).numpy() < p
        correction = asked / p
        answer = np.asarray(self.assign(torch.as_tensor(x[moved][asked])))
        n = len(self.wells.x)
        if answer.shape != (asked.sum(),) or ((answer < -1) | (answer >= n)).any():
            raise UsageError(f"assign returns one integer from -1 to {n - 1} a point, not an array {answer.shape}")
        self.n_labelled += len(answer)
        wrong = (answer != guess[moved][asked])[p[asked] < 2 * RARELY]
        if len(wrong) >= MIN_TOLD:  # of labels to come only: these probabilities must not depend on the answers
            self.rarely = float(np.clip(math.sqrt(2 * wrong.mean()), self.rarely, 1))
        label, corrections = guess.copy(), np.empty(moved.shape)
        fresh = guess[moved]
        fresh[asked] = answer
        label[moved], corrections[moved] = fresh, correction
        for row, rested in enumerate(~moved):
            label[row, rested] = (label[row - 1] if row else self.last_label)[rested]
            corrections[row, rested] = (corrections[row - 1] if row else self.last_correction)[rested]
        self.last_x, self.last_label, self.last_correction = x[-1], label[-1], corrections[-1]
        return label, corrections

    def _look(self, share: np.ndarray, error: np.ndarray, chains: LabelledChains) -> np.ndarray:
        """Effective changes of each label (n + 1,), and what errors and changes call for."""
        n, config = len(self.wells.x), self.config
        self.largest_error = float(error.max())
        # w (1 - w) / se^2 independent draws would show this error, and change label 2 w (1 - w) times each.
        root = np.divide(share * (1 - share), error, out=np.full(n + 1, np.inf), where=error > 0)
        changes = np.minimum(chains.changes(n), 2 * root**2)
        self.wanted = (self.largest_error / config.target_se) ** 2
        if n > 1:
            rarest = changes[:n][_that_matter(share, config, n)].min(initial=changes.sum() / 2)
            self.wanted = max(self.wanted, config.min_changes / max(float(rarest), 1.0))
        return changes

    def _summary(self) -> SampledResult:
        n, config = len(self.wells.x), self.config
        chains = self.chains.tail(self.first)
        drifting = bool(np.abs(chains.drift(n)).max() > MAX_DRIFT)
        if drifting and len(chains.label) >= 4:
            self.first += len(chains.label) // 2
            chains = self.chains.tail(self.first)
        share, error = chains.occupancy(n)
        share = share.clip(0)
        share /= share.sum()
        changes = self._look(share, error, chains)
        total = float(changes.sum() / 2)
        warnings, enough = _mixing_warnings(share, changes, total, config, n)
        hopeless = share[n] > MAX_UNASSIGNED + 3 * error[n]
        precise = enough and not drifting and self.largest_error <= config.target_se
        self.finished = precise or hopeless
        if enough and not precise and not hopeless:
            cause = "the chains still drift" if drifting else f"the largest standard error is {self.largest_error:.2g}"
            warnings.append(
                f"sampled weights did not reach a standard error of {config.target_se:g} in {self.n_sweeps} sweeps: "
                f"{cause}; raise max_sweeps or n_chains"
            )
        lost = share[n] > max(config.target_se, 3 * error[n])
        if hopeless:
            enough = False
            warnings = [
                f"no sampled weights: {share[n]:.2%} of the sampled positions flow to no known minimum; the search has "
                "missed some, or exp(-beta E) cannot be normalised"
            ]
        elif lost:
            warnings.append(
                f"{share[n]:.2%} of the sampled positions flow to no known minimum; the search may have missed one"
            )
        error[:n], unseen = _error_floor(share[:n], error[:n], config.n_chains)
        warnings += [unseen] if enough and unseen else []
        converged = precise and not lost
        ends = self.accepted / self.n_sweeps
        return SampledResult(
            weights=share[:n] if enough else None, standard_errors=error[:n] if enough else None,
            unassigned=float(share[n]), unassigned_se=float(error[n]), converged=converged, effective_changes=total,
            n_labelled=self.n_labelled, acceptance=(float(ends[0]), float(ends[1])), chains=chains,
            warnings=tuple(warnings),
        )  # fmt: skip


def _error_floor(share: np.ndarray, error: np.ndarray, n_chains: int) -> tuple[np.ndarray, str]:
    """Errors of at least 1 / (effective draws), and a text about states never seen.

    Chains that never visit a state agree on 0, which is no certainty: with m independent draws a weight below about
    3 / m goes unseen with probability .05.
    """
    if len(share) == 1:
        return error, ""
    seen = (error > 0) & (share > 0) & (share < 1)
    independent = share[seen] * (1 - share[seen]) / error[seen] ** 2
    draws = max(n_chains, float(independent.min())) if seen.any() else n_chains
    unseen = np.flatnonzero((share <= 0) & (error == 0))
    names = ", ".join(str(i) for i in unseen[:5]) + (", ..." if len(unseen) > 5 else "")
    text = f"{len(unseen)} of {len(share)} states were never sampled ({names}): their weights are below {3 / draws:.1g}"
    return np.maximum(error, 1 / draws), text if len(unseen) else ""


def _that_matter(share: np.ndarray, config: SampledWeights, n: int) -> np.ndarray:
    """Which of n states, (n,), need changes of label for their weights to mean anything."""
    return np.minimum(share[:n], 1 - share[:n]) > config.target_se


def _mixing_warnings(
    share: np.ndarray, changes: np.ndarray, total: float, config: SampledWeights, n: int
) -> tuple[list[str], bool]:
    """Whether the chains changed wells often enough for the weights to mean anything, and what to say if not."""
    if n == 1:
        return [], True
    if total < config.min_changes:
        return [
            f"no sampled weights: the chains changed wells {total:.0f} effective times, fewer than "
            f"{config.min_changes}; use the harmonic weights, or sample longer (max_sweeps)"
        ], False
    stuck = np.flatnonzero(_that_matter(share, config, n) & (changes[:n] < config.min_changes))
    if len(stuck):
        i = int(stuck[0])
        return [
            f"no sampled weights: state {i} was entered or left {changes[i]:.0f} effective times, fewer than "
            f"{config.min_changes}, so its weight is that of the starting points; sample longer (max_sweeps)"
        ], False
    return [], True
