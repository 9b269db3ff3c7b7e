"""The chains of the NLD paper's experiments 1 and 2 (Koop, Peletier, Portegies, Menkovski, 2022), three noise levels.

The paper fixes the walks: three states, 15 channels, a state-specific mean and full covariance; experiment 1 leaves a
state with probability .025 to each other one, experiment 2 has the stationary vector (.45, .35, .2). What it does not
print is fixed here: the second transition matrix (reversible), and how means and covariances are drawn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nld_models.data import DataError, SequenceData
from nld_models.markov import MarkovEmissionModel

N_CHANNELS = 15
# Standard deviation s of the noise, against means 1.95 to 2.6 apart.
NOISE = {"easy": 0.35, "medium": 0.5, "hard": 0.7}
# Distances of the means: states 0 and 1, 0 and 2, 1 and 2.
SIDES = (2.6, 2.0, 1.95)
# Eigenvalues of a covariance are log-uniform in this range, then scaled to mean 1 (and by s squared).
EIGENVALUE_RANGE = (0.4, 2.5)
TRANSITIONS = {
    1: ((0.95, 0.025, 0.025), (0.025, 0.95, 0.025), (0.025, 0.025, 0.95)),
    2: ((0.956, 0.028, 0.016), (0.036, 0.944, 0.020), (0.036, 0.035, 0.929)),
}
SPLITS = ("train", "test")


@dataclass(frozen=True)
class ChainSize:
    """Number of sequences and frames in each."""

    sequences: int
    length: int


SIZES = {
    (1, "train"): ChainSize(6000, 200),
    (1, "test"): ChainSize(500, 500),
    (2, "train"): ChainSize(6000, 200),
    (2, "test"): ChainSize(500, 200),
}


def experiment(number: int, noise: str = "medium", emission_seed: int = 0) -> MarkovEmissionModel:
    """The chain of experiment 1 or 2; walks start in state 0.

    The emissions are one random draw, made by `emission_seed` alone: means on a triangle with SIDES in a random plane
    of the 15 channels, covariances s^2 Q diag(e) Q^T with random rotations Q. The two experiments share it, and noise
    levels differ in s only.
    """
    if number not in TRANSITIONS:
        raise DataError(f"there are experiments 1 and 2, got {number}")
    if noise not in NOISE:
        raise DataError(f"noise must be one of {', '.join(NOISE)}, got {noise!r}")
    rng = np.random.default_rng(_seed("emission_seed", emission_seed))
    low, high = np.log(EIGENVALUE_RANGE)
    plane = np.linalg.qr(rng.standard_normal((N_CHANNELS, 2)))[0]
    covariances = []
    for _ in TRANSITIONS[number]:
        rotation = np.linalg.qr(rng.standard_normal((N_CHANNELS, N_CHANNELS)))[0]
        eigenvalues = np.exp(rng.uniform(low, high, N_CHANNELS))
        covariances.append((rotation * (eigenvalues / eigenvalues.mean())) @ rotation.T)
    return MarkovEmissionModel(
        transition=np.array(TRANSITIONS[number]),
        means=_triangle(*SIDES) @ plane.T,
        covariances=NOISE[noise] ** 2 * np.array(covariances),
        start=np.array([1.0, 0.0, 0.0]),
    )


def sample_experiment(
    model: MarkovEmissionModel,
    number: int,
    split: str,
    seed: int = 0,
    sequences: int | None = None,
    length: int | None = None,
) -> SequenceData:
    """Walks of `experiment(number, ...)`, labelled with the true states, of the published size unless told otherwise.

    6,000 training sequences of 200 frames; tests of 500 sequences, 500 frames (experiment 1) or 200 (experiment 2).
    The same seed gives independent walks for "train" and "test".
    """
    if (number, split) not in SIZES:
        raise DataError(f"there are experiments 1 and 2, each with splits train and test, got {number} and {split!r}")
    size = SIZES[number, split]
    rng = np.random.default_rng([_seed("seed", seed), SPLITS.index(split)])
    x, states = model.sample(
        size.sequences if sequences is None else sequences, size.length if length is None else length, rng
    )
    return SequenceData.from_padded(x, labels=states)


@dataclass(frozen=True)
class AccuracyLimits:
    """Fraction of frames whose true state is the most likely one, given what each reader may see.

    frame : that frame alone. filter : past and present (online). smoother : the whole sequence.
    """

    frame: float
    filter: float
    smoother: float


def accuracy_limits(model: MarkovEmissionModel, data: SequenceData) -> AccuracyLimits:
    """The best any labelling of `data` (labelled, in the units of `model`) can do."""
    labels = data.labels
    if labels is None:
        raise DataError("accuracy needs the true states, and these data have no labels")
    known = labels >= 0

    def accuracy(log_posterior: np.ndarray) -> float:
        return float(np.mean(log_posterior.argmax(2)[known] == labels[known]))

    return AccuracyLimits(
        frame=accuracy(model.log_frame_posterior(data.values, data.mask)),
        filter=accuracy(model.log_filter(data.values, data.mask)),
        smoother=accuracy(model.log_smoother(data.values, data.mask)),
    )


def _triangle(side01: float, side02: float, side12: float) -> np.ndarray:
    """(3, 2): corners at these distances from each other, their centre in the origin."""
    along = (side01**2 + side02**2 - side12**2) / (2 * side01)
    corners = np.array([[0.0, 0.0], [side01, 0.0], [along, np.sqrt(side02**2 - along**2)]])
    return corners - corners.mean(0)


def _seed(name: str, value: int) -> int:
    if value < 0:
        raise DataError(f"{name} must be 0 or larger, got {value}")
    return value
