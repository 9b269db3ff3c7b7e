"""What a trained model learned: segmentation without labels, basin weights, rates; every seed, none left out.

A sequence is encoded online, each frame's posterior mean follows the gradient flow of the learned energy, and the
minimum it reaches is its state. Against a labelled data set, states are matched to labels by the best permutation
(Kuhn 1955); against a known Markov chain P, weights are compared with its stationary vector and rates with Q = log P.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from nld_models.checkpoint import SavedModel
from nld_models.data import DataError, SequenceData
from nld_models.landscape_adapter import LearnedStates, diffusion_coefficient, find_states
from nld_models.markov import count_transitions
from nld_models.model import OverdampedNLD

LAG = 15  # observations: the time over which rates are read from simulation, past recrossings, before equilibrium
SETTLE = 5.0  # observations simulated before that, so that paths are at equilibrium within their wells
RESOLUTION = 0.05  # largest dt D |curvature at a minimum|
SINGULAR = 1e-9  # eigenvalues of a transition matrix below this are 0
Progress = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class SeedEvaluation:
    """One seed. States are in the order of the true ones where those are known, extra states after them.

    n_states : minima of the learned energy. order (K,) : the minimum that stands for true state k, -1 for none.
    accuracy : mean share of frames labelled right, and accuracy_sd, its spread over sequences; nan without labels.
    sampled, second_order (n_states,) : basin weights, exact by sampling (with sampled_se) and harmonic; nan where
    sampling failed. l1_sampled, l1_second_order : sum over states of |weight - truth|, extra states included.
    rates (n_states, n_states) : log(T(15)) / 15 of the simulated prior. langer : Langer's formula. label_rates : the
    same as rates from the posterior's own labels at lag 1. rate_ratio : geometric mean of rates / truth over entries
    between different states. rate_error : mean |rates / truth - 1|; worst_rate : rates / truth farthest from 1; all
    three nan unless the states are as many as the true ones, and the ratio also where a rate is not positive.
    saddles : pairs of states joined by a saddle. diffusion_coefficient : D. resolution : dt D |curvature|.
    """

    seed: int
    n_states: int
    order: np.ndarray
    accuracy: float
    accuracy_sd: float
    sampled: np.ndarray
    sampled_se: np.ndarray
    second_order: np.ndarray
    l1_sampled: float
    l1_second_order: float
    rates: np.ndarray
    langer: np.ndarray
    label_rates: np.ndarray
    rate_ratio: float
    rate_error: float
    worst_rate: float
    saddles: tuple[tuple[int, int], ...]
    diffusion_coefficient: float
    resolution: float


def segment(saved: SavedModel, states: LearnedStates, data: SequenceData, seed_index: int) -> np.ndarray:
    """State of every frame, (n, T) integers: -1 beyond a sequence's end and where the flow reaches no minimum.

    data : in the units of its file; see `SavedModel.standardised`.
    """
    return _label_frames(states, encode(saved, data)[0][seed_index], data)


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
    n_paths: int = 6000,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[SeedEvaluation, ...]:
    """Every seed of a model on test data; transition (K, K) is the true chain's matrix, where it is known.

    n_paths : simulated for the rates. seed : of the analysis and the simulation.
    """
    if transition is not None and (transition.ndim != 2 or transition.shape[0] != transition.shape[1]):
        raise DataError(f"a transition matrix is square, got {transition.shape}")
    report = progress or (lambda text: None)
    means, sds = encode(saved, data)
    results = []
    for k, trained in enumerate(saved.model.seeds):
        report(f"seed {trained} ({k + 1} of {len(saved.model.seeds)}): states")
        states = find_states(saved.model, k, seed=seed)
        report(f"seed {trained}: {states.n_states} states; segmentation")
        labels = _label_frames(states, means[k], data)
        report(f"seed {trained}: rates")
        generator = torch.Generator().manual_seed(seed)
        frames = data.frames
        start = _start_points(means[k][frames], sds[k][frames], n_paths, generator)
        matrix, resolution = simulated_transitions(saved.model, k, states, start, generator)
        results.append(_summary(trained, states, labels, data, transition, matrix, resolution, saved.model, k))
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
    model: OverdampedNLD, seed_index: int, states: LearnedStates, start: np.ndarray, generator: torch.Generator
) -> tuple[np.ndarray, float]:
    """(n, n) T(15) of one seed's prior, by Euler-Maruyama from latent points start (m, d); and dt D |curvature|.

    T[i, j] = P(state j after 15 observations | state i now), with states by gradient flow at both ends.
    """
    diffusion = diffusion_coefficient(model, seed_index)
    curvature = float(np.abs(states.analysis.states.eigenvalues).max())
    dt = 1 / max(10, int(np.ceil(diffusion * curvature / RESOLUTION)))
    network = model.prior.energy.unstack(seed_index).to(model.dtype)
    energy = type(states.energy)(network, states.energy.dim, dtype=model.dtype)
    z = torch.from_numpy(start).to(model.dtype)
    before = states.label(np.asarray(_simulate(energy, z, diffusion, dt, round(SETTLE / dt), generator)))
    after = states.label(np.asarray(_simulate(energy, z, diffusion, dt, round(LAG / dt), generator)))
    counts = count_transitions(np.stack([before, after], 1), states.n_states)
    with np.errstate(invalid="ignore"):
        return counts / counts.sum(1, keepdims=True), dt * diffusion * curvature


def rates_of(matrix: np.ndarray, lag: float) -> np.ndarray:
    """Q = log(T) / lag, (n, n); all nan where T is not a full transition matrix or has no real logarithm."""
    nothing = np.full(matrix.shape, np.nan)
    if not np.isfinite(matrix).all():
        return nothing
    # By eigenvectors: scipy's logm draws from numpy's global generator.
    values, vectors = np.linalg.eig(matrix)
    if (values.real[np.abs(values.imag) < SINGULAR] < SINGULAR).any() or np.linalg.cond(vectors) > 1 / SINGULAR:
        return nothing
    logarithm = vectors @ np.diag(np.log(values.astype(complex))) @ np.linalg.inv(vectors)
    return nothing if np.abs(logarithm.imag).max() > SINGULAR else logarithm.real / lag


def _simulate(
    energy: object, z: torch.Tensor, diffusion: float, dt: float, n_steps: int, generator: torch.Generator
) -> torch.Tensor:
    """Move z (m, d) in place by n_steps of Euler-Maruyama; returns it."""
    scale = float(np.sqrt(2 * diffusion * dt))
    for _ in range(n_steps):
        noise = torch.randn(z.shape, generator=generator, dtype=z.dtype)
        z += scale * noise - diffusion * dt * energy.gradient(z)  # type: ignore[attr-defined]
    return z


def _start_points(mean: np.ndarray, sd: np.ndarray, n: int, generator: torch.Generator) -> np.ndarray:
    """n posterior samples at frames drawn at random from mean, sd (m, d)."""
    rows = torch.randint(len(mean), (n,), generator=generator).numpy()
    noise = torch.randn(n, mean.shape[1], generator=generator, dtype=torch.float64).numpy()
    return mean[rows] + sd[rows] * noise


def _label_frames(states: LearnedStates, means: np.ndarray, data: SequenceData) -> np.ndarray:
    labels = np.full(means.shape[:2], -1)
    labels[data.frames] = states.label(means[data.frames])
    return labels


def _summary(
    seed: int,
    states: LearnedStates,
    labels: np.ndarray,
    data: SequenceData,
    transition: np.ndarray | None,
    simulated: np.ndarray,
    resolution: float,
    model: OverdampedNLD,
    k: int,
) -> SeedEvaluation:
    n, analysis = states.n_states, states.analysis
    n_true = _number_of_true_states(data, transition)
    order = np.arange(n) if not n_true else np.full(n_true, -1)
    accuracies = np.array([np.nan])
    if data.labels is not None and n_true:
        order = best_permutation(labels, data.labels, n, n_true)
        accuracies = _accuracies(labels, data.labels, order)
    # True states first, in their order, then extra ones: positions in the analysis.
    position = np.array([*order[order >= 0], *np.setdiff1d(np.arange(n), order)], dtype=int)
    square = np.ix_(position, position)
    sampled = analysis.sampled
    nothing = np.full(n, np.nan)
    weights = nothing if sampled is None else sampled.weights
    rates = rates_of(simulated, LAG)[square]
    truth = _truth(transition)
    ratios = np.array([np.nan])
    if truth is not None and n == n_true > 1 and (order >= 0).all():
        off = ~np.eye(n, dtype=bool)
        ratios = rates[off] / truth[1][off]
    counts = count_transitions(labels, n)[square]
    with np.errstate(invalid="ignore"):
        label_rates = rates_of(counts / counts.sum(1, keepdims=True), 1.0)
    rank = np.argsort(position)
    joins = {tuple(sorted(map(int, rank[pair]))) for pair in analysis.saddles.joins if min(pair) >= 0}
    second = np.exp(analysis.log_second)
    return SeedEvaluation(
        seed=seed,
        n_states=n,
        order=order,
        accuracy=float(accuracies.mean()),
        accuracy_sd=float(accuracies.std()),
        sampled=weights[position],
        sampled_se=(nothing if sampled is None else sampled.standard_errors)[position],
        second_order=second[position],
        l1_sampled=_l1(weights, order, truth),
        l1_second_order=_l1(second, order, truth),
        rates=rates,
        langer=analysis.network.rate_matrix[square],
        label_rates=label_rates,
        rate_ratio=float(np.exp(np.log(ratios).mean())) if (ratios > 0).all() else float("nan"),
        rate_error=float(np.abs(ratios - 1).mean()),
        worst_rate=float(ratios[np.argmax(np.abs(ratios - 1))]),
        saddles=tuple(sorted((a, b) for a, b in joins if a != b)),
        diffusion_coefficient=diffusion_coefficient(model, k),
        resolution=resolution,
    )


def _number_of_true_states(data: SequenceData, transition: np.ndarray | None) -> int:
    if transition is not None:
        return len(transition)
    return 0 if data.labels is None else int(data.labels.max()) + 1


def _accuracies(labels: np.ndarray, truth: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Share of frames with a known truth that are labelled right, for each sequence that has any."""
    known = truth >= 0
    right = known & (labels >= 0) & (labels == order[np.maximum(truth, 0)])
    counted = known.any(1)
    return right.sum(1)[counted] / known.sum(1)[counted]


def _truth(transition: np.ndarray | None) -> tuple[np.ndarray, np.ndarray] | None:
    """Stationary vector (K,) and Q = log P (K, K) of the true chain."""
    if transition is None:
        return None
    k = len(transition)
    stationary = np.linalg.solve((np.eye(k) - transition + 1).T, np.ones(k))
    return stationary, rates_of(transition, 1.0)


def _l1(weights: np.ndarray, order: np.ndarray, truth: tuple[np.ndarray, np.ndarray] | None) -> float:
    if truth is None:
        return float("nan")
    matched = np.where(order >= 0, weights[order], 0.0)
    return float(np.abs(matched - truth[0]).sum() + weights[np.setdiff1d(np.arange(len(weights)), order)].sum())
