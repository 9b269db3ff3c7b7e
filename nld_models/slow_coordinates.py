"""Where the latent space starts: the slowest linear coordinates of the observations.

A latent space whose states happen to start in a row stays in a row: a path from one end to the other then has to cross
the middle state, and the transition between the ends is lost. From the slow coordinates the states start apart.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import eigh

from nld_models.data import SequenceData

RIDGE = 1e-6  # of the mean variance: keeps channels that repeat others harmless


def slow_coordinates(data: SequenceData, n: int) -> np.ndarray:
    """The n slowest uncorrelated linear coordinates of standardised data, (channels, m), m = min(n, channels).

    Time-lagged independent component analysis (Molgedey and Schuster 1994): C1 w = lambda C0 w, with C0 the covariance
    of a frame and C1 the symmetrised one of neighbouring frames; largest lambda first, each coordinate of variance 1.
    Missing values count as the mean.
    """
    frames, x = data.frames, np.where(data.mask, data.values, 0.0)
    mean = x[frames].mean(0)
    x = np.where(frames[..., None], x - mean, 0.0)
    pairs = frames[:, 1:] & frames[:, :-1]
    instantaneous = x[frames].T @ x[frames] / frames.sum()
    lagged = x[:, :-1][pairs].T @ x[:, 1:][pairs] / pairs.sum()
    ridge = RIDGE * np.trace(instantaneous) / len(instantaneous) * np.eye(len(instantaneous))
    vectors = eigh(0.5 * (lagged + lagged.T), instantaneous + ridge)[1]
    return vectors[:, ::-1][:, :n]
