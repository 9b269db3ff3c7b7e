"""A diffusion seen through a random smooth map: the triple well of Metzner, Schuette and Vanden-Eijnden (2006).

dX = -grad E dt + sqrt(2 / beta) dW in the plane, beta = 1.67, observed every .1 time as A tanh(B x + b) + noise in 15
channels, with a fixed random map. Its slow timescale is 12.29, its second 1.325 (time units); the upper well holds
.0412 of the probability. What a model can learn of these from observations alone is the question.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch

from landscape.dynamics import Overdamped
from landscape.energy import Energy
from landscape.energy.potentials import TripleWell
from landscape.search import assign_basins, make_basins
from nld_models.data import SequenceData
from nld_models.kinetics import trajectory

BETA, GAMMA = 1.67, 1.0
INTERVAL = 0.1  # time units between frames
TIMESCALES = (12.286156, 1.324982)  # 1 / eigenvalues of the generator by finite volumes, time units
WEIGHTS = (0.4794135, 0.4794135, 0.041173)  # exact: the two lower wells are mirror images
MAP_SEED = 20
EQUILIBRATION = 10.0  # time units before the first frame; starts are in the wells by their weights already
TIME_STEP = 0.01  # times the largest curvature, 13.6, it is .14; the integrator (Heun) is of second order


@dataclass(frozen=True)
class SmoothMap:
    """x -> A tanh(B x + b), (n, 2) -> (n, channels), drawn once from its seed."""

    outer: np.ndarray
    inner: np.ndarray
    shift: np.ndarray

    @staticmethod
    def draw(channels: int = 15, hidden: int = 30, seed: int = MAP_SEED) -> SmoothMap:
        rng = np.random.default_rng(seed)
        outer = rng.standard_normal((channels, hidden)) / np.sqrt(hidden)
        return SmoothMap(outer, rng.standard_normal((hidden, 2)), rng.uniform(-1, 1, hidden))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return np.tanh(x @ self.inner.T + self.shift) @ self.outer.T


def sample_triple_well(n_sequences: int = 200, length: int = 1000, noise: float = 0.1, seed: int = 0) -> SequenceData:
    """Sequences of 15 channels, labelled by the basin of the hidden point; noise is the standard deviation added."""
    energy = Energy(TripleWell(), 2)
    generator = torch.Generator().manual_seed(seed)
    known = TripleWell().stationary_points()
    minima = known.x[known.index == 0]
    rng = np.random.default_rng([seed, 1])
    start = torch.from_numpy(minima[rng.choice(3, n_sequences, p=np.divide(WEIGHTS, sum(WEIGHTS)))])
    dynamics = Overdamped(BETA, GAMMA)
    start = next(trajectory(energy, dynamics, start, EQUILIBRATION, TIME_STEP, generator))
    path = trajectory(energy, dynamics, start, INTERVAL, TIME_STEP, generator)
    hidden = torch.stack(list(islice(path, length)), 1).numpy()
    basins = make_basins(energy, minima, generator)
    labels = assign_basins(energy, hidden.reshape(-1, 2), basins).reshape(n_sequences, length)
    clean = SmoothMap.draw()(hidden)
    x = clean + noise * rng.standard_normal(clean.shape)
    return SequenceData.from_padded(x, labels=labels)
