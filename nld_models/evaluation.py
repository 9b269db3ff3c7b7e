"""What a trained model learned: segmentation without labels, basin weights, rates; every seed, none left out.

A sequence is encoded online, each frame's posterior mean follows the gradient flow of the learned energy, and the
minimum it reaches is its state. Against a labelled data set, states are matched to labels by the best permutation
(Kuhn 1955); against a known Markov chain P, weights are compared with its stationary vector and rates with Q = log P.
A generic neural SDE has no energy: its drift's attracting fixed points are its states (see `drift_states`), its weights
and rates are counted in simulations, and what needs an energy is nan.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from nld_models.checkpoint import SavedModel
from nld_models.data import DataError, SequenceData
from nld_models.drift_states import DriftStates, find_drift_states
from nld_models.kinetics import lagged_counts, rates_of, stationary_of, transition_matrix
from nld_models.landscape_adapter import LearnedStates, find_states
from nld_models.model import LatentModel

LAG = 15  # observations: the time over which rates are read from simulation, past recrossings, before equilibrium
RESOLUTION = 0.2  # of the coarser time step; the finer one is half of it
DRAWS = (100_000, 1_000)  # draws counted for the sampled weights; the paper took 1,000
Progress = Callable[[str], None]
States = LearnedStates | DriftStates


@dataclass(frozen=True, eq=False)
class SeedEvaluation:
    """One seed. States are in the order of the true ones where those are known, extra states after them.

    n_states : minima of the learned energy, or attracting fixed points of a free drift. order (K,) : the one that
    stands for true state k, -1 for none.
    accuracy : mean share of frames labelled right, and accuracy_sd, its spread over sequences; sample_accuracy,
    sample_accuracy_sd : the same for one posterior sample a frame instead of the posterior mean; nan without labels.
    weights : by method, (n_states,) each: "exact" basin mass with errors exact_se; "draws 100000" and "draws 1000",
    counted; "0th order"; "2nd order"; nan where a method failed or needs an energy that is not there. l1 : method ->
    sum over states of |weight - truth|, extra states included. rates (n_states, n_states) : log(T(15)) / 15 of the
    simulated prior, at half the time step of coarse_rates. langer : Langer's formula. label_rates : the same as rates,
    from the posterior's own labels.
    rate_ratio : geometric mean of rates / truth over entries between different states. rate_error : mean
    |rates / truth - 1|; worst_rate : rates / truth farthest from 1; all three nan unless the states are as many as the
    true ones, and the ratio also where a rate is not positive. saddles : pairs of states joined by a saddle.
    time_step : of rates, in observations.
    """

    seed: int
    n_states: int
    order: np.ndarray
    accuracy: float
    accuracy_sd: float
    sample_accuracy: float
    sample_accuracy_sd: float
    weights: Mapping[str, np.ndarray]
    exact_se: np.ndarray
    l1: Mapping[str, float]
    rates: np.ndarray
    coarse_rates: np.ndarray
    langer: np.ndarray
    label_rates: np.ndarray
    rate_ratio: float
    rate_error: float
    worst_rate: float
    saddles: tuple[tuple[int, int], ...]
    time_step: float


def states_of(model: LatentModel, seed_index: int, *, seed: int = 0) -> States:
    """The states of one seed: minima of its energy, or attracting fixed points of its drift. seed : of the search."""
    if model.config.prior == "nsde":
        return find_drift_states(model, seed_index, seed=seed)
    return find_states(model, seed_index, seed=seed)


def segment(saved: SavedModel, states: States, data: SequenceData, seed_index: int) -> np.ndarray:
    """State of every frame, (n, T) integers: -1 beyond a sequence's end and where the flow reaches no state.

    data : in the units of its file; see `SavedModel.standardised`.
    """
    return label_frames(states, encode(saved, data)[0][seed_index], data)


def encode(saved: SavedModel, data: SequenceData) -> tuple[np.ndarray, np.ndarray]:
    """Posterior mean and standard deviation at every frame, online, for all seeds: two of (S, n, T, d)."""
    seen = saved.standardised(data)
    mean, sd = saved.model.encode(torch.from_numpy(seen.values), torch.from_numpy(seen.mask))
    return mean.double().numpy(), sd.double().numpy()


def evaluate(
    saved: SavedModel,
    data: SequenceData,
    transition: np.ndarray | None = None,
    *,
    n_paths: int = 10_000,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[SeedEvaluation, ...]:
    """Every seed of a model on test data; transition (K, K) is the true chain's matrix, where it is known.

    n_paths : simulated for the rates at each time step. seed : of the analysis and the simulation.
    """
    if transition is not None and (transition.ndim != 2 or transition.shape[0] != transition.shape[1]):
        raise DataError(f"a transition matrix is square, got {transition.shape}")
    if transition is not None and data.labels is not None and data.labels.max() >= len(transition):
        raise DataError(f"the true chain has states 0 to {len(transition) - 1}, but a frame has {data.labels.max()}")
    report = progress or (lambda text: None)
    means, _ = encode(saved, data)
    seen = saved.standardised(data)
    generator = torch.Generator().manual_seed(seed)
    draws = saved.model.draw(torch.from_numpy(seen.values), torch.from_numpy(seen.mask), generator).double().numpy()
    results = []
    for k, trained in enumerate(saved.model.seeds):
        report(f"seed {trained} ({k + 1} of {len(saved.model.seeds)}): states")
        states = states_of(saved.model, k, seed=seed)
        report(f"seed {trained}: {states.n_states} states; segmentation, weights, rates")
        results.append(_Seed(saved, k, states, data, transition).evaluate(means[k], draws[k], n_paths, seed))
    return tuple(results)


def best_permutation(labels: np.ndarray, truth: np.ndarray, n_states: int, n_true: int) -> np.ndarray:
    """For each true state the label that stands for it, -1 for none, (n_true,): most frames right, one label each."""
    known = (truth >= 0) & (labels >= 0)
    pairs = np.bincount(labels[known] * n_true + truth[known], minlength=n_states * n_true)
    rows, columns = linear_sum_assignment(pairs.reshape(n_states, n_true), maximize=True)
    order = np.full(n_true, -1)
    order[columns] = rows
    return order


def simulated_transitions(
    states: States, start: np.ndarray, time_step: float, generator: torch.Generator
) -> np.ndarray:
    """(n, n) T(15) of a learned prior, from latent points start (m, d); in 32 bits where training was.

    T[i, j] = P(state j after 15 observations | state i now), with states by the flow at both ends.
    """
    return transition_matrix(states.counts(torch.from_numpy(start), LAG, time_step, generator))


def label_frames(states: States, latents: np.ndarray, data: SequenceData) -> np.ndarray:
    """States of latent points (n, T, d), one for each frame of the data; -1 beyond a sequence's end."""
    labels = np.full(latents.shape[:2], -1)
    labels[data.frames] = states.label(latents[data.frames])
    return labels


class _Seed:
    """The evaluation of one seed."""

    def __init__(
        self, saved: SavedModel, k: int, states: States, data: SequenceData, transition: np.ndarray | None
    ) -> None:
        self.trained, self.states, self.data = saved.model.seeds[k], states, data
        self.n = states.n_states
        self.stationary = None if transition is None else stationary_of(transition)
        self.true_rates = None if transition is None else rates_of(transition, 1.0)
        if transition is not None:
            self.n_true = len(transition)
        else:
            self.n_true = 0 if data.labels is None else int(data.labels.max()) + 1

    def evaluate(self, mean: np.ndarray, drawn: np.ndarray, n_paths: int, seed: int) -> SeedEvaluation:
        """From posterior means and one posterior sample, (n, T, d) each."""
        generator = torch.Generator().manual_seed(seed)
        labels = label_frames(self.states, mean, self.data)
        order, (accuracy, spread) = self._match(labels)
        sample_accuracy = self._accuracy(label_frames(self.states, drawn, self.data), order)
        # True states first, in their order, then extra ones: positions in the analysis.
        position = np.array([*order[order >= 0], *np.setdiff1d(np.arange(self.n), order)], dtype=int)
        square = np.ix_(position, position)
        frames = drawn[self.data.frames]
        start = frames[torch.randint(len(frames), (n_paths,), generator=generator).numpy()]
        step = self.states.time_step(RESOLUTION)
        coarse, fine = (self._simulated_rates(start, h, generator)[square] for h in (step, step / 2))
        label_rates = self._label_rates(labels)
        langer, joins = self._saddles(np.argsort(position))
        weights, errors = self._weights(generator)
        return SeedEvaluation(
            self.trained, self.n, order, accuracy, spread, *sample_accuracy,
            weights=MappingProxyType({name: values[position] for name, values in weights.items()}),
            exact_se=errors[position],
            l1=MappingProxyType({name: self._l1(values, order) for name, values in weights.items()}),
            rates=fine, coarse_rates=coarse, langer=langer[square], label_rates=label_rates[square],
            **self._against_truth(fine, order), saddles=joins, time_step=step / 2,
        )  # fmt: skip

    def _simulated_rates(self, start: np.ndarray, time_step: float, generator: torch.Generator) -> np.ndarray:
        if not self.n:
            return np.empty((0, 0))
        return rates_of(simulated_transitions(self.states, start, time_step, generator), LAG)

    def _label_rates(self, labels: np.ndarray) -> np.ndarray:
        """Rates of the labels; all nan where no sequence is longer than the lag."""
        if not self.n or labels.shape[1] <= LAG:
            return np.full((self.n, self.n), np.nan)
        return rates_of(transition_matrix(lagged_counts(labels, self.n, LAG)), LAG)

    def _saddles(self, rank: np.ndarray) -> tuple[np.ndarray, tuple[tuple[int, int], ...]]:
        """Langer's rates in the order of the analysis, and the pairs that saddles join, by rank (n,) of each state."""
        if isinstance(self.states, DriftStates):
            return np.full((self.n, self.n), np.nan), ()
        analysis = self.states.analysis
        joins = {tuple(sorted(map(int, rank[pair]))) for pair in analysis.saddles.joins if min(pair) >= 0}
        return analysis.network.rate_matrix, tuple(sorted((a, b) for a, b in joins if a != b))

    def _match(self, labels: np.ndarray) -> tuple[np.ndarray, tuple[float, float]]:
        if self.data.labels is None or not self.n_true:
            order = np.full(self.n_true, -1) if self.n_true else np.arange(self.n)
            return order, (float("nan"), float("nan"))
        order = best_permutation(labels, self.data.labels, self.n, self.n_true)
        return order, self._accuracy(labels, order)

    def _accuracy(self, labels: np.ndarray, order: np.ndarray) -> tuple[float, float]:
        """Mean and standard deviation over sequences of the share of labelled frames that are right."""
        truth = self.data.labels
        if truth is None or not self.n_true:
            return float("nan"), float("nan")
        known = truth >= 0
        right = known & (labels >= 0) & (labels == order[np.maximum(truth, 0)])
        counted = known.any(1)
        shares = right.sum(1)[counted] / known.sum(1)[counted]
        return float(shares.mean()), float(shares.std())

    def _weights(self, generator: torch.Generator) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Weights by every method, in the order of the analysis, and the errors of the exact ones."""
        nothing = np.full(self.n, np.nan)
        weights = dict.fromkeys(("exact", *(f"draws {n}" for n in DRAWS), "0th order", "2nd order"), nothing)
        labels = self.states.label(self.states.draw(max(DRAWS), generator))
        for n in DRAWS:
            # Draws that follow each other belong to different chains: the first ones are independent.
            weights[f"draws {n}"] = np.bincount(labels[:n][labels[:n] >= 0], minlength=self.n) / n
        if isinstance(self.states, DriftStates):
            return weights, nothing
        analysis = self.states.analysis
        weights |= {} if analysis.exact is None else {"exact": analysis.exact.weights}
        weights |= {"0th order": np.exp(analysis.log_zeroth), "2nd order": np.exp(analysis.log_second)}
        return weights, nothing if analysis.exact is None else analysis.exact.standard_errors

    def _l1(self, weights: np.ndarray, order: np.ndarray) -> float:
        if self.stationary is None:
            return float("nan")
        matched = np.append(weights, 0.0)[order]
        extra = weights[np.setdiff1d(np.arange(self.n), order)]
        return float(np.abs(matched - self.stationary).sum() + extra.sum())

    def _against_truth(self, rates: np.ndarray, order: np.ndarray) -> dict[str, float]:
        """rate_ratio, rate_error and worst_rate."""
        ratios = np.array([np.nan])
        if self.true_rates is not None and self.n == self.n_true > 1 and (order >= 0).all():
            off = ~np.eye(self.n, dtype=bool)
            ratios = rates[off] / self.true_rates[off]
        return {
            "rate_ratio": float(np.exp(np.log(ratios).mean())) if (ratios > 0).all() else float("nan"),
            "rate_error": float(np.abs(ratios - 1).mean()),
            "worst_rate": float(ratios[np.argmax(np.abs(ratios - 1))]),
        }
