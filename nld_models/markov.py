"""Hidden Markov chains with Gaussian emissions: walks, and the exact filter and smoother.

No model can label the states of such data better than the exact filter (from the past and present) or the exact
smoother (from the whole sequence): their accuracy is the limit. Recursions: Rabiner, "A tutorial on hidden Markov
models" (1989), here in logarithms throughout.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import log, pi

import numpy as np

from nld_models.data import DataError


@dataclass(frozen=True, eq=False)
class MarkovEmissionModel:
    """A Markov chain with K states; state k emits c channels drawn from N(means[k], covariances[k]) at every step.

    transition : (K, K), row i = probabilities of the state after i. means : (K, c). covariances : (K, c, c), symmetric
    positive definite. start : (K,), probabilities of the first state. Arrays are copied, float64 and read-only.

    Observations x have shape (n, T, c). A `mask` of that shape is True where a value was observed; the others (any
    number in x, NaN too) are integrated out exactly. Padding at the end, all masked, changes nothing before it.
    Raises DataError where these rules are broken.
    """

    transition: np.ndarray
    means: np.ndarray
    covariances: np.ndarray
    start: np.ndarray

    def __post_init__(self) -> None:
        for field in fields(self):
            array = np.array(getattr(self, field.name), dtype=np.float64)
            array.flags.writeable = False
            object.__setattr__(self, field.name, array)
        if self.transition.ndim != 2 or self.means.ndim != 2:
            raise DataError(
                f"transition must be (K, K) and means (K, channels), got {self.transition.shape} and {self.means.shape}"
            )
        k, c = self.means.shape
        for name, shape in (("transition", (k, k)), ("covariances", (k, c, c)), ("start", (k,))):
            if getattr(self, name).shape != shape:
                raise DataError(f"{name} must be {shape} to go with means {(k, c)}, got {getattr(self, name).shape}")
        for name in ("transition", "start"):
            rows = getattr(self, name)
            if not (np.all(rows >= 0) and np.allclose(rows.sum(-1), 1, rtol=0, atol=1e-9)):
                raise DataError(f"{name} must hold probabilities that sum to 1 in every row, got {rows.tolist()}")
        if not np.isfinite(self.means).all():
            raise DataError("means must be finite")
        if not np.allclose(self.covariances, self.covariances.transpose(0, 2, 1)):
            raise DataError("covariances must be symmetric")
        _cholesky(self.covariances)

    @property
    def n_states(self) -> int:
        return self.means.shape[0]

    @property
    def n_channels(self) -> int:
        return self.means.shape[1]

    @property
    def stationary(self) -> np.ndarray:
        """(K,) the vector pi with pi P = pi and sum 1; DataError where the chain has more than one."""
        k = self.n_states
        # pi (I - P + 1 1^T) = 1^T, and this matrix is regular exactly if the stationary vector is unique.
        matrix = np.eye(k) - self.transition + 1
        if np.linalg.matrix_rank(matrix) < k:
            raise DataError("the chain falls apart into closed pieces: its stationary vector is not unique")
        return np.linalg.solve(matrix.T, np.ones(k))

    def sample(self, n: int, length: int, seed: int | np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """n independent walks: observations (n, length, c) and states (n, length), the same for the same seed."""
        if n < 1 or length < 1:
            raise DataError(f"a sample needs at least one sequence of at least one frame, got {n} of {length}")
        rng = np.random.default_rng(seed)
        states = self._walk(rng.random((n, length)))
        x = rng.standard_normal((n, length, self.n_channels))
        for k, factor in enumerate(_cholesky(self.covariances)):
            here = states == k
            x[here] = self.means[k] + x[here] @ factor.T
        return x, states

    def log_emission(self, x: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        """(n, T, K): log density of what was observed in each frame, given each state."""
        x = np.asarray(x, dtype=np.float64)
        if x.ndim != 3 or x.shape[2] != self.n_channels:
            raise DataError(f"observations must be (sequences, time, {self.n_channels}), got {x.shape}")
        if mask is not None and mask.shape != x.shape:
            raise DataError(f"the mask must have the shape of the observations, {x.shape}, got {mask.shape}")
        frames = x.reshape(-1, self.n_channels)
        result = np.empty((len(frames), self.n_states))
        if mask is None or mask.all():
            result[:] = self._log_densities(frames, np.arange(self.n_channels))
        else:
            # Frames that miss the same channels share their marginal Gaussian.
            patterns, pattern_of = np.unique(mask.reshape(frames.shape), axis=0, return_inverse=True)
            for number, pattern in enumerate(patterns):
                rows = pattern_of.reshape(-1) == number
                result[rows] = self._log_densities(frames[rows], np.flatnonzero(pattern))
        if not np.isfinite(result).all():
            raise DataError("observations must be finite and of a size whose square is a number; mask missing values")
        return result.reshape(*x.shape[:2], self.n_states)

    def log_frame_posterior(self, x: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        """(n, T, K): log P(state at t | the frame at t alone), the chain stationary."""
        joint = self.log_emission(x, mask) + _log(self.stationary)
        return joint - np.logaddexp.reduce(joint, axis=2)[:, :, None]

    def log_filter(self, x: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        """(n, T, K): log P(state at t | observations up to and including t)."""
        return self._forward(self.log_emission(x, mask))[0]

    def filter(self, x: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        """(n, T, K): P(state at t | observations up to and including t)."""
        return np.exp(self.log_filter(x, mask))

    def log_smoother(self, x: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        """(n, T, K): log P(state at t | the whole sequence)."""
        emission = self.log_emission(x, mask)
        log_p = _log(self.transition)
        result = self._forward(emission)[0]
        # log P(observations after t | state at t), backwards from the end.
        future = np.zeros((len(emission), self.n_states))
        for t in range(emission.shape[1] - 2, -1, -1):
            future = np.logaddexp.reduce(log_p + (emission[:, t + 1] + future)[:, None, :], axis=2)
            joint = result[:, t] + future
            result[:, t] = joint - np.logaddexp.reduce(joint, axis=1)[:, None]
        return result

    def smoother(self, x: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        """(n, T, K): P(state at t | the whole sequence)."""
        return np.exp(self.log_smoother(x, mask))

    def log_likelihood(self, x: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        """(n,): log density of each sequence, the states summed over: the limit of every evidence bound."""
        return self._forward(self.log_emission(x, mask))[1]

    def _walk(self, uniform: np.ndarray) -> np.ndarray:
        """States (n, T) from uniform numbers (n, T), by the inverse of the cumulative probabilities."""
        # The last column is left out: it is 1 up to rounding, and a state beyond it must not be reached.
        thresholds = np.cumsum(self.transition, axis=1)[:, :-1]
        states = np.empty(uniform.shape, dtype=np.int64)
        states[:, 0] = (uniform[:, 0, None] >= np.cumsum(self.start)[:-1]).sum(1)
        for t in range(1, uniform.shape[1]):
            states[:, t] = (uniform[:, t, None] >= thresholds[states[:, t - 1]]).sum(1)
        return states

    def _log_densities(self, frames: np.ndarray, channels: np.ndarray) -> np.ndarray:
        """(m, K): log density of some channels of frames (m, c) in each state."""
        values = frames[:, channels]
        factors = _cholesky(self.covariances[:, channels[:, None], channels])
        result = np.empty((len(frames), self.n_states))
        for k, factor in enumerate(factors):
            whitened = (values - self.means[k, channels]) @ np.linalg.inv(factor).T
            with np.errstate(over="ignore"):
                result[:, k] = -0.5 * np.einsum("ij,ij->i", whitened, whitened) - np.log(np.diag(factor)).sum()
        return result - 0.5 * len(channels) * log(2 * pi)

    def _forward(self, emission: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Log filter (n, T, K) and log likelihood (n,) from log emission densities."""
        log_p = _log(self.transition)
        filtered = np.empty_like(emission)
        evidence = np.zeros(len(emission))
        predicted = np.broadcast_to(_log(self.start), emission[:, 0].shape)
        for t in range(emission.shape[1]):
            joint = predicted + emission[:, t]
            total = np.logaddexp.reduce(joint, axis=1)
            filtered[:, t] = joint - total[:, None]
            evidence += total
            predicted = np.logaddexp.reduce(filtered[:, t, :, None] + log_p, axis=1)
        return filtered, evidence


def count_transitions(states: np.ndarray, n_states: int) -> np.ndarray:
    """(K, K): how often state j followed state i in states (n, T); negative states are unknown and not counted."""
    before, after = states[:, :-1].ravel(), states[:, 1:].ravel()
    known = (before >= 0) & (after >= 0)
    if states.size and states.max() >= n_states:
        raise DataError(f"states must be below {n_states}, got {states.max()}")
    pairs = before[known] * n_states + after[known]
    return np.bincount(pairs, minlength=n_states**2).reshape(n_states, n_states)


def _log(probabilities: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.log(probabilities)


def _cholesky(covariances: np.ndarray) -> np.ndarray:
    try:
        return np.linalg.cholesky(covariances)
    except np.linalg.LinAlgError:
        raise DataError("every covariance must be positive definite") from None
