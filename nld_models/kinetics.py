"""Transitions between states: counted in labels, simulated in a learned landscape, and their rates Q = log(T) / lag."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch

from landscape.dynamics import Dynamics, Overdamped
from landscape.energy import Energy
from landscape.rates.integrators import Integrator, largest_frequency
from nld_models.data import DataError

SINGULAR = 1e-9  # eigenvalues of a transition matrix below this are 0
SLOW_SHARE = 1 / 3  # of the longest timescale: the lag is at least that
RESOLUTION = 0.1  # of a time step: its length times the fastest rate of the linearised force
Label = Callable[[np.ndarray], np.ndarray]


def lagged_counts(labels: np.ndarray, n_states: int, lag: int) -> np.ndarray:
    """(n, n) counts of label i now and label j `lag` frames later; (sequences, time) integers, -1 is unknown."""
    before, after = labels[:, :-lag].ravel(), labels[:, lag:].ravel()
    known = (before >= 0) & (after >= 0)
    flat = np.bincount(before[known] * n_states + after[known], minlength=n_states**2)
    return flat.reshape(n_states, n_states).astype(float)


def transition_matrix(counts: np.ndarray) -> np.ndarray:
    """Rows of counts divided by their sums; nan where a state was never left or entered from."""
    with np.errstate(invalid="ignore"):
        return counts / counts.sum(1, keepdims=True)


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


def stationary_of(matrix: np.ndarray) -> np.ndarray:
    """The vector w with w T = w and sum 1, (n,), of an irreducible transition matrix."""
    n = len(matrix)
    return np.linalg.solve((np.eye(n) - matrix + 1).T, np.ones(n))


def counting_lag(labels: np.ndarray, n_states: int) -> int:
    """The lag at which rates are read from labels: the shortest of the n - 1 timescales that the labels show.

    A label that flickers for a frame makes two transitions too many at lag 1; over a longer lag it costs the same few
    per cent of correlation once, and transitions back and forth are not yet in equilibrium. Where the longest timescale
    is far from the shortest the lag is at least a third of it: at shorter ones the slow rates of a landscape contain
    what happens within its states, and are not those that it has in the long run. The timescales are taken at the lag
    itself, by repetition, and the lag is at most a quarter of the longest sequence.
    """
    longest, lag = max(1, labels.shape[1] // 4), 1
    for _ in range(10):
        values = np.sort(np.linalg.eigvals(transition_matrix(lagged_counts(labels, n_states, lag))).real)
        if not (np.isfinite(values).all() and values[0] > 0):
            break
        shortest, slowest = (-lag / math.log(min(value, 1 - SINGULAR)) for value in (values[0], values[-2]))
        found = int(np.clip(round(max(shortest, SLOW_SHARE * slowest)), 1, longest))
        if found == lag:
            break
        lag = found
    return lag


def trajectory(
    energy: Energy,
    dynamics: Dynamics,
    x: torch.Tensor,
    duration: float,
    time_step: float,
    generator: torch.Generator,
) -> Iterator[torch.Tensor]:
    """Positions after `duration`, twice it, ... without end, from x (m, d) and momenta of equilibrium: Heun, or BAOAB.

    The step is the longest that divides the duration and is not above time_step.
    """
    steps = max(1, math.ceil(duration / time_step - 1e-9))
    integrator = Integrator(energy, dynamics, scheme_of(dynamics), duration / steps)
    state = integrator.init(x, momenta(dynamics, x, generator))
    while True:
        for _ in range(steps):
            state = integrator.step(state, generator)
        yield state.x


def scheme_of(dynamics: Dynamics) -> str:
    return "heun" if isinstance(dynamics, Overdamped) else "baoab"


def momenta(dynamics: Dynamics, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor | None:
    """Draws of N(0, M / beta) for positions x (m, d); None for overdamped dynamics."""
    mass = dynamics.mass_vector(x.shape[1])
    if mass is None:
        return None
    normal = torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x)
    return normal * torch.as_tensor(np.sqrt(mass / dynamics.beta)).to(x)


def resolved_step(energy: Energy, dynamics: Dynamics, x: torch.Tensor, resolution: float = RESOLUTION) -> float:
    """The time step at which `resolution` = step times the fastest rate of the linearised force over points x."""
    return resolution / largest_frequency(energy, dynamics, x)


def simulated_counts(
    energy: Energy,
    dynamics: Dynamics,
    label: Label,
    n_states: int,
    start: torch.Tensor,
    lag: float,
    time_step: float,
    generator: torch.Generator,
    settle: float = 2.0,
) -> np.ndarray:
    """(n, n) counts of state i after `settle`, state j after `settle + lag` time units, over paths from start (m, d).

    The momenta are drawn anew when counting begins, which leaves equilibrium as it is. DataError if every path
    leaves the states.
    """
    before = next(trajectory(energy, dynamics, start.to(energy.dtype), settle, time_step, generator))
    after = next(trajectory(energy, dynamics, before, lag, time_step, generator))
    labels = np.stack([label(points.double().numpy()) for points in (before, after)], 1)
    if not (labels >= 0).all(1).any():
        raise DataError("every simulated path left the states of the learned energy")
    return lagged_counts(labels, n_states, 1)
